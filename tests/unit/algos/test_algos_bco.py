"""BCO."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import BCO
from fairlead.algos.bco import BCOConfig
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import UnpairedBatch
from fairlead.algos.units import global_statistics
from fairlead.core.errors import ConfigError
from naive import bco_naive as naive


def _batch(ratios, is_good, **statistics):
    """Completions of one token with these log-ratios; the reference is 0 everywhere."""
    logprobs = torch.tensor(ratios, dtype=torch.float64)
    return UnpairedBatch(
        logprobs=logprobs,
        ref_logprobs=torch.zeros_like(logprobs),
        sequence_index=torch.arange(len(ratios)),
        is_good=torch.tensor(is_good),
        statistics={name: torch.tensor(x, dtype=torch.float64) for name, x in statistics.items()},
    )


def _value(batch, config):
    return float(BCO.loss(batch, config).total / BCO.count(batch, config))


def test_a_batch_by_hand():
    """beta 0.5, delta 1. Good, r = 2: -log sigma(1) = 0.313262. Bad, r = 2: -log sigma(-1) = 1.313262. Mean 0.813262."""
    assert _value(_batch([4.0, 4.0], [True, False], delta=1.0), BCOConfig(beta=0.5)) == pytest.approx(
        0.813262, abs=1e-6
    )


def test_delta_over_steps_by_hand():
    """beta 1, decay 0.5. Good 4, 2, bad 1: means 3 and 1, delta 2. Then good 5, no bad: 4 and 1, delta 2.5. Then bad 3: 4 and 2, delta 3."""
    config, told, deltas = BCOConfig(beta=1.0, delta_decay=0.5), {}, []
    for ratios, is_good in (([4.0, 2.0, 1.0], [True, True, False]), ([5.0], [True]), ([3.0], [False])):
        found = BCO.statistics(_batch(ratios, is_good, **told), config)
        told = global_statistics(found, told)
        deltas.append(told["delta"])
    assert deltas == [2.0, 2.5, 3.0]


@given(
    steps=st.lists(
        st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=5
    ),
    decay=st.floats(0, 0.95),
)
def test_delta_agrees_with_the_loops_over_steps(steps, decay):
    config, told, found = BCOConfig(beta=0.5, delta_decay=decay), {}, []
    for step in steps:
        told = global_statistics(BCO.statistics(_batch(*map(list, zip(*step, strict=True)), **told), config), told)
        found.append(told["delta"])
    sides = [tuple([0.5 * r for r, good in step if good is side] for side in (True, False)) for step in steps]
    assert found == pytest.approx(naive.deltas(sides, decay=decay))


@given(seed=st.integers(0, 2**31), beta=st.floats(0.01, 2), delta=st.floats(-3, 3))
def test_the_loss_agrees_with_the_loops(seed, beta, delta):
    batch = random_batch("unpaired", seed=seed)
    ratios = torch.zeros(6, dtype=torch.float64).index_add(0, batch.sequence_index, batch.logprobs - batch.ref_logprobs)
    expected = sum(
        weight * naive.bco_loss(beta * ratio, good, delta=delta)
        for weight, ratio, good in zip(batch.weights.tolist(), ratios.tolist(), batch.is_good.tolist(), strict=True)
    )
    known = replace(batch, statistics={"delta": torch.tensor(delta, dtype=torch.float64)})
    assert _value(known, BCOConfig(beta=beta)) == pytest.approx(expected / float(batch.weights.sum()))


def test_at_the_reference_the_loss_is_log_2():
    batch = _batch([0.0, 0.0, 0.0], [True, False, False])
    known = replace(batch, statistics=BCO.statistics(batch, BCOConfig()))
    assert _value(known, BCOConfig()) == pytest.approx(math.log(2))


def test_the_gradient_raises_good_and_lowers_bad():
    """beta / 2 at the decision boundary."""
    leaf = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
    batch = replace(_batch([2.0, 2.0], [True, False], delta=0.2), logprobs=leaf)
    BCO.loss(batch, BCOConfig(beta=0.1)).total.backward()
    assert leaf.grad.tolist() == pytest.approx([-0.05, 0.05])


def test_accuracy_counts_sides_of_delta():
    """Rewards 1, 3, 2 against delta 2: a good one below is wrong, a bad one above is wrong, one on the line is half right."""
    batch = _batch([1.0, 3.0, 2.0], [True, False, True], delta=2.0)
    total, count = BCO.loss(batch, BCOConfig(beta=1.0)).metrics["bco/accuracy"]
    assert (float(total), float(count)) == (0.5, 3.0)


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"delta_decay": 1.0}, {"delta_decay": -0.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BCOConfig(**settings)
