"""Every rater in small pictures: agreement, side, length, speed, variety of the verdicts, each with its healthy range.

Nothing here weighs or removes a vote. A picture outside its range is a reason to talk to the rater, and to look at the items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.preferences import raters as panel
from fairlead.stats.agreement import rater_agreement
from fairlead.stats.arrays import FloatArray, IntArray
from fairlead.stats.drift import bernoulli_cusum
from fairlead.stats.intervals import Interval, undefined, wilson
from fairlead.stats.numerics import two_sided_z
from fairlead.store.annotation.database import Database
from fairlead.web import drift
from fairlead.web.anchors import checks_of_all
from fairlead.web.dashboard.gauges import Gauge, Measure, Spark, draw, draw_spark
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.dashboard.sheet import LABELS, Sheet, sheet_of

MIN_VOTES = 10
"""Below this a share's interval spans more than half of the scale."""
LEFT = Measure(label="Left share", unit=" %", scale=100, low=0.0, high=1.0, healthy_low=0.4, healthy_high=0.6)
"""Sides are drawn at random, so half is expected; 60 % is told from 50 % after some 190 votes."""
LONGER = Measure(label="Longer wins", unit=" %", scale=100, low=0.0, high=1.0, healthy_low=0.45, healthy_high=0.70)
"""People preferred the longer reply in 64 % of AlpacaEval's pairs (alpaca_eval README)."""
AGREES = Measure(
    label="Agrees with the others", unit=" %", scale=100, low=0.0, high=1.0, healthy_low=0.60, healthy_high=1.0
)
"""60 % is the level that the calibration refuses."""
_ENDS_OF_SPEED = (0.25, 4.0)  # times the panel's usual time
SPEED_RANGE = (0.5, 2.0)
"""Times the panel's median: half of it is hardly time to read both replies, twice asks for a talk about what is unclear."""
ENTROPY_SHARE = 0.6
"""Of the panel's median variety; a rater who presses one key has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterCard:
    """One rater."""

    person_id: str
    name: str
    num_votes: int
    num_skips: int
    gauges: tuple[Gauge, ...]
    sparks: tuple[Spark, ...]
    remarks: tuple[str, ...]
    """near chance, drifts, favours left or right: false alarms of all together in one panel of twenty."""

    @property
    def num_out(self) -> int:
        """Pictures outside their range, and remarks."""
        return (
            sum(gauge.is_out for gauge in self.gauges) + sum(spark.is_out for spark in self.sparks) + len(self.remarks)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatersReading:
    """All raters, those with most outside their ranges first."""

    cards: tuple[RaterCard, ...]
    measures: tuple[Measure, ...]
    median_s: float
    """The panel's usual time for a pair; nan where unknown."""


def raters_of(database: Database, project_id: str) -> Kept[RatersReading]:
    """At most a minute old."""
    return keep(database, project_id, "raters", lambda: _read(database, project_id), kind=RatersReading)


def _read(database: Database, project_id: str) -> RatersReading:
    with database.read() as rows:
        found = checks_of_all(rows, project_id)
    answers: dict[str, list[bool]] = {}
    for person_id, _, is_right in found:
        answers.setdefault(person_id, []).append(is_right)
    return read_raters(sheet_of(database, project_id).value, anchors=answers)


def _anchor_spark(answers: Sequence[bool]) -> Spark:
    """Evidence of drift along the hidden anchors, as `web.drift` adds it up."""
    run = bernoulli_cusum(answers, p0=drift.P0, p1=drift.P1, h=drift.LEVEL)
    words = f"{sum(answers)} of {len(answers)} right"
    return draw_spark(
        "Hidden anchors: evidence of drift",
        run.path.tolist(),
        limit=drift.LEVEL,
        words=words,
        is_out=run.alarm is not None,
    )


