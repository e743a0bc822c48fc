import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.stats.drift import ar1_residuals, bernoulli_cusum, bernoulli_run_length, cusum, cusum_run_length
from naive import stats_naive as naive


@given(st.lists(st.booleans(), max_size=60))
def test_path_and_alarm_equal_the_recursion(correct):
    run, path = bernoulli_cusum(correct, p0=0.9, p1=0.75, h=1.5), naive.bernoulli_cusum(correct, 0.9, 0.75)
    assert run.path == pytest.approx(path)
    assert run.alarm == next((i for i, s in enumerate(path) if s >= 1.5), None)
    if run.alarm is not None:
        before = [i for i in range(run.alarm) if path[i] < 1e-12]
        assert run.change_point == (before[-1] + 1 if before else 0)


def test_a_sudden_change_is_found_where_it_happened():
    """50 right, then all wrong: each wrong adds log(.35/.20) = .56 nats, so h = 3 is reached by the sixth."""
    run = bernoulli_cusum([True] * 50 + [False] * 20, p0=0.80, p1=0.65, h=3.0)
    assert run.alarm == 55
    assert run.change_point == 50
    assert run.path[50] == pytest.approx(math.log(0.35 / 0.20))


@pytest.mark.parametrize(
    ("p0", "p1", "h", "in_control", "at_p1", "at_half"),
    [
        (0.90, 0.75, 3.0, 376, 27, 9),
        (0.85, 0.70, 3.0, 395, 33, 12),
        (0.80, 0.65, 3.0, 426, 39, 17),
        (0.80, 0.65, 4.0, 1284, 55, 23),
    ],
)
def test_run_lengths_equal_the_published_table(p0, p1, h, in_control, at_p1, at_half):
    found = [bernoulli_run_length(p, p0=p0, p1=p1, h=h) for p in (p0, p1, 0.5)]
    assert found[0] == pytest.approx(in_control, rel=0.02)
    assert found[1:] == pytest.approx([at_p1, at_half], abs=0.8)


def test_run_length_equals_simulation():
    rng, lengths = np.random.default_rng(0), []
    for _ in range(2000):
        run = bernoulli_cusum(rng.random(600) < 0.65, p0=0.80, p1=0.65, h=3.0)
        assert run.alarm is not None
        lengths.append(run.alarm + 1)
    exact = bernoulli_run_length(0.65, p0=0.80, p1=0.65, h=3.0)
    assert np.mean(lengths) == pytest.approx(exact, abs=3 * np.std(lengths) / math.sqrt(2000))


def test_run_length_by_hand():
    """h so small that any wrong answer alarms: the wait for the first wrong answer is 1 / (1 - p)."""
    assert bernoulli_run_length(0.9, p0=0.9, p1=0.75, h=0.5) == pytest.approx(10)


def test_a_rise_is_not_a_fall():
    with pytest.raises(DataError, match=r"drift=0\.6 to 0\.8 is not a fall"):
        bernoulli_cusum([True], p0=0.6, p1=0.8, h=3)


def test_eval_points_alarm_after_a_shift_and_fall_is_seen_through_the_sign():
    x = np.concatenate([np.zeros(10), np.full(10, 2.5)])
    run = cusum(x, h=8.0)
    assert run.alarm == 13, "each point adds 2.5 - 0.5: 2, 4, 6, 8"
    assert run.change_point == 10
    assert cusum(-x).alarm is None


@pytest.mark.parametrize(("shift", "h", "expected"), [(0.0, 5.0, 961), (0.75, 8.0, 28), (1.0, 8.0, 15), (2.0, 8.0, 5)])
def test_normal_run_lengths_are_near_the_simulated_table(shift, h, expected):
    assert cusum_run_length(shift, h=h) == pytest.approx(expected, rel=0.2)


def test_normal_run_length_equals_simulation():
    rng = np.random.default_rng(1)
    alarms = [cusum(rng.normal(1.0, 1, 200), h=5.0).alarm for _ in range(2000)]
    assert np.mean(alarms) + 1 == pytest.approx(cusum_run_length(1.0, h=5.0), rel=0.05)
    assert cusum_run_length(0.5, h=5.0) == pytest.approx(6.166**2)


def test_whitening_removes_autocorrelation():
    rng = np.random.default_rng(2)
    x = np.zeros(3000)
    for i in range(1, 3000):
        x[i] = 0.8 * x[i - 1] + rng.normal()
    white = ar1_residuals(x)
    assert abs(np.corrcoef(white[:-1], white[1:])[0, 1]) < 0.05
    assert white.std(ddof=1) == pytest.approx(1)
    assert ar1_residuals([1.0, 1.0, 1.0, 1.0]).tolist() == [0, 0, 0]
    assert ar1_residuals([1.0]).shape == (0,)
