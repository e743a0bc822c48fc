"""What is known of the whole batch: the right completions are read, no forward is made twice, and moving means go on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_examples import make_learner, make_trees

import tiny_models
from fairlead.core.errors import TrainError
from fairlead.text import pack_trees
from fairlead.train.batches import make_microbatches
from fairlead.train.whole import know_batch, mismatched_tree


def _know(method, trees, *, max_tokens, previous=None):
    learner = make_learner(method, dtype=torch.float64)
    microbatches = make_microbatches(trees, max_tokens=max_tokens)
    return know_batch(learner.models, microbatches, learner.algo, learner.algo_config, previous=previous or {},
                      max_tokens=max_tokens)  # fmt: skip


@pytest.mark.parametrize("max_tokens", [1, 40, 8192])
def test_z_is_the_mean_log_ratio_of_the_mismatched_completions(max_tokens):
    """By one forward a tree; references are shifted so that z is positive."""
    trees, model = make_trees("kto"), tiny_models.load("llama", dtype=torch.float64)
    for tree in trees:
        for branch in tree.mismatched:
            branch.arrays["ref_logprobs"] -= 3
    ratios, weights = [], []
    for tree in trees:
        with torch.no_grad():
            logprobs = model.logprobs(pack_trees([mismatched_tree(tree)])).logprobs.numpy()
        ratios.append((logprobs - tree.mismatched[0].arrays["ref_logprobs"]).sum())
        weights.append(tree.numbers["weight"])
    expected = np.average(ratios, weights=weights)
    found = _know("kto", trees, max_tokens=max_tokens)
    assert found.scalars == pytest.approx({"z": expected}, rel=1e-6) and expected > 1
    assert all(float(part["z"]) == found.scalars["z"] for part in found.parts)


class Counting:
    """A policy that notes its forwards: tokens, and whether a gradient was wanted."""

    def __init__(self, policy):
        self.policy, self.module, self.device, self.seen = policy, policy.module, policy.device, []

    def logprobs(self, layout, **options):
        self.seen.append((len(layout.token_ids), torch.is_grad_enabled()))
        return self.policy.logprobs(layout, **options)


def _forwards(method, trees, **options):
    learner = make_learner(method, **options)
    counting = Counting(learner.models.policy)
    learner.models = replace(learner.models, policy=counting)
    learner.step(trees)
    return counting.seen


def test_forwards_are_made_once():
    """One micro-batch: one forward. Seven: seven to know and seven to learn from. KTO: the mismatched ones and no more."""
    trees = make_trees("bco")
    assert _forwards("bco", trees) == [(sum(t.num_tokens for t in trees), True)]
    assert [is_grad for _, is_grad in _forwards("bco", trees, max_tokens=1)] == [False] * 7 + [True] * 7
    trees = make_trees("kto")
    asides = sum(len(t.prompt_ids) + len(t.mismatched[0].token_ids) for t in trees)
    assert _forwards("kto", trees) == [(asides, False), (sum(t.num_tokens for t in trees), True)]


def test_moving_means_go_on_from_the_step_before_and_a_failed_step_leaves_them():
    learner = make_learner("bco")
    learner.step(make_trees("bco"))
    first = dict(learner.statistics)
    assert set(first) == {"good_mean", "bad_mean", "delta"}
    known = _know("bco", make_trees("bco", seed=1), max_tokens=40, previous=first)
    fresh = _know("bco", make_trees("bco", seed=1), max_tokens=40)
    for side in ("good_mean", "bad_mean"):
        expected = 0.9 * first[side] + 0.1 * fresh.scalars[side]
        assert known.scalars[side] == pytest.approx(expected, rel=1e-6)
    broken = make_trees("bco", seed=2)
    broken[0].branches[0].arrays["ref_logprobs"][0] = np.nan
    with pytest.raises(TrainError, match="not finite"):
        learner.step(broken)
    assert learner.statistics == first


def test_methods_without_statistics_are_told_nothing():
    known = _know("dpo", make_trees("dpo"), max_tokens=1, previous={"delta": 1.0})
    assert list(known.parts) == [{}] * 7 and known.scalars == {"delta": 1.0} and known.forward is None
