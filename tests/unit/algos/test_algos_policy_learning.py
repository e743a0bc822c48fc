"""Policy-gradient methods without a value model reach the exact optimum of a problem small enough to enumerate."""

from dataclasses import replace

import pytest
import torch

from fairlead.algos import DR_GRPO, RLOO, get_algorithm
from fairlead.algos.advantages import token_rewards
from fairlead.algos.group_advantages import rollout_advantages
from fairlead.algos.grpo import DrGRPOConfig
from fairlead.algos.kl import kl_k1
from fairlead.algos.mismatch import CorrectionConfig, correction_weights
from fairlead.algos.reinforce import RLOOConfig
from fairlead.algos.spec import RolloutBatch
from naive.enumerable import LENGTH, SEQUENCES, kl, make_problem, sequence_logprobs, token_logprobs

_PROBLEM = make_problem()
_NUM_SAMPLES = 512


def _batch(logits, rows, advantages, old_logprobs):
    return RolloutBatch(
        logprobs=token_logprobs(logits)[rows].flatten(),
        old_logprobs=old_logprobs,
        advantages=advantages,
        sequence_index=torch.arange(len(rows)).repeat_interleave(LENGTH),
        num_sequences=len(rows),
        ref_logprobs=token_logprobs(_PROBLEM.ref_logits)[rows].flatten(),
    )


def train(name, *, group_size=8, in_loss=False, kl_sign=1, advantage_sign=1, num_rollouts=150, rate=0.2, **settings):
    """Log-probabilities of the 64 sequences after training from the reference, two steps a rollout.

    Args:
        in_loss: the KL is in the loss; else in the reward.
    """
    generator = torch.Generator().manual_seed(0)
    algorithm = get_algorithm(name)
    beta = kl_sign * _PROBLEM.beta
    config = algorithm.config(**{"kl_coef": beta if in_loss else 0.0, **settings})
    logits = _PROBLEM.ref_logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=rate, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=2 * num_rollouts)
    ref_logprobs = token_logprobs(_PROBLEM.ref_logits)
    index = torch.arange(_NUM_SAMPLES).repeat_interleave(LENGTH)
    for _ in range(num_rollouts):
        with torch.no_grad():
            probabilities = sequence_logprobs(logits).exp()
            rows = torch.multinomial(probabilities, _NUM_SAMPLES, replacement=True, generator=generator)
            old = token_logprobs(logits)[rows].flatten()
            penalty = kl_k1(old, ref_logprobs[rows].flatten())
            rewards = token_rewards(
                _PROBLEM.rewards[rows], penalty, kl_coef=0.0 if in_loss else beta, sequence_index=index
            )
            greedy = greedy_score(logits, kl_coef=0.0 if in_loss else beta)
            found = rollout_advantages(
                config.advantages,
                rewards,
                sequence_index=index,
                group_index=torch.arange(_NUM_SAMPLES) // group_size,
                greedy_scores=greedy.expand(_NUM_SAMPLES // group_size),
            )
        for _ in range(2):
            batch = _batch(logits, rows, advantage_sign * found.advantages, old)
            optimizer.zero_grad()
            (algorithm.loss(batch, config).total / algorithm.count(batch, config)).backward()
            optimizer.step()
            schedule.step()
    return sequence_logprobs(logits.detach())


def greedy_score(logits, *, kl_coef):
    """Of the sequence that greedy decoding writes, after its KL penalty."""
    logprobs = token_logprobs(logits)
    alive = torch.ones(len(SEQUENCES), dtype=torch.bool)
    for t in range(LENGTH):
        column = torch.where(alive, logprobs[:, t], -torch.inf)
        alive = alive & (column == column.max())
    row = int(torch.nonzero(alive)[0])
    return _PROBLEM.rewards[row] - kl_coef * (sequence_logprobs(logits) - _PROBLEM.ref_logprobs)[row]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dr_grpo", {}),
        ("dr_grpo", {"group_size": 2}),
        ("grpo", {"group_size": _NUM_SAMPLES}),  # one prompt: a common scale keeps the fixed point
        ("dapo", {"group_size": _NUM_SAMPLES}),
        (
            "gspo",
            {"advantages": "group_centered", "clip_low": 0.1, "clip_high": 0.1},
        ),  # the default steps are too short here
        ("cispo", {"advantages": "group_centered"}),
        ("rloo", {"group_size": 4}),
        ("remax", {}),
        ("reinforce_pp", {}),
        ("reinforce_pp_baseline", {}),
    ],
)
def test_with_kl_in_the_reward_they_reach_the_optimum(name, settings):
    """KL to reference exp(r / beta) / Z below 5e-3 nats, and J within 0.01 of beta log Z."""
    logprobs = train(name, **settings)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) < 5e-3
    assert abs(float(_PROBLEM.objective(logprobs)) - float(_PROBLEM.beta * _PROBLEM.log_z)) < 0.01
    assert float(_PROBLEM.objective(logprobs)) <= float(_PROBLEM.beta * _PROBLEM.log_z) + 1e-9


