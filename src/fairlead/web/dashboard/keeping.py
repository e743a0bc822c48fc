"""Readings are made at most once a minute and say how old they are.

A reading that takes long is made again beside the page: the old one is shown once more, with its age. The first one is waited for, unless
the project is so large that no page should wait for it: then the last one of an earlier start is shown, or the page says that it is being made.
"""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.totals import Tally
from fairlead.web.dashboard import remembered
from fairlead.web.errors import NotYet
from fairlead.web.people import now_ms
from fairlead.web.totals import num_verdicts

T = TypeVar("T")
MAX_AGE_S = 60.0
PATIENCE_S = 0.5
"""A reading that took longer than this is made again in the background."""
LARGE = 50_000
"""Verdicts of a project from which on its first reading is not waited for: it reads them all, which takes seconds."""
REMEMBER_EVERY_S = 300.0
"""How often a reading is written to the database; what a server shows when it starts is so much older at most."""
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
_REMEMBERED: dict[_Key, float] = {}
_BUSY: dict[_Key, threading.Lock] = {}
_LOCK = threading.Lock()
_HERE = threading.local()
"""`is_beside` is set in threads that make a reading beside the page: what it needs itself is made there."""


def keep(
    database: Database, project_id: str, name: str, make: Callable[[], T], *, kind: Any = None, reads_votes: bool = True,
    recall: Callable[[], tuple[T, float] | None] | None = None,
) -> Kept[T]:  # fmt: skip
    """The kept reading of this name while it is young, or while a new one that takes long is being made; else a new one.

    Args:
        kind: type of the reading, where it is remembered beyond this process.
        reads_votes: every vote is read; False for what is read from totals, which is quick in any project.
        recall: finds the last reading of an earlier process with its age in seconds, where it is kept elsewhere than `kind` says.
    Raises:
        NotYet: the first reading of a large project is being made.
    """
    key = (str(database.engine.url), project_id, name)
    with _LOCK:
        busy = _BUSY.setdefault(key, threading.Lock())
        found = _KEPT.get(key)
    is_beside = getattr(_HERE, "is_beside", False)
    if recall is None and kind is not None:
        recall = functools.partial(remembered.recall, database, project_id, name, kind)
    if found is None and recall is not None and not is_beside and _is_large(database, project_id):
        found = _recalled(key, recall)
    if found is not None and time.monotonic() - found.made_at <= MAX_AGE_S:
        return found
    if not is_beside and (
        found.took_s > PATIENCE_S if found is not None else reads_votes and _is_large(database, project_id)
    ):
        if busy.acquire(blocking=False):
            threading.Thread(target=_refresh, args=(database, key, make, kind, busy), daemon=True).start()
        if found is None:
            raise NotYet(project_id)
        return found
    with busy:
        found = _KEPT.get(key)
        if found is None or time.monotonic() - found.made_at > MAX_AGE_S:
            found = _make(database, key, make, kind)
        return found


def _is_large(database: Database, project_id: str) -> bool:
    with database.read() as rows:
        return num_verdicts(rows, project_id) > LARGE


def large_projects(database: Database) -> list[str]:
    """Those whose readings are made beside the pages."""
    with database.read() as rows:
        return list(rows.scalars(sa.select(Tally.project_id).where(Tally.num_verdicts > LARGE).order_by(Tally.project_id)))  # fmt: skip


@contextlib.contextmanager
def made_here() -> Generator[None]:
    """This thread is beside the pages: what it asks for, it makes itself."""
    _HERE.is_beside = True
    try:
        yield
    finally:
        _HERE.is_beside = False


def _recalled(key: _Key, recall: Callable[[], tuple[Any, float] | None]) -> Kept[Any] | None:
    """As it was before this process; made again when it is looked at."""
    found = recall()
    if found is None:
        return None
    kept = Kept(value=found[0], made_at=time.monotonic() - found[1], took_s=math.inf)
    with _LOCK:
        return _KEPT.setdefault(key, kept)


def _refresh(database: Database, key: _Key, make: Callable[[], Any], kind: Any, busy: threading.Lock) -> None:
    try:
        with made_here():
            _make(database, key, make, kind)
    finally:
        busy.release()


def _make(database: Database, key: _Key, make: Callable[[], T], kind: Any) -> Kept[T]:
    start, began_ms = time.monotonic(), now_ms()
    value = make()
    found = Kept(value=value, made_at=time.monotonic(), took_s=time.monotonic() - start)
    with _LOCK:
        if key not in _KEPT and len(_KEPT) >= _MAX_KEPT:
            del _KEPT[min(_KEPT, key=lambda known: _KEPT[known].made_at)]
        _KEPT[key] = found
    if kind is not None and start - _REMEMBERED.get(key, -math.inf) > REMEMBER_EVERY_S and _is_large(database, key[1]):
        _REMEMBERED[key] = start
        remembered.remember(database, key[1], key[2], kind, value, began_ms=began_ms)
    return found
