"""Which pairs to rate next, with the probability with which each was chosen, and estimates that this choice does not bias.

Pairs that the reward model is unsure of, on which votes differ, and of which few like them were rated teach most; but a figure of the
votes on them is a figure of difficult pairs. So part of every batch is drawn at random, the probability of every choice is stored, and
figures divide by it. The evidence that such a choice beats random ones is mixed (arXiv 2604.02766 against 2603.09692).

The design: the active arm is drawn first, n - m pairs by systematic sampling with probabilities in proportion to the scores (each a_i
exact), then the random arm, m pairs evenly from the rest. Both sizes are fixed, and

    pi_i = a_i + (1 - a_i) m / (N - n + m)

holds exactly, because the rest always has N - (n - m) members.

Legend:
    N  pairs to choose from, n chosen of them, m at random

Example:
    chosen = choose_pairs(pair_scores(p_first=p, votes=counts, slices=slices), num_pairs=100, seed=0)
    mean_over_all(agrees, chosen.inclusion[chosen.pairs], num_pairs=len(p))
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.intervals import Interval, aligned, undefined
from fairlead.stats.numerics import two_sided_z

MIN_RANDOM_SHARE = 0.20
"""Smallest random arm: with less, weights of a few pairs carry every figure."""
_LEAST_SCORE = 1e-3
"""Relative to the largest: a pair that seems to teach nothing keeps a small chance, for scores are guesses."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenPairs:
    """A batch, and how it came about. `inclusion` of the chosen must be stored with them."""

    pairs: IntArray
    """[n] numbers of the chosen pairs, in random order: nothing about an arm shows in the order of work."""
    is_random: BoolArray
    """[n] True for the random arm."""
    inclusion: FloatArray
    """[N] probability with which each pair was to be in the batch; all above 0."""
    active: FloatArray
    """[N] probability to be in the active arm."""


def pair_scores(
    *,
    p_first: ArrayLike | None = None,
    votes: ArrayLike | None = None,
    slices: Sequence[str] | None = None,
    rated: Sequence[str] | None = None,
    disagreement: ArrayLike | None = None,
) -> FloatArray:
    """Uncertainty x disagreement x coverage, each in (0, 1], 1 where nothing is known.

    Args:
        p_first: [N] probability that the first completion is better, as the reward model says: uncertainty is 4 p (1 - p).
        votes: [N, 2] votes for the first and for the second so far: disagreement is 4 q (1 - q) with q = (first + 1) / (all + 2).
        slices: [N] part of the mix that each pair belongs to.
        rated: slices of the pairs rated so far: coverage is (1 + least) / (1 + rated of this slice), so that a slice that has
            been rated half as often as another weighs twice as much.
        disagreement: [N] in [0, 1], of pairs like each one, where it has no votes of its own; `shrunk_disagreement`.
    Raises:
        DataError: columns of different lengths, none at all, or numbers that are no probabilities or counts.
    """
    parts: list[FloatArray] = []
    if p_first is not None:
        p = np.asarray(p_first, dtype=np.float64)
        _require(p.ndim == 1 and bool(((p >= 0) & (p <= 1)).all()), "p_first", "[N] probabilities")
        parts.append(4 * p * (1 - p))
    if votes is not None:
        table = np.asarray(votes, dtype=np.float64)
        _require(table.ndim == 2 and table.shape[1] == 2 and bool((table >= 0).all()), "votes", "[N, 2] counts")
        q = (table[:, 0] + 1) / (table.sum(1) + 2)
        parts.append(4 * q * (1 - q))
    if disagreement is not None:
        differ = np.asarray(disagreement, dtype=np.float64)
        _require(differ.ndim == 1 and bool(((differ >= 0) & (differ <= 1)).all()), "disagreement", "[N] shares")
        parts.append(differ)
    if slices is not None:
        parts.append(_coverage(slices, rated or ()))
    _require(bool(parts) and len({len(part) for part in parts}) == 1, "pair_scores", "columns of one length")
    return np.prod(np.stack(parts), axis=0)


