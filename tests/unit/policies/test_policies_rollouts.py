"""Rollouts between sampling and training: what is dropped and told, what waits, and how a checkpoint carries it."""

import math

import numpy as np
import pytest
import torch

from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.engine.rollouts import Rollout, sample_rollouts
from fairlead.policies.buffer import RolloutBuffer, Round, even_parts
from fairlead.policies.collect import split_tree, without_cut
from fairlead.policies.rewarding import survivors, without_empty
from fairlead.text.packing import Branch, Tree


def rollouts(*sizes: int, length: int = 3) -> list[Rollout]:
    """Prompts with so many completions each; token t of completion i of prompt p is 100 p + 10 i + t."""
    found: list[Rollout] = []
    for p, size in enumerate(sizes):
        tokens = [100 * p + 10 * i + np.arange(length) for i in range(size)]
        samples = tuple(
            Sample(key=f"p{p}", sample_index=i, token_ids=ids, sampling_logprobs=-np.ones(length, dtype=np.float32), finish_reason="stop")
            for i, ids in enumerate(tokens)
        )  # fmt: skip
        branches = tuple(
            Branch(token_ids=ids, arrays={"old_logprobs": -np.ones(length, dtype=np.float32)}) for ids in tokens
        )
        found.append(Rollout(tree=Tree(prompt_ids=np.array([1, 2 + p]), branches=branches), samples=samples))
    return found


def first_tokens(found: list[Rollout]) -> list[list[int]]:
    """The first token of every completion that is left, by prompt; trees and samples must tell the same."""
    for rollout in found:
        for branch, sample in zip(rollout.tree.branches, rollout.samples, strict=True):
            assert np.array_equal(branch.token_ids, sample.token_ids)
    return [[int(s.token_ids[0]) for s in rollout.samples] for rollout in found]


