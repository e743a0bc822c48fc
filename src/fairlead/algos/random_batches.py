"""Random batches of every kind, and batches cut into units: what the shared checks and tests feed to losses.

Legend:
    N  kept tokens, flat, sorted by sequence; unit 0 first
    B  sequences
    P  groups (pairs)
"""

import types
from dataclasses import fields, replace
from typing import Any, get_args

import torch
from jaxtyping import AbstractArray, Int
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
        return UnpairedBatch(logprobs=logprobs, ref_logprobs=near, sequence_index=index, is_good=is_good)
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
    )


def num_units(batch: Batch) -> int:
    """Groups of a group batch, else sequences."""
    if isinstance(batch, GroupBatch):
        return batch.num_groups
    return batch.is_good.numel() if isinstance(batch, UnpairedBatch) else batch.num_sequences


def select_units(batch: Batch, units: list[int]) -> Batch:
    """The batch that has only these units, in this order."""
    wanted = torch.tensor(units, device=batch.sequence_index.device)
    if isinstance(batch, GroupBatch):
        sequences, group_index = _members(batch.group_index, wanted)
        changed: dict[str, Any] = {"group_index": group_index, "num_groups": len(units)}
    else:
        sequences = wanted
        changed = {} if isinstance(batch, UnpairedBatch) else {"num_sequences": len(units)}
    tokens, changed["sequence_index"] = _members(batch.sequence_index, sequences)
    rows = {"N": tokens, "B": sequences, "P": wanted}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor) and field.name not in changed:
            changed[field.name] = value[rows[axis_of(batch, field.name)]]
    return replace(batch, **changed)


def axis_of(batch: Batch, name: str) -> str:
    """N, B or P: the axis that the batch's annotation gives this tensor."""
    declared = next(field.type for field in fields(batch) if field.name == name)
    alternatives = get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
    return next(each.dim_str for each in alternatives if isinstance(each, type) and issubclass(each, AbstractArray))


def _members(owner: Int[Tensor, "M"], wanted: Int[Tensor, "K"]) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"]]:
    """Rows that belong to the wanted owners, owner by owner, and each row's place in `wanted`."""
    rows = [torch.nonzero(owner == unit).flatten() for unit in wanted]
    place = torch.repeat_interleave(
        torch.arange(len(rows), device=owner.device), torch.tensor([row.numel() for row in rows], device=owner.device)
    )
    return torch.cat(rows), place


def _shuffled_ranks(num_pairs: int, generator: torch.Generator) -> Int[Tensor, "B"]:
    """0 and 1 for every pair, the chosen one in a random place."""
    first = torch.randint(0, 2, (num_pairs,), generator=generator)
    return torch.stack([first, 1 - first], dim=1).flatten()
