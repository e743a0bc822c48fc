import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.api import GLM, families

from fairlead.core.errors import DataError
from fairlead.stats.winrate import length_controlled_win_rate, order_consistency, swap_averaged_logits


def judge(rng, n, *, quality=0.0, length_bias=1.0):
    """Verdicts of a judge who likes length; the policy writes more in most comparisons."""
    deltas = rng.normal(60, 100, n)
    odds = quality + length_bias * np.tanh(deltas / deltas.std())
    return (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float), deltas


@pytest.mark.parametrize("length_bias", [1.0, 2.0])
def test_equal_quality_and_a_length_bias_give_one_half(length_bias):
    """805 comparisons: the plain win rate is far above one half, the controlled one is not."""
    wins, deltas = judge(np.random.default_rng(0), 805, length_bias=length_bias)
    found = length_controlled_win_rate(wins, deltas)
    error = (found.high - found.low) / 3.92
    assert wins.mean() > 0.57
    assert abs(found.value - 0.5) < 2.5 * error


def test_the_interval_covers_a_real_difference():
    truth, covered = 1 / (1 + np.exp(-0.5)), 0
    for seed in range(200):
        found = length_controlled_win_rate(*judge(np.random.default_rng(seed), 300, quality=0.5))
        covered += found.low <= truth <= found.high
    assert 182 <= covered <= 198


def test_the_value_equals_a_generalised_linear_model():
    wins, deltas = judge(np.random.default_rng(1), 200)
    features = np.stack([np.ones(200), np.tanh(deltas / deltas.std())], axis=1)
    fit = GLM(wins, features, family=families.Binomial()).fit(tol=1e-12, cov_type="HC0")
    found = length_controlled_win_rate(wins, deltas)
    ends = 1 / (1 + np.exp(-fit.conf_int()[0]))
    assert found.value == pytest.approx(1 / (1 + np.exp(-fit.params[0])), abs=1e-5)
    assert (found.low, found.high) == (pytest.approx(ends[0], abs=1e-4), pytest.approx(ends[1], abs=1e-4))


@given(st.integers(0, 2**32 - 1))
def test_exchanging_policy_and_baseline_turns_the_rate_round(seed):
    wins, deltas = judge(np.random.default_rng(seed), 60)
    found, other = length_controlled_win_rate(wins, deltas), length_controlled_win_rate(1 - wins, -deltas)
    assert other.value == pytest.approx(1 - found.value)
    assert other.low == pytest.approx(1 - found.high)


def test_equal_lengths_leave_the_plain_win_rate():
    assert length_controlled_win_rate([1, 1, 1, 0, 0.5], [7] * 5).value == pytest.approx(0.7)


def test_what_cannot_be_controlled_says_so():
    assert length_controlled_win_rate([1, 1, 1], [3, 4, 5]).note.startswith("every comparison went the same way")
    assert length_controlled_win_rate([1], [3]).note == "fewer than 2 comparisons"
    longer_wins = length_controlled_win_rate([1, 1, 0, 0], [5, 3, -5, -3])
    assert longer_wins.value == pytest.approx(0.5)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20), st.floats(-3, 3))
def test_a_preference_for_a_place_cancels_in_log_odds(odds, bias):
    odds = np.array(odds)
    assert swap_averaged_logits(odds + bias, odds - bias) == pytest.approx(odds, abs=1e-12)


def test_averaged_probabilities_would_not_cancel():
    first, second = 1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(1.0))
    assert abs((first + second) / 2 - 1 / (1 + np.exp(-1.0))) > 0.05


def test_consistency_and_the_side_of_the_flips():
    """Of 6 comparisons 3 keep their verdict; of the 3 that flip 2 favour the first place."""
    consistent, favours_first = order_consistency([1, 1, 1, 0, 0, 1], [1, 0, 0, 0, 1, 1])
    assert (consistent.value, consistent.n) == (0.5, 6)
    assert (favours_first.value, favours_first.n) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize("preferences", [[1, np.nan, 0], [2, 0, 1], [1, 0]])
def test_verdicts_that_are_no_shares_are_refused(preferences):
    with pytest.raises(DataError, match="preferences"):
        length_controlled_win_rate(preferences, [1, 2, 3])
