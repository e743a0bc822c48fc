"""What every pairwise loss reads beside the pair itself: the soft label, the weight, and which way it points.

Methods on likelihoods (DPO, ORPO, SimPO, CPO) go through `Pairs`, which sums token values over either side and silences pairs of
weight 0 before any arithmetic.

Legend:
    N  kept tokens, flat
    B  sequences, two a pair
    P  pairs
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.masks import sequence_lengths, sum_and_count
from fairlead.algos.spec import GroupBatch, pair_rows, sum_by_sequence

Sides = tuple[Float[Tensor, "P"], Float[Tensor, "P"]]
"""A number of the chosen and of the rejected side of every pair."""


def pair_labels(batch: GroupBatch, like: Tensor) -> Float[Tensor, "P"]:
    """Probability that the chosen completion is really better: `p_chosen`, 1 without it, one half for a tie."""
    labels = like.new_ones(batch.num_groups) if batch.p_chosen is None else batch.p_chosen.to(like.dtype)
    return labels if batch.is_tie is None else torch.where(batch.is_tie, torch.full_like(labels, 0.5), labels)


def pair_weights(batch: GroupBatch, like: Tensor) -> Float[Tensor, "P"]:
    """Weight of every pair, 1 when none are given."""
    return like.new_ones(batch.num_groups) if batch.weights is None else batch.weights.to(like.dtype)


def pair_count(batch: GroupBatch) -> Float[Tensor, ""]:
    """Sum of the pair weights: what a pairwise loss is divided by."""
    if batch.weights is not None:
        return batch.weights.sum()
    return torch.tensor(float(batch.num_groups), device=batch.sequence_index.device)


def pair_accuracy(
    margins: Float[Tensor, "P"], labels: Float[Tensor, "P"], keep: Bool[Tensor, "P"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Right pairs and decided pairs. A pair counts when its label is not one half; a margin of exactly 0 is half right."""
    side = torch.sign(labels - 0.5)
    right = 0.5 * (1.0 + torch.sign(side * margins.detach()))
    return sum_and_count(right, keep & (side != 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """The pairs of a batch: labels, weights, and sums of token values over either side."""

    labels: Float[Tensor, "P"]
    """Probability that the chosen side is really better."""
    weights: Float[Tensor, "P"]
    keep: Bool[Tensor, "P"]
    """False for pairs of weight 0, whose token values are replaced by 0."""
    keep_tokens: Bool[Tensor, "N"]
    sequence_index: Int[Tensor, "N"]
    lengths: Int[Tensor, "B"]
    """Tokens of every sequence."""
    chosen: Int[Tensor, "P"]
    """Sequence that is the chosen side of each pair."""
    rejected: Int[Tensor, "P"]

    def silenced(self, values: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Token values, 0 in pairs of weight 0."""
        return torch.where(self.keep_tokens, values, torch.zeros_like(values))

    def sums(self, values: Float[Tensor, "N"]) -> Sides:
        """Sums over the tokens of either side."""
        totals = sum_by_sequence(self.silenced(values), self.sequence_index, self.lengths.numel())
        return totals[self.chosen], totals[self.rejected]

    def means(self, values: Float[Tensor, "N"]) -> Sides:
        """Means over the tokens of either side; 0 without tokens."""
        chosen, rejected = self.sums(values)
        lengths = self.lengths.clamp_min(1)
        return chosen / lengths[self.chosen], rejected / lengths[self.rejected]

    def expected(self, loss: Callable[[Tensor, Tensor], Tensor], sides: Sides) -> Float[Tensor, "P"]:
        """The loss under the soft label: p * loss(chosen, rejected) + (1 - p) * loss(rejected, chosen)."""
        chosen, rejected = sides
        return self.labels * loss(chosen, rejected) + (1 - self.labels) * loss(rejected, chosen)

    def imitation(self, logprobs: Float[Tensor, "N"], *, average: Literal["token", "sum"]) -> Float[Tensor, "P"]:
        """Negative log-likelihood of the better side, nats a token or a sequence: p of the chosen, 1 - p of the rejected."""
        sides = self.means(logprobs) if average == "token" else self.sums(logprobs)
        return self.expected(lambda better, _: -better, sides)


def read_pairs(batch: GroupBatch) -> Pairs:
    """The pairs of a batch with likelihoods.

    Raises:
        ValueError: a group does not have exactly the ranks 0 and 1.
    """
    assert batch.logprobs is not None, "methods on pairs of likelihoods read logprobs"
    weights = pair_weights(batch, batch.logprobs)
    chosen, rejected = pair_rows(batch)
    return Pairs(
        labels=pair_labels(batch, batch.logprobs),
        weights=weights,
        keep=weights > 0,
        keep_tokens=(weights > 0)[batch.group_index][batch.sequence_index],
        sequence_index=batch.sequence_index,
        lengths=sequence_lengths(batch.sequence_index, batch.group_index.numel()),
        chosen=chosen,
        rejected=rejected,
    )


def pair_metrics(
    pairs: Pairs, *, losses: Float[Tensor, "P"], logprobs: Float[Tensor, "N"], rewards: Sides
) -> dict[str, tuple[Tensor, Tensor]]:
    """What every method on pairs of likelihoods logs; the margin is the difference of its two rewards."""
    chosen_logprobs, rejected_logprobs = pairs.sums(logprobs.detach())
    margins = rewards[0] - rewards[1]
    return {
        "dpo/loss": sum_and_count(losses, pairs.keep),
        "dpo/chosen_logprobs": sum_and_count(chosen_logprobs, pairs.keep),
        "dpo/rejected_logprobs": sum_and_count(rejected_logprobs, pairs.keep),
        "dpo/chosen_reward": sum_and_count(rewards[0], pairs.keep),
        "dpo/rejected_reward": sum_and_count(rewards[1], pairs.keep),
        "dpo/margin": sum_and_count(margins, pairs.keep),
        "dpo/accuracy": pair_accuracy(margins, pairs.labels, pairs.keep),
    }
