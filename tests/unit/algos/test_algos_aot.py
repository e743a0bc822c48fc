"""AOT: the sorted loss, its gradient through micro-batches, and plans between samples of unequal size."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from fairlead.algos import AOT, AOT_UNPAIRED, DPO
from fairlead.algos.aot import AOTConfig
from fairlead.algos.checks import with_statistics
from fairlead.algos.dpo import DPOConfig
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import UnpairedBatch
from fairlead.algos.transport import couple
from fairlead.algos.units import num_units, select_units
from fairlead.core.errors import ConfigError
from naive import aot_naive as naive

_SAMPLES = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


def _unpaired(good, bad):
    """Completions of one token with these log-ratios; the reference is 0 everywhere."""
    logprobs = torch.tensor([*good, *bad], dtype=torch.float64)
    return UnpairedBatch(
        logprobs=logprobs,
        ref_logprobs=torch.zeros_like(logprobs),
        sequence_index=torch.arange(len(logprobs)),
        is_good=torch.tensor([True] * len(good) + [False] * len(bad)),
    )


def _value(algorithm, batch, config):
    return float(
        algorithm.loss(with_statistics(algorithm, config, batch), config).total / algorithm.count(batch, config)
    )


def _sums(batch, logprobs):
    sums = torch.zeros(batch.group_index.numel(), dtype=logprobs.dtype).index_add(0, batch.sequence_index, logprobs)
    return torch.stack(
        [
            sums[(batch.group_index == p) & (batch.ranks == 0)] - sums[(batch.group_index == p) & (batch.ranks == 1)]
            for p in range(batch.num_groups)
        ]
    ).flatten()


def test_a_batch_by_hand():
    """Good 3, 0, bad 2, 1: quantiles 0 - 1 = -1 and 3 - 2 = 1; (log(1 + e) + log(1 + 1/e)) / 2 = 0.813262 at beta 1."""
    batch = _unpaired([3.0, 0.0], [2.0, 1.0])
    assert _value(AOT_UNPAIRED, batch, AOTConfig(beta=1.0)) == pytest.approx(0.813262, abs=1e-6)


def test_unequal_numbers_join_quantiles():
    """Good 1, bad 0 and 2: half of the good mass meets each. Not the nearest, not the mean: (log(1 + 1/e) + log(1 + e)) / 2."""
    cells = couple(*(torch.tensor(x, dtype=torch.float64) for x in ([1.0], [1.0], [2.0, 0.0], [1.0, 1.0])))
    joined = [(i, j) for i, j, share in zip(*(x.tolist() for x in cells), strict=True) if share > 0]
    assert joined == [(0, 1), (0, 0)] and float(cells.shares.sum()) == 1.0
    assert _value(AOT_UNPAIRED, _unpaired([1.0], [2.0, 0.0]), AOTConfig(beta=1.0)) == pytest.approx(0.813262, abs=1e-6)


@given(good=_SAMPLES, bad=_SAMPLES, beta=st.floats(0.05, 2))
def test_unpaired_agrees_with_sorting_and_one_loop(good, bad, beta):
    assert _value(AOT_UNPAIRED, _unpaired(good, bad), AOTConfig(beta=beta)) == pytest.approx(
        naive.aot_loss(good, bad, beta=beta), rel=1e-6
    )


@given(seed=st.integers(0, 2**31), beta=st.floats(0.05, 2))
def test_paired_agrees_with_sorting_and_one_loop(seed, beta):
    batch = replace(random_batch("groups", seed=seed), weights=None)
    expected = naive.aot_loss(
        _sums(batch, batch.logprobs).tolist(), _sums(batch, batch.ref_logprobs).tolist(), beta=beta
    )
    assert _value(AOT, batch, AOTConfig(beta=beta)) == pytest.approx(expected)


@given(seed=st.integers(0, 2**31), beta=st.floats(0.05, 2))
def test_the_gradient_through_single_units_is_that_of_the_sorted_loss(seed, beta):
    """Autograd through torch.sort over the whole batch, against units that each see only what they were told."""
    paired, unpaired = replace(random_batch("groups", seed=seed), weights=None), random_batch("unpaired", seed=seed)
    unpaired = replace(unpaired, weights=None)

    def whole_paired(logprobs):
        return _sums(paired, logprobs), _sums(paired, paired.ref_logprobs)

    def whole_unpaired(logprobs):
        ratios = torch.zeros(6, dtype=torch.float64).index_add(
            0, unpaired.sequence_index, logprobs - unpaired.ref_logprobs
        )
        return ratios[unpaired.is_good], ratios[~unpaired.is_good]

    for algorithm, batch, whole in ((AOT, paired, whole_paired), (AOT_UNPAIRED, unpaired, whole_unpaired)):
        leaf = batch.logprobs.clone().requires_grad_()
        u, v = whole(leaf)
        (-logsigmoid(beta * (u.sort().values - v.sort().values))).mean().backward()
        other, config = batch.logprobs.clone().requires_grad_(), AOTConfig(beta=beta)
        known = replace(with_statistics(algorithm, config, batch), logprobs=other)
        for unit in range(num_units(batch)):
            (algorithm.loss(select_units(known, [unit]), config).total / algorithm.count(batch, config)).backward()
        torch.testing.assert_close(other.grad, leaf.grad, atol=1e-12, rtol=1e-9)


def test_the_gradient_with_unequal_numbers_is_the_slope_of_the_naive_loss():
    """Central differences of the loops; no two values are closer than the step."""
    good, bad, config, step = [1.0, 4.0, -2.0], [0.5, 3.0], AOTConfig(beta=0.7), 1e-5
    batch = _unpaired(good, bad)
    leaf = batch.logprobs.clone().requires_grad_()
    known = replace(with_statistics(AOT_UNPAIRED, config, batch), logprobs=leaf)
    (AOT_UNPAIRED.loss(known, config).total / AOT_UNPAIRED.count(batch, config)).backward()
    for number in range(5):
        ends = []
        for sign in (1, -1):
            moved = [x + sign * step * (i == number) for i, x in enumerate([*good, *bad])]
            ends.append(naive.aot_loss(moved[:3], moved[3:], beta=0.7))
        assert float(leaf.grad[number]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_one_pair_is_dpo():
    """Nothing to sort: loss and gradient are DPO's."""
    batch = replace(random_batch("groups", seed=1, num_units=1), p_chosen=None, is_tie=None)
    leaf = batch.logprobs.clone().requires_grad_()
    known = replace(with_statistics(AOT, AOTConfig(beta=0.3), batch), logprobs=leaf)
    found = AOT.loss(known, AOTConfig(beta=0.3)).total
    expected = DPO.loss(replace(batch, logprobs=leaf), DPOConfig(beta=0.3)).total
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(x, leaf)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("algorithm", [AOT, AOT_UNPAIRED])
def test_at_the_reference_the_loss_is_log_2(algorithm):
    batch = random_batch(algorithm.batch, seed=4)
    at_reference = replace(batch, ref_logprobs=batch.logprobs)
    assert _value(algorithm, at_reference, AOTConfig()) == pytest.approx(math.log(2))
    total, count = algorithm.loss(with_statistics(algorithm, AOTConfig(), at_reference), AOTConfig()).metrics[
        "aot/loss"
    ]
    assert float(total / count) == pytest.approx(math.log(2))


def test_a_batch_with_one_side_trains_nothing():
    batch = _unpaired([1.0, 2.0], [])
    known = with_statistics(AOT_UNPAIRED, AOTConfig(), batch)
    leaf = batch.logprobs.clone().requires_grad_()
    total = AOT_UNPAIRED.loss(replace(known, logprobs=leaf), AOTConfig()).total
    total.backward()
    assert float(total.detach()) == 0.0 and leaf.grad.tolist() == [0.0, 0.0]


def test_violation_is_the_mass_below_its_partner():
    """Good 0, 1, 5 against bad 2, 3, 4: two of three quantiles lie below."""
    known = with_statistics(AOT_UNPAIRED, AOTConfig(), _unpaired([5.0, 0.0, 1.0], [3.0, 2.0, 4.0]))
    total, count = AOT_UNPAIRED.loss(known, AOTConfig()).metrics["aot/violation"]
    assert float(total / count) == pytest.approx(2 / 3)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="beta"):
        AOTConfig(beta=0.0)
