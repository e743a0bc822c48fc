"""Typed access to the fields of hostile rows; every fault is an `Unusable` with fixed words."""

import math
from collections.abc import Sequence
from typing import Any

from fairlead.core.records import Message, Messages, Role
from fairlead.formats.base import Unusable, Values
from fairlead.formats.cells import is_undecoded

TURN_KEYS = (("role", "content"), ("from", "value"))
"""What a turn is made of: the names of OpenAI, and those of ShareGPT."""
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
    if is_undecoded(value):
        raise Unusable(f"{name} is a list of messages written as text")
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
    """Read a list of {role, content} or {from, value}; names of roles differ between data sets (see `ROLES`)."""
    if not isinstance(value, (list, tuple)):
        raise Unusable(f"{name} is not a list of messages")
    return tuple(_message(item, name) for item in value)


def _message(value: Any, name: str) -> Message:
    keys = next((keys for keys in TURN_KEYS if isinstance(value, dict) and set(keys) <= set(value)), None)
    if keys is None:
        raise Unusable(f"{name} has a message without role and content")
    if value.get("tool_calls"):
        raise Unusable(f"{name} has a message with tool calls")
    speaker, content = (value[key] for key in keys)
    return Message(role=role(speaker, name), content=content_of(content, f"{name} content"))


def content_of(value: Any, name: str) -> str:
    """Text of a turn, also when it is a list of parts {type: text, text}; an image or another part is no text."""
    if isinstance(value, (list, tuple)) and value:
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        return "".join(valid_text(part, name) for part in parts)
    return valid_text(value, name)


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


def has_turns(value: Any) -> bool:
    """Does a value look like a conversation of {role, content} or {from, value}? (For detection.)"""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and any(set(keys) <= set(first) for keys in TURN_KEYS)


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


def truth(value: Any) -> bool | None:
    """Return a truth value, also as 0 or 1 or as the text of a CSV cell; None for everything else."""
    if not isinstance(value, (bool, int, float, str)):
        return None
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(
        str(value).strip().lower()
    )


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


def object_or_empty(value: Any) -> dict[str, Any]:
    """An object; empty for everything else, where a field is optional and a wrong one says nothing."""
    return value if isinstance(value, dict) else {}


def list_or_empty(value: Any) -> list[Any]:
    """A list; empty for everything else."""
    return value if isinstance(value, list) else []


def keep(values: Values, *names: str) -> dict[str, Any]:
    """Copy plain values worth keeping as metadata; what is missing, nested or cannot be written as JSON stays behind."""
    return {name: values[name] for name in names if _is_plain(values.get(name))}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


def has_text(values: Values, *names: str) -> bool:
    """Are all these fields text? (For detection.)"""
    return all(isinstance(values.get(name), str) for name in names)
