"""Scores from pairwise wins: Bradley-Terry with standard errors, and the Elo scale.

Legend:
    C  competitors (policies, completions)

Example:
    scores, errors = bradley_terry(wins, ridge=0.0)
    elo(scores)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import BoolArray, FloatArray

ELO_PER_LOG_ODDS = 400 / float(np.log(10))
"""173.72 points: ten to one odds are 400 points."""

_MAX_ITERATIONS = 100
_CONVERGED = 1e-10
_MAX_STEP = 2.0
"""Log-odds; keeps Newton's steps inside the region where the curvature means something."""


class Ranking(NamedTuple):
    """Scores in log-odds, mean 0."""

    scores: FloatArray
    """[C]."""
    standard_errors: FloatArray
    """[C] of each score against the mean of all; not of a difference."""


def bradley_terry(wins: ArrayLike, *, ridge: float = 0.0) -> Ranking:
    """Scores under P(i beats j) = sigmoid(s_i - s_j), by Newton's method.

    loss = - sum_ij wins_ij log sigmoid(s_i - s_j) + ridge/2 sum_i s_i^2

    Args:
        wins: [C, C] how often the row beat the column; a tie is half a win each way. The diagonal is ignored.
        ridge: strength of a Gaussian prior around 0; 0 is the maximum-likelihood estimate.
    Raises:
        DataError: ridge is 0 and some group never beats the rest, so that its scores run off to infinity; or `wins` is not a
            square table of counts.
    Source: Bradley and Terry 1952, Biometrika 39.
    Equals: logistic regression without intercept on +-1 design rows (tested).
    """
    table = np.array(wins, dtype=np.float64)
    if (
        table.ndim != 2
        or len(table) == 0
        or table.shape[0] != table.shape[1]
        or not (np.isfinite(table) & (table >= 0)).all()
        or ridge < 0
    ):
        raise DataError(explain("wins", None, f"of shape {table.shape} and ridge {ridge} make no ranking", expected="square counts >= 0, ridge >= 0",
                                remedy="Give every competitor a row and a column"))  # fmt: skip
    np.fill_diagonal(table, 0)
    if ridge == 0 and not _reaches_all(table > 0):
        raise DataError(explain("wins", None, "leave some competitors without a finite score",
                                expected="chains of wins from everyone to everyone", remedy="Use ridge > 0 or collect more comparisons"))  # fmt: skip
    games = table + table.T
    scores: FloatArray = np.zeros(len(table))
    # The likelihood does not change when all scores move together; this term pins their mean at 0 without moving anything else.
    pin = np.full(table.shape, 1 / max(len(table), 1))
    hessian: FloatArray = pin
    for _ in range(_MAX_ITERATIONS):
        p = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
        gradient: FloatArray = np.sum(table - games * p, axis=1) - ridge * scores
        information = games * p * (1 - p)
        hessian = np.diag(information.sum(1) + ridge) - information + pin
        step: FloatArray = np.clip(np.linalg.solve(hessian, gradient), -_MAX_STEP, _MAX_STEP).astype(np.float64)
        scores = np.asarray(scores + step - np.mean(step), dtype=np.float64)
        if np.max(np.abs(step), initial=0.0) < _CONVERGED:
            break
    covariance = np.linalg.inv(hessian) - pin / (1 + ridge)
    return Ranking(scores, np.sqrt(np.maximum(np.diag(covariance), 0)))


def elo(scores: ArrayLike) -> FloatArray:
    """Log-odds scores in Elo points."""
    return np.asarray(scores, dtype=np.float64) * ELO_PER_LOG_ODDS


def _reaches_all(beats: BoolArray) -> bool:
    """True when every competitor reaches every other along wins (the graph is strongly connected)."""
    return all(_reached(direction).all() for direction in (beats, beats.T))


def _reached(edges: BoolArray) -> BoolArray:
    reached = np.zeros(len(edges), dtype=np.bool_)
    reached[:1] = True
    while True:
        spread: BoolArray = reached | edges[reached].any(0)
        if np.array_equal(spread, reached):
            return reached
        reached = spread
