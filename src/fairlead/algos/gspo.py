"""Group sequence policy optimisation: one importance ratio a completion, clipped as one.

    ratio_b = exp(mean_t (logprob_t - old_logprob_t))       of the tokens of completion b that learn
    loss_t  = max(-ratio_b A_t, -clip(ratio_b, 1 - clip_low, 1 + clip_high) A_t)

A score belongs to a completion, and so does its ratio: a completion is clipped whole or not at all, where GRPO clips single tokens. The
length-normalised ratio varies little, so its clip range is about a thousand times narrower.

Legend:
    N  sampled tokens, flat
    B  sequences (completions)

Example:
    config = GSPOConfig()
    (GSPO.loss(batch, config).total / GSPO.count(batch, config)).backward()
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.group_advantages import AdvantageName
from fairlead.algos.mismatch import sequence_ratios
from fairlead.algos.policy_loss import (
    Aggregation,
    PolicyOptions,
    Rollouts,
    clipped_surrogate,
    policy_algorithm,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPOConfig(PolicyOptions):
    """Settings of GSPO."""

    advantages: AdvantageName = "group_normalised"
    """How scores become advantages; read where rollouts are collected."""
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    aggregation: Aggregation = "sequence_mean"


def sequence_surrogate(rollouts: Rollouts, config: PolicyOptions) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """The clipped surrogate on the ratio of the whole completion, told to each of its tokens.

    Source: Zheng et al. 2025, arXiv:2507.18071, eq. 5 to 7.
    Equals: `token_surrogate` for completions of one token (tested).
    """
    ratios = sequence_ratios(rollouts.logprobs - rollouts.old_logprobs, rollouts.sequence_index, num_sequences=rollouts.num_sequences,
                             kind="geometric_mean", counts=rollouts.learns)  # fmt: skip
    return clipped_surrogate(ratios[rollouts.sequence_index], rollouts.advantages, config)


GSPO = policy_algorithm("gspo", "Zheng et al. 2025, arXiv:2507.18071", GSPOConfig, surrogate=sequence_surrogate)
