"""Clipped importance-sampling policy optimisation: the ratio weighs a token and is clipped as a weight; no token loses its gradient.

    loss_t = -sg(clip(ratio_t, 1 - clip_low, 1 + clip_high)) * A_t * logprob_t

PPO's clip drops a token's gradient once its ratio has left the range, and with it the rare tokens that turn a line of thought ("However",
"Wait"). Here such a token goes on learning, with a bounded weight.

Legend:
    N  sampled tokens, flat

Example:
    config = CISPOConfig()
    (CISPO.loss(batch, config).total / CISPO.count(batch, config)).backward()
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.group_advantages import AdvantageName
from fairlead.algos.policy_loss import PolicyOptions, Rollouts, policy_algorithm
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPOConfig(PolicyOptions):
    """Settings of CISPO."""

    advantages: AdvantageName = "group_normalised"
    """How scores become advantages; read where rollouts are collected."""
    clip_low: float = 1.0
    """The weight is at least 1 - clip_low; 1 sets no lower bound, as in the paper."""
    clip_high: float = 4.0
    """The weight is at most 1 + clip_high, here 5: the bound of ScaleRL (arXiv:2510.13786) that TRL recommends; the paper names none."""

    def __post_init__(self) -> None:
        PolicyOptions.__post_init__(self)
        if self.dual_clip is not None:
            raise ConfigError(explain("dual_clip", self.dual_clip, "has no part in cispo, whose weights are bounded already",
                                      expected="null", remedy="Leave it out"))  # fmt: skip


def weighted_surrogate(rollouts: Rollouts, config: CISPOConfig) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """REINFORCE with a bounded weight, and whether the bound set it.

    Source: MiniMax 2025 (MiniMax-M1), arXiv:2506.13585, eq. 4 and 5.
    Equals: REINFORCE at ratio 1; the gradient of the unclipped surrogate inside the bounds (tested).
    """
    ratios = rollouts.ratios.detach()
    weights = ratios.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -weights * rollouts.advantages * rollouts.logprobs, weights != ratios


def _holds_weights_fixed(config: CISPOConfig) -> bool:
    return True


CISPO = policy_algorithm(
    "cispo",
    "MiniMax 2025 (MiniMax-M1), arXiv:2506.13585, section 3.1",
    CISPOConfig,
    surrogate=weighted_surrogate,
    holds_fixed=_holds_weights_fixed,
)
