"""How far raters agree: overall, by slice of the items, by pair of raters; beside published figures and with why the limits conflict."""

import math
from dataclasses import dataclass

import numpy as np

from fairlead.core.summary import Chart, Series, Threshold
from fairlead.preferences.agreement import ALPHA
from fairlead.stats.agreement import agreement_report
from fairlead.stats.arrays import IntArray
from fairlead.stats.intervals import Interval, wilson
from fairlead.stats.rolling import PAUSE_BELOW, SCALE_ABOVE, WINDOW, RollingPoint, rolling_alpha
from fairlead.stats.thresholds import ConflictRow, Light, conflict_table, explain_conflict, light
from fairlead.stats.votes import Votes
from fairlead.store.annotation.database import Database
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.dashboard.sheet import Sheet, sheet_of

NUM_RESAMPLES = 1000
"""Bootstrap behind the intervals; half of it for slices."""
MIN_SHARED = 10
"""Items that two raters must share before their agreement is shown: below, the interval spans most of the range."""
MAX_RATERS = 40
"""In the matrix of pairs: nobody reads more columns, and a cell for every two of 200 raters takes seconds."""
MAX_POINTS = 200
"""Windows along the work: no chart shows more, and each has a bootstrap of its own."""
NAMES = {"percent_agreement": "Percent agreement", "krippendorff_alpha": "Krippendorff's alpha", "gwet_ac1": "Gwet's AC1",
         "fleiss_kappa": "Fleiss' kappa", "cohen_kappa": "Cohen's kappa"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One figure."""

    name: str
    value: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow:
    """Agreement on one part of the items."""

    field: str
    value: str
    num_votes: int
    percent: Interval
    alpha: Interval
    ac1: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCell:
    """Two raters on the items that both rated."""

    agreement: Interval
    """Undefined below `MIN_SHARED` shared items."""
    heat: int
    """0 (the same as chance or worse) to 4 (nearly always equal); -1 where not shown. Chooses the colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReading:
    """Everything on the page."""

    statistics: tuple[Statistic, ...]
    light: Light
    num_votes: int
    num_items: int
    """With two votes or more."""
    conflict: str
    conflict_rows: tuple[ConflictRow, ...]
    tie_share: float
    slices: tuple[SliceRow, ...]
    raters: tuple[str, ...]
    """Of the matrix: all, or the `MAX_RATERS` whose labels least often equal those of the others."""
    num_raters: int
    matrix: tuple[tuple[PairCell | None, ...], ...]
    """[R][R] of these raters; None on the diagonal."""
    rolling: tuple[RollingPoint, ...]


def agreement_of(database: Database, project_id: str) -> Kept[AgreementReading]:
    """At most a minute old."""
    return keep(
        database,
        project_id,
        "agreement",
        lambda: read_agreement(sheet_of(database, project_id).value),
        kind=AgreementReading,
    )


def read_agreement(sheet: Sheet) -> AgreementReading:
    """Measure."""
    votes = sheet.votes()
    report = agreement_report(votes, seed=0, num_resamples=NUM_RESAMPLES)
    shown, matrix = matrix_of(votes)
    tie_share = float(np.mean(votes.labels >= 2)) if len(votes.labels) else 0.0
    percent, alpha = report["percent_agreement"], report["krippendorff_alpha"]
    return AgreementReading(
        statistics=tuple(Statistic(name=NAMES[name], value=value) for name, value in report.items()), light=light(alpha, percent),
        num_votes=len(votes.items), num_items=percent.n, conflict=explain_conflict(percent, alpha, tie_share=tie_share),
        conflict_rows=conflict_table(tie_share=tie_share or 0.15), tie_share=tie_share, slices=_slices(sheet), raters=shown,
        num_raters=votes.num_raters, matrix=matrix, rolling=rolling_of(votes, percent.n) if percent.n else (),
    )  # fmt: skip


def rolling_of(votes: Votes, num_items: int) -> tuple[RollingPoint, ...]:
    """Windows along the work, at most `MAX_POINTS`.

    Args:
        num_items: with two votes or more.
    """
    return rolling_alpha(votes, seed=0, step=max(WINDOW // 4, -(-num_items // MAX_POINTS)), num_resamples=300)


def _slices(sheet: Sheet) -> tuple[SliceRow, ...]:
    rows: list[SliceRow] = []
    for field, part in sheet.slices.items():
        for value in sorted(part.values):
            votes = sheet.votes(sheet.rows_of_items(part.is_value(value)))
            if not len(votes.items):
                continue
            found = agreement_report(votes, seed=0, num_resamples=NUM_RESAMPLES // 2)
            rows.append(SliceRow(field=field, value=value, num_votes=len(votes.items), percent=found["percent_agreement"],
                                 alpha=found["krippendorff_alpha"], ac1=found["gwet_ac1"]))  # fmt: skip
    return tuple(rows)


def pair_counts(votes: Votes) -> tuple[IntArray, IntArray]:
    """[R, R] items that two raters share, and those of them with equal labels."""
    size = votes.num_raters
    shared, equal = np.zeros((size, size), dtype=np.int64), np.zeros((size, size), dtype=np.int64)
    order = np.argsort(votes.items, kind="stable")
    items, raters, labels = votes.items[order], votes.raters[order], votes.labels[order]
    for step in range(1, size):
        same = np.flatnonzero(items[step:] == items[:-step]) if step < len(items) else np.zeros(0, dtype=np.int64)
        if not len(same):
            break
        first, second = raters[same], raters[same + step]
        np.add.at(shared, (first, second), 1)
        np.add.at(equal, (first, second), labels[same] == labels[same + step])
    return shared + shared.T, equal + equal.T


def matrix_of(votes: Votes) -> tuple[tuple[str, ...], tuple[tuple[PairCell | None, ...], ...]]:
    """Names of the raters that are shown, and their cells."""
    if not votes.num_raters:
        return (), ()
    shared, equal = pair_counts(votes)
    shares = np.bincount(votes.labels, minlength=votes.num_labels) / len(votes.labels)
    chance = float(shares @ shares)
    agreed = np.where(shared.sum(1) > 0, equal.sum(1) / np.maximum(shared.sum(1), 1), 1.0)
    chosen = np.sort(np.argsort(agreed, kind="stable")[:MAX_RATERS]).tolist()
    cells = tuple(tuple(None if i == j else _cell(int(equal[i, j]), int(shared[i, j]), chance) for j in chosen) for i in chosen)  # fmt: skip
    return tuple(votes.rater_names[i] for i in chosen), cells


def _cell(num_equal: int, num_shared: int, chance: float) -> PairCell:
    if num_shared < MIN_SHARED:
        return PairCell(agreement=Interval(math.nan, math.nan, math.nan, num_shared, f"fewer than {MIN_SHARED} shared pairs"), heat=-1)  # fmt: skip
    found = wilson(num_equal, num_shared)
    beyond = (found.value - chance) / (1 - chance) if chance < 1 else 0.0
    return PairCell(agreement=found, heat=int(np.searchsorted([0.05, PAUSE_BELOW, SCALE_ABOVE, 0.8], beyond)))


def rolling_chart(reading: AgreementReading) -> Chart | None:
    """Alpha over the course of the work, window by window."""
    points = [point for point in reading.rolling if math.isfinite(point.alpha.value)]
    if not points:
        return None
    series = Series(label="alpha of the window", role="people", points=tuple((float(p.last_item + 1), p.alpha.value) for p in points),
                    band=tuple((float(p.last_item + 1), p.alpha.low, p.alpha.high) for p in points if math.isfinite(p.alpha.low)))  # fmt: skip
    return Chart(question="Does agreement hold along the work?", x_label="pairs with two votes or more", y_label="Krippendorff's alpha",
                 series=(series,), style="line" if len(points) > 1 else "points",
                 thresholds=(Threshold(label="noise below", value=ALPHA.stop or 0.4, kind="stop"),
                             Threshold(label="scale above", value=ALPHA.warn or 0.6, kind="target")))  # fmt: skip
