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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from fairlead import __version__
from fairlead.core.errors import DataError
from fairlead.core.io import atomic_path
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Event

SAVE_EVERY = 20_000
"""Events after which a copy is written anew; reading so many takes about a second."""
_ID = "S40"  # as long as ids may be
_STORED = {"events": np.int64, "items": np.int32, "raters": np.int32, "labels": np.int8, "strengths": np.int8, "positions": np.int32,
           "at_ms": np.int64, "versions": np.int32, "swapped": np.bool_, "active_s": np.float64}  # fmt: skip
_FOLDERS: dict[str, Path] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What an item's texts say of themselves."""

    use: str
    fields: Mapping[str, str]
    """One mapping for all items that have the same values."""
    length_a: int
    length_b: int


@dataclass(slots=True, kw_only=True)
class SheetRead:
    """What was read of a project, with what a later reading goes on from."""

    columns: dict[str, Any]
    """[N] each, as in `sheet.Sheet`, and `events`: their numbers."""
    items: dict[str, int]
    raters: dict[str, int]
    facts: list[Fact]
    """By number of the item."""
    last_event: int
    saved_event: int = 0
    """Last event of the copy on disk; 0 without one."""
    written_at: float = 0.0
    """Of a reading that is a copy: when that was written, seconds since 1970."""


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
    places, fields = dict[str, int](), list[int]()
    for fact in found.facts:
        fields.append(places.setdefault(json.dumps(fact.fields), len(places)))
    with contextlib.suppress(DataError):
        with atomic_path(file) as draft, draft.open("wb") as out:
            draft.chmod(0o600)
            np.savez(
                out, mark=np.array(_mark(rows, project_id, found.last_event)), last_event=np.array(found.last_event),
                item_ids=np.array(list(found.items), dtype=_ID), rater_ids=np.array(list(found.raters), dtype=_ID),
                uses=np.array([fact.use for fact in found.facts]), fields=np.array(fields, dtype=np.int64), known=np.array(list(places)),
                lengths=np.array([(fact.length_a, fact.length_b) for fact in found.facts], dtype=np.int64).reshape(-1, 2),
                **{name: column.astype(_STORED[name]) for name, column in found.columns.items()},
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
            return _read(stored, last_event, written_at=os.fstat(raw.fileno()).st_mtime)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # damaged: all is read again
        return None


def _read(stored: Any, last_event: int, *, written_at: float) -> SheetRead:
    known = [json.loads(text) for text in stored["known"].tolist()]
    uses = {use: use for use in set(stored["uses"].tolist())}  # one text for all items of a use
    columns = zip(stored["uses"].tolist(), stored["fields"].tolist(), stored["lengths"].tolist(), strict=True)
    names = {
        name: np.bool_ if kind is np.bool_ else np.float64 if kind is np.float64 else np.int64
        for name, kind in _STORED.items()
    }
    return SheetRead(
        columns={name: stored[name].astype(kind) for name, kind in names.items()}, last_event=last_event, saved_event=last_event,
        written_at=written_at,
        items={name.decode(): number for number, name in enumerate(stored["item_ids"].tolist())},
        raters={name.decode(): number for number, name in enumerate(stored["rater_ids"].tolist())},
        facts=[Fact(use=uses[use], fields=known[place], length_a=a, length_b=b) for use, place, (a, b) in columns],
    )  # fmt: skip
