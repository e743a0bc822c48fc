"""Which completions of a round become pairs or demonstrations."""

from typing import Any

import numpy as np
import pytest
import torch

from fairlead.core.protocols import Sample
from fairlead.engine.rollouts import Rollout
from fairlead.policies.choosing import choose_learned
from fairlead.policies.mixing import MixedTexts
from fairlead.policies.online_config import OnlineConfig
from fairlead.text.packing import Branch, Tree

REWARDS = [0.5, 2.0, 1.0, 3.0, 3.0, 0.0, 4.0, -1.0]  # of prompts with three, two and three completions
SIZES = (3, 2, 3)


def choose(
    algorithm: str,
    *,
    split: bool = False,
    rewards: list[float] = REWARDS,
    scores: list[float] | None = None,
    **given: Any,
):
    """First token of what is chosen, by prompt; completion i of the round begins with token i."""
    config = OnlineConfig.model_validate({"algorithm": algorithm, "batch_size": 8, "group_size": 4, **given})
    rollouts: list[Rollout] = []
    number = 0
    for p, size in enumerate(SIZES):
        arrays = [{"ref_logprobs": np.full(2, float(number + i)), "advantages": np.ones(2)} for i in range(size)]
        branches = tuple(Branch(token_ids=np.array([number + i, 9]), arrays=arrays[i]) for i in range(size))
        samples = tuple(Sample(key=f"p{p}", sample_index=i, token_ids=b.token_ids, sampling_logprobs=np.zeros(2, dtype=np.float32),
                               finish_reason="stop") for i, b in enumerate(branches))  # fmt: skip
        rollouts.append(Rollout(tree=Tree(prompt_ids=np.array([p]), branches=branches), samples=samples))
        number += size
    trees = [r.tree for r in rollouts]
    if split:
        trees = [Tree(prompt_ids=t.prompt_ids, branches=(b,)) for t in trees for b in t.branches]
    found, told = choose_learned(
        config, rollouts, trees, rewards=torch.tensor(rewards), scores=torch.tensor(scores or rewards)
    )
    for tree in found:
        assert tree.ranks == ((0, 1) if algorithm in ("online_dpo", "online_ipo") else ())
        assert all(
            b.arrays["ref_logprobs"][0] == b.token_ids[0] and "advantages" not in b.arrays for b in tree.branches
        )
    return {int(t.prompt_ids[0]): [int(b.token_ids[0]) for b in t.branches] for t in found}, told["rl/learned_share"]


@pytest.mark.parametrize("split", [False, True])
def test_the_best_goes_against_the_worst_and_prompts_paid_alike_give_no_pair(split: bool) -> None:
    assert choose("online_dpo", split=split) == ({0: [1, 0], 2: [6, 7]}, 4 / 8)
    assert choose("online_ipo") == choose("online_dpo")


@pytest.mark.parametrize("split", [False, True])
def test_the_best_of_each_prompt_is_imitated_unless_its_score_is_too_low(split: bool) -> None:
    assert choose("best_of_n", split=split) == ({0: [1], 1: [3], 2: [6]}, 3 / 8)
    assert choose("best_of_n", split=split, min_score=2.5) == ({1: [3], 2: [6]}, 2 / 8)


def test_expert_iteration_imitates_everything_that_is_good_enough_by_score_not_by_reward() -> None:
    assert choose("expert_iteration") == ({0: [1, 2], 1: [3, 4], 2: [6]}, 5 / 8)
    assert choose("expert_iteration", scores=[1, 0, 0, 0, 0, 0, 0, 1]) == ({0: [0], 2: [7]}, 2 / 8)


@pytest.mark.parametrize(("algorithm", "rewards"), [("online_dpo", [1.0] * 8), ("expert_iteration", [0.9] * 8)])
def test_a_round_with_nothing_to_learn_from_gives_no_trees(algorithm: str, rewards: list[float]) -> None:
    assert choose(algorithm, rewards=rewards) == ({}, 0.0)


def test_min_score_is_for_imitation_alone() -> None:
    with pytest.raises(ValueError, match=r"min_score=1\.0 is not read by grpo"):
        OnlineConfig.model_validate({"algorithm": "grpo", "min_score": 1.0})


def test_mixed_texts_pass_over_all_before_any_comes_again_and_follow_from_the_step() -> None:
    texts = MixedTexts([Tree(prompt_ids=np.array([i]), branches=()) for i in range(7)], 3, 0)
    steps = [[int(t.prompt_ids[0]) for t in texts.take(step)] for step in range(7)]
    assert steps == [[int(t.prompt_ids[0]) for t in texts.take(step)] for step in range(7)]
    flat = [i for step in steps for i in step]
    assert all(sorted(flat[k : k + 7]) == list(range(7)) for k in (0, 7, 14)) and flat[:7] != flat[7:14]
