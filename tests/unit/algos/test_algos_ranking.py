"""Ranking losses: Plackett-Luce and all pairs."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import RANKING, REWARD
from fairlead.algos.checks import check_algorithm
from fairlead.algos.random_batches import random_batch
from fairlead.algos.ranking import MAX_TIED, RankingConfig, choices
from fairlead.algos.reward import RewardConfig
from fairlead.algos.spec import GroupBatch
from fairlead.core.errors import ConfigError
from naive.ranking_naive import ranking_loss

_MODELS = st.sampled_from(["plackett_luce", "all_pairs"])
_PLAIN = RankingConfig(center_coef=0.0)


def _rankings(groups, **optional):
    """Groups as (scores, ranks), one token a sequence."""
    sizes = [len(scores) for scores, _ in groups]
    return GroupBatch(
        sequence_index=torch.arange(sum(sizes)),
        group_index=torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(sizes)),
        ranks=torch.tensor([rank for _, ranks in groups for rank in ranks]),
        num_groups=len(groups),
        scores=torch.tensor([score for scores, _ in groups for score in scores], dtype=torch.float64),
        **optional,
    )


def _value(batch, config):
    return float(RANKING.loss(batch, config).total / RANKING.count(batch, config))


def _random_groups(seed):
    """Rankings of 2 to 5 completions with ties, as (scores, ranks, weight, p)."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for _ in range(4):
        size = int(torch.randint(2, 6, (), generator=generator))
        scores = torch.randn(size, generator=generator, dtype=torch.float64).tolist()
        ranks = torch.randint(0, 4, (size,), generator=generator).tolist()
        weight, p = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        groups.append((scores, ranks, weight + 0.1, p))
    return groups


def test_equal_scores_cost_the_log_of_the_number_of_orders():
    """log 4! for Plackett-Luce; log 2 for the mean of the pairs."""
    batch = _rankings([([0.0] * 4, [2, 0, 3, 1])])
    assert _value(batch, _PLAIN) == pytest.approx(math.log(24))
    assert _value(batch, RankingConfig(model="all_pairs")) == pytest.approx(math.log(2))


def test_a_ranking_by_hand():
    """Strengths 4, 2, 1 in order: P = 4/7 * 2/3, so -log(8/21) = 0.965081; pairs 4/5, 2/3, 4/6: mean of the logs 0.344691."""
    batch = _rankings([([math.log(4), math.log(2), 0.0], [0, 1, 2])])
    assert _value(batch, _PLAIN) == pytest.approx(0.965081, abs=1e-6)
    expected = -(math.log(4 / 5) + 2 * math.log(2 / 3)) / 3
    assert _value(batch, RankingConfig(model="all_pairs", center_coef=0.0)) == pytest.approx(expected)


def test_the_best_of_all_is_a_softmax():
    """top=1 reads only that 4 was chosen from 4, 2, 1."""
    batch = _rankings([([math.log(4), math.log(2), 0.0], [0, 1, 2])])
    assert _value(batch, RankingConfig(top=1, center_coef=0.0)) == pytest.approx(-math.log(4 / 7))


@given(seed=st.integers(0, 2**31), model=_MODELS, top=st.sampled_from([None, 1, 2]))
def test_the_loss_agrees_with_the_loop_over_all_orders(seed, model, top):
    groups = _random_groups(seed)
    batch = _rankings(
        [(scores, ranks) for scores, ranks, _, _ in groups],
        weights=torch.tensor([weight for _, _, weight, _ in groups], dtype=torch.float64),
        p_chosen=torch.tensor([p for *_, p in groups], dtype=torch.float64),
    )
    config = RankingConfig(model=model, top=top, center_coef=0.05)
    assert _value(batch, config) == pytest.approx(ranking_loss(groups, model=model, top=top, center_coef=0.05))


@given(seed=st.integers(0, 2**31), model=_MODELS)
def test_pairs_are_bradley_terry(seed, model):
    """With soft labels, ties, weights and centring; in value and gradient."""
    batch = replace(random_batch("groups", seed=seed), margins=None)
    found = {}
    for algo, config in (
        (RANKING, RankingConfig(model=model, center_coef=0.05)),
        (REWARD, RewardConfig(center_coef=0.05)),
    ):
        scores = batch.scores.clone().requires_grad_()
        total = algo.loss(replace(batch, scores=scores), config).total / algo.count(batch, config)
        total.backward()
        found[algo.name] = torch.cat([total.detach()[None], scores.grad])
    torch.testing.assert_close(found["ranking"], found["reward"])


