"""Random batches of every kind: what the shared checks and tests feed to losses.

Legend:
    N  kept tokens, flat, sorted by sequence; unit 0 first
    B  sequences
    P  groups (pairs)
"""

import torch
from jaxtyping import Int
from torch import Tensor

from fairlead.algos.spec import Batch, BatchKind, GroupBatch, RolloutBatch, TokenBatch, UnpairedBatch

MODEL_OUTPUTS = frozenset({"logprobs", "mean_logprobs", "scores", "values", "entropy"})
"""What forward.py fills with a gradient."""

_MAX_TOKENS = 5


def random_batch(kind: BatchKind, *, seed: int, num_units: int = 6) -> Batch:
    """A batch in float64 with every optional tensor present, sequences of 1 to 5 tokens, two sequences a group."""
    generator = torch.Generator().manual_seed(seed)
    num_sequences = 2 * num_units if kind == "groups" else num_units
    lengths = torch.randint(1, _MAX_TOKENS + 1, (num_sequences,), generator=generator)
    index = torch.repeat_interleave(torch.arange(num_sequences), lengths)

    def normal(count: int) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    def positive(count: int) -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64) + 0.1

    num_tokens = index.numel()
    logprobs = -positive(num_tokens) - positive(num_tokens)
    near = logprobs + 0.3 * normal(num_tokens)
    if kind == "tokens":
        return TokenBatch(
            logprobs=logprobs,
            sequence_index=index,
            num_sequences=num_sequences,
            weights=positive(num_sequences),
            mean_logprobs=-2 - positive(num_tokens),
        )
    if kind == "groups":
        return GroupBatch(
            sequence_index=index,
            group_index=torch.arange(num_sequences) // 2,
            ranks=_shuffled_ranks(num_units, generator),
            num_groups=num_units,
            logprobs=logprobs,
            ref_logprobs=near,
            collision_logprobs=-positive(num_tokens),
            scores=normal(num_sequences),
            p_chosen=torch.rand(num_units, generator=generator, dtype=torch.float64),
            margins=positive(num_units),
            is_tie=torch.arange(num_units) % 3 == 2,
            weights=positive(num_units),
            targets=normal(num_sequences),
        )
    if kind == "unpaired":
        is_good = torch.arange(num_sequences) % 2 == 0
        return UnpairedBatch(
            logprobs=logprobs,
            ref_logprobs=near,
            sequence_index=index,
            is_good=is_good,
            weights=positive(num_sequences),
        )
    values = normal(num_tokens)
    return RolloutBatch(
        logprobs=logprobs,
        old_logprobs=near,
        advantages=normal(num_tokens),
        sequence_index=index,
        num_sequences=num_sequences,
        ref_logprobs=logprobs + 0.3 * normal(num_tokens),
        entropy=positive(num_tokens),
        values=values,
        old_values=values + 0.3 * normal(num_tokens),
        returns=normal(num_tokens),
        correction=torch.where(torch.arange(num_tokens) % 4 == 3, torch.zeros(()), 1.2 * positive(num_tokens)),
        weights=positive(num_units),
    )


def _shuffled_ranks(num_pairs: int, generator: torch.Generator) -> Int[Tensor, "B"]:
    """0 and 1 for every pair, the chosen one in a random place."""
    first = torch.randint(0, 2, (num_pairs,), generator=generator)
    return torch.stack([first, 1 - first], dim=1).flatten()
