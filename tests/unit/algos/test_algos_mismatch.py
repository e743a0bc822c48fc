"""Correction between engine and trainer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.mismatch import CorrectionConfig, correction_weights, effective_sample_size
from fairlead.core.errors import ConfigError
from fairlead.telemetry.metrics import describe
from naive import mismatch_naive as naive

_WAYS = [
    ("off", "product"), ("token_clip", "product"), ("token_mask", "product"), ("sequence_mask", "product"),
    ("sequence_mask", "geometric_mean"),
]  # fmt: skip


def _ragged(seed, *, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (6,), generator=generator)
    index = torch.repeat_interleave(torch.arange(6), lengths)
    old, noise = (torch.randn(index.numel(), generator=generator, dtype=torch.float64) for _ in range(2))
    return old, old + spread * noise, index


@given(seed=st.integers(0, 2**31), way=st.sampled_from(_WAYS), cap=st.floats(1.1, 3), floor=st.floats(0, 0.9))
def test_weights_agree_with_the_loop(seed, way, cap, floor):
    old, sampled, index = _ragged(seed)
    config = CorrectionConfig(way=way[0], sequence_ratio=way[1], cap=cap, floor=floor)
    weights, metrics = correction_weights(old, sampled, index, num_sequences=6, config=config)
    rows = [list(zip(old[index == b].tolist(), sampled[index == b].tolist(), strict=True)) for b in range(6)]
    expected = naive.correction(rows, way=way[0], cap=cap, floor=floor, sequence_ratio=way[1])
    assert weights.tolist() == pytest.approx([w for row in expected for w in row])
    assert metrics.get("rl/correction_masked_share", 0.0) == pytest.approx(float((weights == 0).double().mean()))
    for name in metrics:
        describe(name)


@pytest.mark.parametrize("way", _WAYS)
def test_equal_logprobs_need_no_correction(way):
    old, _, index = _ragged(0)
    config = CorrectionConfig(way=way[0], sequence_ratio=way[1])
    weights, metrics = correction_weights(old, old, index, num_sequences=6, config=config)
    assert weights.tolist() == [1.0] * len(old)
    assert metrics["rl/mismatch_sample_share"] == pytest.approx(1)
    assert metrics["rl/mismatch_ratio_q01"] == metrics["rl/mismatch_ratio_q99"] == 1.0
    assert metrics.get("rl/correction_capped_share", 0.0) == metrics.get("rl/correction_masked_share", 0.0) == 0.0


def test_weights_by_hand():
    """Ratios 4 and 0.6 in one completion, 1 in another. Clip at 2: 2, 0.6, 1. The product is 2.4, its root 1.55."""
    old, sampled = torch.tensor([4.0, 0.6, 1.0]).log().double(), torch.zeros(3).double()
    index = torch.tensor([0, 0, 1])

    def found(**settings):
        weights, metrics = correction_weights(old, sampled, index, num_sequences=2, config=CorrectionConfig(**settings))
        return weights.tolist(), metrics

    weights, metrics = found()
    assert weights == pytest.approx([2, 0.6, 1])
    assert metrics["rl/correction_capped_share"] == pytest.approx(1 / 3)
    assert metrics["rl/mismatch_ratio_q99"] == pytest.approx(4)  # before the cap: the mismatch stays visible
    assert metrics["rl/mismatch_sample_share"] == pytest.approx(5.6**2 / (3 * 17.36))
    assert found(way="token_mask")[0] == pytest.approx([0, 0.6, 1])
    assert found(way="sequence_mask", sequence_ratio="product", cap=2.5)[0] == pytest.approx([2.4, 2.4, 1])
    assert found(way="sequence_mask", sequence_ratio="product", cap=1.9)[0] == pytest.approx([0, 0, 1])
    assert found(way="sequence_mask")[0] == pytest.approx([2, 0.6, 1])
    assert found(way="sequence_mask", cap=1.5)[0] == pytest.approx([0, 0, 1])


def test_a_product_hardly_survives_a_long_completion_and_a_mean_does():
    """200 tokens, each 1.02 times as likely: the product is 52, the geometric mean 1.02."""
    old, sampled = torch.full((200,), math.log(1.02)).double(), torch.zeros(200).double()
    index = torch.zeros(200, dtype=torch.long)
    kept = {
        kind: bool(correction_weights(old, sampled, index, num_sequences=1,
                                      config=CorrectionConfig(way="sequence_mask", sequence_ratio=kind))[0].any())
        for kind in ("product", "geometric_mean")
    }  # fmt: skip
    assert kept == {"product": False, "geometric_mean": True}


def test_weighted_samples_of_the_engine_estimate_the_trainers_expectation():
    """Exactly, over 5 tokens: sum_a engine(a) w(a) f(a) = sum_a trainer(a) f(a) where no bound is met; unweighted it is not."""
    generator = torch.Generator().manual_seed(0)
    engine, trainer = (torch.randn(5, generator=generator).double().mul(0.3).log_softmax(0) for _ in range(2))
    f = torch.randn(5, generator=generator).double()
    weights, _ = correction_weights(
        trainer, engine, torch.zeros(5, dtype=torch.long), num_sequences=1, config=CorrectionConfig(cap=10.0)
    )
    truth = float((trainer.exp() * f).sum())
    assert float((engine.exp() * weights * f).sum()) == pytest.approx(truth)
    assert float((engine.exp() * f).sum()) != pytest.approx(truth, abs=1e-3)


def test_effective_sample_size_by_hand():
    """Equal weights: all count. One of four: a quarter. (1, 3): 16 / (2 * 10) = 0.8. None: 0."""
    for weights, share in (([2.0] * 4, 1.0), ([0.0, 0.0, 5.0, 0.0], 0.25), ([1.0, 3.0], 0.8), ([0.0, 0.0], 0.0)):
        assert effective_sample_size(torch.tensor(weights)) == pytest.approx(share)


@pytest.mark.parametrize("settings", [{"cap": 1.0}, {"floor": 1.0}, {"floor": -0.1}])
def test_bounds_that_exclude_agreement_are_refused(settings):
    with pytest.raises(ConfigError, match="floor, cap"):
        CorrectionConfig(**settings)
