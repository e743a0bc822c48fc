"""A judge as a component of a composed reward: the share of comparisons with others of its group that a completion wins.

Each completion of a group of n is compared with those 1, 2, ... places after it in the circle of the group, so everybody has the same number
of comparisons, each counted for both sides. With every pair compared the score is the Borda count over n - 1.

Example:
    JudgedScorer(judge, num_opponents=2).score(prompts, completions)       # [B] in [0, 1]
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fairlead.core.protocols import Judge
from fairlead.core.records import Completion, Prompt, Task
from fairlead.rewards.compose import group_index

Floats = npt.NDArray[np.float64]
_POINTS = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.0, 0.0)}
"""Verdict -> points of (a, b); a judge that skips gives none, and the comparison does not count."""


class JudgedScorer:
    """A `core.protocols.Scorer`. As stateless as its judge."""

    def __init__(self, judge: Judge, *, num_opponents: int) -> None:
        self.name = judge.name
        self.judge = judge
        self.num_opponents = num_opponents

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """[B] share of comparisons won, ties half; NaN for a completion that is compared with none."""
        points, num = np.zeros(len(completions)), np.zeros(len(completions))
        groups = group_index(prompts)
        for group in range(int(groups.max(initial=-1)) + 1):
            members = np.flatnonzero(groups == group).tolist()
            for i, j in circle_pairs(len(members), self.num_opponents):
                rows = sorted(
                    (members[i], members[j]), key=lambda row: completions[row].id
                )  # the canonical order of tasks
                first, second = completions[rows[0]], completions[rows[1]]
                task = Task(prompt_id=prompts[rows[0]].id, completion_a=first.id, completion_b=second.id)
                verdict = self.judge.judge(task, prompts[rows[0]], first, second).verdict
                if verdict in _POINTS:
                    points[rows] += _POINTS[verdict]
                    num[rows] += 1
        return np.where(num > 0, points / np.maximum(num, 1), np.nan)


def circle_pairs(size: int, num_opponents: int) -> Iterator[tuple[int, int]]:
    """Pairs of 0 .. size - 1, each once, in which everybody has the same number of opponents: `num_opponents`, or one more where that
    cannot be, or all others."""
    for offset in range(1, size // 2 + 1):
        if 2 * (offset - 1) >= num_opponents:
            return
        is_half = 2 * offset == size  # then i and i + offset meet from both ends
        for i in range(offset if is_half else size):
            yield i, (i + offset) % size
