"""Decisions of adjudicators in the aggregation, by a named rule.

    beside   they are kept in the data and change nothing
    decide   a decided pair has probability 1 for the side that won, 1/2 for a tie or both bad; methods that estimate raters hold it fixed too

Example:
    outcome = aggregate_decided(verdicts, {"t-1": "a"}, method="one_coin")
    outcome.pairs["t-1"].p_a     # 1.0
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

from fairlead.core.records import Task
from fairlead.preferences.aggregate import WINNERS, Method, Outcome, Verdicts, aggregate_pairs

Rule = Literal["beside", "decide"]
_WITH_GOLD = ("dawid_skene", "one_coin", "one_coin_side_bias")
_P_A = {"a": 1.0, "b": 0.0}


def decisions_in(tasks: Iterable[Task]) -> dict[str, str]:
    """Verdicts of adjudicators by task, as the rating application exports them (meta.decision.verdict)."""
    return {
        task.id: str(task.meta["decision"]["verdict"])
        for task in tasks
        if isinstance(task.meta.get("decision"), Mapping)
    }


def aggregate_decided(
    verdicts: Verdicts,
    decisions: Mapping[str, str],
    *,
    method: Method,
    completions: Mapping[str, tuple[str, str]] | None = None,
) -> Outcome:
    """`aggregate_pairs` under the rule decide; decisions on tasks without a vote say nothing of any pair here.

    Args:
        decisions: a, b, tie or both_bad by task.
    Equals: `aggregate_pairs` when there are no decisions (tested).
    """
    voted = {row[0] for row in verdicts.decided().rows}
    gold = {task: verdict for task, verdict in decisions.items() if verdict in WINNERS and task in voted}
    outcome = aggregate_pairs(
        verdicts, method=method, completions=completions, gold=gold if gold and method in _WITH_GOLD else None
    )
    pairs = {
        task: dataclasses.replace(pair, p_a=_P_A.get(decisions[task], 0.5)) if task in decisions else pair
        for task, pair in outcome.pairs.items()
    }
    return dataclasses.replace(outcome, pairs=pairs)
