"""From votes to labels: majority, Dawid-Skene, one-coin with side bias, and weights from known accuracies.

With three votes per item and many raters a model of the raters does not beat the majority on labels; it does from about five
votes on, or with few uneven raters. What it always gives is a diagnosis of the raters and calibrated posteriors.

Legend:
    N  votes, I items, R raters, K labels

Example:
    aggregate = one_coin(votes, side_bias=True)
    aggregate.labels, aggregate.rater_accuracy, aggregate.side_bias
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.intervals import aligned
from fairlead.stats.numerics import sum_by_group
from fairlead.stats.votes import UNKNOWN, Votes, counts, number_labels, votes_per_rater

_TIE = 1e-9
"""Posteriors closer than this are equal but for rounding."""
_CONVERGED = 1e-7
"""EM stops when no posterior moves by more than this."""

_IMPOSSIBLE = 1e-12
"""Stands for 0 under a logarithm."""

LabelShares = Literal["equal", "estimated"]

PRIOR_RIGHT, PRIOR_WRONG = 2.0, 1.0
"""Beta(2, 1) prior of an accuracy: mean 2/3, weight of three votes. With the start from vote shares it keeps the
mean accuracy above one half, where the mirrored solution (everybody wrong, all labels exchanged) fits as well."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aggregate:
    """What the votes say about the items, and what they say about the raters."""

    posterior: FloatArray
    """[I, K] rows sum to 1."""
    labels: IntArray
    """[I] most probable label; the first of the tied ones."""
    is_tied: BoolArray
    """[I] True where another label is as probable; never settle these by their place in `labels`."""
    rater_accuracy: FloatArray
    """[R] estimated share of right votes; nan for a rater without votes, and in `dawid_skene` for one who shares no item with anyone."""
    confusion: FloatArray | None = None
    """[R, K, K] probability of the vote (last) given the truth."""
    side_bias: FloatArray | None = None
    """[R] log-odds added to a vote for the left side; 0 is fair, positive prefers left."""
    iterations: int = 0


def majority(votes: Votes) -> Aggregate:
    """Vote shares; `rater_accuracy` is the share of a rater's votes that equal the majority, ties counted in part."""
    posterior = _vote_shares(counts(votes))
    is_top = _is_top(posterior)
    credit = (is_top / is_top.sum(1, keepdims=True))[votes.items, votes.labels]
    right = sum_by_group(credit, votes.raters, votes.num_raters)
    return _aggregate(posterior, rater_accuracy=_share(right, votes_per_rater(votes)))


def dawid_skene(
    votes: Votes, *, smoothing: float = 0.01, max_iterations: int = 200, gold: Mapping[str, str] | None = None
) -> Aggregate:
    """Label probabilities under one confusion matrix per rater, by EM from the vote shares.

    p(truth, votes) = prior(truth) * prod_votes confusion[rater, truth, vote]

    Args:
        smoothing: votes added to every cell of every confusion matrix.
        gold: {item name: label name} of items whose truth is known; they are held fixed.
    Raises:
        DataError: smoothing is negative.
    Source: Dawid and Skene 1979, Applied Statistics 28; smoothing=0 is theirs.
    Differs: smoothing, so that one vote never excludes a label; and the votes of a rater who shares no item with anyone stand as
        they are, for nothing says how good they are.
    """
    if not smoothing >= 0:
        raise DataError(explain("smoothing", smoothing, "takes votes away", expected=">= 0", remedy="Use 0.01"))
    known = _gold_posterior(votes, gold)
    is_checked = _checked_raters(votes, known)
    known = _hold_unchecked(votes, known, is_checked)

    def expect(posterior: FloatArray) -> FloatArray:
        odds = np.log(np.maximum(_confusion(votes, posterior, smoothing), _IMPOSSIBLE))[votes.raters, :, votes.labels]
        return _hold(_softmax(_sum_by_item(votes, odds) + _log_shares(posterior)), known)

    posterior, iterations = _iterate(expect, _hold(_vote_shares(counts(votes)), known), max_iterations)
    confusion = _confusion(votes, posterior, smoothing)
    accuracy = np.einsum("k,rkk->r", np.exp(_log_shares(posterior)), confusion)
    accuracy = np.where(is_checked, accuracy, np.nan)
    return _aggregate(posterior, rater_accuracy=accuracy, confusion=confusion, iterations=iterations)


