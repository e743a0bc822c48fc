"""What a round's completions are worth, whatever says so, and which of them may not be trained on.

A completion is dropped when its score is no finite number (a reward that does not apply, failed or overflowed) or when it has no token. The
rest of its prompt's group stays; a method whose baseline is the group drops a completion that is left alone in it.

Legend: B completions of the round, in tree and branch order; P prompts of the round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.core.errors import TrainError, explain
from fairlead.core.protocols import Sample
from fairlead.models.heads import ScalarModel
from fairlead.text.packing import Tree
from fairlead.train.scoring import score_with_disagreement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """A prompt with what the policy wrote to it."""

    tree: Tree
    """Branches are the samples, in order."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """What a rewarder says of B completions."""

    values: Float[Tensor, "B"]
    """Reward units; NaN where it has nothing to say."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    is_advantage: bool = False
    """True when the values are normalised within groups already: a method that compares a group takes them as they are."""
    token_rewards: tuple[Float[Tensor, "_"], ...] | None = None
    """B rows of what single tokens are paid besides (process rewards); None when they are paid nothing."""


class Rewarder(Protocol):
    """Scores the completions of a round."""

    def __call__(self, rollouts: Sequence[Rollout], *, step: int) -> Scores:
        """[B] scores; `step` is the number of optimiser steps made."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ModelRewarder:
    """A reward model on the tokens themselves: normalised scores, and the disagreement of an ensemble."""

    model: ScalarModel
    max_tokens: int
    """Of a forward."""
    heed: Callable[[], None]
    """Called before each forward; raises to stop."""

    def __call__(self, rollouts: Sequence[Rollout], *, step: int) -> Scores:
        """[B] in standard deviations of the reference samples."""
        trees = [rollout.tree for rollout in rollouts]
        raw, disagreement = score_with_disagreement(self.model, trees, max_tokens=self.max_tokens, heed=self.heed)
        metrics = {} if disagreement is None else {"rl/disagreement": float(disagreement.mean())}
        return Scores(values=self.model.normalised(torch.from_numpy(raw)).float(), metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survivors:
    """The rollouts that may be trained on, with their scores."""

    rollouts: list[Rollout]
    scores: Float[Tensor, "B"]
    metrics: dict[str, float]
    rows: npt.NDArray[np.int64]
    """[B] where each stood among the completions that were scored."""


def without_empty(rollouts: Sequence[Rollout]) -> tuple[list[Rollout], int]:
    """Rollouts without completions that have no token (an engine that strips terminators may give some), and how many those were."""
    has_tokens = [np.array([len(s.token_ids) > 0 for s in rollout.samples]) for rollout in rollouts]
    return _keep(rollouts, has_tokens), sum(int((~mask).sum()) for mask in has_tokens)


def survivors(
    rollouts: Sequence[Rollout], scores: Float[Tensor, "B"], *, needs_group: bool, num_empty: int = 0
) -> Survivors:
    """Drop what has no finite score, and with `needs_group` what is left alone of its prompt.

    Args:
        num_empty: completions that were dropped before for having no token.
    Raises:
        TrainError: nothing is left.
    """
    finite = torch.isfinite(scores)
    masks = _by_rollout(finite, rollouts)
    lone = [bool(needs_group and mask.sum() == 1) for mask in masks]
    kept = [np.zeros_like(mask) if alone else mask for mask, alone in zip(masks, lone, strict=True)]
    rows = np.concatenate(kept) if kept else np.zeros(0, dtype=np.bool_)
    num_sampled = len(rows) + num_empty
    metrics = {
        "rl/dropped_share": (num_sampled - int(rows.sum())) / max(1, num_sampled),
        "rl/empty_share": num_empty / max(1, num_sampled),
        "rl/lone_survivors": float(sum(lone)),
    }  # fmt: skip
    if not rows.any():
        raise TrainError(explain("rewards", f"{int(finite.sum())} finite of {num_sampled}", "leave no completion of this round to train on",
                                 expected="finite scores, and two or more a prompt for methods that compare a group",
                                 remedy="See what the rewards say of one completion; the last checkpoint is kept"))  # fmt: skip
    return Survivors(
        rollouts=_keep(rollouts, kept),
        scores=scores[torch.from_numpy(rows)],
        metrics=metrics,
        rows=np.flatnonzero(rows),
    )


def _by_rollout(mask: Bool[Tensor, "B"], rollouts: Sequence[Rollout]) -> list[npt.NDArray[np.bool_]]:
    return np.split(mask.numpy(), np.cumsum([len(r.samples) for r in rollouts])[:-1])


def _keep(rollouts: Sequence[Rollout], masks: Sequence[npt.NDArray[np.bool_]]) -> list[Rollout]:
    """The rollouts with those completions alone; a prompt that keeps none is left out."""
    found: list[Rollout] = []
    for rollout, mask in zip(rollouts, masks, strict=True):
        if mask.all():
            found.append(rollout)
        elif mask.any():
            places = np.flatnonzero(mask).tolist()
            branches = tuple(rollout.tree.branches[i] for i in places)
            tree = Tree(prompt_ids=rollout.tree.prompt_ids, branches=branches)
            found.append(Rollout(tree=tree, samples=tuple(rollout.samples[i] for i in places)))
    return found
