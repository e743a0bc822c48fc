"""Rewards per token, advantages, whitening."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.advantages import (
    gae,
    length_penalty,
    mean_and_std,
    token_rewards,
    whiten,
    whitening_statistics,
)
from naive import advantages_naive as naive

_SEEDS = st.integers(0, 2**31)


def _ragged(seed, *, num_sequences=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (num_sequences,), generator=generator)
    index = torch.repeat_interleave(torch.arange(num_sequences), lengths)
    rewards, values = torch.randn(2, index.numel(), generator=generator, dtype=torch.float64)
    is_observation = torch.rand(index.numel(), generator=generator) < 0.4
    return index, rewards, values, is_observation


def _rows(x, index):
    return [x[index == b].tolist() for b in range(int(index.max()) + 1)]


def test_gae_by_hand():
    """gamma 0.9, lam 0.5, rewards (0, 1), values (0.5, 0.2): A_1 = 1 - 0.2 = 0.8;
    A_0 = 0 + 0.9 * 0.2 - 0.5 + 0.45 * 0.8 = 0.04; returns (0.54, 1.0)."""
    advantages, returns = gae(
        torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.2]), gamma=0.9, lam=0.5, sequence_index=torch.tensor([0, 0])
    )
    assert advantages.tolist() == pytest.approx([0.04, 0.8])
    assert returns.tolist() == pytest.approx([0.54, 1.0])


@given(seed=_SEEDS, gamma=st.floats(0, 1), lam=st.floats(0, 1), with_observations=st.booleans())
def test_gae_is_the_sum_of_its_definition(seed, gamma, lam, with_observations):
    index, rewards, values, is_observation = _ragged(seed)
    skip = is_observation if with_observations else torch.zeros_like(is_observation)
    advantages, returns = gae(
        rewards, values, gamma=gamma, lam=lam, sequence_index=index, is_observation=skip if with_observations else None
    )
    expected = [
        naive.gae(r, v, gamma=gamma, lam=lam, is_observation=o)
        for r, v, o in zip(_rows(rewards, index), _rows(values, index), _rows(skip, index), strict=True)
    ]
    assert advantages.tolist() == pytest.approx([a for row, _ in expected for a in row], abs=1e-12)
    assert returns.tolist() == pytest.approx([g for _, row in expected for g in row], abs=1e-12)


@given(seed=_SEEDS, gamma=st.floats(0, 1))
def test_lambda_one_is_monte_carlo_and_zero_is_td(seed, gamma):
    index, rewards, values, _ = _ragged(seed)
    _, returns = gae(rewards, values, gamma=gamma, lam=1.0, sequence_index=index)
    monte_carlo = [g for row in _rows(rewards, index) for g in naive.monte_carlo_returns(row, gamma=gamma)]
    assert returns.tolist() == pytest.approx(monte_carlo, abs=1e-12)

    advantages, _ = gae(rewards, values, gamma=gamma, lam=0.0, sequence_index=index)
    td = [
        r + gamma * v_next - v
        for reward_row, value_row in zip(_rows(rewards, index), _rows(values, index), strict=True)
        for r, v, v_next in zip(reward_row, value_row, [*value_row[1:], 0.0], strict=True)
    ]
    assert advantages.tolist() == pytest.approx(td, abs=1e-12)


@given(seed=_SEEDS)
def test_observations_change_nothing_for_the_policy_tokens(seed):
    """Taking the observations out gives the same advantages: their number discounts nothing."""
    index, rewards, values, skip = _ragged(seed)
    rewards = torch.where(skip, torch.zeros_like(rewards), rewards)
    with_them, _ = gae(rewards, values, gamma=0.9, lam=0.8, sequence_index=index, is_observation=skip)
    _, renumbered = torch.unique(index[~skip], return_inverse=True)
    if renumbered.numel():
        without, _ = gae(rewards[~skip], values[~skip], gamma=0.9, lam=0.8, sequence_index=renumbered)
        torch.testing.assert_close(with_them[~skip], without, atol=1e-12, rtol=0)
    assert not with_them[skip].any()


def test_a_reward_on_an_observation_goes_to_the_token_before():
    """One policy token, then a tool result worth 2: A_0 = 2 - 0.5."""
    advantages, _ = gae(
        torch.tensor([0.0, 2.0]),
        torch.tensor([0.5, 9.0]),
        gamma=0.5,
        lam=0.5,
        sequence_index=torch.tensor([0, 0]),
        is_observation=torch.tensor([False, True]),
    )
    assert advantages.tolist() == [1.5, 0.0]


def test_rewards_by_hand():
    """Scores (9, -1) clipped to +-5, the second without EOS at 2 less: 5 and -3 on the last tokens; -0.1 * kl everywhere."""
    rewards = token_rewards(
        torch.tensor([9.0, -1.0]),
        torch.tensor([1.0, 2.0, 3.0]),
        kl_coef=0.1,
        sequence_index=torch.tensor([0, 0, 1]),
        score_clip=5.0,
        has_eos=torch.tensor([True, False]),
        missing_eos_penalty=2.0,
    )
    assert rewards.tolist() == pytest.approx([-0.1, 4.8, -3.3])


@given(seed=_SEEDS, kl_coef=st.floats(0, 2), score_clip=st.none() | st.floats(0.1, 2))
def test_rewards_agree_with_the_loop(seed, kl_coef, score_clip):
    index, kl, _, _ = _ragged(seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(5, generator=generator, dtype=torch.float64)
    has_eos = torch.rand(5, generator=generator) < 0.5
    settings = {"kl_coef": kl_coef, "score_clip": score_clip, "missing_eos_penalty": 1.0}
    rewards = token_rewards(scores, kl, sequence_index=index, has_eos=has_eos, **settings)
    expected = [
        reward
        for score, row, ended in zip(scores.tolist(), _rows(kl, index), has_eos.tolist(), strict=True)
        for reward in naive.token_rewards(score, row, has_eos=ended, **settings)
    ]
    assert rewards.tolist() == pytest.approx(expected, abs=1e-12)


def test_observations_pay_no_kl_even_where_it_is_not_finite():
    rewards = token_rewards(
        torch.tensor([1.0]),
        torch.tensor([2.0, torch.inf, 4.0]),
        kl_coef=0.5,
        sequence_index=torch.tensor([0, 0, 0]),
        is_observation=torch.tensor([False, True, False]),
    )
    assert rewards.tolist() == [-1.0, 0.0, -1.0]


def test_a_score_without_a_token_is_refused():
    with pytest.raises(ValueError, match="1 of 2 sequences have no token"):
        token_rewards(torch.zeros(2), torch.zeros(3), kl_coef=0.1, sequence_index=torch.tensor([0, 0, 0]))


def test_each_token_costs_the_same():
    """Coefficient 0.5 over at most 100 tokens: 0.005 a token, so the slope of the expectation in the mean length is -0.005."""
    penalty = length_penalty(torch.arange(101), coef=0.5, max_tokens=100)
    assert penalty.diff().tolist() == pytest.approx([-0.005] * 100, abs=1e-7)
    assert float(penalty[-1]) == -0.5


def test_expected_length_penalty_has_a_gradient_of_coef_over_max():
    """Geometric lengths with continuation q: E[length] = 1 / (1 - q), so dE[penalty]/dq = -coef / max / (1 - q)^2."""
    lengths = torch.arange(1, 2000)
    penalty = length_penalty(lengths, coef=0.5, max_tokens=100).double()

    def expected(q):
        return float(((1 - q) * q ** (lengths - 1).double() * penalty).sum())

    slope = (expected(0.5 + 1e-5) - expected(0.5 - 1e-5)) / 2e-5
    assert slope == pytest.approx(-0.005 / 0.25, abs=1e-7)


@given(seed=_SEEDS, shift_mean=st.booleans())
def test_whitening_agrees_with_the_loop(seed, shift_mean):
    x = torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 5
    assert whiten(x, shift_mean=shift_mean).tolist() == pytest.approx(
        naive.whiten(x.tolist(), shift_mean=shift_mean), abs=1e-9
    )


@given(seed=_SEEDS)
def test_whitening_by_parts_is_whitening_at_once(seed):
    """Ranks add up three numbers each; a rank's own statistics would give another result."""
    x = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = x.split([2, 7, 3])
    mean, std = mean_and_std(sum(whitening_statistics(part) for part in parts))
    together = torch.cat([whiten(part, mean=mean, std=std) for part in parts])
    torch.testing.assert_close(together, whiten(x), atol=1e-12, rtol=0)
    assert not torch.allclose(torch.cat([whiten(part) for part in parts]), whiten(x), atol=1e-3)


def test_whitening_equal_values_gives_zeros():
    x = torch.full((4,), 0.1)
    assert whiten(x).abs().max() < 1e-4
    assert math.isclose(float(whiten(x, shift_mean=False)[0]), 0.1, rel_tol=1e-3)