def one_coin(
    votes: Votes,
    *,
    side_bias: bool = False,
    label_shares: LabelShares = "equal",
    max_iterations: int = 500,
    gold: Mapping[str, str] | None = None,
) -> Aggregate:
    """Label probabilities under one accuracy per rater, by EM from the vote shares.

    A vote is right with probability a_r, otherwise any other label. With `side_bias`, in the frame that the rater saw,
    logit P(vote left) = +ability_r (left is better) or -ability_r (right is better), + bias_r. A vote without a side counts by the
    rater's ability alone, and teaches nothing about the rater.

    Args:
        side_bias: needs two labels (canonical first and second completion) and `votes.swapped`.
        label_shares: `equal` before any vote is right for pairs, where which completion is called first is arbitrary, and safer
            elsewhere; `estimated` is the original method.
        gold: {item name: label name} of items whose truth is known; they are held fixed.
    Raises:
        DataError: `side_bias` without two labels or without `swapped`.
    Source: Dawid and Skene 1979 with one accuracy per rater; the side term as in Bradley-Terry models with an order effect.
    """
    if side_bias:
        _require_sides(votes)
    known = _gold_posterior(votes, gold)
    measure = _side_accuracy if side_bias else _coin_accuracy

    def expect(posterior: FloatArray) -> FloatArray:
        accuracy = measure(votes, posterior)
        odds = _coin_evidence(votes, accuracy, side_bias=side_bias)
        return _hold(_softmax(odds + (_log_shares(posterior) if label_shares == "estimated" else 0.0)), known)

    posterior, iterations = _iterate(expect, _hold(_vote_shares(counts(votes)), known), max_iterations)
    accuracy = measure(votes, posterior)
    bias = None
    if side_bias:
        odds = np.log(accuracy / (1 - accuracy))
        bias = (odds[:, 0] - odds[:, 1]) / 2
    is_told = _is_sided(votes) if side_bias else np.ones(len(votes.items), dtype=np.bool_)
    num_told = np.bincount(votes.raters[is_told], minlength=votes.num_raters)
    right = np.where(num_told > 0, accuracy.mean(1), np.nan)
    return _aggregate(posterior, rater_accuracy=right, side_bias=bias, iterations=iterations)


def weighted(votes: Votes, accuracy: ArrayLike, *, num_observed: ArrayLike | None = None) -> Aggregate:
    """Label probabilities when the raters' accuracies are known, for example from gold items.

    A vote counts log(p (K - 1) / (1 - p)) with p shrunk as by three votes more, two of them right.

    Args:
        accuracy: [R] share of right votes; nan for a rater about whom nothing is known.
        num_observed: [R] votes behind each accuracy; None takes the rater's votes in `votes`.
    Raises:
        DataError: not one share in [0, 1] (or nan) for each rater.
    """
    raw, seen = aligned(
        accuracy=accuracy, num_observed=votes_per_rater(votes) if num_observed is None else num_observed
    )
    if (
        len(raw) != votes.num_raters
        or (raw < 0).any()
        or (raw > 1).any()
        or not (np.isfinite(seen) & (seen >= 0)).all()
    ):
        raise DataError(explain("accuracy", None, "does not fit the raters", expected=f"{votes.num_raters} shares in [0, 1] or nan, counts >= 0",
                                remedy="Give one value for each of rater_names"))  # fmt: skip
    seen = np.where(np.isfinite(raw), seen, 0.0)
    shrunk = (np.nan_to_num(raw) * seen + PRIOR_RIGHT) / (seen + PRIOR_RIGHT + PRIOR_WRONG)
    both = np.stack([shrunk, shrunk], axis=1)
    return _aggregate(_softmax(_coin_evidence(votes, both, side_bias=False)), rater_accuracy=raw)


