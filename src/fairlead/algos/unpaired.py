"""What every loss over good and bad completions reads: log-ratios of whole completions, and what is logged of the two sides.

Pairs serve too: their chosen side is good and their rejected side bad.

Legend:
    N  completion tokens, flat
    B  sequences
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.kl import kl_k1
from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import GroupBatch, UnpairedBatch, sum_by_sequence
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratios:
    """Log-ratios of policy to reference, nats; 0 where the weight is 0, whatever the models said there."""

    tokens: Float[Tensor, "N"]
    sequences: Float[Tensor, "B"]
    """Summed over the tokens of a completion."""
    weights: Float[Tensor, "B"]
    """1 when none are given; of a pair, its own for both sides."""
    is_good: Bool[Tensor, "B"]

    @property
    def keep(self) -> Bool[Tensor, "B"]:
        """Sequences that count."""
        return self.weights > 0

    def mean(self, side: Bool[Tensor, "B"]) -> Float[Tensor, ""] | None:
        """Weighted mean over some sequences without gradient; None when none of them counts."""
        weights = torch.where(side, self.weights, torch.zeros_like(self.weights))
        total = weights.sum()
        return (weights * self.sequences.detach()).sum() / total if bool(total > 0) else None


def read_ratios(batch: UnpairedBatch | GroupBatch) -> Ratios:
    """Log-ratios of every completion, with gradient."""
    assert batch.logprobs is not None and batch.ref_logprobs is not None, "log-ratios need logprobs and ref_logprobs"
    is_group = isinstance(batch, GroupBatch)
    is_good = batch.ranks == 0 if is_group else batch.is_good
    weights = torch.ones_like(is_good, dtype=batch.logprobs.dtype)
    if batch.weights is not None:
        given = batch.weights[batch.group_index] if is_group else batch.weights
        weights = given.to(batch.logprobs.dtype)
    keep = (weights > 0)[batch.sequence_index]
    tokens = torch.where(keep, kl_k1(batch.logprobs, batch.ref_logprobs), torch.zeros_like(batch.logprobs))
    sequences = sum_by_sequence(tokens, batch.sequence_index, is_good.numel())
    return Ratios(tokens=tokens, sequences=sequences, weights=weights, is_good=is_good)


def unpaired_count(batch: UnpairedBatch) -> Float[Tensor, ""]:
    """Sum of the sequence weights: what an unpaired loss is divided by."""
    if batch.weights is not None:
        return batch.weights.sum()
    return torch.tensor(float(batch.is_good.numel()), device=batch.sequence_index.device)


def side_metrics(batch: UnpairedBatch | GroupBatch, ratios: Ratios, *, beta: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Rewards (beta times the log-ratio) and log-probabilities of both sides, and the drift on good completions."""
    assert batch.logprobs is not None
    keep_token = ratios.keep[batch.sequence_index]
    silenced = torch.where(keep_token, batch.logprobs, torch.zeros_like(batch.logprobs)).detach()
    logprobs = sum_by_sequence(silenced, batch.sequence_index, ratios.is_good.numel())
    good, bad = ratios.keep & ratios.is_good, ratios.keep & ~ratios.is_good
    return {
        "sides/good_reward": sum_and_count(beta * ratios.sequences, good),
        "sides/bad_reward": sum_and_count(beta * ratios.sequences, bad),
        "sides/good_logprobs": sum_and_count(logprobs, good),
        "sides/bad_logprobs": sum_and_count(logprobs, bad),
        "sides/kl_k1": sum_and_count(ratios.tokens, good[batch.sequence_index]),
    }


def require_positive(name: str, value: float, *, remedy: str) -> None:
    """Refuse a setting that must be above 0."""
    if not value > 0:
        raise ConfigError(explain(name, value, "gives no gradient", expected="> 0", remedy=remedy))
