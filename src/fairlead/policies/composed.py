"""Composed rewards as the rewarder of a round: the policy's samples as records, to whatever composer the pipeline wired in.

    rollouts -> prompts and completions (text decoded) -> RewardComposer.score -> Scores in tree and branch order

Legend: B completions of the round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fairlead.core.protocols import RewardComposer
from fairlead.core.records import Completion, Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.policies.rewarding import Rollout, Scores
from fairlead.text import ChatText
from fairlead.train.budget import Budget


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
    ) -> RewardComposer:
        """Build every component and check that each prompt has one."""
        ...


@dataclass(slots=True, eq=False)
class ComposedRewarder:
    """A `Rewarder`. Its state is the composer's."""

    composer: RewardComposer
    prompts: Mapping[str, Prompt]
    """By id, which is the key of every sample."""
    chat: ChatText

    def __call__(self, rollouts: Sequence[Rollout], *, step: int) -> Scores:
        """[B] totals, NaN where dropped."""
        samples = [sample for rollout in rollouts for sample in rollout.samples]
        completions = [
            Completion(prompt_id=s.key, text=self.chat.decode(s.token_ids), model="policy", token_ids=tuple(s.token_ids.tolist()),
                       finish_reason=s.finish_reason, sample_index=s.sample_index)
            for s in samples
        ]  # fmt: skip
        found = self.composer.score([self.prompts[s.key] for s in samples], completions, step=step)
        paid = found.token_rewards
        return Scores(
            values=torch.from_numpy(found.total).float(), metrics=found.metrics, is_advantage=found.is_advantage,
            token_rewards=None if paid is None else tuple(torch.from_numpy(x).float() for x in paid),
        )  # fmt: skip
