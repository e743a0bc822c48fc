"""Correction for tokens that the engine drew from another distribution than the trainer computes: truncated importance sampling.

    raw_t = old_t / sampling_t        the trainer's over the engine's probability of a token that the engine drew
    w_t   = what a loss multiplies with: `RolloutBatch.correction`

Engine and trainer run other kernels (and often other precisions), so a token's two probabilities differ, and training on them as if they were
equal is off-policy without a ratio. The weight corrects it; unbounded, its variance can be anything, so it is truncated or the sample left out.

    token_clip      min(raw_t, cap)
    token_mask      raw_t where floor <= raw_t <= cap, else 0
    sequence_mask   0 for all of a completion whose ratio is outside [floor, cap]; `sequence_ratio` says which ratio: the "product" of its
                    tokens' (which is then the weight: exact, and hopeless for long completions) or their "geometric_mean" (which only
                    decides: the tokens that stay have the weight of token_clip)

The engine's logprobs must be those of the distribution that it drew from. Where that is cut (top_k, top_p, min_p) they are of renormalised
probabilities; the trainer's are then renormalised over the same tokens (`Branch.choices`), else the ratio would be the share that was kept, and no
weight would make up for tokens that were cut off (tested on exact probabilities).

Nothing here has a gradient.

Legend:
    N  sampled tokens, flat
    B  sequences (completions)

Example:
    correction, metrics = correction_weights(old_logprobs, sampling_logprobs, index, num_sequences=B, config=CorrectionConfig())
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.kl import MAX_EXPONENT
from fairlead.algos.masks import sequence_lengths
from fairlead.algos.spec import sum_by_sequence
from fairlead.core.errors import ConfigError, explain

_QUANTILES = {"rl/mismatch_ratio_q01": 0.01, "rl/mismatch_ratio_q50": 0.5, "rl/mismatch_ratio_q99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionConfig:
    """How engine and trainer are reconciled."""

    way: Literal["off", "token_clip", "token_mask", "sequence_mask"] = "token_clip"
    """off: nothing is corrected, the ratios are still shown."""
    cap: float = 2.0
    """Largest weight, ratio, > 1 (2 in the first description of truncated importance sampling for rollouts; 5 for masks in IcePop)."""
    floor: float = 0.5
    """Smallest ratio that a mask keeps, in [0, 1); clipping has no floor."""
    sequence_ratio: Literal["product", "geometric_mean"] = "geometric_mean"
    """What the ratio of a completion is, for sequence_mask."""

    def __post_init__(self) -> None:
        if not (self.cap > 1.0 and 0.0 <= self.floor < 1.0):
            raise ConfigError(explain("floor, cap", (self.floor, self.cap), "leave out tokens on which both agree", expected="0 <= floor < 1 < cap",
                                      remedy="Use 0.5 and 2"))  # fmt: skip


def correction_weights(
    old_logprobs: Float[Tensor, "N"],
    sampling_logprobs: Float[Tensor, "N"],
    sequence_index: Int[Tensor, "N"],
    *,
    num_sequences: int,
    config: CorrectionConfig,
) -> tuple[Float[Tensor, "N"], dict[str, float]]:
    """Weight of every token, and what the ratios were before anything was truncated.

    Args:
        old_logprobs: [N] recomputed by the trainer under the policy that sampled, nats.
        sampling_logprobs: [N] the engine's, of the distribution it drew from, nats.
    Returns:
        (weights [N], metrics: quantiles and effective sample size of the raw ratios, shares of the tokens capped and masked).
    Source: truncation: Ionides 2008; between engine and trainer Yao et al. 2025 ("Your efficient RL framework secretly brings you
        off-policy RL training"); masks: Ling team 2025 (IcePop).
    Equals: 1 everywhere when both logprobs are equal (tested).
    """
    weights, raw = truncated_ratios(
        old_logprobs, sampling_logprobs, sequence_index, num_sequences=num_sequences, config=config
    )
    metrics = mismatch_metrics(raw)
    if config.way == "off":
        return weights, metrics
    is_masked = weights == 0
    return weights, metrics | {
        "rl/correction_capped_share": float(((weights < raw) & ~is_masked).double().mean()),
        "rl/correction_masked_share": float(is_masked.double().mean()),
    }


def truncated_ratios(
    old_logprobs: Float[Tensor, "N"],
    sampling_logprobs: Float[Tensor, "N"],
    sequence_index: Int[Tensor, "N"],
    *,
    num_sequences: int,
    config: CorrectionConfig,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Weight of every token, and its ratio before it was truncated; arguments as of `correction_weights`.

    Returns:
        (weights [N], 0 where masked; raw ratios [N], a completion's where the product of its tokens is what weighs).
    """
    log_ratios = (old_logprobs - sampling_logprobs).detach()
    raw = log_ratios.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()
    if config.way == "off":
        return torch.ones_like(raw), raw
    judged, bounded = raw, raw.clamp_max(config.cap)
    if config.way == "sequence_mask":
        ratios = sequence_ratios(log_ratios, sequence_index, num_sequences=num_sequences, kind=config.sequence_ratio)
        judged = ratios[sequence_index]
        if config.sequence_ratio == "product":
            raw = bounded = judged
    is_masked = (judged < config.floor) | (judged > config.cap)
    if config.way == "token_clip":
        return bounded, raw
    return torch.where(is_masked, torch.zeros_like(bounded), bounded), raw


def mismatch_metrics(ratios: Float[Tensor, "N"]) -> dict[str, float]:
    """Quantiles (nearest rank) and effective sample size of raw ratios."""
    ordered = ratios.sort().values
    quantiles = {name: float(ordered[round(q * (ordered.numel() - 1))]) for name, q in _QUANTILES.items()}
    return quantiles | {"rl/mismatch_sample_share": effective_sample_size(ratios)}


def sequence_ratios(
    log_ratios: Float[Tensor, "N"],
    sequence_index: Int[Tensor, "N"],
    *,
    num_sequences: int,
    kind: Literal["product", "geometric_mean"],
    counts: Bool[Tensor, "N"] | None = None,
) -> Float[Tensor, "B"]:
    """Ratio of whole completions: the product of their tokens' ratios, or its root of the number of tokens; 1 for one without tokens.

    Args:
        counts: [N] False for tokens that are left out, whose log-ratio is 0; None counts all.
    """
    sums = sum_by_sequence(log_ratios, sequence_index, num_sequences)
    if kind == "geometric_mean":
        counted = sequence_index if counts is None else sequence_index[counts]
        sums = sums / sequence_lengths(counted, num_sequences).clamp_min(1)
    return sums.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


def effective_sample_size(weights: Float[Tensor, "N"]) -> float:
    """(sum w)^2 / (n sum w^2), in (0, 1]: the share of the samples that carry the estimate; 0 when all weights are 0.

    Source: Kong 1992.
    """
    squares = float((weights.double() ** 2).sum())
    return float(weights.double().sum()) ** 2 / (weights.numel() * squares) if squares > 0 else 0.0
