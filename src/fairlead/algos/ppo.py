"""Proximal policy optimisation on sampled completions, with a clipped value model.

The KL penalty is part of the reward (`advantages.token_rewards`), unless `kl_coef` puts one into this loss.

Legend:
    N  sampled tokens, flat

Example:
    config = PPOConfig(clip_low=0.2, clip_high=0.2)
    (PPO.loss(batch, config).total / PPO.count(batch, config)).backward()
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.policy_loss import (
    PolicyOptions,
    count,
    holds_fixed,
    optional_needs,
    policy_loss,
    read_rollouts,
    silenced,
    token_surrogate,
    with_sample_share,
)
from fairlead.algos.spec import Algorithm, Loss, RolloutBatch

_FLOAT32_ROUNDING = 1e-6
"""A variance below this share of the mean square is what float32 sums leave of a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig(PolicyOptions):
    """Settings of the PPO loss."""

    value_coef: float = 0.1
    """Weight of the value loss against the policy loss, per reward unit (lm-human-preferences)."""
    value_clip: float | None = 0.2
    """Largest move of a value away from the rollout's, reward units; None means off."""


def loss(batch: RolloutBatch, config: PPOConfig) -> Loss:
    """Clipped policy loss, clipped value loss, entropy bonus.

    loss = policy_loss + sum_t weight_t * value_coef * value_loss_t, with the weights of `policy_loss.py`

    Returns:
        Sum over tokens, reward units; divide by `count`.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9.
    Equals: -sum_t A_t in value, and REINFORCE in gradient, when old_logprobs == logprobs and value_coef = 0 (tested).
    """
    assert batch.values is not None and batch.returns is not None, "PPO reads values and returns"
    rollouts = read_rollouts(batch, config)
    keep = rollouts.keep
    values, returns = silenced(batch.values, keep), silenced(batch.returns, keep)
    old_values = None if batch.old_values is None else silenced(batch.old_values, keep)
    value_losses = clipped_value_loss(values, old_values, returns, config.value_clip)
    policy = policy_loss(batch, config, surrogate=token_surrogate)
    metrics = {
        "rl/value_loss": sum_and_count(value_losses, keep),
        "rl/values_mean": sum_and_count(values, keep),
        "rl/returns_mean": sum_and_count(returns, keep),
        "rl/returns_squared": sum_and_count(returns**2, keep),
        "rl/value_error_squared": sum_and_count((returns - values) ** 2, keep),
    }
    total = policy.total + config.value_coef * (rollouts.weights * value_losses).sum()
    return replace(policy, total=total, metrics=policy.metrics | metrics)


def clipped_value_loss(
    values: Float[Tensor, "N"],
    old_values: Float[Tensor, "N"] | None,
    returns: Float[Tensor, "N"],
    value_clip: float | None,
) -> Float[Tensor, "N"]:
    """Loss per token, reward units squared.

    loss_t = 1/2 max((V_t - R_t)^2, (V_old + clip(V_t - V_old, +-value_clip) - R_t)^2)

    Source: OpenAI baselines ppo2; item 9 of Huang et al. 2022, "The 37 implementation details of PPO".
    """
    plain = 0.5 * (values - returns) ** 2
    if value_clip is None:
        return plain
    assert old_values is not None, "value clipping reads old_values"
    near = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return torch.maximum(plain, 0.5 * (near - returns) ** 2)


def explained_variance(means: Mapping[str, float]) -> float | None:
    """1 - Var(R - V) / Var(R) from the means of the metrics; 0 for a constant value model, None when returns are constant."""
    variance = means["rl/returns_squared"] - means["rl/returns_mean"] ** 2
    if variance <= _FLOAT32_ROUNDING * means["rl/returns_squared"]:
        return None
    error_mean = means["rl/returns_mean"] - means["rl/values_mean"]
    return 1.0 - (means["rl/value_error_squared"] - error_mean**2) / variance


def _derived(means: Mapping[str, float]) -> dict[str, float]:
    logged = {name: mean for name, mean in with_sample_share(means).items() if not name.endswith("_squared")}
    explained = explained_variance(means)
    return logged if explained is None else {**logged, "rl/explained_variance": explained}


PPO = Algorithm(
    name="ppo",
    paper="Schulman et al. 2017, arXiv:1707.06347; for language models Ziegler et al. 2019, arXiv:1909.08593",
    batch="rollouts",
    config=PPOConfig,
    count=count,
    loss=loss,
    needs=frozenset({"values", "entropy"}),
    optional_needs=optional_needs,
    holds_fixed=holds_fixed,
    derived=_derived,
)
