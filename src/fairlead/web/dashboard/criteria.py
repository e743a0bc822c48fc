"""How far raters agree on the ratings by criterion that a guideline asks for.

A rating is of one completion, so every completion of an item counts as one thing that raters rate: an ordinal alpha and the share of equal ratings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from fairlead.stats.agreement import agreement_report
from fairlead.stats.intervals import Interval
from fairlead.stats.votes import votes_from_rows
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Guideline, Person, Verdict
from fairlead.web.dashboard.keeping import Kept, keep

NUM_RESAMPLES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionRow:
    """One criterion."""

    name: str
    num_ratings: int
    percent: Interval
    """Equal ratings."""
    alpha: Interval
    """Ordinal: ratings that are near count as nearly equal."""
    mean: float


def criteria_of(database: Database, project_id: str) -> Kept[tuple[CriterionRow, ...]]:
    """At most a minute old; empty where no guideline asks for ratings."""
    return keep(database, project_id, "criteria", lambda: _read(database, project_id), kind=tuple[CriterionRow, ...])


def _read(database: Database, project_id: str) -> tuple[CriterionRow, ...]:
    with database.read() as rows:
        asked = rows.scalars(sa.select(Guideline.criteria).where(Guideline.project_id == project_id)).all()
        if not any(asked):
            return ()
        found = rows.execute(
            sa.select(Verdict.item_id, Person.name, Verdict.criteria).join(Person, Person.id == Verdict.person_id)
            .where(Verdict.project_id == project_id, Verdict.verdict != "skip").order_by(Verdict.event_number)
        ).all()  # fmt: skip
    return read_criteria((row[0], row[1], row[2]) for row in found)


def read_criteria(rows: Iterable[tuple[str, str, Mapping[str, Sequence[int]]]]) -> tuple[CriterionRow, ...]:
    """Measure.

    Args:
        rows: (item, rater, {criterion: a rating of each completion, in canonical order}).
    """
    ratings: dict[str, list[tuple[str, str, str]]] = {}
    for item, rater, given in rows:
        for name, values in given.items():
            ratings.setdefault(name, []).extend(
                (f"{item}/{place}", rater, str(value)) for place, value in enumerate(values)
            )
    return tuple(_row(name, given) for name, given in sorted(ratings.items()))


def _row(name: str, given: list[tuple[str, str, str]]) -> CriterionRow:
    report: dict[str, Any] = agreement_report(
        votes_from_rows(given), seed=0, num_resamples=NUM_RESAMPLES, level="ordinal"
    )
    return CriterionRow(name=name, num_ratings=len(given), percent=report["percent_agreement"], alpha=report["krippendorff_alpha"],
                        mean=float(np.mean([int(value) for _, _, value in given])))  # fmt: skip
