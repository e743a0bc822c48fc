"""Decisions of adjudicators: what each rule makes of them, and that none changes nothing."""

import pytest

from fairlead.core.records import Task
from fairlead.preferences.aggregate import Verdicts, aggregate_pairs
from fairlead.preferences.decisions import aggregate_decided, decisions_in

ROWS = [(f"t{i}", rater, "a" if (i + k) % 3 else "b") for i in range(8) for k, rater in enumerate("xyz")]
VERDICTS = Verdicts.from_rows(ROWS, swapped=[i % 2 == 0 for i in range(len(ROWS))])
METHODS = ("majority", "weighted", "dawid_skene", "one_coin", "one_coin_side_bias", "bradley_terry")


@pytest.mark.parametrize("method", METHODS)
def test_without_decisions_it_is_the_plain_aggregation(method):
    assert aggregate_decided(VERDICTS, {}, method=method) == aggregate_pairs(VERDICTS, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_decided_pair_is_certain_and_the_others_are_not_dropped(method):
    found = aggregate_decided(
        VERDICTS, {"t0": "a", "t1": "b", "t2": "both_bad", "t3": "tie", "unknown": "a"}, method=method
    )
    assert [found.pairs[f"t{i}"].p_a for i in range(4)] == [1.0, 0.0, 0.5, 0.5] and len(found.pairs) == 8
    assert found.pairs["t0"].num_votes == 3


def test_methods_that_estimate_raters_learn_from_decisions():
    """x always says a. With half of the pairs decided for b, one coin thinks less of x."""
    verdicts = Verdicts.from_rows([(f"t{i}", rater, "a") for i in range(8) for rater in "xy"], swapped=[False] * 16)
    plain = aggregate_decided(verdicts, {}, method="one_coin")
    decided = aggregate_decided(verdicts, {f"t{i}": "b" for i in range(4)}, method="one_coin")
    assert decided.raters["x"].accuracy < plain.raters["x"].accuracy


def test_decisions_are_read_off_tasks():
    tasks = [Task(prompt_id="p", completion_a="a", completion_b=b, meta=meta)
             for b, meta in (("b", {"decision": {"verdict": "tie", "reason": "x"}}), ("c", {"use": "production"}))]  # fmt: skip
    assert decisions_in(tasks) == {tasks[0].id: "tie"}
