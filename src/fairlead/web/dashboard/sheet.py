"""All verdicts of a project as columns of numbers: what every reading of the dashboard is made from.

Legend:
    N  verdicts (skips among them), I items, R raters

Example:
    sheet = sheet_of(database, project_id).value
    sheet.votes(sheet.rows_of_items(sheet.slices["source"].is_value("hh")))
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
import sqlalchemy.orm

from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.votes import Votes
from fairlead.store.annotation.caching import large_cache
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Completion, Event, Item, Person, Prompt, Verdict
from fairlead.store.annotation.steering import Anchor
from fairlead.web.dashboard import copies
from fairlead.web.dashboard.copies import SheetRead
from fairlead.web.dashboard.keeping import LARGE, Kept, keep
from fairlead.web.dashboard.slices import Slice, extended, parts
from fairlead.web.frames import is_swapped

LABELS = ("a", "b", "tie", "both_bad", "skip")
SKIP = LABELS.index("skip")
LENGTHS = ((400, "up to 400 characters"), (1_600, "400 to 1,600 characters"))
LONGEST = "over 1,600 characters"
_ITEMS_A_QUERY, _ROWS_A_QUERY = 500, 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """Columns, in the order of the events behind them."""

    items: IntArray
    """[N] in [0, I)."""
    raters: IntArray
    """[N] in [0, R)."""
    labels: IntArray
    """[N] numbers of `LABELS`."""
    strengths: IntArray
    """[N] -3 to 3."""
    swapped: BoolArray
    """[N] b stood on the left."""
    positions: IntArray
    """[N] place in the rater's own sequence."""
    at_ms: IntArray
    """[N] milliseconds since 1970."""
    active_s: FloatArray
    """[N] seconds on the item; nan where the browser did not say."""
    versions: IntArray
    """[N] of the guideline."""
    is_calibration: BoolArray
    """[I]"""
    lengths: IntArray
    """[I, 2] characters of a and b."""
    item_ids: tuple[str, ...]
    rater_ids: tuple[str, ...]
    rater_names: tuple[str, ...]
    """Names in the application, for the lead only."""
    slices: Mapping[str, Slice]
    """Fields of the items, `use` among them."""

    @property
    def is_vote(self) -> BoolArray:
        """[N] False for skips."""
        return self.labels != SKIP

    def votes(self, keep_rows: BoolArray | None = None) -> Votes:
        """Votes (no skips) of the kept rows, numbered anew; labels that nobody used are left out except a and b."""
        chosen = self.is_vote if keep_rows is None else self.is_vote & keep_rows
        items, item_numbers = np.unique(self.items[chosen], return_inverse=True)
        raters, rater_numbers = np.unique(self.raters[chosen], return_inverse=True)
        used = sorted({0, 1, *np.unique(self.labels[chosen]).tolist()})
        places = np.full(len(LABELS), -1)
        places[used] = np.arange(len(used))
        return Votes(
            items=item_numbers.astype(np.int64), raters=rater_numbers.astype(np.int64), labels=places[self.labels[chosen]].astype(np.int64),
            item_names=tuple(self.item_ids[i] for i in items), rater_names=tuple(self.rater_names[i] for i in raters),
            label_names=tuple(LABELS[i] for i in used), swapped=self.swapped[chosen],
        )  # fmt: skip

    def rows_of_items(self, is_wanted: Sequence[bool] | BoolArray) -> BoolArray:
        """[N] verdicts on the wanted items [I]."""
        return np.asarray(is_wanted, dtype=np.bool_)[self.items] if len(self.items) else np.zeros(0, dtype=np.bool_)


def sheet_of(database: Database, project_id: str) -> Kept[Sheet]:
    """At most a minute old. After the first one only what changed since is read; until then a large project's is that of its copy on disk."""
    return keep(database, project_id, "sheet", lambda: _newer(database, project_id), recall=lambda: _copied(database, project_id))  # fmt: skip


def _copied(database: Database, project_id: str) -> tuple[Sheet, float] | None:
    """As an earlier process left it, with its age in seconds."""
    with database.read() as rows:
        found = _last(database, rows, project_id)
        return None if found is None else (as_sheet(found, names_of(rows)), max(0.0, time.time() - found.read_at))


