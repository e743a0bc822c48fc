import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.api import GLM, OLS, add_constant, families

from fairlead.core.errors import DataError
from fairlead.stats.calibration import (
    agreement_ceiling,
    calibration,
    flip_rate,
    length_correlation,
    length_slope,
    reliability_bins,
)


def pairs(rng, n, *, spread=1.5, sharpening=1.0):
    """Margins and outcomes of a scorer whose margins are `sharpening` times the true log-odds."""
    odds = rng.normal(0, spread, n)
    return odds * sharpening, rng.random(n) < 1 / (1 + np.exp(-odds))


@pytest.mark.parametrize(("agreement", "ceiling"), [(0.63, 0.755), (0.726, 0.836), (0.773, 0.870)])
def test_the_ceiling_lies_above_agreement(agreement, ceiling):
    low, high = agreement_ceiling(agreement)
    assert low == agreement
    assert high == pytest.approx(ceiling, abs=6e-4)


def test_the_ceiling_is_reached_when_all_pairs_are_equally_hard_and_not_otherwise():
    """Uniform noise e: A = e^2 + (1-e)^2 and the best accuracy is 1 - e. Two kinds of pairs lie strictly below."""
    e = 0.25
    assert agreement_ceiling(e**2 + (1 - e) ** 2)[1] == pytest.approx(0.75)
    assert flip_rate(e**2 + (1 - e) ** 2) == pytest.approx(0.25)
    p = np.array([0.55, 0.99])
    agreement, best = np.mean(p**2 + (1 - p) ** 2), p.mean()
    assert agreement < best < agreement_ceiling(float(agreement))[1]


def test_agreement_below_chance_means_chance():
    assert agreement_ceiling(0.4) == (0.5, 0.5)
    assert flip_rate(0.4) == 0.5


@given(st.integers(0, 2**32 - 1))
def test_slope_equals_logistic_regression_on_pairs_and_their_mirror_images(seed):
    margins, is_first = pairs(np.random.default_rng(seed), 200)
    both = np.concatenate([margins, -margins])
    outcomes = np.concatenate([is_first, ~is_first]).astype(float)
    fit = GLM(outcomes, both[:, None], family=families.Binomial(), freq_weights=np.full(400, 0.5)).fit()
    found = calibration(margins, is_first).slope
    assert found.value == pytest.approx(fit.params[0], rel=1e-5)
    low, high = fit.conf_int()[0]
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))


@given(st.integers(0, 2**32 - 1))
def test_which_completion_comes_first_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    margins, is_first = pairs(rng, 60)
    turned = rng.random(60) < 0.5
    found = calibration(margins, is_first)
    assert calibration(np.where(turned, -margins, margins), is_first ^ turned) == found
    assert calibration(np.abs(margins), is_first == (margins > 0)) == found


def test_calibrated_scores_pass_and_threefold_margins_are_caught():
    """Sharpened by 3: slope 1/3, temperature 3, ECE about .16 with most margins certain."""
    margins, is_first = pairs(np.random.default_rng(0), 20_000)
    good, sharp = calibration(margins, is_first), calibration(3 * margins, is_first)
    assert good.slope.low < 1 < good.slope.high
    assert sharp.temperature == pytest.approx(3, rel=0.05)
    assert sharp.ece == pytest.approx(0.158, abs=0.015)
    assert sharp.slope.high < 0.5
    assert sharp.accuracy == good.accuracy


def test_debiased_error_of_a_calibrated_scorer_is_much_nearer_to_zero():
    found = [calibration(*pairs(np.random.default_rng(seed), 500)) for seed in range(60)]
    raw, debiased = np.mean([f.ece for f in found]), np.median([f.debiased_ece for f in found])
    assert 0.05 < raw < 0.08
    assert debiased < raw / 2


def test_the_slope_interval_covers_one():
    covered = 0
    for seed in range(200):
        slope = calibration(*pairs(np.random.default_rng(1000 + seed), 300)).slope
        covered += slope.low <= 1 <= slope.high
    assert 182 <= covered <= 199


def test_separated_outcomes_have_no_slope_and_say_so():
    found = calibration([1.0, 2.0], [True, True])
    assert found.slope.note == "undefined: every margin agrees with its outcome"
    assert math.isnan(found.temperature)
    assert calibration([1.0], [False]).slope.note == "undefined: every margin contradicts its outcome"
    assert calibration([], []).slope.note == "no observations"
    assert calibration([0, 0], [True, False]).slope.note == "undefined: every margin is 0"
    assert math.isnan(calibration([], []).ece)


def test_huge_margins_neither_overflow_nor_stall():
    found = calibration([1e4, -1e4, 1e4, 5.0], [True, True, True, False])
    assert math.isfinite(found.slope.value)
    assert found.accuracy.value == 0.5


def test_a_margin_of_zero_counts_half():
    assert calibration([0.0, 0.0, 1.0, -1.0], [True, False, True, True]).accuracy.value == 0.5


def test_reliability_bins_hold_all_pairs_in_order_of_confidence():
    """A perfectly calibrated scorer lies on the diagonal within its intervals."""
    margins, is_first = pairs(np.random.default_rng(1), 1003)
    bins = reliability_bins(margins, is_first)
    assert sum(b.accuracy.n for b in bins) == 1003
    assert {b.accuracy.n for b in bins} == {100, 101}
    confidences = [b.confidence for b in bins]
    assert confidences == sorted(confidences)
    assert sum(b.accuracy.low <= b.confidence <= b.accuracy.high for b in bins) >= 8
    assert reliability_bins([], []) == ()


def test_label_noise_caps_the_observed_accuracy():
    """A perfect scorer against labels flipped with chance .25 shows .75."""
    rng = np.random.default_rng(2)
    is_first = rng.random(40_000) < 0.5
    labels = is_first ^ (rng.random(40_000) < 0.25)
    found = calibration(np.where(is_first, 1.0, -1.0), labels)
    assert found.accuracy.value == pytest.approx(0.75, abs=0.007)
    assert found.slope.value == pytest.approx(math.log(3), abs=0.04)


def test_length_slope_equals_least_squares():
    rng = np.random.default_rng(3)
    lengths = rng.integers(10, 200, 90)
    scores = 0.004 * lengths + rng.normal(0, 0.5, 90)
    fit = OLS(scores, add_constant(lengths / 200)).fit()
    found = length_slope(scores, lengths, max_tokens=200)
    assert found.value == pytest.approx(fit.params[1])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[1]))
    assert length_slope([1, 2, 3], [5, 5, 5]).note == "all lengths are equal"
    assert length_slope([1, 2], [5, 6]).note == "fewer than 3 completions"


def test_length_correlation_equals_spearman():
    rng = np.random.default_rng(4)
    scores, lengths = rng.normal(size=50), rng.integers(1, 30, 50)
    assert length_correlation(scores, lengths).value == pytest.approx(scipy_stats.spearmanr(scores, lengths).statistic)


@pytest.mark.parametrize(
    ("margins", "outcomes", "fault"),
    [([1, math.nan], [True, False], "margins=nan"), ([1, 2], [True], "shapes"), ([1, 2], [1, 0.5], "Leave ties out")],
)
def test_margins_and_outcomes_that_do_not_fit_are_refused(margins, outcomes, fault):
    with pytest.raises(DataError, match=fault):
        calibration(margins, outcomes)
