"""Shaping: closed forms, T32 (gradient per token), round trips, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.rewards.shaping import Normaliser, clip_scores, default_length_coef, length_penalty, missing_eos_penalty

finite = st.floats(-1e3, 1e3)


def test_length_penalty_closed_form():
    """score - 0.1 * tokens / 256: 128 tokens cost 0.05, 256 cost 0.1, none cost nothing."""
    shaped = length_penalty(np.array([1.0, 1.0, -2.0]), [128, 256, 0], coef=0.1, max_tokens=256)
    assert shaped == pytest.approx([0.95, 0.9, -2.0])


@settings(deadline=None, max_examples=25)
@given(finite, st.integers(0, 500), st.floats(0, 5), st.integers(1, 500))
def test_one_more_token_costs_coef_over_max_tokens(score, num_tokens, coef, max_tokens):
    """The reward's slope is -coef/max_tokens everywhere (finite difference)."""
    shaped = length_penalty(np.full(2, score), [num_tokens, num_tokens + 1], coef=coef, max_tokens=max_tokens)
    assert shaped[1] - shaped[0] == pytest.approx(-coef / max_tokens, abs=1e-8)


def test_default_length_coef_is_the_steeper_of_guide_and_slope():
    assert default_length_coef(0.03) == 0.1
    assert default_length_coef(-2.0) == 0.1
    assert default_length_coef(0.7) == 0.7
    with pytest.raises(DataError, match="slope"):
        default_length_coef(math.nan)


def test_default_coefficient_cancels_a_longer_is_better_reward():
    """A score that is only length (slope 0.7 over the limit) has no length left in it after the penalty."""
    num_tokens = np.arange(0, 101, 10)
    shaped = length_penalty(0.7 * num_tokens / 100, num_tokens, coef=default_length_coef(0.7), max_tokens=100)
    assert shaped == pytest.approx(np.zeros(11))


def test_missing_eos_and_clip_closed_form():
    assert missing_eos_penalty(np.array([1.0, 1.0]), [True, False], penalty=2.0).tolist() == [1.0, -1.0]
    clipped = clip_scores(np.array([-9.0, 0.5, 9.0, np.nan]), limit=2.0)
    assert clipped[:3].tolist() == [-2.0, 0.5, 2.0]
    assert np.isnan(clipped[3])
    with pytest.raises(DataError, match="limit"):
        clip_scores(np.zeros(1), limit=0.0)
    with pytest.raises(DataError, match="max_tokens"):
        length_penalty(np.zeros(1), [1], coef=0.1, max_tokens=0)


def test_normaliser_closed_form():
    """[1, 3, 5]: mean 3, sd 2 (n - 1); NaN is left out."""
    normaliser = Normaliser.fit([1.0, 3.0, 5.0, math.nan])
    assert (normaliser.mean, normaliser.std) == (3.0, 2.0)
    assert normaliser.apply([[7.0], [3.0]]).tolist() == [[2.0], [0.0]]


@settings(deadline=None, max_examples=25)
@given(st.lists(finite, min_size=2, max_size=30).filter(lambda v: np.std(v) > 1e-2), st.floats(0.1, 10), finite)
def test_normalised_reference_scores_ignore_scale_and_shift(values, scale, shift):
    normaliser = Normaliser.fit(values)
    normal = normaliser.apply(values)
    assert normal.mean() == pytest.approx(0, abs=1e-6)
    assert normal.std(ddof=1) == pytest.approx(1)
    moved = np.array(values) * scale + shift
    assert Normaliser.fit(moved).apply(moved) == pytest.approx(normal, abs=1e-4)
    assert Normaliser.from_dict(normaliser.to_dict()) == normaliser


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [math.nan, 1.0]])
def test_scores_without_spread_are_refused(values):
    with pytest.raises(DataError, match="do not vary"):
        Normaliser.fit(values)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (math.nan, 1.0), (0.0, -1.0)])
def test_a_damaged_normaliser_is_refused(mean, std):
    with pytest.raises(DataError, match="normaliser"):
        Normaliser(mean=mean, std=std)
