"""The loop: micro-batches change nothing, steps are AdamW's, faults stop it before the weights move, and a golden run."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_examples import METHODS, make_learner, make_trees, weights

import tiny_models
from fairlead.algos import SFT
from fairlead.algos.random_batches import random_batch
from fairlead.core.errors import TrainError
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.batches import EpochBatches, MicroBatch, make_microbatches, num_steps
from fairlead.train.forward import PolicyLogprobs, StateValues, annotate, on_device, run_forward, score_trees
from fairlead.train.loop import read_numbers, run_loop
from fairlead.train.optim import OptimizerSettings, learning_rate, make_optimizers

GOLDEN = Path(__file__).parents[2] / "golden" / "sft_llama.json"


@pytest.mark.parametrize("method", METHODS)
def test_the_token_budget_does_not_change_the_steps(method):
    """Three steps in float64 with everything in one row, with a few trees a row, with one tree a row."""
    runs = []
    for max_tokens in (8192, 40, 1):
        learner = make_learner(method, dtype=torch.float64, max_tokens=max_tokens)
        metrics = [learner.step(make_trees(method, seed=step)) for step in range(3)]
        runs.append((metrics, weights(learner)))
    assert [len(make_microbatches(make_trees(method), max_tokens=n)) for n in (8192, 1)] == [1, 7]
    for metrics, found in runs[1:]:
        for row, expected in zip(metrics, runs[0][0], strict=True):
            assert row == pytest.approx(expected, rel=1e-6, abs=1e-6)
        for a, b in zip(found, runs[0][1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_of_many_microbatches_are_those_of_one(method):
    """In fp32, before AdamW divides small gradients by themselves."""
    grads = []
    for max_tokens in (8192, 1):
        learner = make_learner(method, max_tokens=max_tokens)
        sums = learner._accumulate(make_microbatches(make_trees(method), max_tokens=max_tokens))
        grads.append((sums["loss"][0], [p.grad.clone() for p in learner.parameters if p.grad is not None]))
    assert grads[0][0] == pytest.approx(grads[1][0], abs=1e-6)
    for a, b in zip(grads[0][1], grads[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_metrics_are_read_once_a_step(monkeypatch):
    """Each reading of a number waits for a GPU. What is left is the count of each micro-batch, which lies on the CPU always."""
    learner, microbatches = make_learner("sft"), make_microbatches(make_trees("sft"), max_tokens=1)
    reads, own = [], torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda x: reads.append(x) or own(x))
    learner._accumulate(microbatches)
    assert len(reads) == len(microbatches) == 7


def test_numbers_read_together_are_those_read_one_by_one():
    scalars = [
        torch.tensor(x, dtype=d) for d in (torch.float32, torch.float64, torch.int64, torch.bfloat16) for x in (3, 5)
    ]
    scalars += [torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64), torch.tensor(math.nan)]
    numbers = read_numbers(scalars)
    assert numbers[:-1] == [float(x) for x in scalars[:-1]] and math.isnan(numbers[-1])
    assert read_numbers([]) == []


def test_one_step_is_clipped_adamw_on_the_mean_loss():
    """The same step with torch alone: plain log_softmax rows, mean over weighted tokens, clip_grad_norm_, AdamW."""
    trees = make_trees("sft")
    learner = make_learner("sft", dtype=torch.float64, warmup_share=0.0, weight_decay=0.1, max_grad_norm=0.5, eps=1e-3)
    metrics = learner.step(trees)

    plain = tiny_models.load_plain("llama", dtype=torch.float64)
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for tree in trees:
        (branch,) = tree.branches
        logps = plain(input_ids=torch.from_numpy(branch.token_ids)[None]).logits[0].log_softmax(-1)
        for t in np.flatnonzero(branch.kept):
            total = total - branch.weight * logps[t - 1, branch.token_ids[t]]
            count += branch.weight
    (total / count).backward()
    assert metrics["loss"] == pytest.approx((total / count).item(), rel=1e-6)
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-4) and norm > 0.5
    matrices, vectors = ([p for p in plain.parameters() if (p.dim() >= 2) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-3).step()
    peers = dict(plain.named_parameters())
    for name, parameter in learner.models.policy.module.named_parameters():
        torch.testing.assert_close(parameter, peers[name], atol=2e-6, rtol=0)


def test_training_lowers_the_loss_and_a_wrong_sign_raises_it():
    losses = {}
    for sign in (1.0, -1.0):
        learner = make_learner("sft", learning_rate=3e-3, schedule="constant", warmup_share=0.0)
        learner.algo = replace(SFT, loss=lambda batch, config, sign=sign: _scaled(SFT.loss(batch, config), sign))
        losses[sign] = [sign * learner.step(make_trees("sft"))["loss"] for _ in range(8)]
    assert losses[1.0][-1] < losses[1.0][0] - 0.3 and losses[-1.0][-1] > losses[-1.0][0] + 0.3


def _scaled(loss, factor):
    return replace(loss, total=factor * loss.total)


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_a_loss_that_is_not_finite_stops_before_the_step(method):
    learner = make_learner(method)
    learner.step(make_trees(method))
    before = weights(learner)
    trees = make_trees(method)
    name = "ref_logprobs" if method == "dpo" else "advantages"
    broken = trees[3].branches[0]
    values = broken.arrays[name].copy()
    values[0] = math.nan
    trees[3] = replace(
        trees[3], branches=(replace(broken, arrays={**broken.arrays, name: values}), *trees[3].branches[1:])
    )
    with pytest.raises(TrainError) as info:
        learner.step(trees)
    assert f"{method}: step 2: loss=nan is not finite" in str(info.value) and "\n" not in str(info.value)
    assert learner.step_number == 1
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))
    assert math.isfinite(learner.step(make_trees(method))["loss"]), "the next good batch is not poisoned"


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    learner = make_learner("sft")
    learner.parameters[0].register_hook(lambda grad: grad * math.inf)
    before = weights(learner)
    with pytest.raises(TrainError, match="step 1: gradient norm"):
        learner.step(make_trees("sft"))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_a_batch_that_trains_nothing_is_refused():
    trees = [
        replace(t, branches=(replace(t.branches[0], kept=np.zeros(len(t.branches[0].token_ids), dtype=bool)),))
        for t in make_trees("sft")
    ]
    with pytest.raises(TrainError, match="leaves nothing to learn from"):
        make_learner("sft").step(trees)


def test_the_loop_skips_what_was_done_and_every_hook_is_called():
    learner, seen = make_learner("sft"), []
    learner.step_number = 2
    hooks = [lambda lea, m: lea.step_number == 4, lambda lea, m: seen.append(lea.step_number)]
    run_loop(learner, [make_trees("sft", seed=s) for s in range(10)], hooks)
    assert learner.step_number == 4 and seen == [3, 4]


def test_epochs_are_a_pure_function_of_their_arguments():
    trees = make_trees("sft", num=7)
    runs = [list(EpochBatches(trees, batch_size=3, num_epochs=2, seed=s)) for s in (1, 1, 2)]
    names = [[[id(t) for t in batch] for batch in run] for run in runs]
    assert names[0] == names[1] != names[2]
    assert [len(b) for b in runs[0]] == [3, 3, 1, 3, 3, 1] and num_steps(7, batch_size=3, num_epochs=2) == 6
    for epoch in (names[0][:3], names[0][3:]):
        assert sorted(i for b in epoch for i in b) == sorted(map(id, trees))
    assert names[0][:3] != names[0][3:], "a new order each epoch"


def test_the_learning_rate_by_hand():
    """20 steps, 10 % warm-up (2 steps): half the peak, the peak, the peak again, then down to a tenth at the last step."""
    for schedule, middle in (
        ("constant", 1.0),
        ("linear", 0.1 + 0.9 * (1 - 8 / 17)),
        ("cosine", 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 8 / 17))),
    ):
        settings = OptimizerSettings(learning_rate=2.0, schedule=schedule, warmup_share=0.1, final_share=0.1)
        rates = [learning_rate(settings, step, 20) for step in range(20)]
        assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
        assert rates[10] == pytest.approx(2 * middle)
        assert rates[19] == pytest.approx(2.0 if schedule == "constant" else 0.2)
        assert rates[2:] == sorted(rates[2:], reverse=True)
    assert learning_rate(OptimizerSettings(learning_rate=1.0), 0, 1) > 0
    assert learning_rate(OptimizerSettings(learning_rate=1.0, warmup_share=0.0), 0, 1) == 1.0


def test_matrices_decay_and_vectors_do_not():
    groups = (
        make_optimizers(
            tiny_models.load("llama").module.parameters(), OptimizerSettings(learning_rate=1.0, weight_decay=0.1)
        )
        .parts[0]
        .param_groups
    )
    assert {(g["weight_decay"], p.dim() >= 2) for g in groups for p in g["params"]} == {(0.1, True), (0.0, False)}


@pytest.mark.parametrize("max_tokens", [1, 40, 8192])
def test_annotations_belong_to_their_tokens_whatever_the_budget(max_tokens):
    trees, model = make_trees("dpo"), tiny_models.load("llama")
    found = annotate(trees, "old_logprobs", PolicyLogprobs(model, temperature=0.7), max_tokens=max_tokens)
    for tree, old in zip(found, trees, strict=True):
        for branch, old_branch in zip(tree.branches, old.branches, strict=True):
            alone = Tree(prompt_ids=tree.prompt_ids, branches=(branch,))
            with torch.no_grad():
                expected = model.logprobs(pack_trees([alone]), temperature=0.7).logprobs.numpy()
            np.testing.assert_allclose(branch.arrays["old_logprobs"], expected, atol=2e-5)
            assert (
                branch.arrays["ref_logprobs"] is old_branch.arrays["ref_logprobs"]
                and branch.token_ids is old_branch.token_ids
            )
    assert all("old_logprobs" not in b.arrays for t in trees for b in t.branches)


def test_scores_and_values_come_in_tree_order():
    reward = make_learner("reward").models.reward
    trees = make_trees("dpo")
    with torch.no_grad():
        expected = reward.scores(pack_trees(trees)).numpy()
        values = reward.values(pack_trees(trees)).numpy()
    for max_tokens in (1, 30):
        np.testing.assert_allclose(score_trees(reward, trees, max_tokens=max_tokens), expected, atol=2e-5)
        found = annotate(trees, "old_values", StateValues(reward), max_tokens=max_tokens)
        np.testing.assert_allclose(
            np.concatenate([b.arrays["old_values"] for t in found for b in t.branches]), values, atol=2e-5
        )
    assert score_trees(reward, [], max_tokens=8).shape == (0,)


def test_a_forward_computes_only_what_the_method_reads():
    trees = make_trees("sft")
    batch = MicroBatch(tuple(trees), pack_trees(trees))
    learner = make_learner("sft")
    assert run_forward(learner.models, batch, learner.algo, learner.algo_config).mean_logprobs is None
    smooth = replace(learner.algo_config, label_smoothing=0.1)
    assert run_forward(learner.models, batch, learner.algo, smooth).mean_logprobs is not None


def test_a_golden_run():
    """20 steps of SFT as they were when the loop was last changed on purpose. Write the file anew only with a reason in the commit."""
    losses: list[float] = []
    learner = make_learner("sft", num_steps=20, max_tokens=60, weight_decay=0.01)
    run_loop(
        learner,
        EpochBatches(make_trees("sft", num=20), batch_size=5, num_epochs=5, seed=0),
        [lambda lea, m: losses.append(m["loss"])],
    )
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())["losses"], abs=1e-5)
    assert losses[-1] < losses[0] - 0.5


def test_empty_branches_have_no_place():
    with pytest.raises(ValueError, match="no tokens"):
        make_learner("sft").step(
            [Tree(prompt_ids=np.array([1]), branches=(Branch(token_ids=np.zeros(0, dtype=np.int64)),))]
        )


@pytest.mark.parametrize("kind", ["tokens", "groups", "unpaired", "rollouts"])
def test_a_batch_moves_to_a_device_as_a_whole(kind):
    """Losses on a GPU would otherwise meet indices on the CPU; `meta` is a second device that every machine has."""
    moved = on_device(random_batch(kind, seed=0), torch.device("meta"))
    tensors = [x for f in dataclasses.fields(moved) if isinstance(x := getattr(moved, f.name), torch.Tensor)]
    assert len(tensors) > 1 and all(x.device.type == "meta" for x in tensors)


class Counted(list):
    """Trees that count how often one is taken."""

    taken = 0

    def __getitem__(self, place):
        type(self).taken += 1
        return super().__getitem__(place)


def test_a_resumed_run_takes_only_the_trees_of_its_own_steps():
    trees = Counted(make_trees("sft", num=12))
    source = EpochBatches(trees, batch_size=5, num_epochs=4, seed=3)
    whole = [[id(t) for t in batch] for batch in source]
    assert len(whole) == len(source) == 12 and [len(b) for b in whole[:3]] == [5, 5, 2]
    Counted.taken = 0
    again = EpochBatches(trees, batch_size=5, num_epochs=4, seed=3)
    assert [id(t) for t in again[10]] == whole[10] and Counted.taken == 5
    assert [[id(t) for t in batch] for batch in again[4:6]] == whole[4:6]
    with pytest.raises(IndexError):
        again[12]


def test_the_loop_starts_at_the_step_of_its_learner():
    learner = make_learner("sft", num_steps=6)
    batches = [make_trees("sft", seed=step) for step in range(6)]
    learner.step_number, seen = 4, []
    run_loop(learner, batches, [lambda _, metrics: seen.append(metrics["num_tokens"])])
    assert seen == [sum(t.num_tokens for t in b) for b in batches[4:]]
