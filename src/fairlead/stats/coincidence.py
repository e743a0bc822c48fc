"""Agreement statistics as functions of label counts, for the data and for all resamples at once.

Every function takes the distinct rows of counts and how often each row occurs, and returns one value per resample, nan where
the statistic is undefined. Items with fewer than two votes must not be among the rows: they hold no pair.

Legend:
    D  distinct rows of counts, K labels
    B  resamples (1 for the data itself)

Example:
    percent(np.array([[2.0, 1.0], [3.0, 0.0]]), np.array([[5.0, 5.0]]))  # [0.667]
"""

from collections.abc import Callable

import numpy as np

from fairlead.stats.arrays import FloatArray

Statistic = Callable[[FloatArray, FloatArray], FloatArray]
"""(rows [D, K], weights [B, D]) -> values [B]."""

_NOTHING = 1e-12
"""Chance disagreement below this is rounding: only one label was given."""


def percent(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over items of the share of pairs of votes that agree."""
    n = rows.sum(1)
    agreeing = (np.sum(rows * rows, axis=1) - n) / (n * (n - 1))
    return _ratio(weights @ agreeing, weights.sum(1))


def fleiss(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Fleiss' kappa; the rows must have equal sums."""
    shares = weights @ rows
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1)
    chance = np.sum(shares * shares, axis=1)
    return _ratio(percent(rows, weights) - chance, 1 - chance)


def ac1(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Gwet's AC1; undefined with a single possible label."""
    num_labels = rows.shape[1]
    if num_labels < 2:
        return np.full(len(weights), np.nan)
    shares = weights @ (rows / rows.sum(1, keepdims=True)) / np.maximum(weights.sum(1, keepdims=True), 1)
    chance = np.sum(shares * (1 - shares), axis=1) / (num_labels - 1)
    return _ratio(percent(rows, weights) - chance, 1 - chance)


def alpha_fixed(distances: FloatArray) -> Statistic:
    """Krippendorff's alpha with a fixed table of squared distances between labels, [K, K]."""

    def alpha(rows: FloatArray, weights: FloatArray) -> FloatArray:
        n = rows.sum(1)
        observed = weights @ (np.einsum("dc,ck,dk->d", rows, distances, rows) / (n - 1))
        totals = weights @ rows
        return _alpha(observed, np.einsum("bc,ck,bk->b", totals, distances, totals), totals)

    return alpha


def alpha_ordinal(rows: FloatArray, weights: FloatArray) -> FloatArray:
    """Krippendorff's alpha for ranked labels: the distance of two labels is the number of votes between their mid-ranks."""
    num_labels, n = rows.shape[1], rows.sum(1)
    pairs = np.einsum("dc,dk->dck", rows, rows) / (n - 1)[:, None, None]
    pairs[:, np.arange(num_labels), np.arange(num_labels)] = 0
    coincidences = (weights @ pairs.reshape(len(rows), -1)).reshape(-1, num_labels, num_labels)
    totals = weights @ rows
    mid_ranks = np.cumsum(totals, axis=1) - totals / 2
    distances = (mid_ranks[:, :, None] - mid_ranks[:, None, :]) ** 2
    observed = np.sum(coincidences * distances, axis=(1, 2))
    return _alpha(observed, np.einsum("bc,bck,bk->b", totals, distances, totals), totals)


def _alpha(observed: FloatArray, expected: FloatArray, totals: FloatArray) -> FloatArray:
    return 1 - _ratio((totals.sum(1) - 1) * observed, expected)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    is_defined = denominator > _NOTHING
    return np.where(is_defined, numerator / np.where(is_defined, denominator, 1.0), np.nan)
