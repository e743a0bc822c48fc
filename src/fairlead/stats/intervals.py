"""Intervals and tests: how sure we are of a number. Every figure that people read comes from here with its n.

Tests return p-values, two-sided unless they say otherwise; estimates return `Interval`. What cannot be computed is `nan` with
a note that says why, never a silent 0 or 1.

Legend:
    N  observations

Example:
    wilson(131, 200)  # Interval(value=0.655, low=0.587, high=0.717, n=200, note='')
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.numerics import (
    binomial_at_most,
    normal_cdf,
    normal_quantile,
    quantile,
    student_tail,
    two_sided_t,
    two_sided_z,
)

BootstrapMethod = Literal["percentile", "bca"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, the ends of its interval, and the number of observations behind it."""

    value: float
    low: float
    """Lower end; nan when there is no interval, and `note` says why."""
    high: float
    n: int
    note: str = ""


def undefined(note: str, *, n: int) -> Interval:
    """Return the interval of something that cannot be computed, with the reason."""
    return Interval(math.nan, math.nan, math.nan, n, note)


def aligned(**columns: ArrayLike) -> tuple[FloatArray, ...]:
    """Return columns as numbers, [N] each.

    Raises:
        DataError: they differ in length, or are not plain lists of numbers; numpy would repeat a single value for all.
    """
    try:
        found = tuple(np.asarray(column, dtype=np.float64) for column in columns.values())
    except (TypeError, ValueError) as error:
        raise DataError(explain(", ".join(columns), None, f"are not numbers ({error})", expected="lists of numbers",
                                remedy="Pass numbers")) from error  # fmt: skip
    if len({column.shape for column in found}) > 1 or any(column.ndim != 1 for column in found):
        shapes = " and ".join(str(column.shape) for column in found)
        raise DataError(explain(", ".join(columns), None, f"have the shapes {shapes}", expected="one value of each for every item",
                                remedy="Pass lists of the same length"))  # fmt: skip
    return found


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a share.

    Args:
        successes: may end in .5 where ties count half.
    Raises:
        DataError: there are more successes than observations, or fewer than none.
    Source: Wilson 1927, JASA 22.
    """
    if not 0 <= successes <= n:
        raise DataError(explain("successes", successes, f"do not fit {n} observations", expected="from 0 to n",
                                remedy="Check which count is which"))  # fmt: skip
    if n == 0:
        return undefined("no observations", n=0)
    z = two_sided_z(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n)


def mean_interval(x: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student interval of the mean of [N] independent observations."""
    (values,) = aligned(x=x)
    n = len(values)
    if n == 0:
        return undefined("no observations", n=0)
    if not np.isfinite(values).all():
        return undefined(_not_finite(values), n=n)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "one observation has no spread")
    half = two_sided_t(confidence, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(before: ArrayLike, after: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student interval of the mean of `after - before`, [N] pairs (of one prompt, one item)."""
    first, second = aligned(before=before, after=after)
    return mean_interval(second - first, confidence=confidence)


def _not_finite(values: FloatArray) -> str:
    return f"{int(np.sum(~np.isfinite(values)))} of {len(values)} values are not finite numbers"


def difference_interval(before: Interval, after: Interval) -> Interval:
    """Interval of `after - before` from the intervals of two independent estimates, whatever made them.

    low = d - sqrt((after - after.low)^2 + (before.high - before)^2), high with the other ends.

    Returns:
        n is the smaller of both; undefined where one of them is.
    Source: Zou and Donner 2008, Statistics in Medicine 27 (MOVER); for Wilson intervals of shares it is Newcombe 1998, method 10.
    """
    n = min(before.n, after.n)
    if not (math.isfinite(before.value) and math.isfinite(after.value)):
        return undefined("one of both is not measured", n=n)
    change = after.value - before.value
    if not all(map(math.isfinite, (before.low, before.high, after.low, after.high))):
        return Interval(change, math.nan, math.nan, n, "one of both has no interval")
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Interval(change, change - down, change + up, n)


def correlation_interval(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: Literal["fisher", "bootstrap"] = "fisher",
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Spearman's rank correlation of [N] pairs.

    Args:
        method: `fisher` transforms with the variance (1 + r^2/2)/(n - 3); `bootstrap` resamples the pairs with `seed`.
    Source: Bonett and Wright 2000, Psychometrika 65.
    """
    first, second = aligned(x=x, y=y)
    n = len(first)
    if not np.isfinite(first + second).all():
        return undefined(_not_finite(first + second), n=n)
    if n < 4:
        return undefined("fewer than 4 pairs", n=n)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return undefined("a constant has no correlation", n=n)
    if method == "bootstrap":
        return bootstrap_interval(
            lambda rows: rank_correlation(first[rows], second[rows]), n, seed=seed, confidence=confidence
        )
    value = rank_correlation(first, second)
    if abs(value) > 1 - 1e-12:
        return Interval(round(value), round(value), round(value), n, "the ranks agree exactly")
    half = two_sided_z(confidence) * math.sqrt((1 + value * value / 2) / (n - 3))
    return Interval(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half), n)


def rank_correlation(x: FloatArray, y: FloatArray) -> float:
    """Spearman's correlation, nan when one side is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(average_ranks(x), average_ranks(y))[0, 1])


def average_ranks(x: FloatArray) -> FloatArray:
    """Rank [N] values from 1; equal values share the mean of their ranks."""
    _, places, times = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(times) - (times - 1) / 2)[places]


def bootstrap_interval(
    statistic: Callable[[IntArray], float],
    num_items: int,
    *,
    seed: int,
    num_resamples: int = 2000,
    method: BootstrapMethod = "percentile",
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap a statistic over items drawn with replacement.

    Args:
        statistic: maps item numbers [num_items], with repeats, to a value; nan where it is undefined.
        method: `bca` corrects bias and skew; worth its num_items further calls below 100 items.
    Source: Efron 1987, JASA 82.
    """
    if num_items == 0:
        return undefined("no observations", n=0)
    rng = np.random.default_rng(seed)
    everything = np.arange(num_items)
    replicates = np.array([statistic(rng.integers(0, num_items, num_items)) for _ in range(num_resamples)])
    left_out: FloatArray | None = None
    if method == "bca":
        left_out = np.array([statistic(np.delete(everything, i)) for i in range(num_items)])
    return replicate_interval(statistic(everything), replicates, n=num_items, left_out=left_out, confidence=confidence)


def replicate_interval(
    value: float, replicates: FloatArray, *, n: int, left_out: FloatArray | None = None, confidence: float = 0.95
) -> Interval:
    """Turn bootstrap replicates into an interval: percentiles, or BCa where the leave-one-out values are given.

    Replicates that are undefined (a resample in which everybody agrees) are left out and counted in the note.
    """
    kept = replicates[np.isfinite(replicates)]
    if not math.isfinite(value):
        return undefined("undefined on the data", n=n)
    if len(kept) == 0:
        return Interval(value, math.nan, math.nan, n, "undefined on every resample")
    tails = np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    if left_out is not None:
        tails = _bca_levels(value, kept, left_out, tails)
    low, high = quantile(kept, tails[0]), quantile(kept, tails[1])
    lost = len(replicates) - len(kept)
    note = f"undefined on {lost} of {len(replicates)} resamples" if lost else ""
    if n == 1:
        return Interval(value, math.nan, math.nan, 1, "one observation has no spread")
    if np.ptp(kept) == 0 and value == low:
        note = f"{note}; " * bool(note) + "every resample gave the same value, so the interval has no width"
    return Interval(value, min(value, low), max(value, high), n, note)


def _bca_levels(value: float, replicates: FloatArray, left_out: FloatArray, tails: FloatArray) -> FloatArray:
    below = float((np.sum(replicates < value) + np.sum(replicates == value) / 2) / len(replicates))
    edge = 0.5 / len(replicates)
    bias = normal_quantile(min(max(below, edge), 1 - edge))
    finite = left_out[np.isfinite(left_out)]
    gaps = finite.mean() - finite if len(finite) else finite
    spread = float(np.sum(gaps**2)) ** 1.5
    skew = float(np.sum(gaps**3)) / (6 * spread) if spread > 0 else 0.0
    shifted = bias + normal_quantile(tails)
    return normal_cdf(bias + shifted / (1 - skew * shifted))


def sign_test(wins: int, losses: int, *, ties: int = 0) -> float:
    """Exact p-value that wins and losses are equally likely; ties count half to each side, an odd one is left out."""
    wins, losses = wins + ties // 2, losses + ties // 2
    return min(1.0, 2 * binomial_at_most(min(wins, losses), wins + losses, 0.5))


def mcnemar(before: BoolArray | Sequence[bool], after: BoolArray | Sequence[bool]) -> float:
    """Exact p-value that as many of [N] items turned right as turned wrong.

    Equals: the sign test on the items that changed.
    Source: McNemar 1947, Psychometrika 12.
    """
    was, is_now = (column != 0 for column in aligned(before=before, after=after))
    return sign_test(int(np.sum(~was & is_now)), int(np.sum(was & ~is_now)))


def holm(pvalues: ArrayLike) -> FloatArray:
    """Adjust p-values of several tests so that the chance of any false alarm stays below the level.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    return adjusted


def tost(diff: ArrayLike, margin: float) -> float:
    """P-value that the mean difference lies outside +-margin: a small one shows that two things are equally good.

    Source: Schuirmann 1987, two one-sided Student tests on [N] paired differences.
    """
    values = np.asarray(diff, dtype=np.float64)
    n = len(values)
    if n < 2:
        return 1.0
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return student_tail((margin - abs(mean)) / error, n - 1)