def shrunk_disagreement(num_differ: ArrayLike, num_rated: ArrayLike) -> FloatArray:
    """[N] (differ + 1) / (rated + 2): a half where nothing was rated, so that what is unknown is neither sought nor shunned.

    Args:
        num_differ: [N] pairs, among those like each one, on which votes differ.
        num_rated: [N] of them, pairs with two votes or more.
    """
    differ, rated = aligned(num_differ=num_differ, num_rated=num_rated)
    return (differ + 1) / (rated + 2)


def _coverage(slices: Sequence[str], rated: Sequence[str]) -> FloatArray:
    have = dict.fromkeys(slices, 0)
    for name in rated:
        if name in have:
            have[name] += 1
    least = min(have.values(), default=0)
    return np.array([(1 + least) / (1 + have[name]) for name in slices], dtype=np.float64)


def choose_pairs(
    scores: ArrayLike, *, num_pairs: int, seed: int, random_share: float = MIN_RANDOM_SHARE
) -> ChosenPairs:
    """Choose a batch with a random arm of at least a fifth.

    Args:
        scores: [N] how much each pair promises, >= 0; `pair_scores`.
        num_pairs: n, at most N.
        random_share: m = ceil(random_share * n).
    Raises:
        DataError: fewer pairs than wanted, a smaller random arm than a fifth, or scores that are not numbers >= 0.
    """
    (values,) = aligned(scores=scores)
    _require(bool((np.isfinite(values) & (values >= 0)).all()), "scores", "finite numbers >= 0")
    if not 1 <= num_pairs <= len(values):
        raise DataError(explain("num_pairs", num_pairs, f"cannot be chosen from {len(values)} pairs", expected=f"1 to {len(values)}",
                                remedy="Lower it or add pairs"))  # fmt: skip
    if not MIN_RANDOM_SHARE <= random_share <= 1:
        raise DataError(explain("random_share", random_share, "leaves figures to a few weights", expected=f"{MIN_RANDOM_SHARE} to 1",
                                remedy="Use 0.2"))  # fmt: skip
    num_random = min(math.ceil(random_share * num_pairs - 1e-9), num_pairs)
    num_active = num_pairs - num_random
    rng = np.random.default_rng(seed)
    active = inclusion_probabilities(values, num_active)
    first_arm = systematic_sample(active, start=float(rng.random()), order=rng.permutation(len(values)))
    rest = np.setdiff1d(np.arange(len(values)), first_arm)
    second_arm = rng.choice(rest, num_random, replace=False)
    pairs = np.concatenate([first_arm, second_arm]).astype(np.int64)
    order = rng.permutation(len(pairs))
    is_random = np.arange(len(pairs)) >= num_active
    inclusion = active + (1 - active) * num_random / (len(values) - num_active)
    return ChosenPairs(pairs=pairs[order], is_random=is_random[order], inclusion=inclusion, active=active)


def inclusion_probabilities(scores: FloatArray, num_active: int) -> FloatArray:
    """[N] probabilities in proportion to the scores that add up to `num_active`; what would exceed 1 is certain."""
    if num_active == 0:
        return np.zeros(len(scores))
    top = float(scores.max(initial=0.0))
    size = np.maximum(scores, _LEAST_SCORE * top) if top > 0 else np.ones(len(scores))
    found = np.zeros(len(scores))
    is_open = np.ones(len(scores), dtype=np.bool_)
    while True:
        left = num_active - int(np.sum(~is_open))
        found[is_open] = left * size[is_open] / max(float(size[is_open].sum()), 1e-300)
        is_over = is_open & (found >= 1)
        if not is_over.any():
            return found
        found[is_over] = 1.0
        is_open &= ~is_over
        if not is_open.any():
            return found


def systematic_sample(inclusion: FloatArray, *, start: float, order: IntArray) -> IntArray:
    """Numbers of the items whose stretch of the line holds start, start + 1, ...: item i is taken with probability inclusion[i].

    Args:
        start: drawn evenly from [0, 1).
        order: [N] in which the stretches lie; random, so that neighbours say nothing.
    Source: Madow 1949, Annals of Mathematical Statistics 20.
    """
    ends = np.cumsum(inclusion[order])
    wanted = round(float(ends[-1])) if len(ends) else 0
    if wanted:
        ends[-1] = max(float(ends[-1]), float(wanted))  # rounding must not lose the last point
    places = np.searchsorted(ends, start + np.arange(wanted), side="right")
    return np.asarray(order[np.minimum(places, len(order) - 1)], dtype=np.int64)


