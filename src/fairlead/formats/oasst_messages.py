"""OpenAssistant as a table: one message a row, linked by `parent_id` (the files on the hub, and the `messages` exports)."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairlead.core.io import Row
from fairlead.formats.base import Format, Gathered, LeftOut, Values, mostly
from fairlead.formats.oasst import OASST

NO_PARENT = "no chain of parents to a first message"
TWICE = "message_id stands twice"


def _gather_trees(rows: Sequence[Row]) -> Iterator[Gathered]:
    """Put the messages of a file together to the trees that `oasst` reads, in whatever order they stand."""
    first: dict[Any, Row] = {}
    for row in rows:
        first.setdefault(_name(row.values, "message_id"), row)
    children: dict[Any, list[Row]] = {}
    for row in first.values():
        children.setdefault(_name(row.values, "parent_id"), []).append(row)
    reached: set[int] = set()
    for root in children.get(None, []):
        members, tree = _tree(root, children)
        reached |= {id(row) for row in members}
        tree_id = _name(root.values, "message_tree_id") or _name(root.values, "message_id")
        yield Gathered(members=members, row=Row(root.where, root.number, {"message_tree_id": tree_id, "prompt": tree}))
    for row in rows:
        if id(row) not in reached:
            reason = NO_PARENT if first[_name(row.values, "message_id")] is row else TWICE
            yield Gathered(members=[row], row=None, left_out=[LeftOut(reason=reason, row=row)])


def _tree(root: Row, children: dict[Any, list[Row]]) -> tuple[list[Row], dict[str, Any]]:
    members: list[Row] = []
    top = {**root.values, "replies": []}
    stack = [(root, top)]
    while stack:
        row, node = stack.pop()
        members.append(row)
        name = _name(row.values, "message_id")
        for child in children.get(name, []) if name is not None else []:
            below = {**child.values, "replies": []}
            node["replies"].append(below)
            stack.append((child, below))
    return members, top


def _name(values: Values, column: str) -> str | None:
    """An id as text; None when there is none (null, an empty CSV cell, the NaN of a table)."""
    value = values.get(column)
    return str(value) if isinstance(value, (str, int)) and str(value).strip() else None


def _is_message(values: Values) -> bool:
    return {"message_id", "parent_id", "text", "role"} <= set(values)


OASST_MESSAGES = Format(
    name="oasst_messages", kind="preferences", detect=mostly(_is_message), read=OASST.read, also=OASST.also, gather=_gather_trees,
    pairings=OASST.pairings,
    doc="OpenAssistant messages: `message_id`, `parent_id`, `text`, `role`, `rank`, one a row; read as the trees that they form.",
)  # fmt: skip
