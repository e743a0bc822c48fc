"""The area under the ROC curve with its interval."""

import math

import numpy as np
import pytest

from fairlead.stats.separation import separation


def test_the_area_by_hand():
    """Good 3, 1 against bad 2, 1: 3 beats both, 1 beats none and ties one: (2 + 0.5) / 4."""
    assert separation([3.0, 2.0, 1.0, 1.0], [True, False, True, False], seed=0).value == 0.625


def test_the_interval_holds_the_truth_and_shrinks():
    """Normal scores a standard deviation apart: Phi(1 / sqrt 2) = 0.7602."""
    rng, widths = np.random.default_rng(0), []
    for size in (100, 1600):
        is_good = np.arange(size) % 2 == 0
        found = separation(rng.normal(size=size) + is_good, is_good, seed=1)
        assert found.low < 0.7602 < found.high and found.n == size
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize("labels", [[True, True], [False, False], []])
def test_one_side_alone_has_no_separation(labels):
    found = separation(np.arange(len(labels)), labels, seed=0)
    assert math.isnan(found.value) and found.note == "needs good and bad items"
