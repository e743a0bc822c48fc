"""What every policy-gradient loss shares: silence, importance ratios, clipping, averaging, KL and entropy terms, metrics.

    weight_t = w_b * (1 | 1 / length_b)             w_b the sequence's weight; see `aggregation`
    loss     = sum_t weight_t * (c_t * (surrogate_t + kl_coef * kl_t) - entropy_coef * entropy_t)

c_t is `RolloutBatch.correction`, 1 without one. A method is a surrogate and its defaults: token ratios (ppo.py, grpo.py, reinforce.py),
the ratio of the whole sequence (gspo.py), a ratio that only weighs (cispo.py).

Legend:
    N  sampled tokens, flat
    B  sequences (completions)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.kl import MAX_EXPONENT, kl_k2, kl_k3
from fairlead.algos.masks import sequence_lengths, sum_and_count
from fairlead.algos.spec import Algorithm, Loss, RolloutBatch
from fairlead.core.errors import ConfigError, explain

Aggregation = Literal["token_mean", "sequence_mean", "constant_length"]

_MAX_KL_WEIGHT = 5.0
"""A token that became five times as likely pays KL as if it were so by this much: the upper end of the range in
which IcePop keeps samples ([0.5, 5]); without a bound one token that was rare outweighs a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """Settings that every policy-gradient method has; each method has its own defaults."""

    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low, in (0, 1]; 1 clips nothing."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high, > 0; 0.28 with clip-higher (DAPO)."""
    dual_clip: float | None = None
    """Bound of the loss on bad tokens, in multiples of |advantage|, > 1 + clip_high; None means off (3 in verl; "delta" in TRL)."""
    aggregation: Aggregation = "token_mean"
    """token_mean: every token of the global batch weighs the same. sequence_mean: every completion does. constant_length: the sum over a
    completion's tokens divided by `constant_length`, then the mean over completions."""
    constant_length: int = 1
    """What a completion's sum is divided by with aggregation=constant_length, tokens, >= 1; 1 leaves the sum, max_new_tokens is Dr. GRPO's."""
    kl_coef: float = 0.0
    """Weight of KL(policy || reference) in the loss, reward units a nat; 0 where the KL is in the reward."""
    entropy_coef: float = 0.0
    """Bonus per nat of entropy and token, reward units."""

    def __post_init__(self) -> None:
        if not (0.0 < self.clip_low <= 1.0 and self.clip_high > 0.0):
            raise ConfigError(explain("clip_low, clip_high", (self.clip_low, self.clip_high), "leave no room for the ratio",
                                      expected="0 < clip_low <= 1 and clip_high > 0", remedy="Use 0.2 and 0.2"))  # fmt: skip
        if self.dual_clip is not None and self.dual_clip <= 1.0 + self.clip_high:
            raise ConfigError(explain("dual_clip", self.dual_clip, "cuts ordinary tokens", expected=f"> 1 + clip_high ({1 + self.clip_high:g})",
                                      remedy="Use 3 or leave it out"))  # fmt: skip
        if self.constant_length < 1 or (self.constant_length > 1 and self.aggregation != "constant_length"):
            raise ConfigError(explain("constant_length", self.constant_length, "is not used" if self.constant_length > 1 else "is no length",
                                      expected=">= 1, above 1 with aggregation=constant_length only", remedy="Leave it out"))  # fmt: skip
        if self.kl_coef < 0.0:
            raise ConfigError(explain("kl_coef", self.kl_coef, "pays for leaving the reference", expected=">= 0",
                                      remedy="Use 0 for none"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollouts:
    """A batch with what must not count made silent: log-ratio and advantage 0."""

    logprobs: Float[Tensor, "N"]
    """With gradient where `learns`."""
    old_logprobs: Float[Tensor, "N"]
    advantages: Float[Tensor, "N"]
    sequence_index: Int[Tensor, "N"]
    num_sequences: int
    lengths: Int[Tensor, "B"]
    """Tokens of every sequence."""
    weights: Float[Tensor, "N"]
    """Of every token in the sum; see `aggregation`."""
    correction: Float[Tensor, "N"]
    """1 where the batch has none."""
    keep: Bool[Tensor, "N"]
    """False in sequences of weight 0."""
    learns: Bool[Tensor, "N"]
    """False also where the correction is 0."""

    @property
    def ratios(self) -> Float[Tensor, "N"]:
        """Importance ratios of tokens, with gradient."""
        return importance_ratios(self.logprobs, self.old_logprobs)


Surrogate = Callable[[Rollouts, Any], tuple[Tensor, Tensor]]
"""(rollouts, config) -> ([N] loss of each token, reward units; [N] whether a bound set it)"""


def count(batch: RolloutBatch, config: PolicyOptions) -> Float[Tensor, ""]:
    """What the sum is divided by: tokens, completions with tokens, or completions times `constant_length`; weighted."""
    weights = _sequence_weights(batch)
    lengths = sequence_lengths(batch.sequence_index, batch.num_sequences)
    if config.aggregation == "token_mean":
        return (weights * lengths).sum()
    if config.aggregation == "sequence_mean":
        return (weights * (lengths > 0)).sum()
    return weights.sum() * config.constant_length


def read_rollouts(batch: RolloutBatch, config: PolicyOptions) -> Rollouts:
    """Weights and silence of a batch."""
    lengths = sequence_lengths(batch.sequence_index, batch.num_sequences)
    weights = _sequence_weights(batch).to(batch.logprobs.dtype)
    keep = (weights > 0)[batch.sequence_index]
    if config.aggregation == "sequence_mean":
        weights = weights / lengths.clamp_min(1)
    correction = torch.ones_like(batch.advantages) if batch.correction is None else batch.correction
    learns = keep & (correction > 0)
    return Rollouts(
        logprobs=silenced(batch.logprobs, learns), old_logprobs=silenced(batch.old_logprobs, learns),
        advantages=silenced(batch.advantages, learns), sequence_index=batch.sequence_index, num_sequences=batch.num_sequences,
        lengths=lengths, weights=weights[batch.sequence_index], correction=correction, keep=keep, learns=learns,
    )  # fmt: skip


def policy_loss(batch: RolloutBatch, config: PolicyOptions, *, surrogate: Surrogate) -> Loss:
    """Surrogate, KL and entropy terms of a batch.

    Returns:
        Sum over tokens, reward units; divide by `count`.
    Equals: REINFORCE in gradient when old_logprobs == logprobs and the coefficients are 0 (tested for every method).
    """
    rollouts = read_rollouts(batch, config)
    losses, is_clipped = surrogate(rollouts, config)
    metrics = {
        "rl/policy_loss": sum_and_count(losses, rollouts.learns),
        "rl/ratio_mean": sum_and_count(rollouts.ratios, rollouts.learns),
        "rl/clip_fraction": sum_and_count(is_clipped.to(losses.dtype), rollouts.learns),
        "rl/approx_kl": sum_and_count(kl_k2(rollouts.logprobs, rollouts.old_logprobs), rollouts.learns),
    }
    if batch.mismatch is not None and batch.sampling_logprobs is not None:
        metrics |= _mismatch_metrics(batch.mismatch, batch.old_logprobs - batch.sampling_logprobs, rollouts)
    if config.kl_coef != 0.0:
        assert batch.ref_logprobs is not None, "a KL in the loss reads ref_logprobs"
        divergences = kl_in_loss(rollouts, silenced(batch.ref_logprobs, rollouts.learns))
        metrics["rl/kl_loss"] = sum_and_count(divergences, rollouts.learns)
        losses = losses + config.kl_coef * divergences
    total = (rollouts.weights * rollouts.correction * losses).sum()
    if batch.entropy is not None:
        metrics["rl/entropy"] = sum_and_count(batch.entropy, rollouts.keep)
    if config.entropy_coef != 0.0:
        assert batch.entropy is not None, "an entropy bonus reads entropy"
        total = total - config.entropy_coef * (rollouts.weights * silenced(batch.entropy, rollouts.keep)).sum()
    return Loss(total=total, metrics=metrics)


def _mismatch_metrics(
    ratios: Float[Tensor, "N"], gaps: Float[Tensor, "N"], rollouts: Rollouts
) -> dict[str, tuple[Tensor, Tensor]]:
    """How far the engine is from the trainer, and what was made of it; sums, unlike those of `mismatch_metrics`."""
    keep, weights = rollouts.keep, rollouts.correction
    return {
        "rl/sampling_gap": sum_and_count(gaps.abs(), keep),
        "rl/mismatch_mean": sum_and_count(ratios, keep),
        "rl/mismatch_squared": sum_and_count(ratios**2, keep),
        "rl/correction_capped_share": sum_and_count(((weights < ratios) & (weights > 0)).to(ratios.dtype), keep),
        "rl/correction_masked_share": sum_and_count((weights == 0).to(ratios.dtype), keep),
    }


def with_sample_share(means: Mapping[str, float]) -> dict[str, float]:
    """What is logged of the means of a loss's metrics: the effective sample size in place of the mean square of the ratios."""
    if "rl/mismatch_mean" not in means:
        return dict(means)
    logged = {name: mean for name, mean in means.items() if name != "rl/mismatch_squared"}
    return logged | {"rl/mismatch_sample_share": means["rl/mismatch_mean"] ** 2 / means["rl/mismatch_squared"]}


def kl_in_loss(rollouts: Rollouts, ref_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """KL(policy || reference) a token, nats: the value of k3, the gradient of k2, both weighted by the ratio to the sampling policy.

    kl_t = sg(min(ratio_t, 5)) * (k2_t + sg(k3_t - k2_t))

    Source: Tang & Munos 2025, arXiv:2506.09477 (k2 has the gradient of the reverse KL, k3 that of the forward KL).
    Equals: ratio * k3 with a differentiable ratio, in value and gradient, below the bound (tested).
    """
    shown, descended = kl_k3(rollouts.logprobs, ref_logprobs), kl_k2(rollouts.logprobs, ref_logprobs)
    weight = rollouts.ratios.detach().clamp_max(_MAX_KL_WEIGHT)
    return weight * (descended + (shown - descended).detach())


def importance_ratios(logprobs: Float[Tensor, "N"], old_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """pi(token) / pi_old(token); the exponent is limited to +-20, where the gradient is 0."""
    return (logprobs - old_logprobs).clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


def token_surrogate(rollouts: Rollouts, config: PolicyOptions) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """The clipped surrogate on each token's own ratio."""
    return clipped_surrogate(rollouts.ratios, rollouts.advantages, config)


def clipped_surrogate(
    ratios: Float[Tensor, "N"], advantages: Float[Tensor, "N"], config: PolicyOptions
) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """Loss per token, reward units, and whether a bound set it.

    loss_t = max(-r_t A_t, -clip(r_t, 1 - clip_low, 1 + clip_high) A_t);  with dual_clip c and A_t < 0 at most -c A_t

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; dual clip: Ye et al. 2020, arXiv:1912.09729, and as "two-sided clip" (delta)
        Team Prime Intellect 2025, arXiv:2505.07291; two bounds: Yu et al. 2025 (DAPO), arXiv:2503.14476.
    """
    plain = -ratios * advantages
    clipped = -ratios.clamp(1 - config.clip_low, 1 + config.clip_high) * advantages
    losses, is_clipped = torch.maximum(plain, clipped), clipped > plain
    if config.dual_clip is not None:
        bound = -config.dual_clip * advantages
        is_clipped = is_clipped | ((advantages < 0) & (losses > bound))
        losses = torch.where(advantages < 0, torch.minimum(losses, bound), losses)
    return losses, is_clipped


def optional_needs(config: PolicyOptions) -> frozenset[str]:
    """What the settings read beside the method's own needs."""
    return frozenset({"ref_logprobs"}) if config.kl_coef != 0.0 else frozenset()


def holds_fixed(config: PolicyOptions) -> bool:
    """The KL in the loss is weighted by a ratio, and shows another value than the one whose gradient it has."""
    return config.kl_coef != 0.0


def silenced(x: Float[Tensor, "N"], keep: Bool[Tensor, "N"]) -> Float[Tensor, "N"]:
    """0 where not kept."""
    return torch.where(keep, x, torch.zeros_like(x))


def _sequence_weights(batch: RolloutBatch) -> Float[Tensor, "B"]:
    if batch.weights is not None:
        return batch.weights
    return torch.ones(batch.num_sequences, device=batch.sequence_index.device)


def policy_algorithm(
    name: str, paper: str, config: type[PolicyOptions], *, surrogate: Surrogate = token_surrogate,
    holds_fixed: Callable[[Any], bool] = holds_fixed,
) -> Algorithm:  # fmt: skip
    """A policy-gradient method without a value model, by its surrogate and the defaults of its settings."""
    return Algorithm(
        name=name, paper=paper, batch="rollouts", config=config, count=count, loss=partial(policy_loss, surrogate=surrogate),
        needs=frozenset({"entropy"}), optional_needs=optional_needs, holds_fixed=holds_fixed, derived=with_sample_share,
    )  # fmt: skip
