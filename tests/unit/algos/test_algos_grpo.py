"""GRPO and its variants, and what every policy-gradient loss shares."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import DAPO, DR_GRPO, GRPO
from fairlead.algos.grpo import DAPOConfig, DrGRPOConfig, GRPOConfig
from fairlead.algos.kl import kl_k3
from fairlead.algos.policy_loss import importance_ratios, kl_in_loss, read_rollouts
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import RolloutBatch
from naive.policy_naive import completions_of, mean_loss, token_clipped

_SEEDS = st.integers(0, 2**31)


def _mean(algorithm, batch, config):
    return algorithm.loss(batch, config).total / algorithm.count(batch, config)


@given(
    seed=_SEEDS,
    clip_high=st.sampled_from([0.2, 0.28]),
    dual_clip=st.none() | st.floats(1.3, 3),
    aggregation=st.sampled_from(
        [("token_mean", 1), ("sequence_mean", 1), ("constant_length", 1), ("constant_length", 7)]
    ),
    kl_coef=st.sampled_from([0.0, 0.3]),
    entropy_coef=st.sampled_from([0.0, 0.1]),
)
def test_the_loss_agrees_with_the_loop(seed, clip_high, dual_clip, aggregation, kl_coef, entropy_coef):
    batch = random_batch("rollouts", seed=seed)
    average = {"aggregation": aggregation[0], "constant_length": aggregation[1]}
    terms = average | {"kl_coef": kl_coef, "entropy_coef": entropy_coef}
    clips = {"clip_low": 0.2, "clip_high": clip_high, "dual_clip": dual_clip}
    found = float(_mean(GRPO, batch, GRPOConfig(**terms, **clips)))
    assert found == pytest.approx(mean_loss(completions_of(batch), token_clipped(**clips), **terms))


def _two_lengths(*, advantages=(1.0, -1.0), lengths=(1, 4)):
    """Two completions of a prompt, the first one shorter, at ratio 1."""
    index = torch.repeat_interleave(torch.arange(2), torch.tensor(lengths))
    logprobs = torch.full((len(index),), -1.0, dtype=torch.float64, requires_grad=True)
    return RolloutBatch(
        logprobs=logprobs, old_logprobs=logprobs.detach(), advantages=torch.tensor(advantages, dtype=torch.float64)[index],
        sequence_index=index, num_sequences=2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("algorithm", "config", "short", "long"),
    [
        (
            GRPO,
            GRPOConfig(kl_coef=0.0),
            1 / 2,
            1 / 8,
        ),  # every completion half: a token of the long one a quarter of that
        (DAPO, DAPOConfig(), 1 / 5, 1 / 5),  # every token a fifth
        (DR_GRPO, DrGRPOConfig(), 1 / 2, 1 / 2),  # sums over completions, their mean
        (DR_GRPO, DrGRPOConfig(constant_length=10), 1 / 20, 1 / 20),
    ],
)
def test_length_bias_by_hand(algorithm, config, short, long):
    """Advantages 1 and -1, lengths 1 and 4. GRPO punishes a token of a long bad completion less: long mistakes are cheap."""
    batch = _two_lengths()
    _mean(algorithm, batch, config).backward()
    assert batch.logprobs.grad.tolist() == pytest.approx([-short, long, long, long, long])


def test_clip_higher_lets_a_rare_good_token_grow_further():
    """At ratio 1.25 a good token has a gradient under 0.28 and none under 0.2; below, both stop at 0.8."""
    logprobs = torch.tensor([1.25, 0.75], dtype=torch.float64).log().requires_grad_()
    batch = RolloutBatch(
        logprobs=logprobs, old_logprobs=torch.zeros(2, dtype=torch.float64), advantages=torch.tensor([1.0, -1.0]).double(),
        sequence_index=torch.tensor([0, 1]), num_sequences=2,
    )  # fmt: skip
    found = {}
    for config in (GRPOConfig(kl_coef=0.0), DAPOConfig()):
        (found[config],) = torch.autograd.grad(_mean(GRPO, batch, config), logprobs)
    assert found[GRPOConfig(kl_coef=0.0)].tolist() == [0.0, 0.0]
    assert found[DAPOConfig()].tolist() == pytest.approx([-1.25 / 2, 0.0])


@given(seed=_SEEDS)
def test_dapo_with_equal_clips_and_means_is_grpo(seed):
    batch = random_batch("rollouts", seed=seed)
    config = DAPOConfig(clip_high=0.2, aggregation="sequence_mean", kl_coef=0.04)
    assert float(DAPO.loss(batch, config).total) == float(GRPO.loss(batch, GRPOConfig()).total)


@given(seed=_SEEDS)
def test_on_policy_kl_has_the_value_of_k3_and_the_gradient_of_k2(seed):
    """At ratio 1: sum of k3 shown, l = log(pi / ref) as the gradient; k3 itself would have 1 - exp(-l)."""
    batch = _silence(random_batch("rollouts", seed=seed))
    logprobs = batch.logprobs.clone().requires_grad_()
    rollouts = read_rollouts(replace(batch, logprobs=logprobs, old_logprobs=batch.logprobs), GRPOConfig())
    found = kl_in_loss(rollouts, batch.ref_logprobs)
    torch.testing.assert_close(found, kl_k3(batch.logprobs, batch.ref_logprobs))
    found.sum().backward()
    torch.testing.assert_close(logprobs.grad, batch.logprobs - batch.ref_logprobs)


@given(seed=_SEEDS)
def test_off_policy_kl_is_a_differentiable_ratio_times_k3(seed):
    """d(r k3) = r (k3 + 1 - exp(-l)) = r l, the gradient of k2 weighted by r: two ways to write one thing."""
    batch = _silence(random_batch("rollouts", seed=seed))
    gradients = []
    for way in (
        lambda b: kl_in_loss(read_rollouts(b, GRPOConfig()), b.ref_logprobs),
        lambda b: importance_ratios(b.logprobs, b.old_logprobs) * kl_k3(b.logprobs, b.ref_logprobs),
    ):
        logprobs = batch.logprobs.clone().requires_grad_()
        value = way(replace(batch, logprobs=logprobs)).sum()
        gradients.append((value.detach(), torch.autograd.grad(value, logprobs)[0]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_kl_gradient_is_that_of_the_reverse_kl_in_expectation():
    """Over all of 12 actions, sampled from an old policy: sum_a old(a) d kl_t(a) = d KL(policy || reference), to rounding."""
    generator = torch.Generator().manual_seed(0)
    old, reference = (torch.randn(12, generator=generator).double().log_softmax(0) for _ in range(2))
    logits = (old + 0.2 * torch.randn(12, generator=generator).double()).requires_grad_()
    logprobs = logits.log_softmax(0)
    batch = RolloutBatch(
        logprobs=logprobs, old_logprobs=old, advantages=torch.zeros(12).double(), sequence_index=torch.zeros(12).long(),
        num_sequences=1, ref_logprobs=reference,
    )  # fmt: skip
    estimate = (old.exp() * kl_in_loss(read_rollouts(batch, GRPOConfig()), reference)).sum()
    (found,) = torch.autograd.grad(estimate, logits, retain_graph=True)
    (expected,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert float(estimate.detach()) == pytest.approx(float((logprobs.exp() * (logprobs - reference)).sum().detach()))


def test_a_masked_token_teaches_nothing_and_stays_in_the_count():
    """Correction 0 on one of two tokens: its gradient is 0 even where its logprob is -inf, the other's is half, metrics see one."""
    logprobs = torch.tensor([-torch.inf, -1.0], dtype=torch.float64, requires_grad=True)
    batch = RolloutBatch(
        logprobs=logprobs, old_logprobs=torch.tensor([-1.0, -1.0]).double(), advantages=torch.ones(2).double(),
        sequence_index=torch.tensor([0, 0]), num_sequences=1, correction=torch.tensor([0.0, 1.0]).double(),
    )  # fmt: skip
    result = DAPO.loss(batch, DAPOConfig())
    (result.total / DAPO.count(batch, DAPOConfig())).backward()
    assert logprobs.grad.tolist() == [0.0, -0.5]
    assert [float(x) for x in result.metrics["rl/ratio_mean"]] == [1.0, 1.0]


def test_correction_multiplies_the_lesson():
    batch = random_batch("rollouts", seed=1)
    plain = replace(batch, correction=torch.ones_like(batch.correction))
    half = replace(batch, correction=torch.full_like(batch.correction, 0.5))
    assert float(DAPO.loss(half, DAPOConfig()).total) == pytest.approx(0.5 * float(DAPO.loss(plain, DAPOConfig()).total))  # fmt: skip


def _silence(batch):
    return replace(batch, weights=None, correction=None)
