"""Rollouts through the real models: which arrays of the branches a loss sees, and conversations whose other turns are not the policy's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_examples import make_learner, make_trees

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.algos.grpo import DAPOConfig, GRPOConfig
from fairlead.text import Branch, Tree
from fairlead.train.batches import make_microbatches
from fairlead.train.forward import Models, run_forward


def _forward(trees, algorithm="grpo", config=None):
    algo = get_algorithm(algorithm)
    (microbatch,) = make_microbatches(trees, max_tokens=8192)
    return run_forward(Models(policy=tiny_models.load("llama")), microbatch, algo, config or algo.config())


def _with(tree, *, weight=1.0, **arrays):
    branches = tuple(replace(b, arrays={**b.arrays, **arrays}, weight=weight) for b in tree.branches)
    return replace(tree, branches=branches)


def test_arrays_that_a_run_may_go_without():
    trees = make_trees("grpo", num=2)
    assert _forward(trees).correction is None
    corrected = [
        replace(t, branches=tuple(replace(b, arrays={**b.arrays, "correction": np.full(b.num_kept, 0.5, np.float32)}, weight=w)
                                  for w, b in enumerate(t.branches)))
        for t in trees
    ]  # fmt: skip
    batch = _forward(corrected)
    assert batch.correction.unique().tolist() == [0.5]
    assert batch.weights.tolist() == [0.0, 1.0, 0.0, 1.0]
    with pytest.raises(KeyError):
        _forward([corrected[0], trees[1]])


def test_a_reference_is_read_only_for_a_kl_in_the_loss():
    trees = make_trees("grpo", num=2)
    without = [
        replace(t, branches=tuple(replace(b, arrays={n: x for n, x in b.arrays.items() if n != "ref_logprobs"}) for b in t.branches))
        for t in trees
    ]  # fmt: skip
    assert _forward(trees).ref_logprobs is not None
    assert _forward(without, config=GRPOConfig(kl_coef=0.0)).ref_logprobs is None
    with pytest.raises(KeyError):
        _forward(without)


def _conversation(observation):
    """Two words of the policy, a tool's answer, two more words."""
    kept = np.array([True, True, *[False] * len(observation), True, True])
    arrays = {
        name: np.array(values, np.float32)
        for name, values in (("old_logprobs", [-4, -3, -4, -5]), ("advantages", [1.0, 1.0, 1.0, 1.0]))
    }
    tokens = np.concatenate([[7, 8], observation, [9, 5]]).astype(np.int64)
    return Tree(prompt_ids=np.array([1, 6]), branches=(Branch(token_ids=tokens, kept=kept, arrays=arrays),))


def test_words_of_others_have_no_loss_but_are_read():
    """Four tokens count, whatever the length of the tool's answer; their logprobs depend on what it says."""
    batches = [_forward([_conversation(answer)], "dapo") for answer in ([20, 21, 22], [30])]
    for batch in batches:
        assert batch.logprobs.numel() == 4
        assert float(get_algorithm("dapo").count(batch, DAPOConfig())) == 4
    torch.testing.assert_close(batches[0].logprobs[:2], batches[1].logprobs[:2])
    assert not torch.allclose(batches[0].logprobs[2:], batches[1].logprobs[2:])


@pytest.mark.parametrize("method", ["dapo", "ppo"])
def test_a_completion_of_weight_zero_changes_nothing(method):
    """Its advantages may even be NaN; loss, count and gradient are those of the others."""
    trees = make_trees(method, num=3)
    dead = _with(trees[0], weight=0.0, advantages=np.full(trees[0].branches[0].num_kept, np.nan, np.float32))
    dead = replace(dead, branches=dead.branches[:1])
    found = []
    for batch in ([dead, *trees[1:]], trees[1:]):
        learner = make_learner(method)
        sums = learner._accumulate(make_microbatches(batch, max_tokens=8192))
        found.append((sums["loss"][0], [p.grad for p in learner.parameters if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