def accuracy_with_ties(aggregate: Aggregate, truth: IntArray) -> float:
    """Expected share of right labels when ties are settled by chance.

    Args:
        truth: [I] label numbers, `UNKNOWN` where the truth is not known; nan comes back when none is.
    """
    is_known = truth != UNKNOWN
    if not is_known.any():
        return float("nan")
    posterior = aggregate.posterior[is_known]
    is_top = _is_top(posterior)
    credit = is_top[np.arange(len(posterior)), truth[is_known]] / is_top.sum(1)
    return float(credit.mean())


def _aggregate(
    posterior: FloatArray,
    *,
    rater_accuracy: FloatArray,
    confusion: FloatArray | None = None,
    side_bias: FloatArray | None = None,
    iterations: int = 0,
) -> Aggregate:
    is_top = _is_top(posterior)
    return Aggregate(
        posterior=posterior,
        labels=np.argmax(is_top, axis=1).astype(np.int64) if is_top.size else np.zeros(len(posterior), dtype=np.int64),
        is_tied=is_top.sum(1) > 1,
        rater_accuracy=rater_accuracy,
        confusion=confusion,
        side_bias=side_bias,
        iterations=iterations,
    )


def _is_top(posterior: FloatArray) -> BoolArray:
    """[I, K] True for the most probable label, and for those as probable but for rounding."""
    return posterior >= posterior.max(1, keepdims=True, initial=0.0) - _TIE


def _coin_accuracy(votes: Votes, posterior: FloatArray) -> FloatArray:
    right = sum_by_group(posterior[votes.items, votes.labels], votes.raters, votes.num_raters)
    shrunk = (right + PRIOR_RIGHT) / (votes_per_rater(votes) + PRIOR_RIGHT + PRIOR_WRONG)
    return np.stack([shrunk, shrunk], axis=1)


def _side_accuracy(votes: Votes, posterior: FloatArray) -> FloatArray:
    """[R, 2] accuracy when the better completion stood left, right. Two free numbers per rater, so EM is in closed form:
    ability is the mean of their log-odds and bias half the difference."""
    seen_left = _seen_left(votes)
    right = np.zeros((votes.num_raters, 2))
    total = np.zeros((votes.num_raters, 2))
    for side in (0, 1):
        label_at_side = np.where(seen_left, side, 1 - side)
        weight = posterior[votes.items, label_at_side] * _is_sided(votes)
        np.add.at(total[:, side], votes.raters, weight)
        np.add.at(right[:, side], votes.raters, weight * (votes.labels == label_at_side))
    return (right + PRIOR_RIGHT) / (total + PRIOR_RIGHT + PRIOR_WRONG)


def _coin_evidence(votes: Votes, accuracy: FloatArray, *, side_bias: bool) -> FloatArray:
    """[I, K] log-likelihood of each label from the accuracy of each rater when the truth stood left and right, [R, 2]."""
    num_labels = votes.num_labels
    evidence = np.zeros((len(votes.items), num_labels))
    for truth in range(num_labels):
        side = (
            np.where(_seen_left(votes), truth, 1 - truth) if side_bias else np.zeros(len(votes.items), dtype=np.int64)
        )
        p = accuracy[votes.raters, side]
        if side_bias:
            p = np.where(_is_sided(votes), p, _without_bias(accuracy)[votes.raters])
        evidence[:, truth] = np.where(votes.labels == truth, np.log(p), np.log((1 - p) / max(num_labels - 1, 1)))
    return _sum_by_item(votes, evidence)


def _without_bias(accuracy: FloatArray) -> FloatArray:
    """[R] accuracy at the mean of the log-odds of both sides."""
    ability = np.log(accuracy / (1 - accuracy)).mean(1)
    return 1 / (1 + np.exp(-ability))


def _seen_left(votes: Votes) -> BoolArray:
    """[N] True where label 0 stood on the left."""
    assert votes.swapped is not None
    return ~votes.swapped


def _is_sided(votes: Votes) -> BoolArray:
    """[N] True of votes that were given with sides."""
    return np.ones(len(votes.items), dtype=np.bool_) if votes.sided is None else votes.sided


