"""SimPO."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair_examples import mean_loss, metric_means, padded_pairs, pair, turned

from fairlead.algos import SIMPO
from fairlead.algos.random_batches import random_batch
from fairlead.algos.simpo import SimPOConfig
from fairlead.core.errors import ConfigError
from naive.simpo_naive import simpo_loss


def test_a_pair_by_hand():
    """Means -1 and -2: 2 * 1 - 1 = 1; log(1 + e^-1) = 0.313262. Without the margin log(1 + e^-2) = 0.126928."""
    batch = pair([-0.5, -1.5], [-2.0])
    assert mean_loss(SIMPO, batch, SimPOConfig()) == pytest.approx(0.313262, abs=1e-6)
    assert mean_loss(SIMPO, batch, SimPOConfig(gamma=0.0)) == pytest.approx(0.126928, abs=1e-6)


def test_length_alone_changes_nothing():
    """Both sides at -1 nat a token, 1 and 4 tokens long: the loss is that of no margin, log(1 + e^1)."""
    for batch in (pair([-1.0], [-1.0] * 4), pair([-1.0] * 4, [-1.0])):
        assert mean_loss(SIMPO, batch, SimPOConfig(gamma=1.0)) == pytest.approx(math.log1p(math.e))


@given(seed=st.integers(0, 2**31), beta=st.floats(0.1, 10), gamma=st.floats(0, 3), nll_coef=st.floats(0, 2))
def test_the_loss_agrees_with_the_loop_over_padded_rows(seed, beta, gamma, nll_coef):
    batch = random_batch("groups", seed=seed)
    expected = sum(
        weight * simpo_loss(chosen, rejected, mask_c, mask_r, p, beta=beta, gamma=gamma, nll_coef=nll_coef)
        for p, weight, rows in padded_pairs(batch, "logprobs")
        for (chosen, mask_c), (rejected, mask_r) in [(rows["chosen"], rows["rejected"])]
    )
    config = SimPOConfig(beta=beta, gamma=gamma, nll_coef=nll_coef)
    assert mean_loss(SIMPO, batch, config) == pytest.approx(expected / float(batch.weights.sum()))


def test_votes_are_as_good_as_repeated_pairs():
    soft, repeated = turned([-1.0, -2.0], [-3.0])
    config = SimPOConfig(nll_coef=0.5)
    assert 4 * mean_loss(SIMPO, soft, config) == pytest.approx(sum(mean_loss(SIMPO, b, config) for b in repeated))


def test_no_reference_is_asked_for():
    assert SIMPO.needs_for(SimPOConfig()) == frozenset()


def test_metrics_by_hand():
    """Rewards are beta times mean log-probabilities: -2 and -4."""
    means = metric_means(SIMPO, pair([-0.5, -1.5], [-2.0]), SimPOConfig(nll_coef=0.1))
    assert means == pytest.approx(
        {
            "dpo/loss": 0.313262,
            "dpo/chosen_logprobs": -2.0,
            "dpo/rejected_logprobs": -2.0,
            "dpo/chosen_reward": -2.0,
            "dpo/rejected_reward": -4.0,
            "dpo/margin": 2.0,
            "dpo/accuracy": 1.0,
            "dpo/nll": 1.0,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"gamma": -1.0}, {"nll_coef": -0.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SimPOConfig(**settings)
