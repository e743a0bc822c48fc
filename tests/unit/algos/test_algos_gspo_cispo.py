"""GSPO's ratio of whole completions and CISPO's ratio as a weight."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import CISPO, GRPO, GSPO
from fairlead.algos.cispo import CISPOConfig
from fairlead.algos.grpo import GRPOConfig
from fairlead.algos.gspo import GSPOConfig
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import RolloutBatch
from fairlead.core.errors import ConfigError
from naive.policy_naive import cispo, completions_of, gspo, mean_loss

_SEEDS = st.integers(0, 2**31)


def _mean(algorithm, batch, config):
    return algorithm.loss(batch, config).total / algorithm.count(batch, config)


def _batch(ratios, advantages, index):
    """Logprobs with gradient, of a policy with these ratios to a policy at log 1/2 everywhere."""
    old = torch.full((len(ratios),), math.log(0.5), dtype=torch.float64)
    logprobs = (old + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_()
    return RolloutBatch(
        logprobs=logprobs, old_logprobs=old, advantages=torch.tensor(advantages, dtype=torch.float64),
        sequence_index=torch.tensor(index), num_sequences=max(index) + 1,
    )  # fmt: skip


@given(
    seed=_SEEDS,
    clips=st.sampled_from([(3e-4, 4e-4), (0.1, 0.2)]),
    aggregation=st.sampled_from(["token_mean", "sequence_mean"]),
    kl_coef=st.sampled_from([0.0, 0.3]),
)
def test_gspo_agrees_with_the_loop(seed, clips, aggregation, kl_coef):
    batch = random_batch("rollouts", seed=seed)
    terms, clips = {"aggregation": aggregation, "kl_coef": kl_coef}, {"clip_low": clips[0], "clip_high": clips[1]}
    found = float(_mean(GSPO, batch, GSPOConfig(**terms, **clips)))
    assert found == pytest.approx(mean_loss(completions_of(batch), gspo(**clips), **terms))


@given(seed=_SEEDS, clip_low=st.sampled_from([0.1, 1.0]), clip_high=st.floats(0.1, 4), kl_coef=st.sampled_from([0.0, 0.3]))  # fmt: skip
def test_cispo_agrees_with_the_loop(seed, clip_low, clip_high, kl_coef):
    batch = random_batch("rollouts", seed=seed)
    config = CISPOConfig(clip_low=clip_low, clip_high=clip_high, kl_coef=kl_coef)
    expected = mean_loss(completions_of(batch), cispo(clip_low=clip_low, clip_high=clip_high), kl_coef=kl_coef)
    assert float(_mean(CISPO, batch, config)) == pytest.approx(expected)


def test_gspo_clips_a_completion_and_grpo_clips_tokens():
    """Ratios 2 and 1/2 of one good completion: its own ratio is 1, so both learn, where GRPO stops the token at 2.

    A second completion with ratios 1.1 and 1.1 is past 1 + 4e-4: GSPO stops it whole, GRPO lets it go on.
    """
    grads = {}
    for algorithm, config in ((GSPO, GSPOConfig()), (GRPO, GRPOConfig(kl_coef=0.0))):
        batch = _batch([2.0, 0.5, 1.1, 1.1], [1.0] * 4, [0, 0, 1, 1])
        _mean(algorithm, batch, config).backward()
        grads[algorithm.name] = batch.logprobs.grad.tolist()
    assert grads["gspo"] == pytest.approx([-0.25, -0.25, 0, 0])
    assert grads["grpo"] == pytest.approx([0, -0.125, -0.275, -0.275])


def test_gspo_by_hand():
    """Log-ratios 0.2 and 0 of a bad completion: ratio e^0.1, loss e^0.1, and each token half of its gradient."""
    batch = _batch([math.exp(0.2), 1.0], [-1.0, -1.0], [0, 0])
    loss = _mean(GSPO, batch, GSPOConfig())
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(0.1))
    assert batch.logprobs.grad.tolist() == pytest.approx([math.exp(0.1) / 2] * 2)


@given(seed=_SEEDS)
def test_gspo_of_single_tokens_is_grpo(seed):
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.rand(5, generator=generator).add(0.5).tolist()
    advantages = torch.randn(5, generator=generator).tolist()
    batch = _batch(ratios, advantages, [0, 1, 2, 3, 4])
    found, expected = (
        _mean(algorithm, batch, config(clip_low=0.2, clip_high=0.2, kl_coef=0.0))
        for algorithm, config in ((GSPO, GSPOConfig), (GRPO, GRPOConfig))
    )
    assert found.item() == pytest.approx(expected.item())


def test_cispo_keeps_the_gradient_of_clipped_tokens():
    """Ratio 8 of a good token: PPO's clip gives it nothing, CISPO the weight 5. A rare bad token at 1/8 keeps its weight."""
    grads = {}
    for algorithm, config in ((CISPO, CISPOConfig()), (GRPO, GRPOConfig(kl_coef=0.0, aggregation="token_mean"))):
        batch = _batch([8.0, 0.125], [1.0, -1.0], [0, 1])
        result = algorithm.loss(batch, config)
        (result.total / algorithm.count(batch, config)).backward()
        grads[algorithm.name] = batch.logprobs.grad.tolist()
        total, count = result.metrics["rl/clip_fraction"]
        assert float(total / count) == (0.5 if algorithm is CISPO else 1.0)
    assert grads["cispo"] == pytest.approx([-5 / 2, 0.125 / 2])
    assert grads["grpo"] == [0.0, 0.0]


@given(seed=_SEEDS)
def test_cispo_inside_its_bounds_has_the_gradient_of_the_plain_surrogate(seed):
    """sg(r) d log pi = d r: with no bound met it is importance-weighted REINFORCE."""
    batch = random_batch("rollouts", seed=seed)
    found = []
    for algorithm, config in (
        (CISPO, CISPOConfig(clip_high=1e6)),
        (GRPO, GRPOConfig(clip_low=1.0, clip_high=1e6, kl_coef=0.0, aggregation="token_mean")),
    ):
        logprobs = batch.logprobs.clone().requires_grad_()
        loss = algorithm.loss(replace(batch, logprobs=logprobs), config).total
        found.append(torch.autograd.grad(loss, logprobs)[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_dual_clip_has_no_place_in_cispo():
    with pytest.raises(ConfigError, match="dual_clip"):
        CISPOConfig(dual_clip=10.0)
