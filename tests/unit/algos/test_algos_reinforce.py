"""The REINFORCE family against the true gradient of the expected score, exactly, over all groups that can be drawn."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import ALGORITHMS, get_algorithm
from fairlead.algos.group_advantages import rollout_advantages
from fairlead.algos.policy_loss import PolicyOptions
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import RolloutBatch
from naive.policy_naive import completions_of, mean_loss, token_clipped

_POLICY = [algorithm for algorithm in ALGORITHMS if algorithm.batch == "rollouts"]
_LENGTHS = torch.tensor([5, 50, 5, 50])
_SCORES = torch.tensor([1.0, 0.0, -0.5, 2.0], dtype=torch.float64)
_GROUPS = torch.tensor(list(itertools.product(range(4), repeat=4)))
"""[256, 4] every group of four completions, of four that there are."""


def _settings(algorithm, **settings):
    return algorithm.config(**{"kl_coef": 0.0, **settings})


def expected_gradient(name, logits, *, scores=_SCORES, **settings):
    """Of the loss over all groups, each weighted by its probability; a completion is decided by its first token."""
    algorithm = get_algorithm(name)
    config = _settings(algorithm, **settings)
    outcomes = _GROUPS.flatten()
    logprobs = logits.log_softmax(0)
    index = torch.repeat_interleave(torch.arange(len(outcomes)), _LENGTHS[outcomes])
    is_first = torch.cat([torch.tensor([True]), index[1:] != index[:-1]])
    tokens = torch.where(is_first, logprobs[outcomes][index], torch.zeros(()).double())
    last = torch.cat([is_first[1:], torch.tensor([True])])
    rewards = torch.where(last, scores[outcomes][index], torch.zeros(()).double())
    found = rollout_advantages(
        config.advantages, rewards, sequence_index=index, group_index=torch.arange(256).repeat_interleave(4),
        greedy_scores=scores[logits.argmax()].expand(256),
    )  # fmt: skip
    chances = logprobs.detach()[_GROUPS].sum(dim=1).exp().repeat_interleave(4)
    batch = RolloutBatch(
        logprobs=tokens, old_logprobs=tokens.detach(), advantages=found.advantages, sequence_index=index,
        num_sequences=len(outcomes), weights=chances,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(algorithm.loss(batch, config).total / chances.sum(), logits)
    return -gradient


def _true_gradient(logits, scores=_SCORES):
    value = (logits.softmax(0) * scores).sum()
    return torch.autograd.grad(value, logits)[0]


def _logits(seed=0):
    return torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("name", "share"), [("rloo", 1.0), ("remax", 1.0), ("dr_grpo", 0.75)])
def test_the_expected_gradient_is_the_true_one(name, share):
    """RLOO and ReMax exactly; Dr. GRPO (n - 1) / n of it, for each completion is in its own baseline."""
    torch.testing.assert_close(expected_gradient(name, _logits()), share * _true_gradient(_logits()))


def test_whitening_only_scales_it():
    found, true = expected_gradient("reinforce_pp_baseline", _logits()), _true_gradient(_logits())
    assert float(torch.cosine_similarity(found, true, dim=0)) > 1 - 1e-9


def test_grpo_is_not_even_parallel_to_it():
    """Length 50 against 5: a decision before a long completion counts a tenth. Dividing by the spread turns the gradient too."""
    true = _true_gradient(_logits())

    def likeness(name, **settings):
        return float(torch.cosine_similarity(expected_gradient(name, _logits(), **settings), true, dim=0))

    assert likeness("grpo") < 0.9
    assert likeness("grpo", advantages="group_centered") < 0.95  # length alone
    assert likeness("grpo", aggregation="constant_length") < 0.999  # difficulty alone
    assert likeness("grpo", advantages="group_centered", aggregation="constant_length") > 1 - 1e-9


def test_length_bias_is_one_over_the_length():
    """The part of a completion in the gradient is divided by its length under sequence_mean and by nothing under constant_length."""
    gradients = {
        average: expected_gradient("grpo", _logits(), advantages="group_centered", aggregation=average)
        for average in ("sequence_mean", "constant_length")
    }
    # d log p(a) / d logits = one-hot - p, so the gradient determines each completion's part up to a common shift of all along p.
    p = _logits().softmax(0).detach()
    parts = p * (_SCORES - (p * _SCORES).sum())
    pull = 0.75 * parts / _LENGTHS
    torch.testing.assert_close(gradients["sequence_mean"], pull - p * pull.sum())
    torch.testing.assert_close(gradients["constant_length"], 0.75 * parts)


def test_division_by_the_spread_makes_scale_disappear():
    """Scores a tenth as large: the same gradient under grpo, a tenth of it under rloo."""
    for name, share in (("grpo", 1.0), ("rloo", 0.1)):
        whole, tenth = (expected_gradient(name, _logits(), scores=scale * _SCORES) for scale in (1.0, 0.1))
        torch.testing.assert_close(tenth, share * whole, rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", _POLICY, ids=lambda algorithm: algorithm.name)
def test_every_method_starts_as_reinforce(algorithm):
    """At ratio 1: nothing clipped, and the gradient on each log-probability is -A times the token's weight."""
    batch = random_batch("rollouts", seed=3)
    logprobs = batch.logprobs.clone().requires_grad_()
    advantages = batch.advantages[batch.sequence_index]  # one a completion, as GSPO needs
    start = replace(batch, logprobs=logprobs, old_logprobs=batch.logprobs, advantages=advantages, correction=None)
    config = _settings(algorithm, **({"value_coef": 0.0} if algorithm.name == "ppo" else {}))
    result = algorithm.loss(start, config)
    result.total.backward()
    lengths = torch.bincount(batch.sequence_index)
    weights = batch.weights / (lengths if config.aggregation == "sequence_mean" else 1)
    torch.testing.assert_close(logprobs.grad, -(weights[batch.sequence_index] * advantages))
    means = {name: float(total / count) for name, (total, count) in result.metrics.items()}
    assert (means["rl/ratio_mean"], means["rl/clip_fraction"], means["rl/approx_kl"]) == (1.0, 0.0, 0.0)


@given(seed=st.integers(0, 2**31), name=st.sampled_from(["rloo", "remax", "reinforce_pp", "reinforce_pp_baseline"]))
def test_the_losses_agree_with_the_loop(seed, name):
    batch, algorithm = random_batch("rollouts", seed=seed), get_algorithm(name)
    config = _settings(algorithm, kl_coef=0.1)
    found = float(algorithm.loss(batch, config).total / algorithm.count(batch, config))
    expected = mean_loss(
        completions_of(batch), token_clipped(clip_low=0.2, clip_high=0.2), aggregation=config.aggregation, kl_coef=0.1
    )
    assert found == pytest.approx(expected)


def test_options_are_those_of_every_method():
    assert all(issubclass(algorithm.config, PolicyOptions) for algorithm in _POLICY)
