"""Batches cut into units and put together again: what the loop does with `statistics`, and the shared checks with everything.

Legend:
    unit  what may not be split: a group for kind "groups", else a sequence
    N  kept tokens, flat
    B  sequences
    P  groups

Example:
    whole = merge_batches(parts)
    known = algorithm.statistics(whole, config)
    for part, own in zip(parts, cut_statistics(known, [num_units(p) for p in parts])): ...
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_args

import torch
from jaxtyping import AbstractArray, Int
from torch import Tensor

from fairlead.algos.spec import Batch, GroupBatch, Statistics, UnpairedBatch


def num_units(batch: Batch) -> int:
    """Groups of a group batch, else sequences."""
    return batch.num_groups if isinstance(batch, GroupBatch) else num_sequences(batch)


def num_sequences(batch: Batch) -> int:
    """B."""
    if isinstance(batch, GroupBatch):
        return batch.group_index.numel()
    return batch.is_good.numel() if isinstance(batch, UnpairedBatch) else batch.num_sequences


def select_units(batch: Batch, units: list[int]) -> Batch:
    """The batch that has only these units, in this order, with their share of the statistics."""
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
    changed["statistics"] = {name: x[wanted] if x.ndim else x for name, x in batch.statistics.items()}
    return replace(batch, **changed)


def merge_batches(parts: Sequence[Batch]) -> Batch:
    """One batch of the units of all parts, in order; a tensor that one part lacks is left out. Statistics are those of the first."""
    first = parts[0]
    changed: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(part, field.name) for part in parts]
        if field.name.startswith("num_"):
            changed[field.name] = sum(values)
        elif all(isinstance(value, Tensor) for value in values):
            changed[field.name] = torch.cat(values)
        elif field.name != "statistics":
            changed[field.name] = None
    changed["sequence_index"] = _shifted([p.sequence_index for p in parts], [num_sequences(p) for p in parts])
    if isinstance(first, GroupBatch):
        groups = [p.group_index for p in parts if isinstance(p, GroupBatch)]
        changed["group_index"] = _shifted(groups, [num_units(p) for p in parts])
    return replace(first, **changed)


def cut_statistics(statistics: Statistics, sizes: Sequence[int]) -> list[dict[str, Tensor]]:
    """The statistics of consecutive parts with `sizes` units: vectors are cut, scalars are the same for all.

    Raises:
        ValueError: a vector does not have one value a unit.
    """
    parts: list[dict[str, Tensor]] = [{} for _ in sizes]
    for name, x in statistics.items():
        if x.ndim and x.numel() != sum(sizes):
            raise ValueError(
                f"statistic {name} has {x.numel()} values for {sum(sizes)} units; expected one a unit, or a scalar"
            )
        pieces = x.split(list(sizes)) if x.ndim else [x] * len(sizes)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece
    return parts


def global_statistics(statistics: Mapping[str, Tensor], previous: Mapping[str, float]) -> dict[str, float]:
    """What the next step is told of this one: every scalar seen so far, the newest value of each."""
    return {**previous, **{name: float(x) for name, x in statistics.items() if x.ndim == 0}}


def axis_of(batch: Batch, name: str) -> str:
    """N, B or P: the axis that the batch's annotation gives this tensor."""
    declared = next(field.type for field in fields(batch) if field.name == name)
    alternatives = get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
    return next(each.dim_str for each in alternatives if isinstance(each, type) and issubclass(each, AbstractArray))


def _shifted(indices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Indices of consecutive parts as indices into the whole."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.cat([index + start for index, start in zip(indices, starts, strict=True)])


def _members(owner: Int[Tensor, "M"], wanted: Int[Tensor, "K"]) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"]]:
    """Rows that belong to the wanted owners, owner by owner, and each row's place in `wanted`."""
    rows = [torch.nonzero(owner == unit).flatten() for unit in wanted]
    place = torch.repeat_interleave(
        torch.arange(len(rows), device=owner.device), torch.tensor([row.numel() for row in rows], device=owner.device)
    )
    return torch.cat(rows), place
