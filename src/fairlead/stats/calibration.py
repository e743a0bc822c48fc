"""How far scores can be trusted: ceilings set by the raters, calibration of margins, dependence on length.

A margin is a difference of two scores in log-odds, and a calibrated scorer is right with probability sigmoid(|margin|). Gates read
the slope of the outcome on the margin: it is 1 for a calibrated scorer at every sample size, where the expected calibration error
(ECE) of the same scorer is .07 at 500 pairs by chance alone.

Legend:
    N  pairs or completions

Example:
    calibration(scores_first - scores_second, is_first_preferred).slope  # Interval(value=0.97, low=0.88, high=1.06, n=2000)
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import FloatArray, IntArray
from fairlead.stats.intervals import Interval, aligned, correlation_interval, undefined, wilson
from fairlead.stats.numerics import sum_by_group, two_sided_t, two_sided_z

ECE_BINS = 15
"""The usual number, in equal steps of confidence, so that figures compare with published ones."""

_MAX_SLOPE = 1e3
"""A larger slope times any margin is certainty; the outcomes are separated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How margins and outcomes fit."""

    slope: Interval
    """1 is calibrated, below 1 is overconfident, above 1 is underconfident."""
    ece: float
    """Mean over pairs of |share right - confidence| by bin of confidence. Biased upwards in small samples."""
    debiased_ece: float
    """Root of the mean squared gap, less what chance puts there."""
    temperature: float
    """Divide scores by this to calibrate them; 1 / slope."""
    accuracy: Interval
    """Share of pairs whose margin has the sign of the outcome; a margin of 0 counts half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One point of a reliability chart."""

    confidence: float
    """Mean of sigmoid(|margin|) in the bin."""
    accuracy: Interval


def agreement_ceiling(agreement: float) -> tuple[float, float]:
    """Range of the best accuracy that any scorer can reach on one rater's pairwise labels.

    A <= C <= (1 + sqrt(2 A - 1)) / 2 where two independent raters agree on a share A; the upper end holds when every pair is
    equally hard. Agreement below one half is chance: both ends are then 1/2.
    """
    above_chance = max(2 * agreement - 1, 0.0)
    return max(agreement, 0.5), (1 + math.sqrt(above_chance)) / 2


def flip_rate(agreement: float) -> float:
    """Share of labels that noise turned, if it turns each with the same chance: A = e^2 + (1 - e)^2."""
    return 1 - agreement_ceiling(agreement)[1]


def calibration(margins: ArrayLike, is_correct: ArrayLike, *, confidence: float = 0.95) -> Calibration:
    """Fit sigmoid(slope * margin) to the outcomes of pairs.

    There is no intercept, because exchanging the completions of a pair turns both margin and outcome: each pair stands for itself
    and its mirror image, and only whether they point the same way matters.

    Args:
        margins: [N] score of the first completion minus score of the second, log-odds.
        is_correct: [N] True where the first was really preferred. With |margin| it is whether the higher score was preferred.
    """
    evidence = _evidence(margins, is_correct)
    gaps, variances, sizes = _bin_gaps(evidence, ECE_BINS)
    share = sizes / max(len(evidence), 1)
    squared = float(np.sum(share * (gaps**2 - variances)))
    slope = _slope(evidence, confidence)
    right = float(np.sum(evidence > 0) + np.sum(evidence == 0) / 2)
    return Calibration(
        slope=slope,
        ece=float(np.sum(share * np.abs(gaps))) if len(evidence) else math.nan,
        debiased_ece=math.sqrt(max(squared, 0.0)) if len(evidence) else math.nan,
        temperature=1 / slope.value if slope.value > 0 else math.nan,
        accuracy=wilson(right, len(evidence), confidence=confidence),
    )


def reliability_bins(margins: ArrayLike, is_correct: ArrayLike, *, num_bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Confidence and accuracy in bins of equal numbers of pairs; arguments as in `calibration`."""
    evidence = _evidence(margins, is_correct)
    ordered = evidence[np.argsort(np.abs(evidence), kind="stable")]
    bins: list[ReliabilityBin] = []
    for part in np.array_split(ordered, min(num_bins, max(len(ordered), 1))):
        if len(part):
            right = float(np.sum(part > 0) + np.sum(part == 0) / 2)
            bins.append(
                ReliabilityBin(confidence=float(_sigmoid(np.abs(part)).mean()), accuracy=wilson(right, len(part)))
            )
    return tuple(bins)


