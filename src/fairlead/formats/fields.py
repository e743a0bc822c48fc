"""Typed access to the fields of hostile rows; every fault is an `Unusable` with fixed words."""

import math
from collections.abc import Sequence
from typing import Any

from fairlead.core.records import Message, Messages, Role
from fairlead.formats.base import Unusable, Values

ROLES: dict[str, Role] = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip


def text(values: Values, name: str) -> str:
    """Return a text field that is there and not blank."""
    value = optional_text(values, name)
    if value is None:
        raise Unusable(f"missing {name}")
    if not value.strip():
        raise Unusable(f"empty {name}")
    return value


def optional_text(values: Values, name: str) -> str | None:
    """Return a text field, or None when it is missing or null."""
    value = values.get(name)
    return None if value is None else valid_text(value, name)


def valid_text(value: Any, name: str) -> str:
    """Check that a value is text."""
    if not isinstance(value, str):
        raise Unusable(f"{name} is not text")
    return value


def messages(value: Any, name: str) -> Messages:
    """Read a list of {role, content}; names of roles differ between data sets (see `ROLES`)."""
    if not isinstance(value, (list, tuple)):
        raise Unusable(f"{name} is not a list of messages")
    return tuple(_message(item, name) for item in value)


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, dict) or "role" not in value or "content" not in value:
        raise Unusable(f"{name} has a message without role and content")
    if value.get("tool_calls"):
        raise Unusable(f"{name} has a message with tool calls")
    return Message(role=role(value["role"], name), content=valid_text(value["content"], f"{name} content"))


def role(value: Any, name: str) -> Role:
    """Translate the name of a speaker."""
    known = ROLES.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise Unusable(f"{name} has an unknown role")
    return known


def is_messages(value: Any) -> bool:
    """Does a value look like a non-empty list of {role, content}?"""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in value)
    )


def number(value: Any) -> float | None:
    """Return a finite number, also when it is written as text ("4"); None for everything else ("N/A", true, NaN)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def whole(value: Any) -> int | None:
    """Return a whole number or None."""
    result = number(value)
    return int(result) if result is not None and result == int(result) else None


def items(values: Values, name: str) -> Sequence[Any]:
    """Return a list field that is not empty."""
    value = values.get(name)
    if value is None:
        raise Unusable(f"missing {name}")
    if not isinstance(value, (list, tuple)):
        raise Unusable(f"{name} is not a list")
    if not value:
        raise Unusable(f"empty {name}")
    return value


def mapping(value: Any, name: str) -> Values:
    """Check that a value is an object."""
    if value is None:
        raise Unusable(f"missing {name}")
    if not isinstance(value, dict):
        raise Unusable(f"{name} is not an object")
    return value


def keep(values: Values, *names: str) -> dict[str, Any]:
    """Copy plain values worth keeping as metadata; what is missing, nested or cannot be written as JSON stays behind."""
    return {name: values[name] for name in names if _is_plain(values.get(name))}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def has_text(values: Values, *names: str) -> bool:
    """Are all these fields text? (For detection.)"""
    return all(isinstance(values.get(name), str) for name in names)
