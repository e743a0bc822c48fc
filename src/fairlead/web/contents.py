"""Texts of items, kept in memory: they go in once and never change, and each item comes to several raters, one soon after another.

Only what a reading transaction saw is kept, for what a writing one sees may still be undone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import sqlalchemy as sa

from fairlead.core.records import Completion, Prompt, from_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import READS, Rows, run

Key = TypeVar("Key")
Value = TypeVar("Value")
MAX_ITEMS = 4_000
MAX_KEPT = 40_000
"""Characters of an item that is kept; a longer one is read each time."""
_ITEM, _PROMPT, _COMPLETIONS = (schema.table_of(table).c for table in (schema.Item, schema.Prompt, schema.Completion))  # fmt: skip
_WITH_PROMPT = (_PROMPT.project_id == _ITEM.project_id) & (_PROMPT.id == _ITEM.prompt_id)
_OF_ITEM = (
    sa.select(_ITEM.project_id, _ITEM.completions, _ITEM.use, _PROMPT.record).where(_ITEM.id == sa.bindparam("item"))
    .join_from(schema.table_of(schema.Item), schema.table_of(schema.Prompt), _WITH_PROMPT)
)  # fmt: skip
_OF_COMPLETIONS = sa.select(_COMPLETIONS.id, _COMPLETIONS.record).where(
    _COMPLETIONS.project_id == sa.bindparam("project"), _COMPLETIONS.id.in_(sa.bindparam("names", expanding=True))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an item is made of."""

    item_id: str
    project_id: str
    use: str
    """production, calibration or anchor."""
    prompt: Prompt
    completions: tuple[Completion, ...]
    """In canonical order."""


class Kept(Generic[Key, Value]):
    """The values asked for last. Thread-safe."""

    def __init__(self, num: int) -> None:
        self._num, self._found = num, OrderedDict[Key, Value]()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """What is kept, if anything."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            return found

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and forget the one that was asked for least recently."""
        with self._lock:
            self._found[key] = value
            if len(self._found) > self._num:
                self._found.popitem(last=False)


_ITEMS = Kept[str, Content](MAX_ITEMS)


def content_of(rows: Rows, item_id: str) -> Content:
    """Prompt and completions of an item. Ids of items are random, so one of another database has another id."""
    found = _ITEMS.get(item_id)
    if found is None:
        found = _read(rows, item_id)
        size = sum(len(turn.content) for turn in found.prompt.messages) + sum(len(each.text) for each in found.completions)  # fmt: skip
        if rows.info.get(READS) and size <= MAX_KEPT:
            _ITEMS.put(item_id, found)
    return found


def _read(rows: Rows, item_id: str) -> Content:
    item = run(rows, _OF_ITEM, {"item": item_id}).one_or_none()
    assert item is not None, f"item {item_id} is not there, or its prompt is not"
    found = run(rows, _OF_COMPLETIONS, {"project": item.project_id, "names": item.completions})
    records = {row.id: row.record for row in found}
    assert records.keys() >= set(item.completions), f"item {item_id} lacks a text"
    return Content(
        item_id=item_id, project_id=item.project_id, use=item.use, prompt=from_dict(Prompt, item.record),
        completions=tuple(from_dict(Completion, records[name]) for name in item.completions),
    )  # fmt: skip
