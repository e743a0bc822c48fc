"""KTO."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import KTO
from fairlead.algos.kto import KTOConfig
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import UnpairedBatch
from fairlead.core.errors import ConfigError
from naive import kto_naive as naive


def _batch(ratios, is_good, *, z=0.0):
    """Completions of one token with these log-ratios; the reference is 0 everywhere."""
    logprobs = torch.tensor(ratios, dtype=torch.float64)
    return UnpairedBatch(
        logprobs=logprobs,
        ref_logprobs=torch.zeros_like(logprobs),
        sequence_index=torch.arange(len(ratios)),
        is_good=torch.tensor(is_good),
        statistics={"z": torch.tensor(z, dtype=torch.float64)},
    )


def _value(batch, config):
    return float(KTO.loss(batch, config).total / KTO.count(batch, config))


def test_a_batch_by_hand():
    """beta 0.5, z 2. Good, r = 4: 1 - sigma(1) = 0.268941. Bad, r = 4, weight 2: 2 (1 - sigma(-1)) = 1.462117. Mean 0.865529."""
    config = KTOConfig(beta=0.5, lambda_undesirable=2.0)
    assert _value(_batch([4.0, 4.0], [True, False], z=2.0), config) == pytest.approx(0.865529, abs=1e-6)


def test_z_by_hand():
    """Mismatched log-ratios 3 and -1: mean 1. 1 and -3: mean -1, which is no distance: 0."""
    config = KTOConfig()
    assert float(KTO.statistics(_batch([3.0, -1.0], [True, True]), config)["z"]) == 1.0
    assert float(KTO.statistics(_batch([1.0, -3.0], [True, False]), config)["z"]) == 0.0


@given(seed=st.integers(0, 2**31), beta=st.floats(0.01, 2), desirable=st.floats(0.1, 3), undesirable=st.floats(0.1, 3))
def test_loss_and_z_agree_with_the_loops_over_padded_rows(seed, beta, desirable, undesirable):
    batch, others = (random_batch("unpaired", seed=s) for s in (seed, seed + 1))
    config = KTOConfig(beta=beta, lambda_desirable=desirable, lambda_undesirable=undesirable)
    plain = replace(others, weights=None)
    z = naive.reference_point(_naive_ratios(plain))
    found = KTO.statistics(plain, config)
    assert float(found["z"]) == pytest.approx(z)
    expected = sum(
        weight * naive.kto_loss(ratio, good, z=z, beta=beta, desirable=desirable, undesirable=undesirable)
        for weight, ratio, good in zip(
            batch.weights.tolist(), _naive_ratios(batch), batch.is_good.tolist(), strict=True
        )
    )
    assert _value(replace(batch, statistics=found), config) == pytest.approx(expected / float(batch.weights.sum()))


def _naive_ratios(batch):
    """Log-ratio of every completion from rows with junk after their end."""
    found = []
    for b in range(batch.is_good.numel()):
        mine = batch.sequence_index == b
        rows = [[*x[mine].tolist(), math.nan, math.inf] for x in (batch.logprobs, batch.ref_logprobs)]
        found.append(naive.log_ratio(*rows, [True] * int(mine.sum()) + [False, False]))
    return found


def test_at_the_reference_every_completion_costs_half_its_lambda():
    """sigma(0) = 1/2: (1.5 + 1 + 1) / 2 / 3."""
    batch = _batch([0.0, 0.0, 0.0], [True, False, False])
    assert _value(batch, KTOConfig(lambda_desirable=1.5)) == pytest.approx(3.5 / 2 / 3)


def test_the_gradient_raises_good_lowers_bad_and_leaves_z_alone():
    """d/dr of -sigma(beta (r - z)) at r = z: -beta / 4, for bad +beta / 4; z has no gradient although it came from the policy."""
    batch = _batch([2.0, 2.0], [True, False], z=2.0)
    leaf = batch.logprobs.clone().requires_grad_()
    known = KTO.statistics(replace(batch, logprobs=leaf), KTOConfig())
    assert not known["z"].requires_grad
    KTO.loss(replace(batch, logprobs=leaf, statistics=known), KTOConfig(beta=0.1)).total.backward()
    assert leaf.grad.tolist() == pytest.approx([-0.025, 0.025])


def test_metrics_by_hand():
    """Good: tokens of log-ratio 3 (sum of one token), bad: 1; z 2; beta 0.1."""
    metrics = KTO.loss(_batch([3.0, 1.0], [True, False], z=2.0), KTOConfig(beta=0.1)).metrics
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    assert means == pytest.approx(
        {
            "kto/loss": 1 / (1 + math.exp(0.1)),
            "kto/z": 2.0,
            "sides/good_reward": 0.3,
            "sides/bad_reward": 0.1,
            "sides/good_logprobs": 3.0,
            "sides/bad_logprobs": 1.0,
            "sides/kl_k1": 3.0,
        }
    )


@pytest.mark.parametrize("setting", ["beta", "lambda_desirable", "lambda_undesirable"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=setting):
        KTOConfig(**{setting: 0.0})
