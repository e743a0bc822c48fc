"""Decisions of adjudicators in the aggregation, by a named rule.

    beside   they are kept in the data and change nothing
    decide   a decided pair has probability 1 for the side that won, 1/2 for a tie or both bad; methods that estimate raters hold it fixed too.
             Its ratings by criterion, where they were given, stand in place of the votes' means

Example:
    outcome = aggregate_decided(verdicts, {"t-1": "a"}, method="one_coin")
    outcome.pairs["t-1"].p_a     # 1.0
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

from fairlead.core.records import Task
from fairlead.preferences.aggregate import WINNERS, Method, Outcome, PairTable, Verdicts, aggregate_pairs, tabulate

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


def ratings_in(task: Task) -> dict[str, tuple[float, float]]:
    """Ratings of a and of b by criterion that an adjudicator gave (meta.decision.criteria); empty where there are none."""
    decision = task.meta.get("decision")
    given = decision.get("criteria", {}) if isinstance(decision, Mapping) else {}
    return {str(name): (float(first), float(second)) for name, (first, second) in given.items()}


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
    gold = _gold(verdicts, decisions, method)
    outcome = aggregate_pairs(verdicts, method=method, completions=completions, gold=gold)
    pairs = {
        task: dataclasses.replace(pair, p_a=_P_A.get(decisions[task], 0.5)) if task in decisions else pair
        for task, pair in outcome.pairs.items()
    }
    return dataclasses.replace(outcome, pairs=pairs)


def tabulate_decided(verdicts: Verdicts, decisions: Mapping[str, str], *, method: Method) -> PairTable:
    """`aggregate_decided` as columns, by any method but bradley_terry."""
    table = tabulate(verdicts, method=method, gold=_gold(verdicts, decisions, method))
    p_a = table.p_a.copy()
    for place, task in enumerate(table.names if decisions else ()):
        if task in decisions:
            p_a[place] = _P_A.get(decisions[task], 0.5)
    return dataclasses.replace(table, p_a=p_a)


def _gold(verdicts: Verdicts, decisions: Mapping[str, str], method: Method) -> dict[str, str] | None:
    """Decisions that a method which estimates raters holds fixed."""
    if not decisions or method not in _WITH_GOLD:
        return None
    voted = set(verdicts.decided().task_names)
    return {task: verdict for task, verdict in decisions.items() if verdict in WINNERS and task in voted} or None
