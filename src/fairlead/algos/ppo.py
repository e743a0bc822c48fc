"""Proximal policy optimisation on sampled completions, with a clipped value model.

The KL penalty is part of the reward (`advantages.token_rewards`), not of this loss.

Legend:
    N  sampled tokens, flat

Example:
    config = PPOConfig(clip_low=0.2, clip_high=0.2)
    (PPO.loss(batch, config).total / PPO.count(batch, config)).backward()
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.kl import MAX_EXPONENT, kl_k2
from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import Algorithm, Loss, RolloutBatch
from fairlead.core.errors import ConfigError, explain

_FLOAT32_ROUNDING = 1e-6
"""A variance below this share of the mean square is what float32 sums leave of a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig:
    """Settings of the PPO loss."""

    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low, in (0, 1)."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high, > 0; 0.28 with clip-higher (DAPO)."""
    value_coef: float = 0.1
    """Weight of the value loss against the policy loss, per reward unit (lm-human-preferences)."""
    value_clip: float | None = 0.2
    """Largest move of a value away from the rollout's, reward units; None means off."""
    entropy_coef: float = 0.0
    """Bonus per nat of entropy and token, reward units."""
    dual_clip: float | None = None
    """Bound of the loss on bad tokens, in multiples of |advantage|, > 1; None means off (3 in verl)."""

    def __post_init__(self) -> None:
        if not (0.0 < self.clip_low < 1.0 and self.clip_high > 0.0):
            raise ConfigError(
                explain(
                    "clip_low, clip_high",
                    (self.clip_low, self.clip_high),
                    "leave no room for the ratio",
                    expected="0 < clip_low < 1 and clip_high > 0",
                    remedy="Use 0.2 and 0.2",
                )
            )
        if self.dual_clip is not None and self.dual_clip <= 1.0:
            raise ConfigError(
                explain(
                    "dual_clip", self.dual_clip, "cuts ordinary tokens", expected="> 1", remedy="Use 3 or leave it out"
                )
            )


def count(batch: RolloutBatch, config: PPOConfig) -> Float[Tensor, ""]:
    """Sampled tokens."""
    return torch.tensor(float(batch.sequence_index.numel()), device=batch.sequence_index.device)


def loss(batch: RolloutBatch, config: PPOConfig) -> Loss:
    """Clipped policy loss, clipped value loss, entropy bonus.

    loss = sum_t policy_loss_t + value_coef * value_loss_t - entropy_coef * entropy_t

    Returns:
        Sum over tokens, reward units; divide by `count`.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9.
    Equals: -sum_t A_t in value, and REINFORCE in gradient, when old_logprobs == logprobs and value_coef = 0 (tested).
    """
    assert batch.values is not None and batch.returns is not None, "PPO reads values and returns"
    policy_losses, is_clipped = clipped_policy_loss(batch.logprobs, batch.old_logprobs, batch.advantages, config)
    value_losses = clipped_value_loss(batch.values, batch.old_values, batch.returns, config.value_clip)
    total = policy_losses.sum() + config.value_coef * value_losses.sum()
    if config.entropy_coef != 0.0:
        assert batch.entropy is not None, "an entropy bonus reads entropy"
        total = total - config.entropy_coef * batch.entropy.sum()
    metrics = {
        "rl/policy_loss": sum_and_count(policy_losses),
        "rl/value_loss": sum_and_count(value_losses),
        "rl/ratio_mean": sum_and_count(importance_ratios(batch.logprobs, batch.old_logprobs)),
        "rl/clip_fraction": sum_and_count(is_clipped.to(batch.logprobs.dtype)),
        "rl/approx_kl": sum_and_count(kl_k2(batch.logprobs, batch.old_logprobs)),
        "rl/values_mean": sum_and_count(batch.values),
        "rl/returns_mean": sum_and_count(batch.returns),
        "rl/returns_squared": sum_and_count(batch.returns**2),
        "rl/value_error_squared": sum_and_count((batch.returns - batch.values) ** 2),
    }
    if batch.entropy is not None:
        metrics["rl/entropy"] = sum_and_count(batch.entropy)
    return Loss(total=total, metrics=metrics)


def importance_ratios(logprobs: Float[Tensor, "N"], old_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """pi(token) / pi_old(token); the exponent is limited to +-20, where the gradient is 0."""
    return (logprobs - old_logprobs).clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


def clipped_policy_loss(
    logprobs: Float[Tensor, "N"],
    old_logprobs: Float[Tensor, "N"],
    advantages: Float[Tensor, "N"],
    config: PPOConfig,
) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """Loss per token, reward units, and whether the clipped ratio set it.

    loss_t = max(-r_t A_t, -clip(r_t, 1 - clip_low, 1 + clip_high) A_t);  with dual_clip c and A_t < 0 at most -c A_t

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; dual clip: Ye et al. 2020, arXiv:1912.09729;
        two bounds: Yu et al. 2025 (DAPO), arXiv:2503.14476.
    """
    ratios = importance_ratios(logprobs, old_logprobs)
    plain = -ratios * advantages
    clipped = -ratios.clamp(1 - config.clip_low, 1 + config.clip_high) * advantages
    losses = torch.maximum(plain, clipped)
    if config.dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -config.dual_clip * advantages), losses)
    return losses, clipped > plain


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
    logged = {name: mean for name, mean in means.items() if not name.endswith("_squared")}
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
    derived=_derived,
)
