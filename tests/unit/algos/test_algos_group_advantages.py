"""Advantages without a value model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.advantages import overlong_penalty
from fairlead.algos.group_advantages import (
    greedy_baseline,
    group_centered,
    group_normalised,
    informative_groups,
    leave_one_out,
    rollout_advantages,
)
from naive import group_advantages_naive as naive

NAN = math.nan
_SCORE = st.sampled_from([0.0, 0.1, 1.0, -2.0, 3.3, NAN])
_ROWS = st.lists(st.tuples(_SCORE, st.integers(0, 3)), min_size=1, max_size=12)


def _tensors(scores, groups):
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(groups)


def test_a_group_by_hand():
    """Scores 1, 2, 6: mean 3, sample deviation sqrt((4 + 1 + 9) / 2) = 2.6458; the others' means are 4, 3.5, 1.5."""
    scores, groups = _tensors([1.0, 2.0, 6.0], [0, 0, 0])
    assert group_centered(scores, groups).advantages.tolist() == pytest.approx([-2, -1, 3])
    assert group_normalised(scores, groups).advantages.tolist() == pytest.approx(
        [-2 / 2.64585, -1 / 2.64585, 3 / 2.64585], rel=1e-4
    )
    assert leave_one_out(scores, groups).advantages.tolist() == pytest.approx([-3, -1.5, 4.5])
    greedy = greedy_baseline(scores, groups, greedy_scores=torch.tensor([2.5], dtype=torch.float64))
    assert greedy.advantages.tolist() == pytest.approx([-1.5, -0.5, 3.5])


@given(rows=_ROWS, eps=st.sampled_from([1e-6, 1e-4, 0.1]))
def test_estimators_agree_with_the_loop(rows, eps):
    scores, groups = zip(*rows, strict=True)
    for found, expected in (
        (group_normalised(*_tensors(scores, groups), eps=eps), naive.group_normalised(scores, groups, eps=eps)),
        (group_centered(*_tensors(scores, groups)), naive.group_centered(scores, groups)),
        (leave_one_out(*_tensors(scores, groups)), naive.leave_one_out(scores, groups)),
    ):
        assert found.advantages.tolist() == pytest.approx(expected, abs=1e-9)
        assert found.is_scored.tolist() == [not math.isnan(s) for s in scores]
    keep = informative_groups(*_tensors(scores, groups)).tolist()
    assert [g for g, kept in enumerate(keep) if kept] == sorted(
        g for g in set(groups) if len(set(naive.members(scores, groups, g))) > 1
    )


@given(rows=_ROWS, baselines=st.lists(_SCORE, min_size=4, max_size=4))
def test_the_greedy_baseline_agrees_with_the_loop(rows, baselines):
    scores, groups = zip(*rows, strict=True)
    found = greedy_baseline(*_tensors(scores, groups), greedy_scores=torch.tensor(baselines, dtype=torch.float64))
    expected = naive.greedy_baseline(scores, groups, baselines)
    assert found.advantages.tolist() == pytest.approx(expected)
    gone = [math.isnan(s) or math.isnan(baselines[g]) for s, g in zip(scores, groups, strict=True)]
    assert found.is_scored.tolist() == [not x for x in gone]


def test_leave_one_out_is_centered_times_n_over_n_minus_one():
    scores, groups = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(12) // 4  # fmt: skip
    torch.testing.assert_close(
        leave_one_out(scores, groups).advantages, group_centered(scores, groups).advantages * 4 / 3
    )


def test_equal_scores_give_exactly_nothing():
    """The mean of six times 0.1 is not 0.1 in binary; divided by a tiny deviation that would be a lesson."""
    scores, groups = _tensors([0.1] * 6, [0] * 6)
    assert float(scores.mean()) != 0.1
    for estimate in (group_normalised, group_centered, leave_one_out):
        assert estimate(scores, groups).advantages.tolist() == [0.0] * 6


def test_the_only_survivor_has_nothing_to_compare():
    """One of four is scored: no advantage."""
    scores, groups = _tensors([NAN, 2.0, NAN, NAN, 1.0, 3.0], [0, 0, 0, 0, 1, 1])
    found = leave_one_out(scores, groups)
    assert found.advantages.tolist() == [0, 0, 0, 0, -2, 2]
    assert found.is_scored.tolist() == [False, True, False, False, True, True]


