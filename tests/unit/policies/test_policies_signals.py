"""Signals of a round against slow counterparts and values by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policies.signals import first_ratio_gap, kl_efficiency, perplexity, text_signals
from fairlead.stats.diversity import distinct_n, repeated_ngram_share

TEXTS = st.lists(st.lists(st.integers(0, 5), max_size=60), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(texts=TEXTS)
def test_texts_are_counted_as_the_slow_functions_count_them(texts):
    found = text_signals([np.array(text, dtype=np.int64) for text in texts])
    expected = distinct_n([text[:32] for text in texts], 2)
    assert found.get("rl/distinct_2", math.nan) == pytest.approx(expected, nan_ok=True)
    assert found["rl/repetition"] == pytest.approx(float(repeated_ngram_share(texts).mean()))


def test_large_ids_do_not_collide():
    ids = np.random.default_rng(0).integers(0, 200_000, size=(64, 300))
    found = text_signals(list(ids))
    assert found["rl/distinct_2"] > 0.999 and found["rl/repetition"] == 0


def test_efficiency_by_hand():
    """Gain 0.5 of a spread of 1 at 0.5 nats: 0.5 / sqrt(1) = 0.5. Nothing is said where no KL was spent."""
    assert kl_efficiency(gain=0.5, spread=1.0, kl_sequence=0.5) == {"rl/kl_efficiency": pytest.approx(0.5)}
    assert (
        kl_efficiency(gain=0.5, spread=1.0, kl_sequence=0.0)
        == {}
        == kl_efficiency(gain=0.5, spread=0.0, kl_sequence=1.0)
    )


def test_the_best_small_tilt_has_an_efficiency_of_one():
    """p proportional to exp(r / beta) on 1,000 outputs with normal rewards: its gain is what sqrt(2 KL) buys."""
    rewards = np.random.default_rng(0).normal(size=1000)
    weights = np.exp(rewards / 20)
    policy = weights / weights.sum()
    kl = float((policy * np.log(policy * 1000)).sum())
    gain = float(policy @ rewards - rewards.mean())
    assert kl_efficiency(gain=gain, spread=float(rewards.std()), kl_sequence=kl)["rl/kl_efficiency"] == pytest.approx(
        1, abs=0.02
    )


def test_perplexity_under_the_reference_by_hand():
    """Mean logprob -log 4: perplexity 4. What is all but impossible stays finite."""
    assert perplexity(np.log([0.5, 0.125])) == pytest.approx(4)
    assert math.isfinite(perplexity(np.array([-1e6])))


def test_the_first_ratio_gap_is_the_root_of_twice_the_approximate_kl():
    assert first_ratio_gap(0.5 * 0.1**2) == {"rl/first_ratio_gap": pytest.approx(0.1)}
