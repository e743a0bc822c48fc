"""Composed rewards as the rewarder of a round: the policy's samples as records, to whatever composer the pipeline wired in.

    rollouts -> prompts and completions (text decoded) -> RewardComposer.score -> Scores in tree and branch order

Legend: B completions of the round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.protocols import RewardComposer
from fairlead.core.records import Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.engine.rollouts import Rollout, as_completion
from fairlead.models.arithmetic import Precision
from fairlead.policies.rewarding import Scores
from fairlead.text import Branch, ChatText
from fairlead.train.budget import Budget

Floats = npt.NDArray[np.float64]


class ComposeRewards(Protocol):
    """What the pipeline wires in: from the section to the object that scores."""

    def __call__(
        self,
        section: ComposeSection,
        *,
        prompts: Sequence[Prompt],
        policy: ChatText,
        budget: Budget,
        heed: Callable[[], None],
        precision: Precision,
    ) -> RewardComposer:
        """Build every component and check that each prompt has one; `precision` is what the policy computes in."""
        ...


@dataclass(slots=True, eq=False)
class ComposedRewarder:
    """A `Rewarder`. Its state is the composer's."""

    composer: RewardComposer
    prompts: Mapping[str, Prompt]
    """By id, which is the key of every sample."""
    chat: ChatText

    def __call__(self, rollouts: Sequence[Rollout], *, step: int, is_aside: bool = False) -> Scores:
        """[B] totals, NaN where dropped."""
        samples = [sample for rollout in rollouts for sample in rollout.samples]
        completions = [
            as_completion(rollout, i, self.chat, model="policy")
            for rollout in rollouts
            for i in range(len(rollout.samples))
        ]
        found = self.composer.score([self.prompts[s.key] for s in samples], completions, step=step, is_aside=is_aside)
        paid = found.token_rewards
        if paid is not None:
            branches = [branch for rollout in rollouts for branch in rollout.tree.branches]
            paid = tuple(own_rewards(branch, x) for branch, x in zip(branches, paid, strict=True))
        return Scores(
            values=torch.from_numpy(found.total).float(), metrics=found.metrics, is_advantage=found.is_advantage,
            token_rewards=None if paid is None else tuple(torch.from_numpy(x).float() for x in paid),
        )  # fmt: skip


def own_rewards(branch: Branch, paid: Floats) -> Floats:
    """What a branch's tokens are paid, by the policy's own tokens: what stands on an observation goes to the one before it.

    Args:
        paid: [T] by all tokens.
    Returns:
        [N] by kept tokens.
    """
    if branch.kept is None:
        return paid
    found = np.zeros(branch.num_kept)
    np.add.at(found, np.cumsum(branch.kept) - 1, paid)
    return found