_LAST: dict[tuple[str, str], SheetRead] = {}
_LOADING = threading.Lock()


def _last(database: Database, rows: Rows, project_id: str) -> SheetRead | None:
    """The last reading, of this process or of an earlier one: pages and what is made beside them share it."""
    key = (str(database.engine.url), project_id)
    with _LOADING:
        if key not in _LAST and (found := copies.load(rows, copies.place_of(database, project_id), project_id)):
            _LAST[key] = found
        return _LAST.get(key)


def _newer(database: Database, project_id: str) -> Sheet:
    """Go on from the last reading. Called by one thread at a time for a project (`keep`)."""
    place = copies.place_of(database, project_id)
    with database.read() as rows:
        found = read(rows, project_id, _last(database, rows, project_id))
        _LAST[str(database.engine.url), project_id] = found
        if (
            place is not None
            and len(found.columns["events"]) > LARGE
            and found.last_event - found.saved_event >= copies.SAVE_EVERY
        ):
            copies.save(rows, place, project_id, found)
        return as_sheet(found, names_of(rows))


def names_of(rows: Rows) -> dict[str, str]:
    """Names of people by id."""
    return {row[0]: row[1] for row in rows.execute(sa.select(Person.id, Person.name))}


def read(rows: Rows, project_id: str, before: SheetRead | None) -> SheetRead:
    """Read all verdicts, or what changed after an earlier reading."""
    items, raters = (dict(before.items), dict(before.raters)) if before else ({}, {})
    size, read_at = len(items), time.time()
    kept: list[dict[str, Any]] = []
    facts: list[Fact] = []
    shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    with contextlib.nullcontext() if before else large_cache(rows):
        newest = rows.scalar(sa.select(sa.func.max(Event.number))) or 0
        anchors = set(rows.scalars(sa.select(Anchor.item_id).where(Anchor.project_id == project_id)))
        changed: list[str] | None = None
        if before is not None:
            since = (Event.number > before.last_event, Event.project_id == project_id, Event.assignment_id.is_not(None))
            changed = [name for name in rows.scalars(sa.select(Event.assignment_id).where(*since).distinct()) if name]
            is_kept = ~np.isin(before.columns["events"], _earlier(rows, changed, before.last_event))
            kept.append({name: column[is_kept] for name, column in before.columns.items()})
        for piece in _verdicts(rows, project_id, changed):
            found = [row for row in piece if row[0] not in anchors]
            new = [name for name in dict.fromkeys(row[0] for row in found) if name not in items]
            texts = _facts(rows, new, shared)
            for name in new:
                items[name] = len(items)
                facts.append(texts[name])
            for row in found:
                raters.setdefault(row[1], len(raters))
            kept.append(_columns(found, items=items, raters=raters))
    kept = kept or [_columns([], items=items, raters=raters)]
    lengths = np.array([fact.lengths for fact in facts], dtype=np.int64).reshape(-1, 2)
    return SheetRead(
        columns={name: np.concatenate([part[name] for part in kept]) for name in kept[0]}, items=items, raters=raters,
        fields=extended(before.fields if before else {}, size, [fact.fields for fact in facts]),
        lengths=np.concatenate([before.lengths, lengths]) if before else lengths,
        last_event=newest, read_at=read_at, saved_event=before.saved_event if before else 0,
    )  # fmt: skip


def _earlier(rows: Rows, assignments: Sequence[str], last: int) -> list[int]:
    """Numbers of the events of these assignments up to one."""
    found: list[int] = []
    for start in range(0, len(assignments), _ITEMS_A_QUERY):
        some = Event.assignment_id.in_(assignments[start : start + _ITEMS_A_QUERY])
        found += rows.scalars(sa.select(Event.number).where(some, Event.number <= last))
    return found