def exact_gradient(logits, *, kl_coef):
    """Of the loss over all 64 sequences, weighted by their probabilities: what sampling estimates."""
    logits = logits.clone().requires_grad_()
    probabilities = sequence_logprobs(logits.detach()).exp()
    centered = _PROBLEM.rewards - (probabilities * _PROBLEM.rewards).sum()
    batch = _batch(
        logits,
        torch.arange(len(SEQUENCES)),
        centered.repeat_interleave(LENGTH),
        token_logprobs(logits.detach()).flatten(),
    )
    batch = replace(batch, weights=probabilities)
    config = DrGRPOConfig(kl_coef=kl_coef)
    (gradient,) = torch.autograd.grad(DR_GRPO.loss(batch, config).total / DR_GRPO.count(batch, config), logits)
    return gradient


def test_a_kl_in_the_loss_has_an_optimum_of_its_own():
    """A token pays for its own divergence only: the gradient vanishes there, and not at the optimum of whole sequences."""
    at_own, at_best = (
        exact_gradient(_PROBLEM.logits_of(logprobs), kl_coef=_PROBLEM.beta)
        for logprobs in (_PROBLEM.myopic_logprobs, _PROBLEM.best_logprobs)
    )
    assert float(at_own.abs().max()) < 1e-12
    assert float(at_best.abs().max()) > 1e-2
    assert float(kl(_PROBLEM.myopic_logprobs, _PROBLEM.best_logprobs)) > 0.1


def test_training_with_a_kl_in_the_loss_ends_there():
    logprobs = train("dr_grpo", in_loss=True, advantages="leave_one_out", num_rollouts=300)
    assert float(kl(logprobs, _PROBLEM.myopic_logprobs)) < 0.01 < 0.09 < float(kl(logprobs, _PROBLEM.best_logprobs))


@pytest.mark.parametrize("wrong", [{"kl_sign": -1}, {"advantage_sign": -1}, {"kl_sign": 0}])
def test_a_wrong_sign_does_not(wrong):
    logprobs = train("dr_grpo", **wrong, num_rollouts=75)
    assert float(kl(logprobs, _PROBLEM.best_logprobs)) > 0.3


def _gradient_from_samples_of(engine_logits, config):
    """Of the expected reward at the reference policy, exactly, from sequences that an engine with other logits draws."""
    logits = _PROBLEM.ref_logits.clone().requires_grad_()
    old, sampled = (token_logprobs(x.detach()).flatten() for x in (logits, engine_logits))
    chances = sequence_logprobs(engine_logits).exp()
    index = torch.arange(len(SEQUENCES)).repeat_interleave(LENGTH)
    weights, _ = correction_weights(old, sampled, index, num_sequences=len(SEQUENCES), config=config)
    batch = _batch(logits, torch.arange(len(SEQUENCES)), _PROBLEM.rewards.repeat_interleave(LENGTH), old)
    batch = replace(batch, weights=chances, correction=weights)
    (gradient,) = torch.autograd.grad(RLOO.loss(batch, RLOOConfig()).total / RLOO.count(batch, RLOOConfig()), logits)
    return gradient


@pytest.mark.parametrize("seed", range(4))
def test_a_correction_brings_the_gradient_back(seed):
    """An engine whose logits are 0.3 off: the ratio of whole sequences makes up for it exactly, that of single tokens in part."""
    noise = torch.randn(_PROBLEM.ref_logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    engine = _PROBLEM.ref_logits + 0.3 * noise
    true = _gradient_from_samples_of(_PROBLEM.ref_logits, CorrectionConfig(way="off"))
    errors = {
        name: float((_gradient_from_samples_of(engine, config) - true).norm() / true.norm())
        for name, config in {
            "off": CorrectionConfig(way="off"),
            "token": CorrectionConfig(way="token_clip", cap=100.0),
            "product": CorrectionConfig(way="sequence_mask", sequence_ratio="product", cap=100.0, floor=0.0),
        }.items()
    }
    assert errors["product"] < 1e-12
    assert errors["token"] < 0.9 * errors["off"]
    assert errors["off"] > 0.2
