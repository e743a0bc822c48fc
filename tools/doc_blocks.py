"""The parts of the documentation that are written from the code: recipe keys, gates, commands.

A page holds `<!-- NAME:start -->` and `<!-- NAME:end -->`; what stands between them is written by `tools/check_docs.py --write`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer
from recipe_fields import REQUIRED, Section, default_of, describe_type, recipe_sections

from fairlead.cli.main import app
from fairlead.core.config import Config
from fairlead.core.gates import Gate
from fairlead.pipeline.gates import all_gates
from fairlead.policies.sft import SFT_COUNT
from fairlead.preferences.counts import COUNT, RL_COUNT, RL_COUNT_TOY

_LONG = 60  # characters: longer defaults are described in words under their own section


def recipe_block() -> str:
    """Every key of every section."""
    return "\n\n".join(_section(section) for section in recipe_sections())


def _section(section: Section) -> str:
    first, *others = section.paths
    choice = f" ({section.choice()})" if section.choice() else ""
    lines = [f"## `{first}`{choice}" if first else "## The recipe itself", "", _one_line(section.cls.__doc__ or "")]
    if others:
        lines += ["", "The same at " + ", ".join(f"`{path}`" for path in others) + "."]
    lines += ["", "| key | value | default | meaning |", "|---|---|---|---|"]
    for name, info in section.cls.model_fields.items():
        value = _default(default_of(info))
        lines.append(f"| `{name}` | {describe_type(info)} | {value} | {_cell(info.description or '')} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is REQUIRED:
        return REQUIRED
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Config):
        return _differences(value)
    if value in ("", (), {}):
        return "empty"
    if isinstance(value, float | int):
        return f"{value:g}" if abs(value) < 1e5 else f"{value:,}"
    shown = str(value).replace("\n", "\\n")
    return f"`{shown}`" if len(shown) < _LONG else "see the page of the stage"


def _differences(value: Config) -> str:
    """What a section's default changes against the defaults of its own class."""
    changed = [
        f"`{name}` {_default(getattr(value, name))}"
        for name, info in type(value).model_fields.items()
        if getattr(value, name) != default_of(info)
    ]
    return ", ".join(changed) or "its defaults"


def gates_block() -> str:
    """Every gate: what it asks, when it stops and warns, what the guides say, why ours differs."""
    scopes = {id(gate): scope for table in (SFT_COUNT, COUNT) for scope, gate in table.items()}
    scopes |= {id(RL_COUNT_TOY): "toy", id(RL_COUNT): "narrow, general"}
    lines = [
        "| gate | scope | asks | unit | stop | warn | the guides say | why ours differs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for gate in all_gates():
        cells = (f"`{gate.name}`", scopes.get(id(gate), "all"), gate.question, gate.unit, limit(gate, gate.stop), limit(gate, gate.warn),
                 gate.guide or "no figure", gate.reason)  # fmt: skip
        lines.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    return "\n".join(line.replace("|  |", "| |") for line in lines)


def limit(gate: Gate, value: float | None) -> str:
    """`< 0.6` for a gate that asks for at least 0.6; `never` without a value."""
    if value is None:
        return "never"
    return f"{'<' if gate.direction == 'at_least' else '>'} {value:,g}"


def commands_block() -> str:
    """Every command with its arguments, options and one example."""
    root = typer.main.get_command(app)
    return "\n\n".join(_command(path, command) for path, command in commands(root))


def commands(command: Any, path: tuple[str, ...] = ("fairlead",)) -> Iterator[tuple[str, Any]]:
    """(full name, command) of the program, its groups and their commands."""
    yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def _command(path: str, command: Any) -> str:
    lines = [f"## `{path}`", "", _one_line(command.help or "")]
    rows = [_parameter(p) for p in command.params if p.name != "help"]
    if rows:
        lines += ["", "| name | default | meaning |", "|---|---|---|", *rows]
    if command.epilog:
        lines += ["", f"    {command.epilog.removeprefix('Example: ')}"]
    return "\n".join(lines)


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else (parameter.name or "").upper()
    metavar = f" {parameter.metavar}" if is_option and parameter.metavar else ""
    is_shown = not (parameter.default is None or parameter.default in ((), False, "") or callable(parameter.default))
    default = REQUIRED if parameter.required else str(parameter.default) if is_shown else ""
    return f"| `{name}{metavar}` | {_cell(default)} | {_cell(parameter.help or '')} |".replace("|  |", "| |")


def _cell(text: str) -> str:
    return _one_line(text).replace("|", r"\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())


BLOCKS: dict[str, Callable[[], str]] = {"recipe": recipe_block, "gates": gates_block, "commands": commands_block}
_BLOCK = r"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)"


def with_blocks(text: str, *, names: Sequence[str] = tuple(BLOCKS)) -> str:
    """A page with its generated parts as the code says."""
    for name in names:
        if f"<!-- {name}:start -->" in text:
            body = BLOCKS[name]()
            text = re.sub(_BLOCK.format(name=name), lambda m, b=body: f"{m[1]}{b}\n{m[2]}", text, flags=re.DOTALL)
    return text
