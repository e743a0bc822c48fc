"""Comparisons that people rated, as one file: a comparison a line with its texts and its votes, so that nothing else is needed.

The rating application writes it (`fairlead annotate export`), the feedback stage reads it (`feedback.path`).

Example:
    write_collected("comparisons.jsonl", [Comparison(prompt=prompt, a=first, b=second, task=task, judgments=(vote,))])
    for comparison in read_collected("comparisons.jsonl"):
        print(comparison.task.id, [judgment.verdict for judgment in comparison.judgments])
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Row, read_rows, write_jsonl
from fairlead.core.records import Completion, Judgment, Prompt, Task, from_dict, to_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A task with everything that it names. Invariant: the ids fit together."""

    prompt: Prompt
    a: Completion
    b: Completion
    task: Task
    judgments: tuple[Judgment, ...]


def write_collected(path: Path | str, comparisons: Iterable[Comparison]) -> int:
    """Write a comparison a line; return how many."""
    return write_jsonl(path, (as_row(comparison) for comparison in comparisons))


def as_row(comparison: Comparison) -> dict[str, Any]:
    """One line of the file."""
    return {
        "prompt": to_dict(comparison.prompt), "a": to_dict(comparison.a), "b": to_dict(comparison.b),
        "task": to_dict(comparison.task), "judgments": [to_dict(judgment) for judgment in comparison.judgments],
    }  # fmt: skip


def read_collected(path: Path | str) -> Iterator[Comparison]:
    """Read comparisons and check that their parts belong together.

    Raises:
        DataError: a field is missing or wrong, a part belongs to another comparison, or a task comes twice.
    """
    seen: set[str] = set()
    for row in read_rows(path):
        comparison = _from_row(row)
        if comparison.task.id in seen:
            raise DataError(explain(f"{row.where}.task.id", comparison.task.id, "is given twice", expected="each task once",
                                    remedy="Export again, or remove one line"))  # fmt: skip
        seen.add(comparison.task.id)
        yield comparison


def _from_row(row: Row) -> Comparison:
    values = row.values
    for name in ("prompt", "a", "b", "task", "judgments"):
        if name not in values:
            raise DataError(explain(f"{row.where}.{name}", None, "is missing", expected="prompt, a, b, task, judgments",
                                    remedy="Name a file that `fairlead annotate export` wrote"))  # fmt: skip
    votes = values["judgments"]
    if not isinstance(votes, list):
        raise DataError(explain(f"{row.where}.judgments", votes, "is not a list", expected="a list of judgments", remedy="Fix the row"))  # fmt: skip
    comparison = Comparison(
        prompt=from_dict(Prompt, values["prompt"], where=f"{row.where}.prompt"),
        a=from_dict(Completion, values["a"], where=f"{row.where}.a"),
        b=from_dict(Completion, values["b"], where=f"{row.where}.b"),
        task=from_dict(Task, values["task"], where=f"{row.where}.task"),
        judgments=tuple(from_dict(Judgment, vote, where=f"{row.where}.judgments[{i}]") for i, vote in enumerate(votes)),
    )
    _check_names(comparison, row.where)
    return comparison


def _check_names(comparison: Comparison, where: str) -> None:
    task = comparison.task
    fitting: Mapping[str, tuple[str, str]] = {
        "task.prompt_id": (task.prompt_id, comparison.prompt.id), "task.completion_a": (task.completion_a, comparison.a.id),
        "task.completion_b": (task.completion_b, comparison.b.id), "a.prompt_id": (comparison.a.prompt_id, comparison.prompt.id),
        "b.prompt_id": (comparison.b.prompt_id, comparison.prompt.id),
        **{f"judgments[{i}].task_id": (vote.task_id, task.id) for i, vote in enumerate(comparison.judgments)},
    }  # fmt: skip
    for name, (found, expected) in fitting.items():
        if found != expected:
            raise DataError(explain(f"{where}.{name}", found, "belongs to another comparison", expected=expected, remedy="Export again"))  # fmt: skip
    raters = [vote.rater for vote in comparison.judgments]
    twice = next((rater for rater in raters if raters.count(rater) > 1), None)
    if twice is not None:
        raise DataError(
            explain(
                f"{where}.judgments",
                twice,
                "voted twice on one comparison",
                expected="a vote a rater",
                remedy="Keep the last one",
            )
        )
