"""What happened in rollouts of several turns besides their tokens, and what is told of it.

Legend: N tokens of a rollout that the policy wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Messages


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transcript:
    """One rollout as a conversation."""

    messages: Messages
    """Turns and observations after the prompt, in order; the first is a turn."""
    paid: npt.NDArray[np.float64]
    """[N] what the environment pays at the policy's tokens, reward units: 0 but at the last token of a turn."""
    num_observation_tokens: int = 0
    """With what the template writes around observations."""
    num_cut: int = 0
    """Observations of which a part was left out."""
    num_calls: int = 0
    num_errors: int = 0
    """Calls that could not be answered as they were asked."""
    is_at_limit: bool = False
    """The environment had an answer, and no turn or token was left to go on with."""
    failure: str = ""
    """Why the environment failed; empty when it did not."""

    @property
    def turns(self) -> list[str]:
        """What the policy wrote."""
        return [message.content for message in self.messages if message.role == "assistant"]

    @property
    def text(self) -> str:
        """Turns and observations, one after another on lines of their own."""
        return "\n".join(message.content for message in self.messages)


def transcript_metrics(transcripts: Sequence[Transcript], *, error_penalty: float) -> dict[str, float]:
    """Metrics of a round's rollouts, those that are dropped included.

    Args:
        error_penalty: of a call, which `paid` holds already and the environment did not pay.
    """
    num = max(1, len(transcripts))
    num_turns = sum(len(t.turns) for t in transcripts)
    num_observations = sum(len(t.messages) for t in transcripts) - num_turns
    num_calls, num_errors = sum(t.num_calls for t in transcripts), sum(t.num_errors for t in transcripts)
    paid = sum(float(t.paid.sum()) for t in transcripts) + error_penalty * num_errors
    return {
        "rl/turns": num_turns / num, "rl/tool_calls": num_calls / num, "rl/tool_errors": num_errors / max(1, num_calls),
        "rl/tool_failed": sum(bool(t.failure) for t in transcripts) / num,
        "rl/observation_tokens": sum(t.num_observation_tokens for t in transcripts) / num,
        "rl/observations_cut": sum(t.num_cut for t in transcripts) / max(1, num_observations),
        "rl/turn_limit_share": sum(t.is_at_limit for t in transcripts) / num, "rl/turn_reward": paid / num,
    }  # fmt: skip
