"""Group-relative policy optimisation: completions of one prompt are each other's baseline. One loss; variants are defaults.

    GRPO      advantages divided by the group's spread, every completion weighs the same, KL in the loss
    Dr. GRPO  no division by the spread or by a completion's length: the gradient of the expected score
    DAPO      more room above than below, every token weighs the same, no KL

Advantages come from `group_advantages.py` by the name in `advantages`; this loss reads them only. DAPO's filter and length penalty are there too.

Example:
    config = GRPOConfig(kl_coef=0.04)
    (GRPO.loss(batch, config).total / GRPO.count(batch, config)).backward()
"""

from dataclasses import dataclass

from fairlead.algos.group_advantages import AdvantageName
from fairlead.algos.policy_loss import Aggregation, PolicyOptions, policy_algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPOConfig(PolicyOptions):
    """Settings of GRPO."""

    advantages: AdvantageName = "group_normalised"
    """How scores become advantages; read where rollouts are collected."""
    aggregation: Aggregation = "sequence_mean"
    kl_coef: float = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class DrGRPOConfig(PolicyOptions):
    """Settings of Dr. GRPO."""

    advantages: AdvantageName = "group_centered"
    """How scores become advantages; read where rollouts are collected."""
    aggregation: Aggregation = "constant_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class DAPOConfig(PolicyOptions):
    """Settings of DAPO."""

    advantages: AdvantageName = "group_normalised"
    """How scores become advantages; read where rollouts are collected."""
    clip_high: float = 0.28


GRPO = policy_algorithm("grpo", "Shao et al. 2024, arXiv:2402.03300, section 4.1", GRPOConfig)
DR_GRPO = policy_algorithm("dr_grpo", "Liu et al. 2025, arXiv:2503.20783, section 3.2", DrGRPOConfig)
DAPO = policy_algorithm("dapo", "Yu et al. 2025, arXiv:2503.14476, section 3", DAPOConfig)
