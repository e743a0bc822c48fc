"""What a shared round (everybody rates the same pairs) says about the guideline and about single raters.

Low agreement has two causes with opposite remedies. Where a guideline is vague, all disagree with all; where one rater misread it, the
others agree as soon as that rater is left out. The two are told apart by a test that holds the items fixed: if raters are exchangeable,
the agreement of one with the others of an item is a draw from those of all raters of that item, so difficult items count against nobody.

Legend:
    I  items, R raters
    own agreement: share of the other votes of the item that equal one's own

Example:
    verdict = read_round(votes, seed=0)
    verdict.kind, verdict.deviating      # one_deviates, ('cem',)
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fairlead.stats.agreement import bootstrap_counts
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.coincidence import percent
from fairlead.stats.intervals import Interval, holm, undefined
from fairlead.stats.numerics import normal_cdf, sum_by_group
from fairlead.stats.votes import Votes, counts, refuse_repeats

RoundKind = Literal["clear", "vague_guideline", "raters_deviate", "camps", "not_measured"]

GATE = 0.65
"""Agreement on 50 shared pairs below which the guides call a guideline vague."""
LEVEL = 0.05
"""Chance that any rater of an exchangeable team is called deviating."""
MAX_DEVIATING = 1 / 3
"""Where more raters than this deviate, the guideline has two readings, and nobody is singled out."""

_LATTICE = 60
"""Steps of the lattice from 0 to 1 on which own agreement is counted; shares of up to six other votes lie on it exactly."""
_MAX_LATTICE = 60_000

_REMEDIES = {
    "clear": "Nothing is to be done; raters who pass their own gate may begin",
    "vague_guideline": "Discuss the disagreements with all raters, amend the guideline, repeat the round",
    "raters_deviate": "Go through the disagreements with {raters}, then give them a round of new pairs; the guideline serves the others",
    "camps": "The guideline has two readings: {raters} follow another than the rest; decide which one holds, amend it, repeat the round",
    "not_measured": "Give at least two raters the same pairs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterStanding:
    """One rater among the others, on the items that they share."""

    rater: str
    own: float
    """Mean own agreement; nan where no item is shared."""
    expected: float
    """What a rater drawn at random from those of the same items shows."""
    num_items: int
    p_value: float
    """Chance of an own agreement this low or lower if raters were exchangeable, adjusted for their number (Holm)."""
    is_deviating: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundVerdict:
    """The reading of one round."""

    kind: RoundKind
    deviating: tuple[str, ...]
    """Raters to talk to, furthest first."""
    agreement: Interval
    """Percent agreement of all."""
    agreement_of_rest: Interval
    """The same without those who deviate; equal to `agreement` where nobody does."""
    is_certain: bool
    """Does the interval that decided lie on one side of the gate?"""
    standings: tuple[RaterStanding, ...]
    remedy: str


def read_round(
    votes: Votes, *, seed: int, gate: float = GATE, level: float = LEVEL, num_resamples: int = 2000
) -> RoundVerdict:
    """Tell a vague guideline from raters who deviate.

    Raters are taken out one at a time, the most significant first, and the rest is tested again, because one who deviates lowers
    everybody's agreement.

    Args:
        gate: percent agreement that a clear guideline reaches.
    """
    refuse_repeats(votes)
    everything = np.ones(len(votes.items), dtype=np.bool_)
    agreement = _agreement(votes, everything, seed=seed, num_resamples=num_resamples)
    first = _standings(votes, everything)
    deviating, order = _take_out(votes, level)
    is_kept = ~np.isin(votes.raters, [votes.rater_names.index(name) for name in order])
    rest = _agreement(votes, is_kept, seed=seed, num_resamples=num_resamples) if order else agreement
    standings = tuple(
        RaterStanding(rater=name, own=own, expected=expected, num_items=n, p_value=deviating.get(name, p), is_deviating=name in order)
        for name, own, expected, n, p in first
    )  # fmt: skip
    if not math.isfinite(agreement.value):
        kind: RoundKind = "not_measured"
    elif len(order) > MAX_DEVIATING * votes.num_raters:
        kind = "camps"
    elif not rest.value >= gate:
        kind = "vague_guideline"
    else:
        kind = "raters_deviate" if order else "clear"
    is_certain = rest.low >= gate or rest.high < gate
    return RoundVerdict(kind=kind, deviating=order, agreement=agreement, agreement_of_rest=rest, is_certain=is_certain,
                        standings=standings, remedy=_REMEDIES[kind].format(raters=", ".join(order)))  # fmt: skip


def _take_out(votes: Votes, level: float) -> tuple[dict[str, float], tuple[str, ...]]:
    """Deviating raters with the adjusted p-value at which each was taken out; more than two always remain."""
    found: dict[str, float] = {}
    is_kept = np.ones(len(votes.items), dtype=np.bool_)
    while votes.num_raters - len(found) > 2:
        rows = [row for row in _standings(votes, is_kept) if row[0] not in found and math.isfinite(row[4])]
        if not rows:
            break
        name, *_, p = min(rows, key=lambda row: row[4])
        if not p < level:
            break
        found[name] = p
        is_kept &= votes.raters != votes.rater_names.index(name)
    return found, tuple(found)


def _standings(votes: Votes, is_kept: BoolArray) -> list[tuple[str, float, float, int, float]]:
    """(rater, own, expected, items, adjusted p) of all raters on the kept votes."""
    items, raters, labels = votes.items[is_kept], votes.raters[is_kept], votes.labels[is_kept]
    table = np.zeros((votes.num_items, max(votes.num_labels, 1)))
    np.add.at(table, (items, labels), 1)
    totals = table.sum(1)
    is_shared = totals[items] >= 2
    items, raters, labels = items[is_shared], raters[is_shared], labels[is_shared]
    own = (table[items, labels] - 1) / (totals[items] - 1)
    mean, spread = _per_item(own, items, votes.num_items)
    n = sum_by_group(np.ones(len(items)), raters, votes.num_raters)
    lows = np.array([_low_tail(own, items, mean, spread, np.flatnonzero(raters == r)) for r in range(votes.num_raters)])
    is_measured = n > 0
    p_values = np.full(votes.num_raters, np.nan)
    p_values[is_measured] = holm(lows[is_measured])
    mean_own = np.where(is_measured, sum_by_group(own, raters, votes.num_raters) / np.maximum(n, 1), np.nan)
    expected = np.where(is_measured, sum_by_group(mean[items], raters, votes.num_raters) / np.maximum(n, 1), np.nan)
    return [
        (name, float(mean_own[r]), float(expected[r]), int(n[r]), float(p_values[r]))
        for r, name in enumerate(votes.rater_names)
    ]


def _low_tail(own: FloatArray, items: IntArray, mean: FloatArray, spread: FloatArray, mine: IntArray) -> float:
    """Chance that votes drawn from those of the same items agree with the others as little as these do.

    Exact, by convolution over the items, up to `_MAX_LATTICE` points; the normal approximation beyond.
    """
    mine = mine[spread[items[mine]] > 0]  # where all agree alike, nothing is drawn
    if len(mine) == 0:
        return 1.0
    gap = float(np.sum(own[mine] - mean[items[mine]]))
    if len(mine) * _LATTICE > _MAX_LATTICE:
        return float(normal_cdf(gap / math.sqrt(float(spread[items[mine]].sum()))))
    places = np.round(own * _LATTICE).astype(np.int64)
    chances = np.ones(1)
    for item in items[mine].tolist():
        drawn = np.bincount(places[items == item])
        chances = np.convolve(chances, drawn / drawn.sum())
    return min(1.0, float(chances[: int(places[mine].sum()) + 1].sum()))


def _per_item(own: FloatArray, items: IntArray, num_items: int) -> tuple[FloatArray, FloatArray]:
    """[I] mean and variance of own agreement over the raters of each item."""
    n = np.maximum(sum_by_group(np.ones(len(items)), items, num_items), 1)
    mean = sum_by_group(own, items, num_items) / n
    return mean, np.maximum(sum_by_group(own**2, items, num_items) / n - mean**2, 0.0)


def _agreement(votes: Votes, is_kept: BoolArray, *, seed: int, num_resamples: int) -> Interval:
    kept = Votes(items=votes.items[is_kept], raters=votes.raters[is_kept], labels=votes.labels[is_kept], item_names=votes.item_names,
                 rater_names=votes.rater_names, label_names=votes.label_names)  # fmt: skip
    table = counts(kept)
    table = table[table.sum(1) >= 2]
    if len(table) == 0:
        return undefined("no item has two votes", n=0)
    return bootstrap_counts({"percent": percent}, table, seed=seed, num_resamples=num_resamples)["percent"]
