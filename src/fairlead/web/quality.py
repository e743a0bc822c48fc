"""How well raters agree, for the lead's page: computed from the votes at most once a minute, and said how old it is."""

import threading
import time
from dataclasses import dataclass, field
from typing import Self

import sqlalchemy as sa

from fairlead.core.gates import GateResult
from fairlead.core.summary import Figure, Table
from fairlead.preferences.agreement import read_agreement
from fairlead.preferences.raters import rater_table, read_raters
from fairlead.stats.votes import votes_from_rows
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Assignment, Person, Verdict

MAX_AGE_S = 60.0
NUM_RESAMPLES = 1000
"""Bootstrap behind the intervals."""
_FIGURES = ("percent agreement", "Krippendorff's alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Head of a column; numbers stand at the right."""

    name: str
    is_number: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A table ready for the page: columns in which nothing stands are left out."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    @classmethod
    def of(cls, table: Table) -> Self:
        """Write the cells."""
        kept = [i for i in range(len(table.columns)) if any(row[i] not in (None, "") for row in table.rows)]
        columns = tuple(
            Column(name=table.columns[i], is_number=all(not isinstance(row[i], str) for row in table.rows))
            for i in kept
        )
        rows = tuple(tuple(_cell(row[i]) for i in kept) for row in table.rows)
        return cls(title=table.title, columns=columns, rows=rows, caption=table.caption)


def _cell(value: str | float | int | None) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A gate ready for the page."""

    outcome: str
    question: str
    value_words: str
    n: int
    threshold: str
    note: str
    remedy: str

    @classmethod
    def of(cls, result: GateResult) -> Self:
        """Value with its interval in the unit of the gate."""
        scale, unit = (100, " %") if result.unit == "share" else (1, "")
        digits = 0 if scale == 100 else 2
        value, low, high = (f"{scale * number:.{digits}f}" for number in (result.value, result.low, result.high))
        return cls(outcome=result.outcome, question=result.question, value_words=f"{value}{unit} [{low}, {high}]", n=result.n,
                   threshold=result.threshold, note=result.note.rstrip("."), remedy=result.remedy.rstrip("."))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What the votes of a project say of its raters."""

    figures: tuple[Figure, ...] = ()
    gates: tuple[Judged, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[Shown, ...] = ()
    made_at: float = field(default_factory=time.monotonic)

    def age_s(self) -> int:
        """Seconds since it was computed."""
        return int(time.monotonic() - self.made_at)


_KEPT: dict[tuple[str, str], tuple[int, Quality]] = {}
_LOCK = threading.Lock()


def quality_of(database: Database, project_id: str) -> Quality:
    """The kept one while it is young or nothing was voted since; else a new one."""
    with database.read() as rows:
        newest = rows.scalar(sa.select(sa.func.max(Verdict.event_number)).where(Verdict.project_id == project_id)) or 0
    key = (str(database.engine.url), project_id)
    with _LOCK:
        number, kept = _KEPT.get(key, (-1, None))
        if kept is not None and (number == newest or kept.age_s() < MAX_AGE_S):
            return kept
        made = _compute(database, project_id)
        _KEPT[key] = (newest, made)
        return made


def _compute(database: Database, project_id: str) -> Quality:
    with database.read() as rows:
        found = rows.execute(
            sa.select(Verdict.item_id, Person.pseudonym, Verdict.verdict, Assignment.swapped)
            .join(Person, Person.id == Verdict.person_id).join(Assignment, Assignment.id == Verdict.assignment_id)
            .where(Verdict.project_id == project_id, Verdict.verdict != "skip").order_by(Assignment.person_id, Assignment.position)
        ).all()  # fmt: skip
    if len({row.pseudonym for row in found}) < 2:
        return Quality()
    names = ["a", "b", *sorted({row.verdict for row in found} - {"a", "b"})]
    votes = votes_from_rows(
        [(row.item_id, row.pseudonym, row.verdict) for row in found],
        label_names=names,
        swapped=[row.swapped for row in found],
    )
    reading = read_agreement(votes, seed=0, num_resamples=NUM_RESAMPLES)
    figures = tuple(figure for figure in reading.figures() if figure.name in _FIGURES)
    raters = rater_table(read_raters(votes, orders=None, outcomes={}))
    return Quality(
        figures=figures,
        gates=tuple(map(Judged.of, reading.verdicts())),
        notes=reading.notes(),
        tables=(Shown.of(raters), Shown.of(reading.table())),
    )
