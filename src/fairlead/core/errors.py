"""Errors that a user meets: one line that says where, what was found, what was expected, what to do.

Every class is also a standard-library error, takes one message, and pickles. The command line prints the message
without a traceback and exits with `exit_code`.

Example:
    raise ConfigError(explain("policies.group_size", 1, "gives zero advantages", expected=">= 2 for grpo",
                              remedy="Raise it or use algorithm=ppo"))
"""

import difflib
from collections.abc import Iterable


class FairleadError(Exception):
    """Root of all errors that Fairlead raises on purpose."""

    exit_code = 1


class ConfigError(FairleadError, ValueError):
    """A recipe or an option is wrong."""

    exit_code = 2


class DataError(FairleadError, ValueError):
    """A file or a row that the user gave cannot be used."""

    exit_code = 3


class ModelError(FairleadError, ValueError):
    """A model folder or a tokenizer cannot be used."""

    exit_code = 4


class TrainError(FairleadError, RuntimeError):
    """Training cannot go on: a failed preflight check, a loss or gradient that is not finite."""

    exit_code = 5


class EngineError(FairleadError, RuntimeError):
    """Generation failed."""

    exit_code = 6


class GateStopped(FairleadError, RuntimeError):
    """A gate said STOP and nobody allowed it to be passed."""

    exit_code = 7


class StoreError(FairleadError, RuntimeError):
    """An artifact or a registry entry is missing, damaged, or still needed."""

    exit_code = 8


class Interrupted(FairleadError, RuntimeError):
    """The user pressed ctrl-C; what was acknowledged is on disk."""

    exit_code = 130


def explain(path: object, value: object, wrong: str, *, expected: str, remedy: str) -> str:
    """Compose `<path>=<value> <wrong>; expected <rule>. <remedy>.`

    `value` of None leaves the `=<value>` part out (a missing file has no value).
    """
    where = str(path) if value is None else f"{path}={shorten(value)}"
    return " ".join(f"{where} {wrong}; expected {expected}. {remedy.rstrip('.')}.".splitlines())


def shorten(value: object, *, max_chars: int = 60) -> str:
    """Render a value on one line for an error message; control characters are escaped, for they may drive a terminal.

    Of a long path the end is kept, which tells more than its beginning.
    """
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    is_path = "/" in text and " " not in text and "://" not in text
    text = "".join(
        c if c.isprintable() else repr(c)[1:-1] for c in (text[-max_chars - 1 :] if is_path else text[: max_chars + 1])
    )
    if len(text) <= max_chars:
        return text
    return "..." + text[3 - max_chars :] if is_path else text[: max_chars - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the known name closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""
