"""Readings are made at most once a minute and say how old they are.

A reading that takes long is made again beside the page: the old one is shown once more, with its age. The first one is waited for, unless
the project is so large that no page should wait for it: then the page says that it is being made.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.totals import Work
from fairlead.web.errors import Refused

T = TypeVar("T")
MAX_AGE_S = 60.0
PATIENCE_S = 0.5
"""A reading that took longer than this is made again in the background."""
LARGE = 50_000
"""Verdicts of a project from which on its first reading is not waited for: it reads them all, which takes seconds."""
_MAX_KEPT = 256
"""Readings of all projects; the oldest goes first."""
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Generic[T]):
    """A reading, when it was made, and how long that took."""

    value: T
    made_at: float
    took_s: float

    def age_s(self) -> int:
        """Seconds since."""
        return int(time.monotonic() - self.made_at)


_KEPT: dict[_Key, Kept[Any]] = {}
_BUSY: dict[_Key, threading.Lock] = {}
_LOCK = threading.Lock()
_HERE = threading.local()
"""`is_beside` is set in threads that make a reading beside the page: what it needs itself is made there."""


def keep(database: Database, project_id: str, name: str, make: Callable[[], T], *, reads_votes: bool = True) -> Kept[T]:
    """The kept reading of this name while it is young, or while a new one that takes long is being made; else a new one.

    Args:
        reads_votes: every vote is read; False for what is read from totals, which is quick in any project.
    Raises:
        Refused: the first reading of a large project is being made.
    """
    key = (str(database.engine.url), project_id, name)
    with _LOCK:
        busy = _BUSY.setdefault(key, threading.Lock())
        found = _KEPT.get(key)
    if found is not None and time.monotonic() - found.made_at <= MAX_AGE_S:
        return found
    is_beside = getattr(_HERE, "is_beside", False)
    if not is_beside and (
        found.took_s > PATIENCE_S if found is not None else reads_votes and _is_large(database, project_id)
    ):
        if busy.acquire(blocking=False):
            threading.Thread(target=_refresh, args=(key, make, busy), daemon=True).start()
        if found is None:
            raise Refused(
                503,
                "not_yet",
                "These figures are made for the first time, from all votes. Load the page again in a minute.",
            )
        return found
    with busy:
        found = _KEPT.get(key)
        if found is None or time.monotonic() - found.made_at > MAX_AGE_S:
            found = _make(key, make)
        return found


def _is_large(database: Database, project_id: str) -> bool:
    with database.read() as rows:
        return (rows.scalar(sa.select(sa.func.sum(Work.num)).where(Work.project_id == project_id)) or 0) > LARGE


def _refresh(key: _Key, make: Callable[[], Any], busy: threading.Lock) -> None:
    _HERE.is_beside = True
    try:
        _make(key, make)
    finally:
        busy.release()


def _make(key: _Key, make: Callable[[], T]) -> Kept[T]:
    start = time.monotonic()
    value = make()
    found = Kept(value=value, made_at=time.monotonic(), took_s=time.monotonic() - start)
    with _LOCK:
        if key not in _KEPT and len(_KEPT) >= _MAX_KEPT:
            del _KEPT[min(_KEPT, key=lambda known: _KEPT[known].made_at)]
        _KEPT[key] = found
    return found