def test_all_are_kept_as_they_are_when_every_score_is_finite() -> None:
    sampled = rollouts(2, 2)
    kept = survivors(sampled, torch.arange(4.0), needs_group=True)
    assert all(a is b for a, b in zip(kept.rollouts, sampled, strict=True))
    assert kept.scores.tolist() == [0, 1, 2, 3]
    assert (kept.num_lone, kept.rows.tolist()) == (0, [0, 1, 2, 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_costs_that_completion_alone(bad: float) -> None:
    kept = survivors(rollouts(3, 2), torch.tensor([0.0, bad, 2.0, 3.0, 4.0]), needs_group=True)
    assert first_tokens(kept.rollouts) == [[0, 20], [100, 110]]
    assert kept.scores.tolist() == [0, 2, 3, 4] and kept.rows.tolist() == [0, 2, 3, 4] and kept.num_lone == 0


def test_a_completion_left_alone_goes_where_the_group_is_the_baseline() -> None:
    scores = torch.tensor([0.0, math.nan, 2.0, 3.0])
    kept = survivors(rollouts(2, 2), scores, needs_group=True)
    assert first_tokens(kept.rollouts) == [[100, 110]] and kept.scores.tolist() == [2, 3] and kept.num_lone == 1
    alone = survivors(rollouts(2, 2), scores, needs_group=False)
    assert first_tokens(alone.rollouts) == [[0], [100, 110]] and alone.num_lone == 0


def test_nobody_may_survive() -> None:
    kept = survivors(rollouts(2), torch.tensor([math.nan, math.nan]), needs_group=False)
    assert kept.rollouts == [] and len(kept.scores) == 0


def test_completions_without_a_token_are_dropped() -> None:
    sampled = rollouts(2, 1)
    empty = Sample(key="p0", sample_index=0, token_ids=np.zeros(0, dtype=np.int64), sampling_logprobs=np.zeros(0, dtype=np.float32),
                   finish_reason="stop")  # fmt: skip
    tree = Tree(prompt_ids=np.array([1, 2]), branches=(Branch(token_ids=empty.token_ids), sampled[0].tree.branches[1]))
    found = without_empty([Rollout(tree=tree, samples=(empty, sampled[0].samples[1])), sampled[1]])
    assert first_tokens(found) == [[10], [100]]


def test_a_large_group_becomes_trees_that_fit_the_budget() -> None:
    (rollout,) = rollouts(5)  # a prompt of 2 and five completions of 3 tokens
    for max_tokens, sizes in ((17, [5]), (16, [4, 1]), (8, [2, 2, 1]), (4, [1] * 5)):
        parts = split_tree(rollout.tree, max_tokens=max_tokens)
        assert [len(part.branches) for part in parts] == sizes
        assert [b for part in parts for b in part.branches] == list(rollout.tree.branches)
        assert all(np.array_equal(part.prompt_ids, rollout.tree.prompt_ids) for part in parts)


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [([1] * 8, 4, [4, 4]), ([4] * 4, 8, [8, 8]), ([1] * 10, 4, [3, 4, 3]), ([4, 3, 4, 4], 8, [7, 8]), ([2, 1], 4, [3]), ([5, 1], 2, [5, 1])],
)  # fmt: skip
def test_steps_are_as_even_as_whole_prompts_allow_and_never_more_than_planned(
    sizes: list[int], size: int, expected: list[int]
) -> None:
    trees = [r.tree for r in rollouts(*sizes)]
    parts = even_parts(trees, size=size)
    assert [tree for part in parts for tree in part] == trees
    assert [sum(len(t.branches) for t in part) for part in parts] == expected
    assert len(parts) <= -(-sum(sizes) // size)


class _Backwards:
    """A sampler that finishes in the wrong order."""

    def generate(self, requests, sampling):
        for request in reversed(requests):
            for i in reversed(range(request.num_samples)):
                yield Sample(key=request.key, sample_index=i, token_ids=np.array([i]), sampling_logprobs=np.zeros(1, dtype=np.float32),
                             finish_reason="length")  # fmt: skip


def test_samples_of_a_prompt_share_its_tree_whatever_the_order_they_finish_in() -> None:
    requests = [
        GenerateRequest(key="b", token_ids=(1, 8), num_samples=4),
        GenerateRequest(key="a", token_ids=(1, 9), num_samples=2),
    ]
    found = sample_rollouts(_Backwards(), requests, Sampling(max_new_tokens=1), group_size=2)
    assert [[s.sample_index for s in r.samples] for r in found] == [[0, 1], [0, 1], [2, 3]]
    assert [r.tree.prompt_ids.tolist() for r in found] == [[1, 9], [1, 8], [1, 8]]


def _round(version: int, seed: int) -> Round:
    rng = np.random.default_rng(seed)

    def branch(size: int, *, kept: bool) -> Branch:
        mask = rng.random(size) < 0.5 if kept else None
        num = size if mask is None else int(mask.sum())
        return Branch(token_ids=rng.integers(0, 99, size), kept=mask, weight=0.5,
                      arrays={n: rng.normal(size=num).astype(np.float32) for n in ("advantages", "old_logprobs")})  # fmt: skip

    trees = [
        Tree(prompt_ids=rng.integers(0, 99, 3), branches=(branch(4, kept=False), branch(7, kept=True))),
        Tree(prompt_ids=rng.integers(0, 99, 5), branches=(branch(1, kept=False),)),
    ]
    return Round(trees=trees, metrics={"rl/score": 0.25}, kl_per_sequence=1.5, policy_version=version)


def test_waiting_rounds_come_back_from_a_checkpoint_as_they_were() -> None:
    buffer = RolloutBuffer(max_staleness=1, rounds=[_round(3, 0), _round(3, 1)])
    plain, tensors = buffer.state()
    again = RolloutBuffer(max_staleness=1)
    again.load_state(plain, {name: x.clone() for name, x in tensors.items()})
    assert len(again.rounds) == 2
    for one, two in zip(buffer.rounds, again.rounds, strict=True):
        assert (one.metrics, one.kl_per_sequence, one.policy_version) == (
            two.metrics,
            two.kl_per_sequence,
            two.policy_version,
        )
        assert two.num_completions == 3
        for a, b in zip(one.trees, two.trees, strict=True):
            assert np.array_equal(a.prompt_ids, b.prompt_ids) and len(a.branches) == len(b.branches)
            for x, y in zip(a.branches, b.branches, strict=True):
                assert (
                    np.array_equal(x.token_ids, y.token_ids)
                    and x.weight == y.weight
                    and x.arrays.keys() == y.arrays.keys()
                )
                kept = [None if b.kept is None else b.kept.tolist() for b in (x, y)]
                assert kept[0] == kept[1]
                assert all(np.array_equal(x.arrays[n], y.arrays[n]) for n in x.arrays)


def test_the_buffer_fills_when_it_is_empty_and_never_hands_out_what_is_too_old() -> None:
    buffer = RolloutBuffer(max_staleness=2)
    assert buffer.num_wanted == 3
    buffer.add([_round(5, i) for i in range(3)])
    for version in (5, 6, 7):
        assert buffer.num_wanted == 0
        assert buffer.first(policy_version=version) is buffer.rounds[0]
        buffer.drop_first()
    assert buffer.num_wanted == 3 and RolloutBuffer().num_wanted == 1
    buffer.add([_round(5, 0)])
    with pytest.raises(AssertionError, match="staleness 3"):
        buffer.first(policy_version=8)


def test_prompts_whose_completions_were_all_cut_are_left_out_and_single_cut_ones_weigh_nothing() -> None:
    trees = [rollout.tree for rollout in rollouts(2, 2, 1)]
    left = without_cut(trees, torch.tensor([True, False, False, False, True]))
    assert [int(tree.prompt_ids[1]) for tree in left] == [2, 4]
    assert [[branch.weight for branch in tree.branches] for tree in left] == [[1.0, 0.0], [1.0]]
    assert without_cut(trees, torch.zeros(5, dtype=torch.bool)) == []