def read_raters(sheet: Sheet, *, anchors: Mapping[str, Sequence[bool]] | None = None) -> RatersReading:
    """Measure every rater against the panel.

    Args:
        anchors: answers on hidden anchors by person id, in order: right or not.
    """
    votes = sheet.votes()
    agreement = rater_agreement(votes) if votes.num_raters else {}
    readings = panel.read_raters(votes, orders=sheet.positions[sheet.is_vote], outcomes={})
    remarks = {reading.name: reading.flags for reading in readings}
    size, is_vote = len(sheet.rater_names), sheet.is_vote
    rows = (
        np.split(np.argsort(sheet.raters, kind="stable"), np.cumsum(np.bincount(sheet.raters, minlength=size))[:-1])
        if size
        else []
    )
    times = [_median(sheet.active_s[own][np.isfinite(sheet.active_s[own])]) for own in rows]
    varieties = [_entropy(sheet, own[is_vote[own]]) for own in rows]
    median_s = _middle([time.value for time in times])
    variety = _middle([found.value for found in varieties])
    speed = Measure(label="Time for a pair", unit=" s", low=_ENDS_OF_SPEED[0] * (median_s or 1), high=_ENDS_OF_SPEED[1] * (median_s or 1),
                    healthy_low=SPEED_RANGE[0] * median_s, healthy_high=SPEED_RANGE[1] * median_s)  # fmt: skip
    top = max([found.high for found in varieties if math.isfinite(found.high)], default=1.0)
    entropy = Measure(label="Variety of verdicts", unit=" bits", digits=1, low=0.0, high=max(top, 1.0), healthy_low=ENTROPY_SHARE * variety,
                      healthy_high=max(top, 1.0))  # fmt: skip
    measures = (AGREES, LEFT, LONGER, speed, entropy)
    cards: list[RaterCard] = []
    for number, name in enumerate(sheet.rater_names):
        own = rows[number]
        if not len(own):  # everything was taken back
            continue
        sided = own[sheet.labels[own] < 2]
        known = agreement.get(name, undefined("no votes", n=0))
        values = (known, _left(sheet, sided), _longer(sheet, sided), times[number], varieties[number])
        gauges = tuple(draw(measure, value) for measure, value in zip(measures, values, strict=True))
        answers = (anchors or {}).get(sheet.rater_ids[number], ())
        cards.append(RaterCard(
            person_id=sheet.rater_ids[number], name=name, num_votes=int(is_vote[own].sum()), num_skips=int((~is_vote[own]).sum()),
            gauges=gauges, sparks=(_anchor_spark(answers),) if answers else (), remarks=remarks.get(name, ()),
        ))  # fmt: skip
    cards.sort(key=lambda card: (-card.num_out, card.name.lower()))
    shown = measures if math.isfinite(median_s) else (AGREES, LEFT, LONGER, entropy)
    return RatersReading(cards=tuple(cards), measures=shown, median_s=median_s)


def _middle(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def _share(hits: FloatArray) -> Interval:
    if len(hits) < MIN_VOTES:
        return undefined(f"after {MIN_VOTES} votes", n=len(hits))
    return wilson(int(hits.sum()), len(hits))


def _left(sheet: Sheet, rows: IntArray) -> Interval:
    """Args: rows: votes for one side."""
    return _share(((sheet.labels[rows] == 0) != sheet.swapped[rows]).astype(np.float64))


def _longer(sheet: Sheet, rows: IntArray) -> Interval:
    """Among votes for one side of replies of different length."""
    lengths = sheet.lengths[sheet.items[rows]]
    is_longer = lengths[:, 0] > lengths[:, 1]
    return _share(((sheet.labels[rows] == 0) == is_longer)[lengths[:, 0] != lengths[:, 1]].astype(np.float64))


def _median(times: FloatArray) -> Interval:
    """Median with the interval of order statistics (binomial, 95 %)."""
    n = len(times)
    if n < MIN_VOTES:
        return undefined(f"after {MIN_VOTES} votes", n=n)
    ordered = np.sort(times)
    half = two_sided_z(0.95) * math.sqrt(n) / 2
    low, high = max(math.floor(n / 2 - half), 0), min(math.ceil(n / 2 + half), n - 1)
    return Interval(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), n)


def _entropy(sheet: Sheet, rows: IntArray) -> Interval:
    """Bits of the verdicts as they were pressed: side, strength, tie, both bad.

    H = - sum p log2 p, corrected by (K - 1) / (2 n ln 2) (Miller and Madow 1955); interval by the delta method.
    """
    n = len(rows)
    if n < MIN_VOTES:
        return undefined(f"after {MIN_VOTES} votes", n=n)
    labels, strengths = sheet.labels[rows], np.abs(sheet.strengths[rows])
    is_side = labels < 2
    pressed = np.where(is_side, 2 * strengths + ((labels == 0) != sheet.swapped[rows]), 100 + labels)
    _, counts = np.unique(pressed, return_counts=True)
    p = counts / n
    plain = float(-(p * np.log2(p)).sum())
    value = plain + (len(counts) - 1) / (2 * n * math.log(2))
    half = two_sided_z(0.95) * math.sqrt(max(float((p * np.log2(p) ** 2).sum()) - plain**2, 0.0) / n)
    return Interval(value, max(value - half, 0.0), value + half, n)


assert LABELS[:2] == ("a", "b"), "sides are read off labels 0 and 1"
