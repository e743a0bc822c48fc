"""Text mixed into the steps of another method: the sum of both gradients, each by its own count."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_examples import make_learner, make_trees, weights

from fairlead.algos import DPO
from fairlead.algos.dpo import DPOConfig
from fairlead.algos.sft import SFTConfig
from fairlead.core.errors import ConfigError
from fairlead.train.batches import make_microbatches
from fairlead.train.budget import smaller_budget
from fairlead.train.mix import Mix


def _learner(method, *, mix=None, temperature=1.0, **settings):
    learner = make_learner(method, **settings)
    learner.mix = mix
    learner.models = replace(learner.models, temperature=temperature)
    return learner


def _gradients(learner, trees, texts=(), *, max_tokens=8192):
    sums = learner._accumulate(
        make_microbatches(trees, max_tokens=max_tokens), make_microbatches(texts, max_tokens=max_tokens)
    )
    return sums, {name: p.grad for name, p in learner.trainable.items() if p.grad is not None}


@pytest.mark.parametrize("method", ["ppo", "grpo"])
@pytest.mark.parametrize("max_tokens", [8192, 1])
def test_the_gradient_is_the_sum_of_both(method, max_tokens):
    """coef 0.3: that of the rollouts plus 0.3 times that of the texts, however many of each there are."""
    trees, texts = make_trees(method, num=4), make_trees("sft", num=9)
    mixed_sums, mixed = _gradients(
        _learner(method, mix=Mix(coef=0.3), dtype=torch.float64), trees, texts, max_tokens=max_tokens
    )
    own_sums, own = _gradients(_learner(method, dtype=torch.float64), trees)
    text_sums, text = _gradients(_learner("sft", dtype=torch.float64), texts)
    for name, gradient in mixed.items():
        expected = own[name] + (0.3 * text[name] if name in text else 0.0)
        torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=1e-6)
    assert mixed_sums["loss"][0] == pytest.approx(own_sums["loss"][0] + 0.3 * text_sums["loss"][0])
    assert mixed_sums["sft/loss"] == pytest.approx(text_sums["sft/loss"])
    assert mixed_sums["rl/policy_loss"] == pytest.approx(own_sums["rl/policy_loss"])


def test_texts_are_learned_at_temperature_one():
    """Samples are compared at the temperature that they were drawn at; text was not drawn."""
    trees, texts = make_trees("grpo", num=2), make_trees("sft", num=3)
    losses = [
        _gradients(_learner("grpo", mix=Mix(coef=1.0), temperature=t), trees, texts)[0]["sft/loss"] for t in (1.0, 0.5)
    ]
    assert losses[0] == losses[1]


def test_a_step_reports_both_and_counts_their_tokens():
    trees, texts = make_trees("grpo", num=2), make_trees("sft", num=3)
    metrics = _learner("grpo", mix=Mix(coef=0.5)).step(trees, mixed=texts)
    assert metrics["num_tokens"] == sum(t.num_tokens for t in (*trees, *texts))
    assert {"sft/loss", "rl/policy_loss"} <= metrics.keys()


def test_a_mix_holds_the_likelihood_of_text_that_samples_push_down():
    """Ten steps against the tokens of a text: it falls without a mix, and less with one."""
    texts = make_trees("sft", num=4)
    against = make_trees("dapo", num=4)
    for tree in against:
        for branch in tree.branches:
            branch.arrays["advantages"][:] = -1.0
            branch.arrays["old_logprobs"][:] = 0.0  # the ratio stays below the clip's upper bound
    found = {}
    for coef in (None, 5.0):
        learner = _learner("dapo", mix=None if coef is None else Mix(coef=coef))
        for _ in range(10):
            learner.step(against, mixed=texts if coef else ())
        found[coef] = _gradients(_learner_with(learner), texts)[0]["loss"][0]
    start = _gradients(_learner("sft"), texts)[0]["loss"][0]
    assert found[5.0] < start - 0.1
    assert found[5.0] < found[None] - 0.1


def _learner_with(learner):
    """A learner of text on the other's policy."""
    fresh = make_learner("sft")
    fresh.models.policy.module.load_state_dict(learner.models.policy.module.state_dict())
    return fresh


def test_steps_with_and_without_a_mix_are_not_confused():
    texts = make_trees("sft", num=1)
    with pytest.raises(ValueError, match="with a mix got 0 trees"):
        _learner("grpo", mix=Mix(coef=1.0)).step(make_trees("grpo", num=1))
    with pytest.raises(ValueError, match="without a mix got 1 trees"):
        _learner("grpo").step(make_trees("grpo", num=1), mixed=texts)


def test_what_cannot_be_mixed_in_is_refused():
    with pytest.raises(ConfigError, match=r"mix\.algo=dpo learns groups"):
        Mix(coef=1.0, algo=DPO, algo_config=DPOConfig())
    with pytest.raises(ConfigError, match=r"coef=0\.0 mixes nothing in"):
        Mix(coef=0.0)


def test_checkpoints_of_another_mix_are_of_another_run():
    plain, mixed, other = (
        _learner("grpo", mix=mix).identity(data="d")["settings"]
        for mix in (None, Mix(coef=0.5), Mix(coef=0.5, algo_config=SFTConfig(average="sequence")))
    )
    assert not [name for name in plain if name.startswith("mix")]
    assert mixed["mix_coef"] == "0.5"
    assert mixed != other


def test_memory_that_runs_out_in_the_text_makes_the_whole_step_again(monkeypatch):
    """The budget is halved for both, and the weights after the step are those of a run that had it from the start."""
    trees, texts = make_trees("grpo", num=4), make_trees("sft", num=6)
    budget = smaller_budget([*trees, *texts], max_tokens=8192)
    expected = _learner("grpo", mix=Mix(coef=1.0), max_tokens=budget)
    expected.step(trees, mixed=texts)

    learner = _learner("grpo", mix=Mix(coef=1.0))
    own, calls = type(learner)._mix_in, []

    def once(self, mix, microbatches):
        calls.append(len(microbatches))
        if len(calls) == 1:
            raise MemoryError
        return own(self, mix, microbatches)

    monkeypatch.setattr(type(learner), "_mix_in", once)
    metrics = learner.step(trees, mixed=texts)
    assert metrics["train/out_of_memory"] == 1.0
    assert (learner.max_tokens, len(calls)) == (budget, 2)
    for a, b in zip(weights(learner), weights(expected), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
