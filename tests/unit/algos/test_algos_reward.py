"""The reward model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import REWARD
from fairlead.algos.random_batches import random_batch
from fairlead.algos.reward import RewardConfig, tie_logprob, win_logprob
from fairlead.algos.spec import GroupBatch, pair_rows
from fairlead.core.errors import ConfigError
from naive.reward_naive import outcome_probabilities, reward_loss

_PLAIN = RewardConfig(center_coef=0.0)
_TIES = st.sampled_from(["soft", "davidson", "rao_kupper"])


def _pairs(scores, **optional):
    """Scores as (chosen, rejected, chosen, rejected, ...), one token a sequence."""
    num_sequences = len(scores)
    return GroupBatch(
        sequence_index=torch.arange(num_sequences),
        group_index=torch.arange(num_sequences) // 2,
        ranks=torch.arange(num_sequences) % 2,
        num_groups=num_sequences // 2,
        scores=torch.as_tensor(scores),
        **optional,
    )


def _value(batch, config):
    return float(REWARD.loss(batch, config).total / REWARD.count(batch, config))


def test_equal_scores_cost_log_two():
    assert _value(_pairs([0.0, 0.0]), RewardConfig()) == pytest.approx(math.log(2))


def test_a_pair_by_hand():
    """-log sigma(2 - 1 - 0.5) = log(1 + e^-0.5) = 0.474077; centring 0.01 * (2 + 1)^2 = 0.09."""
    batch = _pairs([2.0, 1.0], margins=torch.tensor([0.5]))
    assert _value(batch, RewardConfig(center_coef=0.01)) == pytest.approx(0.474077 + 0.09, abs=1e-6)


def test_votes_are_as_good_as_repeated_pairs():
    """3 of 4 votes: p_chosen = 0.75 at weight 4 is three pairs one way round and one the other."""
    soft = _pairs([0.7, -0.4], p_chosen=torch.tensor([0.75]), weights=torch.tensor([4.0]))
    repeated = _pairs([0.7, -0.4, -0.4, 0.7], weights=torch.tensor([3.0, 1.0]))
    assert _value(soft, RewardConfig()) == pytest.approx(_value(repeated, RewardConfig()))


@given(seed=st.integers(0, 2**31), ties=_TIES, tie_rate=st.floats(0.05, 0.9))
def test_the_loss_agrees_with_the_loop(seed, ties, tie_rate):
    batch = random_batch("groups", seed=seed)
    chosen, rejected = pair_rows(batch)
    config = RewardConfig(center_coef=0.05, ties=ties, tie_rate=tie_rate)
    expected = reward_loss(
        batch.scores[chosen].tolist(),
        batch.scores[rejected].tolist(),
        p_chosen=batch.p_chosen.tolist(),
        margins=batch.margins.tolist(),
        is_tie=batch.is_tie.tolist(),
        weights=batch.weights.tolist(),
        center_coef=0.05,
        ties=ties,
        tie_rate=tie_rate,
    )
    assert _value(batch, config) == pytest.approx(expected)


@given(difference=st.floats(-15, 15), tie_rate=st.floats(0.05, 0.9), ties=st.sampled_from(["davidson", "rao_kupper"]))
def test_the_three_outcomes_are_all_there_is(difference, tie_rate, ties):
    config = RewardConfig(ties=ties, tie_rate=tie_rate)
    d = torch.tensor([difference], dtype=torch.float64)
    found = [float(x.exp()) for x in (win_logprob(d, config), tie_logprob(d, config), win_logprob(-d, config))]
    assert sum(found) == pytest.approx(1.0)
    assert found == pytest.approx(outcome_probabilities(difference, ties=ties, tie_rate=tie_rate), abs=1e-9)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_tie_rate_is_the_rate_of_ties_between_equals(ties):
    config = RewardConfig(ties=ties, tie_rate=0.3)
    assert float(tie_logprob(torch.zeros(1), config).exp()) == pytest.approx(0.3)


@pytest.mark.parametrize("ties", ["soft", "davidson", "rao_kupper"])
def test_a_tie_pulls_scores_together(ties):
    """Whatever the margin and the label say; at equal scores the gradient is 0."""
    scores = torch.tensor([1.0, -1.0, 0.3, 0.3], requires_grad=True)
    batch = _pairs(
        [0.0] * 4,
        is_tie=torch.tensor([True, True]),
        p_chosen=torch.tensor([0.9, 0.9]),
        margins=torch.tensor([0.5, 0.5]),
    )
    batch = GroupBatch(**{name: getattr(batch, name) for name in batch.__dataclass_fields__} | {"scores": scores})
    REWARD.loss(batch, RewardConfig(center_coef=0.0, ties=ties)).total.backward()
    assert scores.grad[0] > 0 > scores.grad[1]
    assert scores.grad[2:].abs().max() < 1e-6


@given(seed=st.integers(0, 2**31), ties=_TIES)
def test_swapping_sides_and_labels_changes_nothing(seed, ties):
    batch = random_batch("groups", seed=seed)
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    swapped = GroupBatch(**fields | {"ranks": 1 - batch.ranks, "p_chosen": 1 - batch.p_chosen})
    config = RewardConfig(ties=ties)
    assert _value(swapped, config) == pytest.approx(_value(batch, config))


def test_half_precision_scores_are_summed_in_float32():
    """In bfloat16 the loss of a margin of 8 would round to one of 256 steps; in float32 it is log(1 + e^-8) = 3.35406e-4."""
    batch = _pairs(torch.tensor([8.0, 0.0], dtype=torch.bfloat16))
    assert REWARD.loss(batch, _PLAIN).total.dtype == torch.float32
    assert _value(batch, _PLAIN) == pytest.approx(3.35406e-4, rel=1e-4)


def test_metrics_by_hand():
    """Margins 2, -1, 0 and a tie: accuracy (1 + 0 + 1/2) of 3 decided pairs; mean score (3 + 1 + 0 + 1 + 2 + 2 + 4 + 4) / 8."""
    batch = _pairs([3.0, 1.0, 0.0, 1.0, 2.0, 2.0, 4.0, 4.0], is_tie=torch.tensor([False, False, False, True]))
    metrics = REWARD.loss(batch, _PLAIN).metrics
    assert [float(x) for x in metrics["reward/accuracy"]] == [1.5, 3.0]
    logged = REWARD.logged({name: float(total / count) for name, (total, count) in metrics.items()})
    assert logged["reward/margin"] == pytest.approx(0.25)
    assert logged["reward/score_mean"] == pytest.approx(17 / 8)
    assert logged["reward/score_std"] == pytest.approx(math.sqrt(51 / 8 - (17 / 8) ** 2))
    assert logged["reward/chosen_score"] - logged["reward/rejected_score"] == pytest.approx(logged["reward/margin"])


def test_groups_that_are_no_pairs_are_refused():
    batch = GroupBatch(
        sequence_index=torch.arange(3),
        group_index=torch.tensor([0, 0, 1]),
        ranks=torch.tensor([0, 1, 0]),
        num_groups=2,
        scores=torch.zeros(3),
    )
    with pytest.raises(ValueError, match="3 sequences in 2 groups are not pairs"):
        REWARD.loss(batch, _PLAIN)


def test_pairs_of_another_group_number_are_refused():
    """Groups 0 and 5 where two are announced: the labels would be read from the wrong row."""
    batch = GroupBatch(
        sequence_index=torch.arange(4),
        group_index=torch.tensor([0, 0, 5, 5]),
        ranks=torch.tensor([0, 1, 0, 1]),
        num_groups=2,
        scores=torch.zeros(4),
    )
    with pytest.raises(ValueError, match="not pairs"):
        pair_rows(batch)


@pytest.mark.parametrize("settings", [{"tie_rate": 1.0}, {"center_coef": -0.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RewardConfig(**settings)
