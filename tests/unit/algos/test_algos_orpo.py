"""ORPO."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pair_examples import mean_loss, metric_means, padded_pairs, pair, turned

from fairlead.algos import ORPO
from fairlead.algos.orpo import ORPOConfig, log_odds
from fairlead.algos.random_batches import random_batch
from fairlead.core.errors import ConfigError
from naive.orpo_naive import orpo_loss

_HALF, _QUARTER = math.log(0.5), math.log(0.25)


def test_a_pair_by_hand():
    """P = 1/2 and 1/4: odds 1 and 1/3, ratio 3; -log(3 / 4) = 0.287682, the likelihood costs log 2."""
    batch = pair([_HALF, _HALF], [_QUARTER])
    assert mean_loss(ORPO, batch, ORPOConfig(beta=0.5)) == pytest.approx(math.log(2) + 0.5 * 0.287682, abs=1e-6)


@given(seed=st.integers(0, 2**31), beta=st.floats(0.01, 2))
def test_the_loss_agrees_with_the_loop_over_padded_rows(seed, beta):
    batch = random_batch("groups", seed=seed)
    expected = sum(
        weight * orpo_loss(chosen, rejected, mask_c, mask_r, p, beta=beta)
        for p, weight, rows in padded_pairs(batch, "logprobs")
        for (chosen, mask_c), (rejected, mask_r) in [(rows["chosen"], rows["rejected"])]
    )
    assert mean_loss(ORPO, batch, ORPOConfig(beta=beta)) == pytest.approx(expected / float(batch.weights.sum()))


def test_odds_are_finite_from_certain_to_impossible():
    """P = 1 counts as 1 - 1e-6, odds of a million; P = exp(-1e4) has log odds -1e4. Gradients too, in float32."""
    x = torch.tensor([0.0, -1e-4, -1e4], requires_grad=True)
    found = log_odds(x)
    found.sum().backward()
    assert found.tolist() == pytest.approx([13.8155, 9.2103, -1e4], rel=1e-3)
    assert bool(x.grad.isfinite().all())


def test_votes_are_as_good_as_repeated_pairs():
    soft, repeated = turned([-1.0, -2.0], [-3.0])
    expected = sum(mean_loss(ORPO, b, ORPOConfig()) for b in repeated)
    assert 4 * mean_loss(ORPO, soft, ORPOConfig()) == pytest.approx(expected)


def test_no_reference_is_asked_for():
    assert ORPO.needs_for(ORPOConfig()) == frozenset()


def test_metrics_by_hand():
    """Rewards are log odds: 0 and -log 3."""
    means = metric_means(ORPO, pair([_HALF, _HALF], [_QUARTER]), ORPOConfig())
    assert means == pytest.approx(
        {
            "dpo/loss": 0.287682,
            "dpo/chosen_logprobs": 2 * _HALF,
            "dpo/rejected_logprobs": _QUARTER,
            "dpo/chosen_reward": 0.0,
            "dpo/rejected_reward": -math.log(3),
            "dpo/margin": math.log(3),
            "dpo/accuracy": 1.0,
            "dpo/nll": math.log(2),
        },
        abs=1e-6,
    )


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="beta"):
        ORPOConfig(beta=0.0)
