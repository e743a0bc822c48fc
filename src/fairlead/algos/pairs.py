"""What every pairwise loss reads beside the pair itself: the soft label, the weight, and which way it points.

Legend:
    N  kept tokens, flat
    B  sequences, two a pair
    P  pairs
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import GroupBatch


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
