"""From completions to comparisons to be rated, and from comparisons to raters.

Canonical order of a pair is the order of the completions' ids, which are content hashes: it says nothing about quality, model
or position in a file. What a rater sees first is drawn per judgment and recorded as `swapped`.

Example:
    plan = make_tasks({prompt.id: completions}, pairs_per_prompt=1, seed=0)
    assignments = assign_raters(plan.tasks, raters=["ann", "bob", "cem"], votes_per_pair=2, seed=0)
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.core.errors import ConfigError, explain
from fairlead.core.records import Completion, Task, content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Comparisons to be rated, with an account of the prompts that gave none.

    Invariant: `num_prompts == num_usable_prompts + num_single + num_identical`.
    """

    tasks: tuple[Task, ...]
    num_prompts: int
    num_single: int
    """Prompts with fewer than two completions."""
    num_identical: int
    """Prompts whose completions all have the same text: nothing to compare."""
    num_repeats: int
    """Completions left out because an earlier one of the same prompt has the same text."""

    @property
    def num_usable_prompts(self) -> int:
        """Prompts with at least one pair of different texts."""
        return self.num_prompts - self.num_single - self.num_identical


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One judgment to be made: who rates which task, what stands on the left, and which of the rater's own it is."""

    task: Task
    rater: str
    swapped: bool
    """True when completion b is shown on the left."""
    order: int
    """Position in the rater's own sequence, from 0."""


def derived_rng(*key: object) -> np.random.Generator:
    """A generator whose stream depends on the key alone, never on placement or on earlier draws."""
    return np.random.default_rng(int(content_hash([str(part) for part in key]), 16))


def make_tasks(
    completions: Mapping[str, Sequence[Completion]],
    *,
    pairs_per_prompt: int,
    seed: int,
    guideline_version: str = "none",
) -> TaskPlan:
    """Pair different texts of one prompt; a text is used again only when every other one was used as often.

    Args:
        completions: by prompt id; the order of completions does not matter.
        pairs_per_prompt: at most this many pairs a prompt.
        seed: which pairs, when there are more than wanted.
    """
    tasks: list[Task] = []
    num_single = num_identical = num_repeats = 0
    for prompt_id, found in completions.items():
        distinct = _distinct_texts(found)
        num_repeats += len(found) - len(distinct)
        num_single += len(found) < 2
        num_identical += len(found) >= 2 and len(distinct) < 2
        for a, b in _spread_pairs([c.id for c in distinct], num_pairs=pairs_per_prompt, key=(seed, prompt_id)):
            tasks.append(Task(prompt_id=prompt_id, completion_a=a, completion_b=b, guideline_version=guideline_version))
    return TaskPlan(tasks=tuple(tasks), num_prompts=len(completions), num_single=num_single, num_identical=num_identical,
                    num_repeats=num_repeats)  # fmt: skip


def choose_groups(completions: Mapping[str, Sequence[Completion]], *, group_size: int, seed: int) -> dict[str, list[Completion]]:  # fmt: skip
    """Up to `group_size` different texts of each prompt, in canonical order, to be ranked; prompts with fewer than two are left out.

    Args:
        completions: by prompt id; the order of completions does not matter.
        seed: which texts, when there are more than wanted.
    """
    found: dict[str, list[Completion]] = {}
    for prompt_id, given in completions.items():
        distinct = _distinct_texts(given)
        if len(distinct) > group_size:
            kept = derived_rng("groups", seed, prompt_id).choice(len(distinct), group_size, replace=False)
            distinct = [distinct[i] for i in sorted(kept.tolist())]
        if len(distinct) >= 2:
            found[prompt_id] = distinct
    return found


def _distinct_texts(completions: Sequence[Completion]) -> list[Completion]:
    """One completion for each text, in canonical order (two samples with one text are one answer)."""
    first: dict[str, Completion] = {}
    for completion in sorted(completions, key=lambda c: c.id):
        first.setdefault(completion.text.strip(), completion)
    return list(first.values())


def _spread_pairs(ids: Sequence[str], *, num_pairs: int, key: tuple[object, ...]) -> list[tuple[str, str]]:
    """Take random pairs, always one whose members were used least so far."""
    pairs = list(itertools.combinations(ids, 2))
    derived_rng("pairs", *key).shuffle(pairs)
    uses = dict.fromkeys(ids, 0)
    taken: list[tuple[str, str]] = []
    while pairs and len(taken) < num_pairs:
        best = min(pairs, key=lambda pair: uses[pair[0]] + uses[pair[1]])
        pairs.remove(best)
        taken.append((best[0], best[1]))
        for member in best:
            uses[member] += 1
    return taken


def assign_raters(tasks: Sequence[Task], *, raters: Sequence[str], votes_per_pair: int, seed: int) -> list[Assignment]:
    """Deal tasks to raters like cards: each task gets different raters, and no two raters differ by more than one task.

    Within a task, b stands on the left for half of the raters (rounded by a fair draw), so that a side bias that raters share
    cancels in the votes of each pair; which rater sees which side is random.

    Returns:
        Judgments in the order in which they are to be made.
    Raises:
        ConfigError: fewer raters than votes wanted for one pair.
    """
    if votes_per_pair > len(raters):
        raise ConfigError(explain("feedback.votes_per_pair", votes_per_pair, "needs more raters than there are",
                                  expected=f"<= num_raters={len(raters)}", remedy="Lower it or add raters"))  # fmt: skip
    rng = derived_rng("assignment", seed)
    deck: list[str] = []
    given = dict.fromkeys(raters, 0)
    assignments: list[Assignment] = []
    for index in rng.permutation(len(tasks)):
        dealt: list[str] = []
        for _ in range(votes_per_pair):
            if all(rater in dealt for rater in deck):  # also when the deck is empty
                deck.extend(raters[int(i)] for i in rng.permutation(len(raters)))
            dealt.append(deck.pop(next(i for i, rater in enumerate(deck) if rater not in dealt)))
        task = tasks[index]
        for rater, swapped in zip(dealt, _balanced_sides(votes_per_pair, key=(seed, task.id)), strict=True):
            assignments.append(Assignment(task=task, rater=rater, swapped=swapped, order=given[rater]))
            given[rater] += 1
    return assignments


def _balanced_sides(num_votes: int, *, key: tuple[object, ...]) -> list[bool]:
    rng = derived_rng("sides", *key)
    num_swapped = num_votes // 2 + int(num_votes % 2 and rng.random() < 0.5)
    return [bool(side) for side in rng.permutation([True] * num_swapped + [False] * (num_votes - num_swapped))]
