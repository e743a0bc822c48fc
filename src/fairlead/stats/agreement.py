"""Agreement between raters: percent, Cohen, Fleiss, Krippendorff, Gwet, with intervals.

Krippendorff's alpha is the primary statistic (any number of votes per item). Intervals resample ITEMS and keep all votes of an
item together. Every statistic but Cohen's depends on the votes only through how often each label was given to each item, so
items with equal counts are exchangeable: resampling items is one multinomial draw over the distinct rows of counts, and the
statistic of a resample needs only weighted sums over these rows.

Legend:
    N  votes, I items, R raters, K labels
    D  distinct rows of counts
    B  resamples (or 1 for the data itself)

Example:
    agreement_report(votes, seed=0)["krippendorff_alpha"]  # Interval(value=0.52, low=0.49, high=0.55, n=807)
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.coincidence import Statistic, ac1, alpha_fixed, alpha_ordinal, fleiss, percent
from fairlead.stats.intervals import Interval, aligned, replicate_interval, undefined, wilson
from fairlead.stats.numerics import sum_by_group, two_sided_z
from fairlead.stats.published import REFERENCE_ROWS
from fairlead.stats.votes import Votes, counts, label_values, refuse_repeats

Level = Literal["nominal", "ordinal", "interval"]
KappaWeights = Literal["linear", "quadratic"]

UNANIMOUS = "undefined: unanimous"
NO_SHARED_ITEMS = "undefined: no item has two votes"
UNEQUAL_VOTES = "undefined: items differ in their number of votes"

BCA_BELOW_ITEMS = 100
"""Below this many items percentile intervals are visibly too narrow and the leave-one-out values are cheap."""

_WEIGHTS_PER_CHUNK = 4_000_000
"""Bounds the memory of resampling at 64 MB, whatever the number of items."""

__all__ = [
    "REFERENCE_ROWS",
    "agreement_report",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "kappa_from_percent",
    "krippendorff_alpha",
    "leave_one_out_outcomes",
    "num_pairs",
    "percent_agreement",
    "rater_agreement",
    "report_of_counts",
]


def percent_agreement(votes: Votes) -> float:
    """Mean over items of the share of pairs of raters who agree: sum_c n_c (n_c - 1) / (n (n - 1)). Items with one vote say nothing."""
    return _on_data(percent, votes)


def fleiss_kappa(votes: Votes) -> float:
    """Agreement beyond what raters with the pooled label shares would show by chance; nan when everybody agrees on one label.

    Raises:
        DataError: items with two votes or more differ in their number of votes; Krippendorff's alpha has no such condition.
    Source: Fleiss 1971, Psychological Bulletin 76.
    """
    if not _has_equal_votes(_shared_counts(votes)):
        raise DataError(explain("votes", None, "differ in number between items", expected="the same number on every item",
                                remedy="Use krippendorff_alpha"))  # fmt: skip
    return _on_data(fleiss, votes)


def krippendorff_alpha(votes: Votes, *, level: Level = "nominal") -> float:
    """1 - observed / expected disagreement over the pairs of votes within items; nan when there is one label only.

    Args:
        level: `ordinal` reads the order of `label_names`, `interval` reads the names as numbers.
    Raises:
        DataError: level is `interval` and a label is not a number.
    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability.
    """
    return _on_data(_alpha(votes, level), votes)


def gwet_ac1(votes: Votes) -> float:
    """Agreement beyond chance where chance is sum_c p_c (1 - p_c) / (K - 1); stays sensible when one label dominates.

    K counts all of `label_names`, those that nobody used too.
    Source: Gwet 2008, British Journal of Mathematical and Statistical Psychology 61.
    Differs: the label shares are those of the items with two votes or more; irrCAC counts items with one vote too (.7754 where
        this gives .7752 on Krippendorff's example).
    """
    return _on_data(ac1, votes)


def cohen_kappa(
    a: ArrayLike, b: ArrayLike, *, weights: KappaWeights | None = None, confidence: float = 0.95
) -> Interval:
    """Agreement of two raters beyond what their own label shares would show by chance.

    kappa = (p_o - p_e) / (1 - p_e) with p_o = sum_ij w_ij p_ij; weights count near misses of ordered labels in part.

    Args:
        a: [I] label numbers of the first rater.
        b: [I] label numbers of the second rater.
    Raises:
        DataError: the lists differ in length, or hold something else than label numbers 0, 1, 2, ...
    Source: Cohen 1960 and 1968; large-sample variance of Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72.
    """
    first, second = _label_numbers(a, b)
    n = len(first)
    if n == 0:
        return undefined(NO_SHARED_ITEMS, n=0)
    size = int(max(first.max(), second.max())) + 1
    table = np.bincount(first * size + second, minlength=size * size).reshape(size, size) / n
    credit = _kappa_credit(size, weights)
    rows, columns = table.sum(1), table.sum(0)
    expected = float(rows @ credit @ columns)
    if expected > 1 - 1e-12:
        return undefined(UNANIMOUS, n=n)
    if min(np.count_nonzero(rows), np.count_nonzero(columns)) == 1:
        return Interval(0.0, math.nan, math.nan, n, "one rater used a single label, so kappa says nothing")
    kappa = (float(np.sum(credit * table)) - expected) / (1 - expected)
    marginal = (credit @ columns)[:, None] + (rows @ credit)[None, :]
    spread = float(np.sum(table * (credit - marginal * (1 - kappa)) ** 2)) - (kappa - expected * (1 - kappa)) ** 2
    half = two_sided_z(confidence) * math.sqrt(max(spread, 0.0) / n) / (1 - expected)
    note = "no disagreement was seen, so the interval has no width" if kappa > 1 - 1e-12 else ""
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n, note)


def _label_numbers(a: ArrayLike, b: ArrayLike) -> tuple[IntArray, IntArray]:
    columns = aligned(a=a, b=b)
    for name, column in zip("ab", columns, strict=True):
        is_wrong = ~((column >= 0) & (column == np.floor(column)) & np.isfinite(column))
        if is_wrong.any():
            raise DataError(explain(name, float(column[is_wrong][0]), "is not a label number", expected="0, 1, 2, ...",
                                    remedy="Number the labels, in rank order if weights are used"))  # fmt: skip
    first, second = columns
    return first.astype(np.int64), second.astype(np.int64)


def kappa_from_percent(percent: float) -> float:
    """Kappa of pairwise votes without ties whose sides are balanced: chance is one half, so kappa = 2 p - 1."""
    return 2 * percent - 1


def num_pairs(votes: Votes) -> int:
    """Number of pairs of votes on the same item: what agreement is measured on."""
    refuse_repeats(votes)
    per_item = counts(votes).sum(1)
    return int(np.sum(per_item * (per_item - 1) // 2))


def rater_agreement(votes: Votes) -> dict[str, Interval]:
    """Share of each rater's votes that equal the majority of the OTHER raters of the item.

    Items on which the others tie, or where there are no others, say nothing about the rater and are not counted.
    """
    is_counted, is_equal = _against_others(votes)
    measured = sum_by_group(is_counted, votes.raters, votes.num_raters)
    agreed = sum_by_group(is_equal, votes.raters, votes.num_raters)
    return {name: wilson(float(agreed[r]), int(measured[r])) for r, name in enumerate(votes.rater_names)}


def leave_one_out_outcomes(votes: Votes) -> dict[str, list[tuple[str, bool]]]:
    """For each rater, (item, whether the vote equals the majority of the OTHERS) in the order of the votes: what a sequential test reads.

    Items on which the others tie, or where there are none, are left out as in `rater_agreement`.
    """
    is_counted, is_equal = _against_others(votes)
    found: dict[str, list[tuple[str, bool]]] = {name: [] for name in votes.rater_names}
    for i in np.flatnonzero(is_counted).tolist():
        found[votes.rater_names[int(votes.raters[i])]].append(
            (votes.item_names[int(votes.items[i])], bool(is_equal[i]))
        )
    return found


def equals_majority_of_others(counts_of_all: Mapping[str, int], own: str) -> bool | None:
    """Whether a vote is the majority of the OTHERS on its item; None where they tie or there are none. `leave_one_out_outcomes` of one vote.

    Args:
        counts_of_all: votes of the item by label, the one's own among them.
    """
    others = {label: num - (label == own) for label, num in counts_of_all.items()}
    most = max(others.values(), default=0)
    if most <= 0 or sum(num == most for num in others.values()) > 1:
        return None
    return others.get(own, 0) == most


def _against_others(votes: Votes) -> tuple[BoolArray, BoolArray]:
    """[N] whether the others of the item have a majority, and whether the vote is it."""
    refuse_repeats(votes)
    others = counts(votes)[votes.items]
    own = (np.arange(len(votes.items)), votes.labels)
    others[own] -= 1
    most = others.max(1, initial=0)
    is_counted = (most > 0) & (np.sum(others == most[:, None], axis=1) == 1)
    return is_counted, is_counted & (others[own] == most)


def agreement_report(
    votes: Votes, *, seed: int, num_resamples: int = 2000, level: Level = "nominal"
) -> dict[str, Interval]:
    """All agreement statistics with 95% intervals that resample items.

    Returns:
        `percent_agreement`, `krippendorff_alpha`, `gwet_ac1`, `fleiss_kappa`, and `cohen_kappa` (analytic interval) where there
        are exactly two raters. n is the number of items with two votes or more. What is undefined is nan and says why.
    """
    table = _shared_counts(votes)
    report = _report(
        table, np.ones(len(table), dtype=np.int64), _alpha(votes, level), seed=seed, num_resamples=num_resamples
    )
    if len(table) and votes.num_raters == 2:
        report["cohen_kappa"] = cohen_kappa(*_shared_labels(votes))
    return report


def report_of_counts(table: IntArray, times: IntArray, *, seed: int, num_resamples: int = 2000) -> dict[str, Interval]:
    """`agreement_report` of items that are known by how often they got each label (nominal), without Cohen's kappa.

    Args:
        table: [D, K] votes by label.
        times: [D] items with these counts.
    """
    is_shared = table.sum(1) >= 2
    alpha = alpha_fixed(1 - np.eye(table.shape[1]))
    return _report(table[is_shared], times[is_shared], alpha, seed=seed, num_resamples=num_resamples)


def _report(
    table: IntArray, times: IntArray, alpha: Statistic, *, seed: int, num_resamples: int
) -> dict[str, Interval]:
    if len(table) == 0:
        names = ("percent_agreement", "krippendorff_alpha", "gwet_ac1", "fleiss_kappa")
        return dict.fromkeys(names, undefined(NO_SHARED_ITEMS, n=0))
    statistics: dict[str, Statistic] = {"percent_agreement": percent, "krippendorff_alpha": alpha, "gwet_ac1": ac1}
    if _has_equal_votes(table):
        statistics["fleiss_kappa"] = fleiss
    report = bootstrap_counts(statistics, table, times=times, seed=seed, num_resamples=num_resamples)
    report.setdefault("fleiss_kappa", undefined(UNEQUAL_VOTES, n=int(times.sum())))
    return report


def bootstrap_counts(
    statistics: dict[str, Statistic], table: IntArray, *, times: IntArray | None = None, seed: int, num_resamples: int
) -> dict[str, Interval]:
    """Bootstrap statistics of the counts [I, K] over items; BCa intervals below 100 items, percentiles otherwise.

    Args:
        times: [I] items that a row stands for; one each where None.
    """
    rows, which = np.unique(table, axis=0, return_inverse=True)
    times = np.bincount(which.reshape(-1), weights=times, minlength=len(rows)).astype(np.int64)
    distinct, data, num_items = rows.astype(np.float64), times.astype(np.float64)[None, :], int(times.sum())
    weights = resample_weights(times, seed=seed, num_resamples=num_resamples)
    replicates = {name: [statistic(distinct, chunk) for chunk in weights] for name, statistic in statistics.items()}
    report: dict[str, Interval] = {}
    for name, statistic in statistics.items():
        left_out = None
        if num_items < BCA_BELOW_ITEMS:
            left_out = np.repeat(statistic(distinct, data - np.eye(len(times))), times)
        value = float(statistic(distinct, data)[0])
        interval = replicate_interval(value, np.concatenate(replicates[name]), n=num_items, left_out=left_out)
        report[name] = interval if math.isfinite(value) else undefined(UNANIMOUS, n=num_items)
    return report


def resample_weights(times: IntArray, *, seed: int, num_resamples: int) -> list[FloatArray]:
    """How often each distinct row occurs when items are drawn with replacement, [B, D] in chunks that add up to `num_resamples`."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _WEIGHTS_PER_CHUNK // len(times))
    sizes = [min(chunk, num_resamples - start) for start in range(0, num_resamples, chunk)]
    total = int(times.sum())
    return [rng.multinomial(total, times / total, size=size).astype(np.float64) for size in sizes]


def _on_data(statistic: Statistic, votes: Votes) -> float:
    table = _shared_counts(votes)
    if len(table) == 0:
        return math.nan
    return float(statistic(table.astype(np.float64), np.ones((1, len(table))))[0])


def _shared_counts(votes: Votes) -> IntArray:
    refuse_repeats(votes)
    table = counts(votes)
    return table[table.sum(1) >= 2]


def _has_equal_votes(table: IntArray) -> bool:
    return len(np.unique(table.sum(1))) <= 1


def _alpha(votes: Votes, level: Level) -> Statistic:
    if level == "ordinal":
        return alpha_ordinal
    if level == "nominal":
        return alpha_fixed(1 - np.eye(votes.num_labels))
    values = label_values(votes)
    return alpha_fixed((values[:, None] - values[None, :]) ** 2)


def _kappa_credit(size: int, weights: KappaWeights | None) -> FloatArray:
    if weights not in (None, "linear", "quadratic"):
        raise DataError(explain("weights", weights, "is not known", expected="linear, quadratic or None", remedy="Choose one of these"))  # fmt: skip
    if weights is None or size == 1:
        return np.eye(size)
    gaps = np.abs(np.arange(size)[:, None] - np.arange(size)[None, :]) / (size - 1)
    return 1 - gaps if weights == "linear" else 1 - gaps**2


def _shared_labels(votes: Votes) -> tuple[IntArray, IntArray]:
    labels = np.full((2, votes.num_items), -1, dtype=np.int64)
    labels[votes.raters, votes.items] = votes.labels
    is_shared = (labels >= 0).all(0)
    return labels[0, is_shared], labels[1, is_shared]
