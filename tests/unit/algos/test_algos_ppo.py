"""The PPO loss."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import PPO
from fairlead.algos.policy_loss import clipped_surrogate, importance_ratios
from fairlead.algos.ppo import PPOConfig, clipped_value_loss
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import RolloutBatch
from fairlead.core.errors import ConfigError
from naive.policy_naive import completions_of
from naive.ppo_naive import ppo_loss


def _policy_loss(ratio, advantage, **settings):
    """Loss, gradient with respect to the log-probability, and whether the ratio was clipped, of one token."""
    logprobs = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    old = torch.zeros(1, dtype=torch.float64)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    losses, is_clipped = clipped_surrogate(importance_ratios(logprobs, old), advantages, PPOConfig(**settings))
    losses.sum().backward()
    return losses.item(), logprobs.grad.item(), bool(is_clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "is_clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.5, 2.0, -2.56, 0.0, True),  # 1.28 * 2: enough of a good thing
        (0.5, 2.0, -1.0, -1.0, False),  # a good token that became rare is still pulled up
        (0.5, -2.0, 1.6, 0.0, True),  # 0.8 * 2: enough away from a bad one
        (1.5, -2.0, 3.0, 3.0, False),  # a bad token that became common is pushed down
    ],
)
def test_the_four_corners_of_the_clip(ratio, advantage, loss, gradient, is_clipped):
    """clip_low 0.2, clip_high 0.28; the gradient with respect to log pi is -ratio * advantage where not clipped."""
    found = _policy_loss(ratio, advantage, clip_low=0.2, clip_high=0.28)
    assert found == (pytest.approx(loss), pytest.approx(gradient), is_clipped)


@pytest.mark.parametrize(("ratio", "loss", "gradient"), [(2.0, 4.0, 4.0), (5.0, 6.0, 0.0)])
def test_dual_clip_bounds_the_loss_of_a_bad_token(ratio, loss, gradient):
    """Advantage -2 and bound 3: at most 6, and beyond it no gradient."""
    assert _policy_loss(ratio, -2.0, dual_clip=3.0)[:2] == (pytest.approx(loss), pytest.approx(gradient))


def test_a_token_held_by_the_dual_clip_is_counted_as_clipped():
    assert _policy_loss(5.0, -2.0, dual_clip=3.0)[2]
    assert not _policy_loss(2.0, -2.0, dual_clip=3.0)[2]


def test_dual_clip_leaves_good_tokens_alone():
    assert _policy_loss(0.01, 2.0, dual_clip=3.0) == _policy_loss(0.01, 2.0)


@pytest.mark.parametrize(("value", "loss"), [(1.1, 0.405), (1.5, 0.32), (0.0, 2.0)])
def test_value_loss_by_hand(value, loss):
    """Old value 1, clip 0.2, return 2. 1.1: 0.9^2 / 2. 1.5: held at 1.2, 0.8^2 / 2 = 0.32 over 0.125. 0: 2^2 / 2 over 1.2^2 / 2."""
    one = torch.ones(1, dtype=torch.float64)
    assert float(clipped_value_loss(value * one, one, 2 * one, 0.2)) == pytest.approx(loss)
    assert float(clipped_value_loss(value * one, None, 2 * one, None)) == pytest.approx(0.5 * (value - 2) ** 2)


@given(
    seed=st.integers(0, 2**31),
    dual_clip=st.none() | st.floats(1.3, 5),
    value_clip=st.none() | st.floats(0.01, 1),
    entropy_coef=st.floats(0, 0.1),
    aggregation=st.sampled_from(["token_mean", "sequence_mean"]),
)
def test_the_loss_agrees_with_the_loop(seed, **varied):
    batch = random_batch("rollouts", seed=seed)
    settings = {"clip_low": 0.2, "clip_high": 0.28, "value_coef": 0.3, **varied}
    config = PPOConfig(**settings)
    found = float(PPO.loss(batch, config).total / PPO.count(batch, config))
    assert found == pytest.approx(ppo_loss(completions_of(batch), **settings))


def _at_the_start(batch):
    logprobs = batch.logprobs.clone().requires_grad_()
    return logprobs, replace(batch, logprobs=logprobs, old_logprobs=batch.logprobs, weights=None, correction=None)


@given(seed=st.integers(0, 2**31))
def test_the_first_step_is_reinforce(seed):
    """Ratio 1, nothing clipped, loss -mean(A), gradient -A on every log-probability."""
    logprobs, batch = _at_the_start(random_batch("rollouts", seed=seed))
    result = PPO.loss(batch, PPOConfig(value_coef=0.0))
    result.total.backward()
    torch.testing.assert_close(logprobs.grad, -batch.advantages)
    assert result.total.item() == pytest.approx(-float(batch.advantages.sum()))
    means = {name: float(total / count) for name, (total, count) in result.metrics.items()}
    assert (means["rl/ratio_mean"], means["rl/clip_fraction"], means["rl/approx_kl"]) == (1.0, 0.0, 0.0)


def test_a_far_token_stops_moving_instead_of_overflowing():
    """Log-ratio 1e4: the ratio stays at exp(20) = 4.85e8 and the gradient is 0."""
    logprobs = torch.zeros(1, requires_grad=True)
    ratios = importance_ratios(logprobs, torch.full((1,), -1e4))
    losses, _ = clipped_surrogate(ratios, torch.full((1,), -1.0), PPOConfig())
    losses.sum().backward()
    assert losses.item() == pytest.approx(math.exp(20), rel=1e-5)
    assert float(logprobs.grad) == 0.0


def test_explained_variance_by_hand():
    """Returns (1, 3), variance 1. Values (1.5, 2.5) leave errors of -+0.5: 1 - 0.25. A constant 7 explains nothing."""

    def explained(values, returns=(1.0, 3.0)):
        batch = random_batch("rollouts", seed=0, num_units=2)
        fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        two = {name: x[:2] for name, x in fields.items() if isinstance(x, torch.Tensor)}
        rollouts = RolloutBatch(
            **fields
            | two
            | {"weights": None}
            | {"returns": torch.tensor(returns), "values": torch.tensor(values, requires_grad=True)}
        )
        metrics = PPO.loss(rollouts, PPOConfig()).metrics
        return PPO.logged({name: float(total / count) for name, (total, count) in metrics.items()})

    assert explained([1.5, 2.5])["rl/explained_variance"] == pytest.approx(0.75)
    assert explained([7.0, 7.0])["rl/explained_variance"] == pytest.approx(0.0)
    assert explained([1.0, 3.0])["rl/explained_variance"] == pytest.approx(1.0)
    assert "rl/explained_variance" not in explained([1.0, 3.0], returns=(0.1, 0.1))
    assert not [name for name in explained([1.0, 3.0]) if name.endswith("_squared")]


def test_entropy_is_a_metric_without_a_bonus():
    batch = random_batch("rollouts", seed=5)
    total, count = PPO.loss(batch, PPOConfig()).metrics["rl/entropy"]
    assert float(total / count) == pytest.approx(float(batch.entropy.mean()))


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_low": 1.1},
        {"clip_high": 0.0},
        {"dual_clip": 1.2},
        {"constant_length": 5},
        {"constant_length": 0},
        {"kl_coef": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PPOConfig(**settings)
