"""Scores of completions from the votes of raters who differ: Bradley-Terry with a discrimination and a side for each rater, and ties.

For a vote of rater w on completions i and j, with side = +1 when i stood on the left and -1 when on the right:

    eta       = a_w (s_i - s_j) + b_w side
    P(i wins) = e^(eta/2) / (e^(eta/2) + e^(-eta/2) + nu),  P(tie) = nu / (the same),  nu = e^t       (Davidson 1970)

Without ties in the votes nu is left out and P(i wins) = sigmoid(eta). A rater who guesses has a = 0, one who answers the wrong way
round a < 0. Penalties keep everything finite on any graph of comparisons, and set the scale: s is measured in log-odds of a rater of a = 1.

    loss = - sum log P + ridge/2 sum s^2 + rater_ridge/2 sum (a - 1)^2 + side_ridge/2 sum b^2

The gradient is analytic and held against differences of the loss for every parameter in the tests (a published package got exactly this
wrong: worker terms were written over the last label's).

Legend:
    N  votes, C completions, R raters
    E = C + 2 R (+ 1 with ties) parameters in the order s, a, b, t

Example:
    fit = rater_bradley_terry(comparisons)
    fit.scores, fit.score_errors, fit.discrimination
    fit.p_better(0, 1)       # posterior probability that completion 0 is better than completion 1
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.numerics import normal_cdf

MAX_PARAMETERS = 6000
"""The curvature is a dense square of this side: 288 MB."""
_MAX_STEPS = 200
_CONVERGED = 1e-9
"""Largest part of the gradient, per vote, at which the search ends."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparisons:
    """Votes on pairs as parallel columns."""

    first: IntArray
    """[N] completion i, canonical first."""
    second: IntArray
    """[N] completion j."""
    raters: IntArray
    """[N]"""
    results: FloatArray
    """[N] 1 where the first won, 0 where the second did, 1/2 for a tie."""
    sides: FloatArray
    """[N] +1 where the first stood on the left, -1 on the right, 0 where no side was recorded."""
    completion_names: tuple[str, ...]
    rater_names: tuple[str, ...]

    @property
    def has_ties(self) -> bool:
        return bool((self.results == 0.5).any())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RaterRanking:
    """Scores, raters and how sure both are. Standard errors come from the curvature at the best fit (Laplace)."""

    scores: FloatArray
    """[C] log-odds for a rater of discrimination 1."""
    score_errors: FloatArray
    discrimination: FloatArray
    """[R] 1 is the prior mean, 0 guesses, negative answers the wrong way round; the prior's 1 for one without votes."""
    discrimination_errors: FloatArray
    side_bias: FloatArray
    """[R] log-odds towards the left."""
    side_bias_errors: FloatArray
    tie_log_odds: float | None
    """t; None where no vote was a tie."""
    covariance: FloatArray
    """[E, E] of all parameters."""
    loss: float
    num_steps: int
    completion_names: tuple[str, ...]
    rater_names: tuple[str, ...]

    def gap(self, first: int, second: int) -> tuple[float, float]:
        """Difference of two scores, and its standard error: sqrt(var_i + var_j - 2 cov_ij)."""
        spread = self.covariance[first, first] + self.covariance[second, second] - 2 * self.covariance[first, second]
        return float(self.scores[first] - self.scores[second]), math.sqrt(max(float(spread), 1e-300))

    def p_better(self, first: int, second: int) -> float:
        """Posterior probability that one completion's score is above another's."""
        if first == second:
            return 0.5
        gap, error = self.gap(first, second)
        return float(normal_cdf(gap / error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """Strengths of the Gaussian priors; 1 / variance."""

    ridge: float = 0.25
    """Scores have a spread of 2 log-odds: the better of two random completions wins about 80 % of the votes."""
    rater_ridge: float = 1.0
    side_ridge: float = 1.0

    def __post_init__(self) -> None:
        if not (self.ridge > 0 and self.rater_ridge > 0 and self.side_ridge > 0):
            raise DataError(explain("penalties", f"{self.ridge}, {self.rater_ridge}, {self.side_ridge}", "leave the scale free",
                                    expected="numbers > 0", remedy="Use the defaults"))  # fmt: skip


_SIGN = {True: -1.0, False: 1.0, None: 0.0}
"""Of the side term, by whether the second stood on the left."""


def comparisons_from_rows(
    rows: Iterable[tuple[str, str, str, float]], *, swapped: Sequence[bool | None] | None = None
) -> Comparisons:
    """Number the completions and raters of (first, second, rater, result) rows.

    Args:
        rows: result 1 where the first won, 0 where the second did, 0.5 for a tie.
        swapped: for each row, whether the second stood on the left, None where it had no side; None for all where sides were not recorded.
    Raises:
        DataError: no rows, a completion against itself, another result, or `swapped` of another length.
    """
    table = list(rows)
    if not table or (swapped is not None and len(swapped) != len(table)):
        raise DataError(explain("comparisons", len(table), f"do not fit {len(swapped or ())} sides", expected="rows, each with its side",
                                remedy="Pass one entry for each row"))  # fmt: skip
    wrong = next((row for row in table if row[0] == row[1] or row[3] not in (0, 0.5, 1)), None)
    if wrong is not None:
        raise DataError(explain("comparisons", str(wrong), "is no comparison", expected="two different completions and 1, 0.5 or 0",
                                remedy="Fix or leave out the row"))  # fmt: skip
    completions = {name: i for i, name in enumerate(dict.fromkeys(name for row in table for name in row[:2]))}
    raters = {name: i for i, name in enumerate(dict.fromkeys(row[2] for row in table))}
    sides = np.zeros(len(table)) if swapped is None else np.array([_SIGN[side] for side in swapped])
    return Comparisons(
        first=np.array([completions[row[0]] for row in table], dtype=np.int64),
        second=np.array([completions[row[1]] for row in table], dtype=np.int64),
        raters=np.array([raters[row[2]] for row in table], dtype=np.int64),
        results=np.array([row[3] for row in table], dtype=np.float64),
        sides=sides, completion_names=tuple(completions), rater_names=tuple(raters),
    )  # fmt: skip


def rater_bradley_terry(comparisons: Comparisons, *, penalties: Penalties | None = None) -> RaterRanking:
    """Fit by Newton's method, shortened until the loss falls.

    Raises:
        DataError: more than `MAX_PARAMETERS` parameters.
    Source: Bradley and Terry 1952; ties as Davidson 1970, JASA 65; raters as Chen et al. 2013, Pairwise ranking aggregation in a
        crowdsourced setting, in the form of a discrimination.
    Equals: `ranking.bradley_terry` with the same ridge when raters are held at a = 1, b = 0 by large penalties (tested).
    """
    strengths = penalties or Penalties()
    num_completions, num_raters = len(comparisons.completion_names), len(comparisons.rater_names)
    size = num_completions + 2 * num_raters + comparisons.has_ties
    if size > MAX_PARAMETERS:
        raise DataError(explain("comparisons", size, "parameters are too many for standard errors", expected=f"<= {MAX_PARAMETERS}",
                                remedy="Fit the prompts in parts, or use one_coin, which needs no scores"))  # fmt: skip
    x = np.zeros(size)
    x[num_completions : num_completions + num_raters] = 1.0
    value, slope, curvature = loss_and_slope(comparisons, x, penalties=strengths)
    steps = 0
    while steps < _MAX_STEPS:
        is_flat = np.max(np.abs(slope)) < _CONVERGED * len(comparisons.results)
        if is_flat and _is_minimum(curvature):
            break
        steps += 1
        move = _leave_saddle if is_flat else _step
        x, value, slope, curvature = move(comparisons, x, value, slope, curvature, strengths)
    covariance = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    s, a, b, t = _split(comparisons, x)
    s_error, a_error, b_error, _ = _split(comparisons, errors)
    return RaterRanking(
        scores=s, score_errors=s_error, discrimination=a, discrimination_errors=a_error, side_bias=b, side_bias_errors=b_error,
        tie_log_odds=t, covariance=covariance, loss=value, num_steps=steps, completion_names=comparisons.completion_names,
        rater_names=comparisons.rater_names,
    )  # fmt: skip


def loss_and_slope(
    comparisons: Comparisons, x: FloatArray, *, penalties: Penalties
) -> tuple[float, FloatArray, FloatArray]:
    """Loss, gradient [E] and curvature [E, E] at parameters [E].

    With m = (eta/2, -eta/2, t) for first, second and tie, log P(k) = m_k - logsumexp(m), so that d log P / d m = onehot - P, and
    eta enters as (result - second result) / 2 - (P_first - P_second) / 2.
    """
    s, a, b, t = _split(comparisons, x)
    first, second, raters, sides = comparisons.first, comparisons.second, comparisons.raters, comparisons.sides
    gap = s[first] - s[second]
    eta = a[raters] * gap + b[raters] * sides
    p_first, p_second, p_tie, log_p = _chances(comparisons.results, eta, t)
    is_tie = comparisons.results == 0.5
    d_eta = (comparisons.results - 0.5) - (p_first - p_second) / 2
    d_tie = is_tie - p_tie
    h_eta = (p_first + p_second - (p_first - p_second) ** 2) / 4
    h_cross = -(p_first - p_second) * p_tie / 2
    h_tie = p_tie * (1 - p_tie)
    slope, curvature = _assemble(comparisons, x, gap, a, d_eta, h_eta)
    if t is not None:
        slope[-1] -= d_tie.sum()
        curvature[-1, -1] += h_tie.sum()
        for rows, weight in _directions(comparisons, gap, a):
            edge = np.bincount(rows, weights=weight * h_cross, minlength=len(x))
            curvature[-1, :] += edge
            curvature[:, -1] += edge
    strength, centre = _prior(comparisons, len(x), penalties)
    slope += strength * (x - centre)
    curvature[np.arange(len(x)), np.arange(len(x))] += strength
    return float(-log_p.sum() + np.sum(strength * (x - centre) ** 2) / 2), slope, curvature


def _chances(
    results: FloatArray, eta: FloatArray, t: float | None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """[N] probabilities of first, second and tie, and the log-probability of what happened."""
    ties = np.full(len(eta), -np.inf if t is None else t)
    m = np.stack([eta / 2, -eta / 2, ties])
    log_p = m - np.logaddexp.reduce(m, axis=0)
    p = np.exp(log_p)
    kinds = np.where(results == 1, 0, np.where(results == 0, 1, 2))
    return p[0], p[1], p[2], log_p[kinds, np.arange(len(eta))]


def _directions(comparisons: Comparisons, gap: FloatArray, a: FloatArray) -> list[tuple[IntArray, FloatArray]]:
    """For each of the four parameters that eta depends on: its place [N] and d eta / d parameter [N]."""
    num_completions, num_raters = len(comparisons.completion_names), len(comparisons.rater_names)
    weight = a[comparisons.raters]
    return [
        (comparisons.first, weight),
        (comparisons.second, -weight),
        (num_completions + comparisons.raters, gap),
        (num_completions + num_raters + comparisons.raters, comparisons.sides),
    ]


def _assemble(
    comparisons: Comparisons, x: FloatArray, gap: FloatArray, a: FloatArray, d_eta: FloatArray, h_eta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    size = len(x)
    directions = _directions(comparisons, gap, a)
    slope = np.zeros(size)
    flat = np.zeros(size * size)
    for rows, weight in directions:
        slope -= np.bincount(rows, weights=weight * d_eta, minlength=size)
        for columns, other in directions:
            flat += np.bincount(rows * size + columns, weights=weight * other * h_eta, minlength=size * size)
    (first, _), (second, _), (rater, _), _ = directions
    for rows, sign in ((first, 1.0), (second, -1.0)):  # eta is a product of a and s: its own curvature
        mixed = np.bincount(rows * size + rater, weights=-sign * d_eta, minlength=size * size)
        flat += mixed + mixed.reshape(size, size).T.ravel()
    return slope, flat.reshape(size, size)


def _prior(comparisons: Comparisons, size: int, penalties: Penalties) -> tuple[FloatArray, FloatArray]:
    """[E] strengths and centres; t is pulled to 0 as weakly as can be, for ties are in the votes or it is not there."""
    num_completions, num_raters = len(comparisons.completion_names), len(comparisons.rater_names)
    strength, centre = np.full(size, 1e-6), np.zeros(size)
    strength[:num_completions] = penalties.ridge
    strength[num_completions : num_completions + num_raters] = penalties.rater_ridge
    strength[num_completions + num_raters : num_completions + 2 * num_raters] = penalties.side_ridge
    centre[num_completions : num_completions + num_raters] = 1.0
    return strength, centre


def _split(comparisons: Comparisons, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, float | None]:
    num_completions, num_raters = len(comparisons.completion_names), len(comparisons.rater_names)
    s, a = x[:num_completions], x[num_completions : num_completions + num_raters]
    b = x[num_completions + num_raters : num_completions + 2 * num_raters]
    return s, a, b, float(x[-1]) if comparisons.has_ties else None


def _step(
    comparisons: Comparisons, x: FloatArray, value: float, slope: FloatArray, curvature: FloatArray, penalties: Penalties
) -> tuple[FloatArray, float, FloatArray, FloatArray]:  # fmt: skip
    """One damped Newton step: more of the identity is added until the loss falls (the loss is not convex in a and s together)."""
    damping = 0.0
    unit = float(np.mean(np.diag(curvature)))
    identity = np.eye(len(x))
    while damping < 1e12 * unit:
        try:
            factor = np.linalg.cholesky(curvature + damping * identity)
        except np.linalg.LinAlgError:
            damping = max(damping * 10, 1e-3 * unit)
            continue
        move = np.linalg.solve(factor.T, np.linalg.solve(factor, -slope))
        after = np.asarray(x + move, dtype=np.float64)
        found = loss_and_slope(comparisons, after, penalties=penalties)
        if found[0] <= value:
            return after, *found
        damping = max(damping * 10, 1e-3 * unit)
    return x, value, slope, curvature


def _is_minimum(curvature: FloatArray) -> bool:
    try:
        np.linalg.cholesky(curvature)
    except np.linalg.LinAlgError:
        return False
    return True


def _leave_saddle(
    comparisons: Comparisons, x: FloatArray, value: float, slope: FloatArray, curvature: FloatArray, penalties: Penalties
) -> tuple[FloatArray, float, FloatArray, FloatArray]:  # fmt: skip
    """From a flat point that is no minimum down along the most negative curvature: votes that are a mirror image of themselves (one rater
    turned the other way round explains them as well) lead there, and a covariance taken there has negative variances."""
    direction = np.linalg.eigh(curvature)[1][:, 0]
    direction = direction * np.sign(direction[np.argmax(np.abs(direction))])
    for size in 0.5 ** np.arange(40):
        after = np.asarray(x + size * direction, dtype=np.float64)
        found = loss_and_slope(comparisons, after, penalties=penalties)
        if found[0] < value:
            return after, *found
    return x, value, slope, curvature


def is_connected(comparisons: Comparisons) -> BoolArray:
    """[C] whether each completion is linked to the first one by comparisons; scores of separate parts compare by their priors only."""
    reached = np.zeros(len(comparisons.completion_names), dtype=np.bool_)
    reached[:1] = True
    while True:
        touches = reached[comparisons.first] | reached[comparisons.second]
        spread = reached.copy()
        spread[comparisons.first[touches]] = True
        spread[comparisons.second[touches]] = True
        if np.array_equal(spread, reached):
            return reached
        reached = spread