def _verdicts(rows: Rows, project_id: str, changed: list[str] | None) -> Iterator[Sequence[Any]]:
    """Rows of all assignments, or of those that changed, in the order of their events, some thousands at a time."""
    query = (
        sa.select(Verdict.item_id, Verdict.person_id, Verdict.verdict, Verdict.strength, Assignment.shown, Assignment.position, Event.at,
                  Verdict.active_ms, Verdict.guideline_version, Verdict.event_number)
        .join(Assignment, Assignment.id == Verdict.assignment_id).join(Event, Event.number == Verdict.event_number)
        .where(Verdict.project_id == project_id).order_by(Verdict.event_number)
    )  # fmt: skip
    if changed is not None:
        for start in range(0, len(changed), _ITEMS_A_QUERY):
            yield rows.execute(query.where(Verdict.assignment_id.in_(changed[start : start + _ITEMS_A_QUERY]))).all()
        return
    last = 0
    while found := rows.execute(query.where(Verdict.event_number > last).limit(_ROWS_A_QUERY)).all():
        yield found
        last = found[-1].event_number


def _columns(found: Sequence[Any], *, items: Mapping[str, int], raters: Mapping[str, int]) -> dict[str, Any]:
    known = {label: number for number, label in enumerate(LABELS)}
    given, people, labels, strengths, shown, positions, times, active, versions, events = (
        zip(*found, strict=True) if found else [()] * 10
    )
    return {
        "events": _whole(events), "items": _whole(items[name] for name in given), "raters": _whole(raters[name] for name in people),
        "labels": _whole(known[label] for label in labels), "strengths": _whole(strengths), "positions": _whole(positions),
        "at_ms": _whole(times), "versions": _whole(versions), "swapped": np.array([is_swapped(order) for order in shown], dtype=np.bool_),
        "active_s": np.array([np.nan if time is None else time / 1000 for time in active], dtype=np.float64),
    }  # fmt: skip


def as_sheet(found: SheetRead, names: Mapping[str, str]) -> Sheet:
    """What readings are made from."""
    columns = {name: column for name, column in found.columns.items() if name != "events"}
    uses, size = found.fields.get("use"), len(found.items)
    return Sheet(
        **columns, is_calibration=uses.is_value("calibration") if uses else np.zeros(size, dtype=np.bool_), lengths=found.lengths,
        item_ids=tuple(found.items), rater_ids=tuple(found.raters), rater_names=tuple(names[person] for person in found.raters),
        slices=parts(found.fields, size),
    )  # fmt: skip


def _whole(values: Any) -> IntArray:
    return np.fromiter(values, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What an item's texts say of themselves."""

    fields: Mapping[str, str]
    """One mapping for all items that have the same values."""
    lengths: tuple[int, int]


def _facts(
    rows: Rows, item_ids: list[str], shared: dict[tuple[tuple[str, str], ...], dict[str, str]]
) -> dict[str, Fact]:
    """Facts by item; the texts stay in the database, and the project is not named: SQLite would go through all of its items each time.

    Args:
        shared: fields of earlier items, which those with equal ones take over.
    """
    a, b = sqlalchemy.orm.aliased(Completion), sqlalchemy.orm.aliased(Completion)
    by_id: dict[str, Fact] = {}
    for start in range(0, len(item_ids), _ITEMS_A_QUERY):
        found = rows.execute(
            sa.select(Item.id, Item.use, Prompt.record["slice"].as_string(), Prompt.record["source"].as_string(), Prompt.record["meta"].as_json(),
                      sa.func.length(a.record["text"].as_string()), sa.func.length(b.record["text"].as_string()))
            .join(Prompt, sa.and_(Prompt.project_id == Item.project_id, Prompt.id == Item.prompt_id))
            .join(a, sa.and_(a.project_id == Item.project_id, a.id == Item.completions[0].as_string()))
            .join(b, sa.and_(b.project_id == Item.project_id, b.id == Item.completions[1].as_string()))
            .where(Item.id.in_(item_ids[start : start + _ITEMS_A_QUERY]))
        ).all()  # fmt: skip
        for name, use, part, source, meta, length_a, length_b in found:
            fields = {
                "slice": str(part or "all"),
                "source": str(source or "unknown"),
                "length": _length(max(length_a, length_b)),
            }
            fields |= {
                str(key): str(value) for key, value in (meta or {}).items() if isinstance(value, str | int | bool)
            }
            fields |= {"use": use}
            fields = shared.setdefault(tuple(fields.items()), fields)
            by_id[name] = Fact(fields=fields, lengths=(length_a, length_b))
    return by_id


def _length(num_chars: int) -> str:
    return next((words for limit, words in LENGTHS if num_chars <= limit), LONGEST)
