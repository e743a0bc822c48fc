"""Win rates that are not about length or position.

Legend:
    N  prompts, each with one comparison of a policy with its baseline

Example:
    length_controlled_win_rate(p_policy_wins, policy_tokens - baseline_tokens)  # Interval(value=0.51, low=0.47, high=0.55, n=805)
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import FloatArray
from fairlead.stats.intervals import Interval, aligned, undefined, wilson
from fairlead.stats.numerics import two_sided_z

_MAX_ITERATIONS = 50
_CONVERGED = 1e-10
_RIDGE = 1e-3
"""Of the length effect only, in pairs: keeps it finite when the longer completion always wins."""


def length_controlled_win_rate(
    preferences: ArrayLike, length_deltas: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Win rate that the policy would have if both completions of every prompt were equally long.

    logit p_i = theta + gamma tanh(delta_i / sd(delta)); the result is sigmoid(theta).

    Args:
        preferences: [N] 1 where the policy won, 0 where it lost, 0.5 for a tie, or a judge's probability between.
        length_deltas: [N] tokens of the policy's completion minus those of the baseline.
    Raises:
        DataError: a preference is not in [0, 1], or a length is not a finite number.
    Source: Dubois et al. 2024, arXiv:2404.04475.
    Differs: no term for the difficulty of each prompt, which needs verdicts on many policies.
    """
    wins, deltas = aligned(preferences=preferences, length_deltas=length_deltas)
    n = len(wins)
    if not ((wins >= 0) & (wins <= 1)).all() or not np.isfinite(deltas).all():
        raise DataError(explain("preferences, length_deltas", None, "hold values that mean nothing", expected="shares from 0 to 1 and finite lengths",
                                remedy="Leave out comparisons without a verdict"))  # fmt: skip
    if n < 2:
        return undefined("fewer than 2 comparisons", n=n)
    if wins.min() == wins.max() and wins[0] in (0.0, 1.0):
        return undefined("every comparison went the same way; read the plain win rate", n=n)
    spread = float(deltas.std())
    features = np.stack([np.ones(n), np.tanh(deltas / spread) if spread > 0 else np.zeros(n)], axis=1)
    theta, error = _fit(features, wins)
    half = two_sided_z(confidence) * error
    return Interval(_sigmoid(theta), _sigmoid(theta - half), _sigmoid(theta + half), n)


def swap_averaged_logits(shown_first: ArrayLike, shown_second: ArrayLike) -> FloatArray:
    """Log-odds [N] that a completion is better, from a judge asked in both orders; an additive preference for a place cancels exactly.

    Args:
        shown_first: [N] log-odds for the completion when it stood first.
        shown_second: [N] log-odds for the same completion when it stood second.
    Differs: averaging probabilities instead leaves some of the bias.
    """
    first, second = aligned(shown_first=shown_first, shown_second=shown_second)
    return (first + second) / 2


def order_consistency(wins_first: ArrayLike, wins_second: ArrayLike) -> tuple[Interval, Interval]:
    """How often a judge keeps its verdict when the order is exchanged, and how often it favours the first place when it does not.

    Args:
        wins_first: [N] whether the completion won when it stood first.
        wins_second: [N] whether the same completion won when it stood second.
    """
    first, second = (column != 0 for column in aligned(wins_first=wins_first, wins_second=wins_second))
    num_same, num_first = int(np.sum(first == second)), int(np.sum(first & ~second))
    return wilson(num_same, len(first)), wilson(num_first, len(first) - num_same)


def _fit(features: FloatArray, wins: FloatArray) -> tuple[float, float]:
    """Intercept of a logistic regression and its standard error, by Newton's method; the errors allow for soft labels."""
    penalty = np.diag([0.0, _RIDGE])
    weights: FloatArray = np.zeros(2)
    hessian: FloatArray = np.eye(2)
    for _ in range(_MAX_ITERATIONS):
        p = np.exp(-np.logaddexp(0, -features @ weights))
        hessian = features.T @ (features * (p * (1 - p))[:, None]) + penalty
        step: FloatArray = np.clip(
            np.linalg.solve(hessian, features.T @ (wins - p) - penalty @ weights), -2.0, 2.0
        ).astype(np.float64)
        weights = weights + step
        if np.max(np.abs(step)) < _CONVERGED:
            break
    residuals = wins - np.exp(-np.logaddexp(0, -features @ weights))
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ (features.T @ (features * (residuals**2)[:, None])) @ inverse
    return float(weights[0]), math.sqrt(float(covariance[0, 0]))


def _sigmoid(x: float) -> float:
    return float(np.exp(-np.logaddexp(0, -x)))