@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50), model=_MODELS)
def test_only_differences_count(seed, shift, model):
    groups = [(scores, ranks) for scores, ranks, _, _ in _random_groups(seed)]
    moved = [([score + shift for score in scores], ranks) for scores, ranks in groups]
    config = RankingConfig(model=model, center_coef=0.0)
    assert _value(_rankings(moved), config) == pytest.approx(_value(_rankings(groups), config))


@given(ranks=st.lists(st.integers(0, 3), min_size=2, max_size=6), top=st.sampled_from([None, 1, 2, 3]))
def test_every_place_is_filled_once(ranks, top):
    """The weights of the stages are 1 each; the last completion left is no choice."""
    total = sum(choice.weight for choice in choices(tuple(ranks), "plackett_luce", top))
    assert total == pytest.approx(min(top or len(ranks), len(ranks) - 1))


def test_unordered_completions_below_the_top_are_only_known_to_be_worse():
    """Ranks 0, 1, 1, 1 with top=1 and 0, 1, 2, 3 with top=1 say the same."""
    scores = [0.3, -1.0, 0.8, 0.1]
    config = RankingConfig(top=1)
    same = [_value(_rankings([(scores, ranks)]), config) for ranks in ([0, 1, 1, 1], [0, 3, 1, 2])]
    assert same[0] == pytest.approx(same[1])


def test_lone_completions_compare_nothing():
    with_lone = _rankings([([1.0, 0.0], [0, 1]), ([5.0], [0])])
    without = _rankings([([1.0, 0.0], [0, 1])])
    for value in (_value, lambda batch, config: float(RANKING.count(batch, config))):
        assert value(with_lone, _PLAIN) == pytest.approx(value(without, _PLAIN))


def test_accuracy_is_over_decided_pairs():
    """Scores 3, 1, 2 ranked 0, 1, 1: two decided pairs, both right; 0, 1 the wrong way round; an equal one is half right."""
    batch = _rankings([([3.0, 1.0, 2.0], [0, 1, 1]), ([0.0, 1.0], [0, 1]), ([1.0, 1.0], [0, 1])])
    assert [float(x) for x in RANKING.loss(batch, _PLAIN).metrics["reward/accuracy"]] == [2.5, 4.0]


def test_too_many_ties_are_refused_unless_they_are_not_read():
    ranks = (0, *[1] * (MAX_TIED + 1))
    with pytest.raises(ValueError, match=f"{MAX_TIED + 1} completions share rank 1"):
        choices(ranks, "plackett_luce", None)
    assert len(choices(ranks, "plackett_luce", 1)) == 1


@pytest.mark.parametrize("settings", [{"top": 0}, {"center_coef": -1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RankingConfig(**settings)


@pytest.mark.parametrize("config", [RankingConfig(), RankingConfig(top=2), RankingConfig(model="all_pairs")])
def test_rankings_of_unequal_sizes_have_the_shared_properties(config):
    groups = _random_groups(3)
    batch = _rankings(
        [(scores, ranks) for scores, ranks, _, _ in groups],
        weights=torch.tensor([weight for _, _, weight, _ in groups], dtype=torch.float64),
    )
    for _, check in check_algorithm(RANKING, config):
        check.func(RANKING, config, batch)


@pytest.mark.parametrize("model", ["plackett_luce", "all_pairs"])
def test_both_models_find_the_strengths_behind_the_rankings(model):
    """All 24 orders of four completions, weighted by their probability: the minimum is at the strengths, up to a shift."""
    truth = torch.tensor([1.5, 0.5, -0.5, -1.5], dtype=torch.float64)
    orders = list(itertools.permutations(range(4)))
    weights = [
        math.exp(sum(float(truth[i] - torch.logsumexp(truth[list(order[place:])], 0)) for place, i in enumerate(order)))
        for order in orders
    ]
    assert sum(weights) == pytest.approx(1.0)
    ranks = [[order.index(i) for i in range(4)] for order in orders]
    batch = _rankings([([0.0] * 4, row) for row in ranks], weights=torch.tensor(weights, dtype=torch.float64))
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = RANKING.loss(replace(batch, scores=scores.repeat(len(orders))), RankingConfig(model=model)).total
        total.backward()
        return total

    optimizer.step(closure)
    torch.testing.assert_close(scores.detach(), truth, atol=1e-4, rtol=0)
