import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from fairlead.core.errors import DataError
from fairlead.stats.intervals import (
    bootstrap_interval,
    correlation_interval,
    holm,
    mcnemar,
    mean_interval,
    paired_interval,
    sign_test,
    tost,
    wilson,
)


@given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n, share, confidence):
    successes = round(share * n)
    found = wilson(successes, n, confidence=confidence)
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert found.low == pytest.approx(max(low, 0), abs=1e-12)
    assert found.high == pytest.approx(min(high, 1), abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(33, 50, 0.52, 0.78), (8, 10, 0.49, 0.94), (24, 30, 0.63, 0.90), (40, 50, 0.67, 0.89)],
)
def test_wilson_gives_the_widths_of_calibration_and_gold_items(successes, n, low, high):
    found = wilson(successes, n)
    assert (round(found.low, 2), round(found.high, 2)) == (low, high)


@pytest.mark.parametrize(("n", "share"), [(100, 0.5), (100, 0.8), (805, 0.9)])
def test_wilson_covers_about_95_percent(n, share):
    """Exact coverage: the sum of binomial chances of the counts whose interval holds the share."""
    k = np.arange(n + 1)
    intervals = [wilson(int(s), n) for s in k]
    is_covered = np.array([i.low <= share <= i.high for i in intervals])
    assert 0.93 <= scipy_stats.binom.pmf(k, n, share)[is_covered].sum() <= 0.965


def test_half_wins_are_allowed_and_nothing_observed_is_undefined():
    assert wilson(5.5, 11).value == 0.5
    assert wilson(0, 0).note == "no observations"
    assert math.isnan(wilson(0, 0).value)


def test_mean_and_paired_intervals_equal_student():
    x = np.random.default_rng(0).normal(size=17)
    low, high = scipy_stats.t.interval(0.95, 16, loc=x.mean(), scale=scipy_stats.sem(x))
    found = mean_interval(x)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert paired_interval(np.ones(17), x + 1).low == pytest.approx(low)
    assert mean_interval([3.0]).note == "one observation has no spread"
    assert math.isnan(mean_interval([]).value)


def test_correlation_equals_scipy_with_ties_and_its_two_intervals_agree():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 20, 400)
    y = x + rng.normal(0, 12, 400)
    found, boot = correlation_interval(x, y), correlation_interval(x, y, method="bootstrap", seed=3)
    assert found.value == boot.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert found.low == pytest.approx(boot.low, abs=0.03)
    assert found.high == pytest.approx(boot.high, abs=0.03)


def test_correlation_says_why_it_is_undefined():
    assert correlation_interval([1, 1, 1, 1], [1, 2, 3, 4]).note == "a constant has no correlation"
    assert correlation_interval([1, 2], [1, 2]).note == "fewer than 4 pairs"
    assert correlation_interval([1, 2, 3, 4], [4, 3, 2, 1]).value == -1


def test_percentile_bootstrap_of_a_mean_is_close_to_student():
    x = np.random.default_rng(2).normal(size=300)
    exact = mean_interval(x)
    found = bootstrap_interval(lambda rows: float(x[rows].mean()), 300, seed=5, num_resamples=10_000)
    assert found.value == exact.value
    assert found.low == pytest.approx(exact.low, abs=0.01)
    assert found.high == pytest.approx(exact.high, abs=0.01)


def test_the_seed_decides_the_bootstrap():
    x = np.arange(20.0)
    runs = [
        bootstrap_interval(lambda rows: float(x[rows].mean()), 20, seed=seed, num_resamples=50) for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_bca_equals_scipy_on_a_skewed_sample():
    x = np.random.default_rng(3).exponential(size=40)
    ours = bootstrap_interval(lambda rows: float(x[rows].mean()), 40, seed=7, method="bca", num_resamples=9000)
    theirs = scipy_stats.bootstrap(
        (x,), np.mean, n_resamples=9000, method="BCa", rng=np.random.default_rng(9)
    ).confidence_interval
    plain = bootstrap_interval(lambda rows: float(x[rows].mean()), 40, seed=7, num_resamples=9000)
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)
    assert ours.high > plain.high + 0.02, "the correction moves towards the long tail"


def test_undefined_resamples_are_counted_not_hidden():
    found = bootstrap_interval(lambda rows: math.nan if 0 in rows else 1.0, 5, seed=0, num_resamples=200)
    assert found.note == "undefined on the data"
    found = bootstrap_interval(lambda rows: 1.0 if 0 in rows else math.nan, 5, seed=0, num_resamples=200)
    lost = int(found.note.split()[2])
    assert found.value == 1.0
    assert found.note.startswith(f"undefined on {lost} of 200 resamples")
    assert 0.2 < lost / 200 < 0.5, "(4/5)^5 = .33 of the resamples miss an item"


@given(wins=st.integers(0, 60), losses=st.integers(0, 60))
def test_sign_test_equals_scipy(wins, losses):
    expected = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_ties_count_half_to_each_side():
    assert sign_test(10, 2, ties=6) == sign_test(13, 5)
    assert sign_test(10, 2, ties=7) == sign_test(13, 5)


def test_mcnemar_equals_statsmodels():
    rng = np.random.default_rng(4)
    before, after = rng.random(80) < 0.6, rng.random(80) < 0.75
    table = [
        [np.sum(before & after), np.sum(before & ~after)],
        [np.sum(~before & after), np.sum(~before & ~after)],
    ]
    assert mcnemar(before, after) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(pvalues):
    assert holm(pvalues) == pytest.approx(multipletests(pvalues, method="holm")[1])


def test_tost_equals_statsmodels_and_its_edges():
    diff = np.random.default_rng(5).normal(0.02, 0.3, 120)
    expected = ttost_paired(diff, np.zeros(120), -0.1, 0.1)[0]
    assert tost(diff, 0.1) == pytest.approx(expected)
    assert tost([0.0, 0.0, 0.0], 0.1) == 0.0
    assert tost([0.2, 0.2], 0.1) == 1.0
    assert tost([0.0], 0.1) == 1.0


@pytest.mark.parametrize(("successes", "n"), [(5, 3), (-1, 3), (0, -2)])
def test_wilson_refuses_counts_that_do_not_fit(successes, n):
    with pytest.raises(DataError, match="do not fit"):
        wilson(successes, n)


def test_lists_of_different_length_are_refused_not_stretched():
    for compare in (paired_interval, mcnemar, correlation_interval):
        with pytest.raises(DataError, match="shapes"):
            compare([1], [0, 1, 1, 0, 1])


def test_values_that_are_not_finite_leave_a_note():
    assert mean_interval([1, math.nan, 2]).note == "1 of 3 values are not finite numbers"
    assert correlation_interval([1, 2, 3, 4, math.inf], [1, 2, 3, 4, 5]).note == "1 of 5 values are not finite numbers"
