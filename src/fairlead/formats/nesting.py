"""How deep a row may be nested. Rows are written by recursion, so deeper ones could be read but not written again."""

from typing import Any

from fairlead.core.io import Row

MAX_DEPTH = 200
"""Levels; writing takes two stack frames a level of Python's thousand."""


def is_too_deep(values: Any) -> bool:
    """Is anything nested below `MAX_DEPTH`? Without recursion, which such rows exhaust."""
    stack = [(values, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            return True
        stack += [(child, depth + 1) for child in _children(item)]
    return False


def cut_deep(row: Row) -> Row:
    """The row as it can be kept among the rejects: what is nested too deep is replaced by a note."""
    if not is_too_deep(row.values):
        return row
    return Row(
        row.where,
        row.number,
        {key: "(nested too deep)" if is_too_deep(value) else value for key, value in row.values.items()},
    )


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []
