"""Other tools' configurations as keys and values: YAML, JSON, or the flags in a shell script. Nothing is ever executed.

Example:
    found = read_foreign(Path("train_dpo.sh"), program=re.compile(r"openrlhf\\.cli\\.(train_\\w+)"))
    found.keys["beta"], found.program, found.num_devices
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fairlead.core.config import parse_yaml
from fairlead.core.errors import ConfigError, explain
from fairlead.core.io import parse_json, require_file

_TABLE_TYPES = (".yaml", ".yml", ".json")
_SCRIPT_TYPES = (".sh", ".bash", ".txt", ".args", "")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+|local\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_DEVICES = re.compile(r"--(?:nproc[-_]per[-_]node|num_gpus|num_processes)[=\s]+(\d+)")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_MAX_CHARS = 20_000  # of a variable filled in; longer is no path and no number


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that depends on a variable which the file does not set."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What a configuration says."""

    keys: Mapping[str, Any]
    program: str = ""
    """Name of the trainer that a script starts; empty where none is named."""
    num_devices: int | None = None
    """As the launcher was told; None where it was not."""


def read_foreign(path: Path, *, program: re.Pattern[str] | None, takes_tables: bool) -> Foreign:
    """Read a configuration.

    Args:
        program: matches the trainer on a command line, its first group is the trainer's name; None where scripts are no configuration.
        takes_tables: whether the tool has YAML or JSON configurations.
    Raises:
        ConfigError: a kind of file that the tool does not have, more than one trainer, or no key at all.
    """
    require_file(path)
    kinds = (*(_TABLE_TYPES if takes_tables else ()), *(_SCRIPT_TYPES if program else ()))
    if path.suffix.lower() not in kinds:
        named = ", ".join(kind or "no ending" for kind in kinds)
        raise ConfigError(
            explain(
                path,
                None,
                "is not a configuration of this tool",
                expected=f"a file of type {named}",
                remedy="Name the file that training starts from",
            )
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            explain(
                path,
                None,
                "is not UTF-8 text",
                expected="a text file",
                remedy="Name the configuration, not a checkpoint",
            )
        ) from error
    if path.suffix.lower() in _TABLE_TYPES:
        data = parse_json(text, str(path)) if path.suffix.lower() == ".json" else parse_yaml(text, where=str(path))
        found = Foreign(keys=_table(data, path))
    else:
        assert program is not None, path
        found = read_script(text, program=program, where=str(path))
    if not found.keys:
        raise ConfigError(
            explain(
                path,
                None,
                "holds no setting",
                expected="keys, or flags such as --learning_rate 1e-5",
                remedy="Name the file that training starts from",
            )
        )
    return found


def _table(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(
            explain(
                path,
                None,
                "is not a mapping",
                expected="`key: value` lines",
                remedy="Name the tool's own configuration",
            )
        )
    return {str(key): value for key, value in cast(dict[Any, Any], data).items()}


def read_script(text: str, *, program: re.Pattern[str], where: str) -> Foreign:
    """Flags of the one training command in a script, with its variables filled in as far as the script sets them."""
    variables: dict[str, str] = {}
    commands: list[str] = []
    for line in _logical_lines(text):
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            commands.append(line)
        elif " --" in match[2] or program.search(match[2]):
            commands.append(_unquoted(match[2]))
        elif match[1] not in variables:  # a later one stands in an `if` that fills in what the caller left out
            value = _filled(_unquoted(match[2]), variables)
            if not re.fullmatch(r"\$\{?\w+\}?", value):
                variables[match[1]] = value
    commands = [_filled(command, variables) for command in commands]
    trainers = [command for command in commands if program.search(command) and "--" in command]
    if len(trainers) > 1:
        raise ConfigError(
            explain(
                where,
                len(trainers),
                "training commands are in it",
                expected="one",
                remedy="Copy each into a file of its own",
            )
        )
    chosen = trainers or [command for command in commands if command.lstrip().startswith("--")]
    keys: dict[str, Any] = {}
    for command in chosen:
        match = program.search(command)
        keys.update(_flags(_tokens(command[match.end() :] if match else command, where)))
    name = next((match[1] for command in trainers if (match := program.search(command))), "")
    devices = _DEVICES.search("\n".join(commands))
    return Foreign(keys=keys, program=name, num_devices=int(devices[1]) if devices else None)


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comment lines, with continuations and open quotes joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    pending = ""
    for line in re.sub(r"\\\s*\n", " ", kept).split("\n"):
        pending = f"{pending} {line}" if pending else line
        if pending.count('"') % 2 == 0:
            yield pending
            pending = ""
    if pending:
        yield pending


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text.split(" #")[0].strip()


def _filled(text: str, variables: Mapping[str, str]) -> str:
    """With the variables known so far; one that is not known stays as it is written."""
    filled = _VARIABLE.sub(lambda m: variables.get(m[1] or m[3], m[2] if m[2] is not None else m[0]), text)
    return filled if len(filled) <= max(len(text), _MAX_CHARS) else text


def _tokens(command: str, where: str) -> list[str]:
    """Words up to the first pipe, redirection or separator."""
    reader = shlex.shlex(command.replace("$'", "'"), posix=True, punctuation_chars="();<>|&")
    reader.whitespace_split = True
    found: list[str] = []
    try:
        for token in reader:
            if set(token) <= set("();<>|&"):
                if ">" in token and found and found[-1] in ("1", "2"):  # the 2 of `2>&1`
                    found.pop()
                break
            found.append(token)
    except ValueError as error:
        raise ConfigError(
            explain(
                where, None, f"cannot be read as a command ({error})", expected="balanced quotes", remedy="Fix the line"
            )
        ) from error
    return found


def _flags(tokens: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    values: dict[str, list[str]] = {}
    for token in tokens:
        if token.startswith("--") and len(token) > 2:
            name, sign, value = token[2:].partition("=")
            values[name] = [value] if sign else []
        elif name:
            values[name].append(token)
    for flag, words in values.items():
        parsed = [_value(word) for word in words]
        found[flag] = True if not parsed else parsed[0] if len(parsed) == 1 else parsed
    return found


def _value(word: str) -> Any:
    if "$" in word:
        return Unresolved(word)
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word.lower() in ("none", "null"):
        return None
    if _NUMBER.fullmatch(word):
        return int(word) if re.fullmatch(r"[-+]?\d+", word) else float(word)
    return word
