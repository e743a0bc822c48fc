"""Rejected rows as data that can always be written: a reject must not be lost because it is worse than expected."""

import math
from typing import Any

from fairlead.core.io import Row

_MAX_DEPTH = 64
"""Deeper values are cut: JSON writers recurse, and a hostile row may be nested to their limit."""


def scrubbed(row: Row) -> Row:
    """Return the row with every value that JSON or UTF-8 cannot hold written as text."""
    return Row(row.where, row.number, {_text(str(key)): _plain(value, depth=0) for key, value in row.values.items()})


def _plain(value: Any, *, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "(nested too deep)"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(key)): _plain(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth=depth + 1) for item in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(str(value))


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