def length_correlation(scores: ArrayLike, lengths: ArrayLike) -> Interval:
    """Spearman's correlation of [N] scores with lengths in tokens."""
    return correlation_interval(scores, lengths)


def length_slope(
    scores: ArrayLike, lengths: ArrayLike, *, max_tokens: float = 1.0, confidence: float = 0.95
) -> Interval:
    """Score gained per `max_tokens` tokens, by least squares: the penalty per full-length completion that makes length worthless.

    Args:
        scores: [N] raw scorer output.
        lengths: [N] tokens.
        max_tokens: unit of length; 1 gives the slope per token.
    """
    y, x = aligned(scores=scores, lengths=lengths)
    x = x / max_tokens
    n = len(y)
    if n < 3:
        return undefined("fewer than 3 completions", n=n)
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return undefined("all lengths are equal", n=n)
    slope = float(centred @ y) / spread
    residuals = y - y.mean() - slope * centred
    half = two_sided_t(confidence, n - 2) * math.sqrt(float(residuals @ residuals) / (n - 2) / spread)
    return Interval(slope, slope - half, slope + half, n)


def _evidence(margins: ArrayLike, is_correct: ArrayLike) -> FloatArray:
    """[N] margin in favour of what was preferred: the mirror images that agree with the outcome."""
    margin, outcome = aligned(margins=margins, is_correct=is_correct)
    if not np.isfinite(margin).all():
        raise DataError(explain("margins", float(margin[~np.isfinite(margin)][0]), "is not a finite number", expected="differences of two scores",
                                remedy="Find the scores that are not finite"))  # fmt: skip
    if not np.isin(outcome, (0, 1)).all():
        raise DataError(explain("is_correct", float(outcome[~np.isin(outcome, (0, 1))][0]), "is not an outcome", expected="True or False",
                                remedy="Leave ties out"))  # fmt: skip
    return np.where(outcome == 1, margin, -margin)


def _slope(evidence: FloatArray, confidence: float) -> Interval:
    """Maximise sum log sigmoid(slope * evidence), which is concave, by Newton's method with halved steps."""
    n = len(evidence)
    if n == 0:
        return undefined("no observations", n=0)
    if not evidence.any():
        return undefined("undefined: every margin is 0", n=n)
    if not (evidence < 0).any():
        return undefined("undefined: every margin agrees with its outcome", n=n)
    if not (evidence > 0).any():
        return undefined("undefined: every margin contradicts its outcome", n=n)
    scale = float(np.sqrt(np.mean(evidence**2)))
    unit, slope, information = evidence / scale, 0.0, 0.0
    for _ in range(100):
        p = _sigmoid(-slope * unit)
        information = float(np.sum(unit**2 * p * (1 - p)))
        step = float(unit @ p) / information
        while _log_likelihood(unit, slope + step) < _log_likelihood(unit, slope) - 1e-12 * n:
            step /= 2
        slope += step
        if abs(step) < 1e-10 or abs(slope) > _MAX_SLOPE:
            break
    half = two_sided_z(confidence) / math.sqrt(information)
    return Interval(slope / scale, (slope - half) / scale, (slope + half) / scale, n)


def _log_likelihood(evidence: FloatArray, slope: float) -> float:
    return -float(np.sum(np.logaddexp(0, -slope * evidence)))


def _bin_gaps(evidence: FloatArray, num_bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Accuracy minus confidence, its sampling variance, and size, for each bin of confidence in [0.5, 1].

    Source of the variance term: Kumar, Liang and Ma 2019, Verified uncertainty calibration, section 4.
    """
    certainty = _sigmoid(np.abs(evidence))
    right = (evidence > 0) + (evidence == 0) / 2
    groups: IntArray = np.minimum(np.floor((certainty - 0.5) * 2 * num_bins), num_bins - 1).astype(np.int64)
    sizes = sum_by_group(np.ones(len(evidence)), groups, num_bins)
    is_used = sizes > 0
    sizes = sizes[is_used]
    accuracy = sum_by_group(right, groups, num_bins)[is_used] / sizes
    mean_certainty = sum_by_group(certainty, groups, num_bins)[is_used] / sizes
    variances = np.where(
        sizes > 1, accuracy * (1 - accuracy) / np.maximum(sizes - 1, 1), (accuracy - mean_certainty) ** 2
    )
    return accuracy - mean_certainty, variances, sizes


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.exp(-np.logaddexp(0, -x))
