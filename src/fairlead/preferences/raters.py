"""Which raters follow the panel, which are near chance, who favours a side, and who got worse.

Every vote is compared with the majority of the OTHER raters of the same item. A rater near chance is one whose interval includes
what dealing out the same labels at random would give, and lies below the panel's median: few votes alone flag nobody.

Example:
    raters = read_raters(verdicts.votes(), orders=verdicts.order, outcome=outcome)
    [r.name for r in raters if "near chance" in r.flags]
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlead.core.summary import Table
from fairlead.preferences.aggregate import RaterOutcome
from fairlead.stats.arrays import FloatArray, IntArray
from fairlead.stats.intervals import Interval, holm, wilson
from fairlead.stats.numerics import normal_cdf
from fairlead.stats.votes import Votes, counts

MIN_VOTES_TO_FLAG = 15  # below this an interval of agreement spans half of its range
_FALSE_ALARM = 0.05  # for the whole panel: tests are adjusted by Holm, intervals by Bonferroni


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterReading:
    """One rater as seen through the others."""

    name: str
    num_votes: int
    agreement: Interval
    """With the majority of the other raters; votes on which they tie, or where there are none, are not counted."""
    chance: float
    """Agreement expected if the rater's labels were dealt out at random; nan without a counted vote."""
    early: float
    """Agreement in the first half of the rater's counted votes."""
    late: float
    left: Interval
    """Share of votes for the completion on the left; undefined without two labels and recorded sides."""
    accuracy: float | None
    side_bias: float | None
    flags: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Plain values for raters.json; what is undefined is null."""
        return {
            "rater": self.name, "num_votes": self.num_votes, "agreement": _ends(self.agreement),
            "agreement_by_chance": _plain(self.chance), "agreement_early": _plain(self.early), "agreement_late": _plain(self.late),
            "left_share": _ends(self.left), "accuracy": self.accuracy, "side_bias_logits": self.side_bias, "flags": list(self.flags),
        }  # fmt: skip


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ends(found: Interval) -> dict[str, float | int | None]:
    return {"value": _plain(found.value), "low": _plain(found.low), "high": _plain(found.high), "n": found.n}


def others_agree(votes: Votes) -> tuple[FloatArray, IntArray]:
    """Hold every vote against the majority of the other raters of its item.

    Returns:
        [N] 1 where they agree, 0 where not, nan where the others tie or are not there; [N] the label of that majority, -1
        where there is none.
    Equals: `stats.agreement.rater_agreement` when summed by rater (tested).
    """
    others = counts(votes)[votes.items]
    others[np.arange(len(votes.items)), votes.labels] -= 1
    most = others.max(1, initial=0)
    is_counted = (most > 0) & (np.sum(others == most[:, None], axis=1) == 1)
    label = np.where(is_counted, others.argmax(1) if others.size else 0, -1)
    return np.where(is_counted, (label == votes.labels).astype(np.float64), np.nan), label


def read_raters(votes: Votes, *, orders: IntArray | None, outcomes: Mapping[str, RaterOutcome]) -> list[RaterReading]:
    """Read every rater, worst agreement first.

    Args:
        orders: [N] position of each vote in its rater's own sequence; None where unknown, and drift is not looked for.
        outcomes: estimates of the aggregation, by rater.
    """
    hits, majority_labels = others_agree(votes)
    confidence = 1 - _FALSE_ALARM / max(1, votes.num_raters)
    readings: list[RaterReading] = []
    falls: list[float] = []
    for number, name in enumerate(votes.rater_names):
        own = np.flatnonzero(votes.raters == number)
        own = own[np.argsort(orders[own], kind="stable")] if orders is not None else own
        counted = own[np.isfinite(hits[own])]
        early, late = np.array_split(hits[counted], 2) if orders is not None else (np.zeros(0), np.zeros(0))
        known = outcomes.get(name, RaterOutcome(accuracy=None, side_bias=None))
        readings.append(RaterReading(
            name=name, num_votes=len(own), agreement=wilson(float(hits[counted].sum()), len(counted)),
            chance=_chance(votes, counted, majority_labels), early=_mean(early), late=_mean(late),
            left=_left_share(votes, own, confidence=confidence), accuracy=known.accuracy, side_bias=known.side_bias,
        ))  # fmt: skip
        falls.append(falling_trend(hits[counted]) if orders is not None else 1.0)
    return _flagged(readings, falls)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterCounts:
    """What is known of a rater without the votes themselves."""

    num_votes: int
    concord: Mapping[tuple[str, str], int]
    """Votes by (own label, label of the majority of the others); those without a majority are left out."""
    num_left: int
    num_right: int


def read_raters_of_counts(raters: Mapping[str, RaterCounts]) -> list[RaterReading]:
    """`read_raters` from totals: the same but for what needs the order of the votes or an aggregation."""
    confidence = 1 - _FALSE_ALARM / max(1, len(raters))
    readings: list[RaterReading] = []
    for name, found in raters.items():
        num_counted = sum(found.concord.values())
        hits = sum(num for (own, others), num in found.concord.items() if own == others)
        own, others = Counter[str](), Counter[str]()
        for (label, majority), num in found.concord.items():
            own[label] += num
            others[majority] += num
        chance = sum(num * others[label] for label, num in own.items()) / num_counted**2 if num_counted else math.nan
        left = wilson(found.num_left, found.num_left + found.num_right, confidence=confidence)
        readings.append(RaterReading(
            name=name, num_votes=found.num_votes, agreement=wilson(hits, num_counted), chance=chance, early=math.nan,
            late=math.nan, left=left, accuracy=None, side_bias=None,
        ))  # fmt: skip
    return _flagged(readings, [1.0] * len(readings))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _chance(votes: Votes, counted: IntArray, majority_labels: IntArray) -> float:
    if not len(counted):
        return math.nan
    own = np.bincount(votes.labels[counted], minlength=votes.num_labels) / len(counted)
    others = np.bincount(majority_labels[counted], minlength=votes.num_labels) / len(counted)
    return float(own @ others)


def _left_share(votes: Votes, own: IntArray, *, confidence: float) -> Interval:
    """Labels 0 and 1 are a and b; a tie stands on no side, nor does a vote that was given without sides."""
    if votes.swapped is None or votes.label_names[:2] != ("a", "b"):
        return wilson(0, 0)
    decided = own[votes.labels[own] < 2]
    decided = decided if votes.sided is None else decided[votes.sided[decided]]
    is_left = (votes.labels[decided] == 0) != votes.swapped[decided]
    return wilson(int(is_left.sum()), len(decided), confidence=confidence)


def falling_trend(hits: FloatArray) -> float:
    """P-value, one-sided, that hits [n] in their order do not become rarer.

    Source: the Cochran-Armitage trend test with the position as score; Armitage 1955, Biometrics 11.
    """
    share = _mean(hits)
    if len(hits) < MIN_VOTES_TO_FLAG or share in (0.0, 1.0):
        return 1.0
    position = np.arange(len(hits)) - (len(hits) - 1) / 2
    z = float(position @ (hits - share)) / math.sqrt(share * (1 - share) * float(position @ position))
    return float(normal_cdf(z))


def _flagged(readings: list[RaterReading], falls: Sequence[float]) -> list[RaterReading]:
    known = [r.agreement.value for r in readings if r.agreement.n]
    median = float(np.median(known)) if known else math.nan
    result = [
        dataclasses.replace(r, flags=_flags(r, median=median, fall=float(fall)))
        for r, fall in zip(readings, holm(falls), strict=True)
    ]
    return sorted(result, key=lambda r: (r.agreement.value if r.agreement.n else math.inf, r.name))


def _flags(reading: RaterReading, *, median: float, fall: float) -> tuple[str, ...]:
    flags: list[str] = []
    found, left = reading.agreement, reading.left
    if found.n >= MIN_VOTES_TO_FLAG and found.high < median and found.low <= reading.chance:
        flags.append("near chance")
    if fall < _FALSE_ALARM:
        flags.append("drifts")
    if left.n and not left.low <= 0.5 <= left.high:
        flags.append("favours left" if left.value > 0.5 else "favours right")
    return tuple(flags)


def rater_table(readings: Sequence[RaterReading]) -> Table:
    """Worst agreement first."""
    rows = tuple(
        (r.name, r.num_votes, _plain(r.agreement.value), _plain(r.agreement.low), _plain(r.agreement.high), _plain(r.chance),
         _plain(r.early), _plain(r.late), r.accuracy, r.side_bias, _plain(r.left.value), ", ".join(r.flags))
        for r in readings
    )  # fmt: skip
    return Table(
        title="Raters", rows=rows,
        columns=("rater", "votes", "agreement", "low", "high", "by chance", "first half", "second half", "estimated accuracy",
                 "side bias (logits to the left)", "left share", "remark"),
        caption="Agreement is with the majority of the other raters of the same pair. Remarks on drift and sides give one false alarm "
        "in twenty panels; near chance: the interval includes chance and lies below the panel's median.",
    )  # fmt: skip