def design_weights(batches: ArrayLike, inclusion: ArrayLike, *, drawn: Mapping[int, int]) -> FloatArray:
    """[n] weights of pairs that were drawn in several batches, each from what the batches before had left.

    Batch t gives an estimate of the total over all pairs without bias, whatever decided its probabilities:
    T_t = (sum of what was drawn before) + sum over the batch of value / pi. Their mean with weights in proportion to the pairs rated of
    each batch is without bias too, and is the sum of w_i times value with

        w_i = (n_t / n) / pi_i + (sum of n_s over later batches s) / n,    divided by the share of batch t that was rated.

    Args:
        batches: [n] number of the batch of each rated pair, in the order in which they were drawn.
        inclusion: [n] probability with which its batch was to hold it, given the batches before.
        drawn: pairs that each batch drew, rated or not; those that were rated count as a random part of them, for a batch is worked
            through in random order.
    Returns:
        Weights above 0 whose sum estimates how many pairs there are: a figure of all pairs is sum(w x) / sum(w). A pair of a late batch may
        weigh less than 1, for earlier batches speak of it too.
    Source: the estimators of batches are Horvitz and Thompson 1952 on the rest; averaging them follows Farquhar, Gal and Rainforth 2021,
        arXiv:2101.11665.
    """
    pi = np.asarray(inclusion, dtype=np.float64)
    of = np.asarray(batches, dtype=np.int64)
    _require(of.shape == pi.shape and bool(((pi > 0) & (pi <= 1)).all()), "inclusion", "probabilities in (0, 1], one a pair")  # fmt: skip
    numbers, counts = np.unique(of, return_counts=True)
    _require(
        all(drawn.get(int(b), 0) >= c for b, c in zip(numbers, counts, strict=True)),
        "drawn",
        "at least the rated pairs of each batch",
    )
    place = np.searchsorted(numbers, of)
    later = counts.sum() - np.cumsum(counts)
    share_rated = counts / np.array([drawn[int(number)] for number in numbers], dtype=np.float64)
    return (counts[place] / pi + later[place]) / len(pi) / share_rated[place]


def total_over_all(values: ArrayLike, inclusion: ArrayLike) -> float:
    """Estimate of the sum over all N pairs from the chosen ones, without bias: sum of value / pi (Horvitz and Thompson 1952)."""
    y, pi = _weighable(values, inclusion)
    return float(np.sum(y / pi))


def mean_over_all(values: ArrayLike, inclusion: ArrayLike, *, num_pairs: int, confidence: float = 0.95) -> Interval:
    """Estimate of the mean over all `num_pairs` pairs, as the ratio of two estimated sums (Hajek 1971).

    It is steadier than the sum over N and biased by less than its own error. The interval treats the choices of pairs as independent,
    which overstates it a little for systematic sampling.

    Args:
        values: [n] 0 or 1, or any number, for each chosen pair.
        inclusion: [n] their stored probabilities.
    """
    y, pi = _weighable(values, inclusion)
    n = len(y)
    if n == 0:
        return undefined("no observations", n=0)
    size = float(np.sum(1 / pi))
    mean = float(np.sum(y / pi)) / size
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "one observation has no spread")
    variance = float(np.sum((1 - pi) * ((y - mean) / pi) ** 2)) * n / (n - 1) / size**2
    half = two_sided_z(confidence) * math.sqrt(variance)
    effective = size**2 / float(np.sum(1 / pi**2))
    return Interval(
        mean, mean - half, mean + half, n, f"weighted to all {num_pairs} pairs; worth {effective:.0f} random ones"
    )


def _weighable(values: ArrayLike, inclusion: ArrayLike) -> tuple[FloatArray, FloatArray]:
    y, pi = aligned(values=values, inclusion=inclusion)
    _require(
        bool(((pi > 0) & (pi <= 1)).all() and np.isfinite(y).all()),
        "inclusion",
        "probabilities in (0, 1], finite values",
    )
    return y, pi


def _require(is_met: bool, name: str, rule: str) -> None:
    if not is_met:
        raise DataError(explain(name, None, "cannot be used", expected=rule, remedy="Check the columns"))
