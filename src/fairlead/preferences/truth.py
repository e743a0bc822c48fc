"""How often votes, alone and aggregated, name the better completion: known only where raters were simulated from a gold score.

Nothing here flows on: the gold score is read for figures, never for a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_rows
from fairlead.core.records import Task
from fairlead.preferences.aggregate import Outcome, Verdicts
from fairlead.stats.intervals import Interval, mean_interval, paired_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthReading:
    """Accuracies against the gold score; intervals are over prompts, ties count half."""

    single: Interval
    """Of one vote."""
    aggregated: Interval
    gain: Interval
    """Aggregated minus single, paired by prompt."""


def read_gold(path: Path) -> dict[str, float]:
    """Gold score of a minus that of b, by task id."""
    gold: dict[str, float] = {}
    for row in read_rows(path):
        difference, task = row.values.get("difference"), row.values.get("task_id")
        if not isinstance(difference, (int, float)) or not isinstance(task, str):
            raise DataError(explain(row.where, None, "is not a gold row", expected="task_id and difference",
                                    remedy="Run the feedback stage again"))  # fmt: skip
        gold[task] = float(difference)
    return gold


def read_truth(
    verdicts: Verdicts, outcome: Outcome, *, tasks: Mapping[str, Task], gold: Mapping[str, float]
) -> TruthReading | None:
    """Compare with the gold score on all voted pairs whose gold scores differ; None when there is none.

    Pairs that the aggregation ties and that are dropped later count too, as one half: otherwise dropping hard pairs would look
    like better raters.
    """
    votes: dict[str, list[float]] = {}
    for task, _, label in verdicts.rows():
        if gold.get(task, 0.0) != 0:
            votes.setdefault(task, []).append(0.5 if label == "tie" else float((label == "a") == (gold[task] > 0)))
    single: dict[str, list[float]] = {}
    aggregated: dict[str, list[float]] = {}
    for task, hits in votes.items():
        prompt, p_a = tasks[task].prompt_id, outcome.pairs[task].p_a
        single.setdefault(prompt, []).append(float(np.mean(hits)))
        aggregated.setdefault(prompt, []).append(0.5 if p_a == 0.5 else float((p_a > 0.5) == (gold[task] > 0)))
    if not single:
        return None
    before = [float(np.mean(values)) for values in single.values()]
    after = [float(np.mean(values)) for values in aggregated.values()]
    return TruthReading(
        single=mean_interval(before), aggregated=mean_interval(after), gain=paired_interval(before, after)
    )
