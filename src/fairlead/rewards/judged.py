"""A judge as a component of a composed reward: the share of comparisons with others of its group that a completion wins.

Each completion of a group of n is compared with those 1, 2, ... places after it in the circle of the group, so everybody has the same number
of comparisons, each counted for both sides. With every pair compared the score is the Borda count over n - 1. A comparison that failed
counts for nobody; a completion that has none left because of that is a failure of its own.

Example:
    JudgedSource(OneByOne(judge), num_opponents=2).ask(prompts, completions, step=0).values       # [B] in [0, 1]
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.protocols import Judge
from fairlead.core.records import Completion, Prompt, Task, Verdict
from fairlead.rewards.compose import group_index
from fairlead.rewards.sources import Asked

_POINTS = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.0, 0.0)}
"""Verdict -> points of (a, b); a judge that skips gives none, and the comparison does not count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Two completions of one prompt, in the canonical order of tasks."""

    prompt: Prompt
    a: Completion
    b: Completion


@dataclass(frozen=True, slots=True)
class Compared:
    """What a judge said of a pair."""

    verdict: Verdict | None
    """None when it failed."""
    fault: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was spent."""

    tokens: int = 0
    dollars: float = 0.0


class Comparer(Protocol):
    """Compares many pairs at once."""

    def compare(self, pairs: Sequence[Pair]) -> "tuple[list[Compared], Usage | None]":
        """A verdict on each, in order, and what was spent; None for what costs nothing."""
        ...


class OneByOne:
    """A `core.protocols.Judge` as a comparer; it costs nothing. What it raises is the fault of that comparison, but for wrong files."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def compare(self, pairs: Sequence[Pair]) -> tuple[list[Compared], None]:
        """Ask for one after another."""
        return [self._one(pair) for pair in pairs], None

    def _one(self, pair: Pair) -> Compared:
        task = Task(prompt_id=pair.prompt.id, completion_a=pair.a.id, completion_b=pair.b.id)
        try:
            return Compared(self.judge.judge(task, pair.prompt, pair.a, pair.b).verdict)
        except (ConfigError, DataError):
            raise
        except Exception as error:
            return Compared(None, f"{type(error).__name__}: {error}")


class JudgedSource:
    """See sources.Source. As stateless as its comparer."""

    is_dense = False

    def __init__(self, comparer: Comparer, *, num_opponents: int) -> None:
        self.comparer = comparer
        self.num_opponents = num_opponents

    def active(self, step: int) -> str:
        """No model of ours."""
        return ""

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """[B] share of comparisons won, ties half; NaN for a completion that is compared with none, failed where a fault is why."""
        rows = list(self._rows(prompts, completions))
        pairs = [Pair(prompt=prompts[i], a=completions[i], b=completions[j]) for i, j in rows]
        found, usage = self.comparer.compare(pairs)
        points, num, faults = (np.zeros(len(completions)) for _ in range(3))
        for both, compared in zip(rows, found, strict=True):
            places = list(both)
            if compared.verdict is None:
                faults[places] += 1
            elif compared.verdict in _POINTS:
                points[places] += _POINTS[compared.verdict]
                num[places] += 1
        return Asked(
            values=np.where(num > 0, points / np.maximum(num, 1), np.nan), failed=(num == 0) & (faults > 0),
            reason=next((compared.fault for compared in found if compared.verdict is None), ""),
            metrics={} if usage is None else {
                "judge_tokens": float(usage.tokens), "judge_dollars": usage.dollars, "judge_faults": float(faults.sum() / 2),
            },
        )  # fmt: skip

    def _rows(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Iterator[tuple[int, int]]:
        """Whom to compare: places of completions."""
        groups = group_index(prompts)
        for group in range(int(groups.max(initial=-1)) + 1):
            members = np.flatnonzero(groups == group).tolist()
            for i, j in circle_pairs(len(members), self.num_opponents):
                first, second = sorted((members[i], members[j]), key=lambda row: completions[row].id)
                yield first, second


def circle_pairs(size: int, num_opponents: int) -> Iterator[tuple[int, int]]:
    """Pairs of 0 .. size - 1, each once, in which everybody has the same number of opponents: `num_opponents`, or one more where that
    cannot be, or all others."""
    for offset in range(1, size // 2 + 1):
        if 2 * (offset - 1) >= num_opponents:
            return
        is_half = 2 * offset == size  # then i and i + offset meet from both ends
        for i in range(offset if is_half else size):
            yield i, (i + offset) % size
