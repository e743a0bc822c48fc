"""What was read of a large project's votes, on disk: a server that starts again reads only what changed since.

A file a project, in the folder of the server's key. It holds numbers and ids, no names of people and no texts, and may be deleted at any time.
It is used only where the database holds the event that it ends with: not for an older copy of the database that was put back.

Example:
    keep_in(database, Path("runs/annotate/sheets"))
    with database.read() as rows:
        found = load(rows, place_of(database, project_id), project_id)
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from fairlead import __version__
from fairlead.core.errors import DataError
from fairlead.core.io import atomic_path
from fairlead.stats.arrays import IntArray
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Event
from fairlead.web.dashboard.slices import Fields, Slice

SAVE_EVERY = 20_000
"""Events after which a copy is written anew; reading so many takes about a second."""
_STORED = {"events": np.int64, "items": np.int32, "raters": np.int32, "labels": np.int8, "strengths": np.int8, "positions": np.int32,
           "at_ms": np.int64, "versions": np.int32, "swapped": np.bool_, "active_s": np.float64}  # fmt: skip
_FOLDERS: dict[str, Path] = {}


@dataclass(slots=True, kw_only=True)
class SheetRead:
    """What was read of a project, with what a later reading goes on from. Readings are not changed: a later one takes over their parts."""

    columns: dict[str, Any]
    """[N] each, as in `sheet.Sheet`, and `events`: their numbers."""
    items: dict[str, int]
    raters: dict[str, int]
    fields: Fields
    """Of the I items."""
    lengths: IntArray
    """[I, 2] characters of a and b."""
    last_event: int
    read_at: float
    """Seconds since 1970."""
    saved_event: int = 0
    """Last event of the copy on disk; 0 without one."""


def keep_in(database: Database, folder: Path) -> None:
    """Copies of what is read of this database are kept in a folder."""
    _FOLDERS[str(database.engine.url)] = folder


def place_of(database: Database, project_id: str) -> Path | None:
    """Where the copy of a project stands; None where none is kept."""
    folder = _FOLDERS.get(str(database.engine.url))
    return None if folder is None else folder / f"{project_id}.npz"


def _mark(rows: Rows, project_id: str, number: int) -> str:
    """What tells a copy of this database from one of another, or of another version of Fairlead."""
    found = rows.execute(sa.select(Event.at, Event.kind, Event.key).where(Event.number == number)).one_or_none()
    return json.dumps([__version__, project_id, number, None if found is None else list(found)])


def save(rows: Rows, file: Path, project_id: str, found: SheetRead) -> None:
    """Write a copy. A disk that is full costs the next start its time and nobody else anything."""
    known = {name: None if each is None else each.values for name, each in found.fields.items()}
    numbers = [each.numbers for each in found.fields.values() if each is not None]
    with contextlib.suppress(DataError):
        with atomic_path(file) as draft, draft.open("wb") as out:
            draft.chmod(0o600)
            np.savez(
                out, mark=np.array(_mark(rows, project_id, found.last_event)), last_event=np.array(found.last_event),
                items=_joined(found.items), raters=_joined(found.raters), lengths=found.lengths.astype(np.int32),
                known=np.array(json.dumps(known)), fields=np.array(numbers, dtype=np.int8),
                **{f"column_{name}": column.astype(_STORED[name]) for name, column in found.columns.items()},
            )  # fmt: skip
        found.saved_event = found.last_event


def load(rows: Rows, file: Path | None, project_id: str) -> SheetRead | None:
    """Read a copy; None where there is none of this database."""
    if file is None or not file.exists():
        return None
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as stored:
            last_event = int(stored["last_event"])
            if str(stored["mark"]) != _mark(rows, project_id, last_event):
                return None
            return _read(stored, last_event, read_at=os.fstat(raw.fileno()).st_mtime)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # damaged: all is read again
        return None


def _read(stored: Any, last_event: int, *, read_at: float) -> SheetRead:
    numbers = iter(stored["fields"].astype(np.int64))
    known = json.loads(str(stored["known"]))
    return SheetRead(
        columns={name: _widened(stored[f"column_{name}"]) for name in _STORED}, items=_numbered(stored["items"]), raters=_numbered(stored["raters"]),
        fields={name: None if values is None else Slice(values=tuple(values), numbers=next(numbers)) for name, values in known.items()},
        lengths=_widened(stored["lengths"]), last_event=last_event, saved_event=last_event, read_at=read_at,
    )  # fmt: skip


def _widened(column: Any) -> Any:
    return column.astype(np.int64) if np.issubdtype(column.dtype, np.integer) else column


def _joined(names: Iterable[str]) -> Any:
    """One text: numpy's own texts are made one by one when they are read, which takes ten times as long."""
    return np.frombuffer("\n".join(names).encode(), dtype=np.uint8)


def _numbered(joined: Any) -> dict[str, int]:
    names = joined.tobytes().decode().split("\n") if len(joined) else []
    return dict(zip(names, range(len(names)), strict=True))
