"""Composition of scores and running statistics: by hand, against plain loops, and what must hold whatever the numbers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.records import Message, Prompt
from fairlead.rewards.compose import (
    EPSILON,
    aggregate_members,
    batch_normalised,
    group_index,
    group_normalised,
    normalise_then_sum,
    weight_then_sum,
)
from fairlead.rewards.running import RunningStatistics, running_statistics
from naive import compose_naive as naive

NAN = math.nan
_SCORES = st.lists(st.one_of(st.floats(-100, 100), st.just(NAN)), min_size=1, max_size=24)


def array(*values):
    return np.array(values, dtype=np.float64)


def same(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected, dtype=np.float64), rtol=1e-9, atol=1e-9)


def test_groups_are_completions_of_one_prompt_wherever_they_stand():
    a, b = (Prompt(messages=(Message(role="user", content=text),)) for text in "ab")
    assert group_index([b, a, b, a, a]).tolist() == [0, 1, 0, 1, 1]


def test_weight_then_sum_by_hand():
    """2 * 1 - 0.5 * 4 = 0; only the second applies: -0.5 * 2 = -1; only the first: 2 * 3 = 6; none: NaN."""
    total = weight_then_sum({"a": array(1, NAN, 3, NAN), "b": array(4, 2, NAN, NAN)}, {"a": 2.0, "b": -0.5})
    same(total, [0, -1, 6, NAN])


def test_group_normalised_by_hand():
    """Group 0 of (1, 3): mean 2, sample deviation sqrt(2), so -+1 / (sqrt(2) + 1e-4). Group 1 is one score, group 2 equal scores: 0."""
    z = 1 / (math.sqrt(2) + EPSILON)
    found = group_normalised(array(1, 7, 3, 5, NAN, 5), np.array([0, 1, 0, 2, 0, 2]))
    same(found, [-z, 0, z, 0, NAN, 0])


def test_a_narrow_reward_speaks_only_when_normalised_first():
    """Help (100, 0, 50) with format (0, 1, 1). Weighed first the sum (100, 1, 51) follows help. Normalised first: (1, -1, 0) plus
    (-2, 1, 1) / sqrt(3), so (-0.155, -0.423, 0.577), of mean 0 and sample deviation 0.518; the last is best."""
    components, weights = {"help": array(100, 0, 50), "format": array(0, 1, 1)}, {"help": 1.0, "format": 1.0}
    assert np.argmax(batch_normalised(weight_then_sum(components, weights))) == 0
    found = normalise_then_sum(components, weights, np.zeros(3, dtype=np.int64))
    np.testing.assert_allclose(found, array(-0.15470, -0.42265, 0.57735) / 0.51764, atol=3e-3)


def test_members_of_an_ensemble_by_hand():
    """(1, 3): mean 2, min 1, standard deviation over the members 1, so 2 - 0.5 * 1 = 1.5."""
    outputs = np.array([[1.0, 3.0]])
    same(aggregate_members(outputs, "mean"), [2])
    same(aggregate_members(outputs, "min"), [1])
    same(aggregate_members(outputs, "uncertainty", uncertainty_coef=0.5), [1.5])


@pytest.mark.parametrize("how", ["mean", "min", "uncertainty"])
def test_members_equal_the_loop(how):
    outputs = np.random.default_rng(0).normal(size=(7, 4))
    same(aggregate_members(outputs, how, uncertainty_coef=0.7), naive.aggregate_members(outputs.tolist(), how, 0.7))


@st.composite
def batches(draw):
    """Three components with gaps, and groups."""
    size = draw(st.integers(1, 20))
    number = st.one_of(st.floats(-50, 50), st.just(NAN))
    column = st.lists(number, min_size=size, max_size=size)
    components = {name: array(*draw(column)) for name in ("a", "b", "c")}
    weights = {name: draw(st.floats(-3, 3)) for name in components}
    groups = np.array(draw(st.lists(st.integers(0, 4), min_size=size, max_size=size)))
    return components, weights, np.unique(groups, return_inverse=True)[1].reshape(-1)


@given(batches())
def test_everything_equals_the_loops(batch):
    components, weights, groups = batch
    lists = {name: column.tolist() for name, column in components.items()}
    same(weight_then_sum(components, weights), naive.weight_then_sum(lists, weights))
    same(group_normalised(components["a"], groups), naive.group_normalised(lists["a"], groups.tolist()))
    np.testing.assert_allclose(normalise_then_sum(components, weights, groups),
                               naive.normalise_then_sum(lists, weights, groups.tolist()), rtol=1e-5, atol=1e-5)  # fmt: skip


@given(batches(), st.floats(-20, 20))
def test_normalised_first_no_shift_of_a_component_matters(batch, shift):
    """Adding a constant to a component moves nothing; that is what a baseline within the group is."""
    components, weights, groups = batch
    moved = {**components, "a": components["a"] + shift}
    before, after = (normalise_then_sum(c, weights, groups) for c in (components, moved))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@given(batches())
def test_what_does_not_apply_changes_nothing_for_the_others(batch):
    """A row that no component applies to can be taken away."""
    components, weights, groups = batch
    gap = {name: np.append(column, NAN) for name, column in components.items()}
    longer = normalise_then_sum(gap, weights, np.append(groups, 0))
    assert math.isnan(longer[-1])
    same(longer[:-1], normalise_then_sum(components, weights, groups))


@given(st.lists(_SCORES, min_size=1, max_size=6))
def test_running_statistics_equal_those_of_everything_at_once(batches):
    seen = [x for batch in batches for x in batch if math.isfinite(x)]
    whole, left, right = RunningStatistics(), RunningStatistics(), RunningStatistics()
    for i, batch in enumerate(batches):
        whole.update(array(*batch))
        (left if i % 2 else right).update(array(*batch))
    left.merge(right)
    assert whole.count == left.count == len(seen)
    if seen:
        mean, std = naive.running(batches)
        assert (whole.mean, whole.std) == pytest.approx((mean, std), rel=1e-7, abs=1e-7)
        assert (left.mean, left.std) == pytest.approx((mean, std), rel=1e-7, abs=1e-7)


def test_running_statistics_keep_their_digits_far_from_zero():
    """Of 1e9 + (0, 1, 2) the deviation is 1; the difference of large sums would lose it."""
    statistics = RunningStatistics()
    for value in (1e9, 1e9 + 1, 1e9 + 2):
        statistics.update(array(value))
    assert statistics.std == pytest.approx(1.0)
    same(statistics.normalised(array(1e9 + 2, NAN)), [1, NAN])


def test_running_statistics_come_back_from_json_exactly():
    statistics = RunningStatistics()
    statistics.update(np.random.default_rng(1).normal(size=100))
    assert running_statistics(json.loads(json.dumps(statistics.state()))) == statistics


def test_equal_scores_are_centred_and_not_stretched():
    statistics = RunningStatistics()
    statistics.update(array(0.1, 0.1, 0.1))
    same(statistics.normalised(array(0.1, 1.1)), [0, 1])
    same(RunningStatistics().normalised(array(2.0)), [2])
