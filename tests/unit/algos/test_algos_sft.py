"""Supervised fine-tuning."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import SFT
from fairlead.algos.random_batches import random_batch
from fairlead.algos.sft import SFTConfig
from fairlead.algos.spec import TokenBatch
from fairlead.core.errors import ConfigError
from naive.sft_naive import sft_loss


def _value(batch, config):
    return float(SFT.loss(batch, config).total / SFT.count(batch, config))


@pytest.mark.parametrize(("average", "expected"), [("token", 2.5), ("sequence", 2.75)])
def test_averages_by_hand(average, expected):
    """Losses (1, 2, 3) and (4): 10 / 4 tokens = 2.5; sequence means 2 and 4 with weights 5 and 3: (10 + 12) / 8 = 2.75."""
    weights = None if average == "token" else torch.tensor([5.0, 3.0])
    batch = TokenBatch(
        logprobs=torch.tensor([-1.0, -2.0, -3.0, -4.0]),
        sequence_index=torch.tensor([0, 0, 0, 1]),
        num_sequences=2,
        weights=weights,
    )
    assert _value(batch, SFTConfig(average=average)) == pytest.approx(expected)


def test_a_uniform_model_costs_log_vocabulary_at_any_smoothing():
    """log 8 = 2.0794: the smoothed target is then as likely as the plain one."""
    uniform = torch.full((3,), -math.log(8))
    batch = TokenBatch(logprobs=uniform, mean_logprobs=uniform, sequence_index=torch.tensor([0, 0, 1]), num_sequences=2)
    for label_smoothing in (0.0, 0.1, 0.5):
        assert _value(batch, SFTConfig(label_smoothing=label_smoothing)) == pytest.approx(math.log(8))


def test_smoothing_is_cross_entropy_with_torch():
    """The same numbers as torch.nn.functional.cross_entropy(label_smoothing=...)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator)
    targets = torch.randint(0, 11, (6,), generator=generator)
    logprobs = torch.log_softmax(logits, dim=-1)
    batch = TokenBatch(
        logprobs=logprobs[torch.arange(6), targets],
        mean_logprobs=logprobs.mean(dim=-1),
        sequence_index=torch.tensor([0, 0, 1, 1, 1, 2]),
        num_sequences=3,
    )
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2)
    assert _value(batch, SFTConfig(label_smoothing=0.2)) == pytest.approx(float(expected))


@given(
    seed=st.integers(0, 2**31),
    average=st.sampled_from(["token", "sequence"]),
    label_smoothing=st.floats(0, 0.9),
)
def test_the_loss_agrees_with_the_loop_over_padded_rows(seed, average, label_smoothing):
    batch = random_batch("tokens", seed=seed)
    rows, means, masks = [], [], []
    for b in range(batch.num_sequences):
        mine = batch.sequence_index == b
        rows.append([math.nan, math.nan, *batch.logprobs[mine].tolist(), math.inf])
        means.append([math.nan, math.nan, *batch.mean_logprobs[mine].tolist(), math.inf])
        masks.append([False, False, *[True] * int(mine.sum()), False])
    expected = sft_loss(rows, means, masks, batch.weights.tolist(), label_smoothing=label_smoothing, average=average)
    assert _value(batch, SFTConfig(average=average, label_smoothing=label_smoothing)) == pytest.approx(expected)


def test_a_sequence_without_tokens_counts_for_nothing():
    batch = TokenBatch(logprobs=torch.tensor([-1.0, -3.0]), sequence_index=torch.tensor([0, 0]), num_sequences=2)
    for average in ("token", "sequence"):
        assert _value(batch, SFTConfig(average=average)) == 2.0


def test_the_metric_is_not_smoothed():
    batch = random_batch("tokens", seed=1)
    total, count = SFT.loss(batch, SFTConfig(label_smoothing=0.5)).metrics["sft/loss"]
    assert float(total / count) == pytest.approx(float(-batch.logprobs.mean()))


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"label_smoothing=1\.0 is out of range"):
        SFTConfig(label_smoothing=1.0)
