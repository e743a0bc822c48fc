"""What a round's completions are worth, whatever says so, and which of them may not be trained on.

A completion is dropped when its score is no finite number (a reward that does not apply, failed or overflowed), when it has no token, or when
the environment that answered it failed. The rest of its prompt's group stays; a method whose baseline is the group drops a completion that is
left alone in it.

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

from fairlead.engine.rollouts import Rollout
from fairlead.models.heads import ScalarModel
from fairlead.train.budget import Budget, read_within
from fairlead.train.scoring import score_with_disagreement


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

    def __call__(self, rollouts: Sequence[Rollout], *, step: int, is_aside: bool = False) -> Scores:
        """[B] scores.

        Args:
            step: optimiser steps made.
            is_aside: of completions that are not trained on (a baseline): nothing of them is kept or logged.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ModelRewarder:
    """A reward model on the tokens themselves: normalised scores, and the disagreement of an ensemble."""

    model: ScalarModel
    budget: Budget
    """Of a forward."""
    heed: Callable[[], None]
    """Called before each forward; raises to stop."""

    def __call__(self, rollouts: Sequence[Rollout], *, step: int, is_aside: bool = False) -> Scores:
        """[B] in standard deviations of the reference samples."""
        trees = [rollout.tree for rollout in rollouts]
        raw, disagreement = read_within(
            self.budget, trees, lambda n: score_with_disagreement(self.model, trees, max_tokens=n, heed=self.heed)
        )
        metrics = {} if disagreement is None else {"rl/disagreement": float(disagreement.mean())}
        return Scores(values=self.model.normalised(torch.from_numpy(raw)).float(), metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survivors:
    """The rollouts that may be trained on, with their scores."""

    rollouts: list[Rollout]
    scores: Float[Tensor, "B"]
    rows: npt.NDArray[np.intp]
    """Which of the completions they are."""
    num_lone: int
    """Prompts of which one completion was left, where that is nothing to compare."""


def without_empty(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts without completions that have no token (an engine that strips terminators may give some)."""
    return _kept(rollouts, [np.array([len(s.token_ids) > 0 for s in rollout.samples]) for rollout in rollouts])


def without_failed(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts without those in which the environment failed."""
    return _kept(rollouts, [
        np.array([not t.failure for t in r.transcripts]) if r.transcripts else np.ones(len(r.samples), dtype=bool) for r in rollouts
    ])  # fmt: skip


def _kept(rollouts: Sequence[Rollout], masks: Sequence[npt.NDArray[np.bool_]]) -> list[Rollout]:
    return [r if mask.all() else r.keep(mask) for r, mask in zip(rollouts, masks, strict=True) if mask.any()]


def survivors(rollouts: Sequence[Rollout], scores: Float[Tensor, "B"], *, needs_group: bool) -> Survivors:
    """Drop what has no finite score, and with `needs_group` what is left alone of its prompt; none may be left."""
    masks = by_rollout(torch.isfinite(scores), rollouts)
    lone = [bool(needs_group and mask.sum() == 1) for mask in masks]
    kept = [np.zeros_like(mask) if alone else mask for mask, alone in zip(masks, lone, strict=True)]
    rows = np.flatnonzero(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.intp)
    return Survivors(
        rollouts=_kept(rollouts, kept), scores=scores[torch.from_numpy(rows)], rows=rows, num_lone=sum(lone)
    )


def by_rollout(mask: Bool[Tensor, "B"], rollouts: Sequence[Rollout]) -> list[npt.NDArray[np.bool_]]:
    """A flat mask cut into that of each prompt."""
    return np.split(mask.numpy(), np.cumsum([len(r.samples) for r in rollouts])[:-1]) if rollouts else []