def test_division_by_the_spread_forgets_how_hard_a_prompt_is():
    """One of four right (0.25) weighs 1.5 either way; a prompt with scores a tenth as far apart weighs the same only when divided."""
    scores, groups = _tensors([1.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0], [0] * 4 + [1] * 4)
    normalised, centered = group_normalised(scores, groups, eps=1e-9).advantages, group_centered(scores, groups).advantages  # fmt: skip
    torch.testing.assert_close(normalised[:4], normalised[4:])
    torch.testing.assert_close(centered[:4], 10 * centered[4:])


def _rewards(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (6,), generator=generator)
    index = torch.repeat_interleave(torch.arange(6), lengths)
    rewards = torch.randn(index.numel(), generator=generator, dtype=torch.float64)
    rewards[index == 2] = torch.where(torch.arange(int(lengths[2])) == 0, NAN, 0.5).double()
    return rewards, index, torch.arange(6) // 2


@given(seed=st.integers(0, 2**31), gamma=st.floats(0.1, 1))
def test_whitened_returns_agree_with_the_loop(seed, gamma):
    rewards, index, groups = _rewards(seed)
    found = rollout_advantages("whitened_returns", rewards, sequence_index=index, group_index=groups, gamma=gamma)
    rows = [rewards[index == b].tolist() for b in range(6)]
    expected = [x for row in naive.whitened_returns(rows, gamma=gamma) for x in row]
    assert found.advantages.tolist() == pytest.approx(expected, abs=1e-9)
    assert found.is_scored.tolist() == [True, True, False, True, True, True]


@given(seed=st.integers(0, 2**31))
def test_tokens_get_the_advantage_of_their_completion(seed):
    """The score of a completion is the sum of its rewards, so a KL in the reward is in the baseline too."""
    rewards, index, groups = _rewards(seed)
    scores = torch.stack([rewards[index == b].sum() for b in range(6)])
    greedy = torch.tensor([0.5, NAN, -1.0], dtype=torch.float64)
    for name, expected in (
        ("group_normalised", group_normalised(scores, groups)),
        ("group_centered", group_centered(scores, groups)),
        ("leave_one_out", leave_one_out(scores, groups)),
        ("greedy_baseline", greedy_baseline(scores, groups, greedy_scores=greedy)),
    ):
        found = rollout_advantages(name, rewards, sequence_index=index, group_index=groups, greedy_scores=greedy)
        torch.testing.assert_close(found.advantages, expected.advantages[index])
        assert torch.equal(found.is_scored, expected.is_scored)
        assert not found.advantages.isnan().any()


@given(seed=st.integers(0, 2**31))
def test_a_whitened_baseline_has_spread_one_over_the_scored_tokens(seed):
    rewards, index, groups = _rewards(seed)
    found = rollout_advantages("whitened_group_centered", rewards, sequence_index=index, group_index=groups)
    kept = found.advantages[found.is_scored[index]]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-9)
    assert float(kept.std(unbiased=False)) == pytest.approx(1, abs=1e-3)
    assert not found.advantages[index == 2].any()
    centered = group_centered(torch.stack([rewards[index == b].sum() for b in range(6)]), groups).advantages[index]
    slope = kept.std() / centered[found.is_scored[index]].std()
    torch.testing.assert_close(kept - kept[0], (centered[found.is_scored[index]] - centered[found.is_scored[index]][0]) * slope)  # fmt: skip


def test_a_batch_without_any_score_has_no_advantage():
    for name in ("group_normalised", "whitened_returns", "whitened_group_centered"):
        found = rollout_advantages(
            name, torch.full((4,), NAN), sequence_index=torch.tensor([0, 0, 1, 1]), group_index=torch.tensor([0, 0])
        )
        assert found.advantages.tolist() == [0.0] * 4
        assert not found.is_scored.any()


def test_the_penalty_of_a_long_completion_by_hand():
    """At most 10 tokens, the last 4 cost: 6 is free, 8 costs half, 10 and what was cut all of it."""
    lengths = torch.tensor([1, 6, 8, 10, 12])
    penalty = overlong_penalty(lengths, max_tokens=10, buffer_tokens=4, coef=2.0)
    assert penalty.tolist() == pytest.approx([0, 0, -1, -2, -2])
