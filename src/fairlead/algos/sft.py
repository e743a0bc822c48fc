"""Supervised fine-tuning: imitate the kept tokens of demonstrations.

Legend:
    N  kept tokens (completion tokens, the terminator included), flat
    B  sequences

Example:
    config = SFTConfig(label_smoothing=0.0, average="token")
    (SFT.loss(batch, config).total / SFT.count(batch, config)).backward()
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sequence_lengths, sum_and_count
from fairlead.algos.spec import Algorithm, Loss, TokenBatch
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig:
    """Settings of supervised fine-tuning."""

    average: Literal["token", "sequence"] = "token"
    """token: every kept token of the global batch weighs the same; sequence: every sequence does, whatever its length."""
    label_smoothing: float = 0.0
    """Share of each target that moves to the uniform distribution over the vocabulary, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                explain(
                    "label_smoothing", self.label_smoothing, "is out of range", expected="[0, 1)", remedy="Use 0 to 0.1"
                )
            )


def _sequence_weights(batch: TokenBatch) -> Float[Tensor, "B"]:
    if batch.weights is not None:
        return batch.weights
    return torch.ones(batch.num_sequences, device=batch.sequence_index.device)


def _token_weights(batch: TokenBatch, config: SFTConfig) -> Float[Tensor, "N"]:
    weights = _sequence_weights(batch)
    if config.average == "sequence":
        weights = weights / sequence_lengths(batch.sequence_index, batch.num_sequences).clamp_min(1)
    return weights[batch.sequence_index]


def count(batch: TokenBatch, config: SFTConfig) -> Float[Tensor, ""]:
    """Sum of the token weights; with average=sequence that of the sequences which have tokens."""
    weights = _sequence_weights(batch)
    lengths = sequence_lengths(batch.sequence_index, batch.num_sequences)
    return (weights * (lengths if config.average == "token" else lengths > 0)).sum()


def loss(batch: TokenBatch, config: SFTConfig) -> Loss:
    """Weighted negative log-likelihood.

    loss = - sum_t w_t * ((1 - label_smoothing) * logprob_t + label_smoothing * mean_logprob_t)

    w_t is the weight of the token's sequence, divided by the sequence's length with average=sequence.

    Returns:
        Sum over kept tokens, nats; divide by `count`.
    Source: cross-entropy; smoothing of Szegedy et al. 2016, arXiv:1512.00567, section 7 (uniform prior).
    """
    losses = -batch.logprobs
    if config.label_smoothing > 0:
        assert batch.mean_logprobs is not None, "label smoothing reads mean_logprobs"
        losses = (1 - config.label_smoothing) * losses - config.label_smoothing * batch.mean_logprobs
    weights = _token_weights(batch, config).to(losses.dtype)
    keep = weights > 0
    total = (weights * torch.where(keep, losses, torch.zeros_like(losses))).sum()
    return Loss(total=total, metrics={"sft/loss": sum_and_count(-batch.logprobs, keep)})


def _optional_needs(config: SFTConfig) -> frozenset[str]:
    return frozenset({"mean_logprobs"} if config.label_smoothing > 0 else ())


SFT = Algorithm(
    name="sft",
    paper="Ouyang et al. 2022, arXiv:2203.02155, section 3.5 (step 1)",
    batch="tokens",
    config=SFTConfig,
    count=count,
    loss=loss,
    optional_needs=_optional_needs,
)