def _require_sides(votes: Votes) -> None:
    if votes.num_labels != 2:
        raise DataError(explain("votes.labels", ", ".join(votes.label_names), "cannot show a side bias",
                                expected="two labels", remedy="Leave ties out or use side_bias=False"))  # fmt: skip
    if votes.swapped is None:
        raise DataError(explain("votes.swapped", None, "is not recorded", expected="which votes were shown with sides exchanged",
                                remedy="Pass swapped or use side_bias=False"))  # fmt: skip


def _confusion(votes: Votes, posterior: FloatArray, smoothing: float) -> FloatArray:
    num_labels = votes.num_labels
    table = np.zeros((votes.num_raters * num_labels, num_labels))
    np.add.at(table, votes.raters * num_labels + votes.labels, posterior[votes.items])
    confusion = table.reshape(votes.num_raters, num_labels, num_labels).transpose(0, 2, 1) + smoothing
    total = confusion.sum(2, keepdims=True)
    return np.where(total > 0, confusion / np.where(total > 0, total, 1), 1 / max(num_labels, 1))


def _gold_posterior(votes: Votes, gold: Mapping[str, str] | None) -> FloatArray | None:
    """[I, K] one-hot rows for the items of known truth, nan rows for the others."""
    if gold is None:
        return None
    truth = number_labels(votes, gold)
    known = np.full((votes.num_items, votes.num_labels), np.nan)
    known[truth != UNKNOWN] = np.eye(votes.num_labels)[truth[truth != UNKNOWN]]
    return known


def _checked_raters(votes: Votes, known: FloatArray | None) -> BoolArray:
    """[R] True for raters who share an item with another rater, or voted on gold: only of these can anything be learned."""
    cells = np.unique(votes.items * max(votes.num_raters, 1) + votes.raters)
    items, raters = cells // max(votes.num_raters, 1), cells % max(votes.num_raters, 1)
    is_checked = np.bincount(items, minlength=votes.num_items) > 1
    if known is not None:
        is_checked |= np.isfinite(known).all(1)
    return sum_by_group(is_checked[items], raters, votes.num_raters) > 0


def _hold_unchecked(votes: Votes, known: FloatArray | None, is_checked: BoolArray) -> FloatArray | None:
    """Add the vote shares of items that only raters without any check voted on to the rows that are held fixed.

    The likelihood is flat there, so that the smoothing alone would decide, and slowly turn the votes into the most frequent label.
    """
    is_held = np.zeros(votes.num_items, dtype=np.bool_)
    is_held[votes.items[~is_checked[votes.raters]]] = True
    if not is_held.any():
        return known
    held = np.full((votes.num_items, votes.num_labels), np.nan) if known is None else known
    return np.where(is_held[:, None], _vote_shares(counts(votes)), held)


def _hold(posterior: FloatArray, known: FloatArray | None) -> FloatArray:
    return posterior if known is None else np.where(np.isfinite(known), known, posterior)


def _vote_shares(table: IntArray) -> FloatArray:
    total = table.sum(1, keepdims=True)
    shares: FloatArray = table / np.maximum(total, 1)
    shares[total[:, 0] == 0] = 1 / max(table.shape[1], 1)
    return shares


def _share(part: FloatArray, total: IntArray) -> FloatArray:
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def _sum_by_item(votes: Votes, evidence: FloatArray) -> FloatArray:
    """Sum [N, K] over the votes of each item to [I, K]."""
    total = np.zeros((votes.num_items, evidence.shape[1]))
    for k in range(evidence.shape[1]):
        total[:, k] = sum_by_group(evidence[:, k], votes.items, votes.num_items)
    return total


def _log_shares(posterior: FloatArray) -> FloatArray:
    return np.log(np.maximum(posterior.sum(0), 1e-12) / max(len(posterior), 1))


def _iterate(
    expect: Callable[[FloatArray], FloatArray], posterior: FloatArray, max_iterations: int
) -> tuple[FloatArray, int]:
    for iteration in range(1, max_iterations + 1):
        before, posterior = posterior, expect(posterior)
        if np.max(np.abs(posterior - before), initial=0.0) < _CONVERGED:
            return posterior, iteration
    return posterior, max_iterations


def _softmax(x: FloatArray) -> FloatArray:
    raised = np.exp(x - x.max(1, keepdims=True, initial=-np.inf))
    return raised / raised.sum(1, keepdims=True)
