"""How well raters agree, for the lead's page: from totals that verdicts keep current, intervals at most once a minute, and said how old they are."""

from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from fairlead.core.gates import GateResult
from fairlead.core.summary import Figure, Table
from fairlead.preferences.agreement import read_agreement_of_counts
from fairlead.preferences.raters import RaterCounts, rater_table, read_raters_of_counts
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Person
from fairlead.web import totals
from fairlead.web.dashboard.keeping import Kept, keep

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
    raters: Shown | None = None


def quality_of(database: Database, project_id: str) -> Kept[Quality]:
    """At most a minute old."""
    return keep(database, project_id, "quality", lambda: _compute(database, project_id), reads_votes=False)


def _compute(database: Database, project_id: str) -> Quality:
    with database.read() as rows:
        table = totals.labels_of_items(rows, project_id)
        choices = totals.choices_of_raters(rows, project_id)
        concord = totals.concord_of_raters(rows, project_id)
        names = {person.id: person.name for person in rows.scalars(sa.select(Person))}
    counted = {
        names[person_id]: RaterCounts(num_votes=own.total() - own["skip"], concord=concord.get(person_id, {}),
                                      num_left=own["left"], num_right=own["right"])
        for person_id, own in choices.items()
    }  # fmt: skip
    counted = {name: found for name, found in counted.items() if found.num_votes}
    if len(counted) < 2:
        return Quality()
    reading = read_agreement_of_counts(
        table.counts,
        table.times,
        label_names=table.label_names,
        num_raters=len(counted),
        seed=0,
        num_resamples=NUM_RESAMPLES,
    )
    figures = tuple(figure for figure in reading.figures() if figure.name in _FIGURES)
    raters = rater_table(read_raters_of_counts(counted))
    return Quality(
        figures=figures,
        gates=tuple(map(Judged.of, reading.verdicts())),
        notes=reading.notes(),
        raters=Shown.of(raters),
    )
