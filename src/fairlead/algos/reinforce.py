"""The REINFORCE family: the gradient of the expected score with different baselines. One loss; variants are defaults.

    RLOO                   the other completions of the prompt are the baseline; a completion is one action
    ReMax                  the greedy completion of the prompt is the baseline; one sample a prompt is enough
    REINFORCE++            no baseline but the mean of the batch; KL a token in the reward, tokens whitened over the batch
    REINFORCE++-baseline   the prompt's mean is the baseline, whitened over the batch

Advantages come from `group_advantages.py` by the name in `advantages`. The KL of these methods is in the reward (estimator k1); `kl_coef` would
put one into the loss. Ratios are clipped as PPO's, which matters from the second optimiser step on a rollout on.

Example:
    config = RLOOConfig()
    (RLOO.loss(batch, config).total / RLOO.count(batch, config)).backward()
"""

from dataclasses import dataclass

from fairlead.algos.group_advantages import AdvantageName
from fairlead.algos.policy_loss import Aggregation, PolicyOptions, policy_algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class RLOOConfig(PolicyOptions):
    """Settings of RLOO."""

    advantages: AdvantageName = "leave_one_out"
    """How scores become advantages; read where rollouts are collected."""
    aggregation: Aggregation = "constant_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReMaxConfig(PolicyOptions):
    """Settings of ReMax."""

    advantages: AdvantageName = "greedy_baseline"
    """How scores become advantages; read where rollouts are collected."""
    aggregation: Aggregation = "constant_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceConfig(PolicyOptions):
    """Settings of REINFORCE++."""

    advantages: AdvantageName = "whitened_returns"
    """How scores become advantages; read where rollouts are collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceBaselineConfig(PolicyOptions):
    """Settings of REINFORCE++-baseline."""

    advantages: AdvantageName = "whitened_group_centered"
    """How scores become advantages; read where rollouts are collected."""


RLOO = policy_algorithm("rloo", "Ahmadian et al. 2024, arXiv:2402.14740", RLOOConfig)
REMAX = policy_algorithm("remax", "Li et al. 2024, arXiv:2310.10505", ReMaxConfig)
REINFORCE_PP = policy_algorithm("reinforce_pp", "Hu et al. 2025, arXiv:2501.03262", ReinforceConfig)
REINFORCE_PP_BASELINE = policy_algorithm(
    "reinforce_pp_baseline", "Hu et al. 2025, arXiv:2501.03262", ReinforceBaselineConfig
)
