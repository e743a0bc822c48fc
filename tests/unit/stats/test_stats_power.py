import numpy as np
import pytest

from fairlead.core.errors import DataError
from fairlead.stats.power import (
    calibration_decision,
    kappa_half_width,
    pairs_for_kappa,
    pairs_for_power,
    pass_probability,
)


@pytest.mark.parametrize(("win_rate", "pairs"), [(0.60, 194), (0.65, 85), (0.55, 783), (0.52, 4898)])
def test_pairs_equal_the_published_numbers(win_rate, pairs):
    assert pairs_for_power(win_rate) == pytest.approx(pairs, rel=0.002)
    assert pairs_for_power(1 - win_rate) == pairs_for_power(win_rate)


def test_no_number_of_pairs_separates_a_half_from_a_half():
    with pytest.raises(DataError, match=r"win_rate=0\.5 cannot be told from chance"):
        pairs_for_power(0.5)


def test_the_planned_power_is_reached():
    """194 pairs at .60: the share of studies whose z exceeds 1.96 is about .80."""
    wins = np.random.default_rng(0).binomial(194, 0.6, 20_000)
    assert np.mean(np.abs(wins - 97) / np.sqrt(194 / 4) > 1.96) == pytest.approx(0.80, abs=0.03)


@pytest.mark.parametrize(("n", "width"), [(30, 0.33), (50, 0.25), (100, 0.18), (200, 0.13), (400, 0.09), (1000, 0.06)])
def test_kappa_widths_equal_the_published_table(n, width):
    assert kappa_half_width(0.7, n) == pytest.approx(width, abs=0.006)


def test_pairs_for_kappa():
    assert pairs_for_kappa(0.10, agreement=0.7) == 323
    assert pairs_for_kappa(0.05, agreement=0.7) == 1291


@pytest.mark.parametrize(
    ("agreement", "chance"),
    [(0.50, 0.016), (0.55, 0.077), (0.60, 0.24), (0.65, 0.51), (0.70, 0.78), (0.75, 0.945), (0.80, 0.994)],
)
def test_chances_to_pass_calibration_equal_the_published_table(agreement, chance):
    assert pass_probability(agreement, num_items=50, threshold=0.65) == pytest.approx(chance, abs=0.006)


def test_a_threshold_that_is_a_whole_number_of_items_is_not_rounded_up():
    assert pass_probability(0.5, num_items=100, threshold=0.55) == pass_probability(0.5, num_items=100, threshold=0.545)
    assert pass_probability(0.5, num_items=20, threshold=0.0) == 1.0


@pytest.mark.parametrize(
    ("successes", "n", "decision"),
    [(45, 50, "pass"), (20, 50, "fail"), (33, 50, "continue"), (66, 100, "pass"), (64, 100, "fail")],
)
def test_calibration_goes_on_while_the_interval_decides_nothing(successes, n, decision):
    assert calibration_decision(successes, n) == decision
