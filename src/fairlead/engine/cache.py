"""The key-value cache of the local engine: preallocated slots, no concatenation per step, and the attention plans that use it.

Prompts are padded to a multiple of `PREFILL_TOKENS` and keys are read up to a multiple of `KEY_TOKENS`: with such sizes the CPU's
kernels sum the keys of a sequence in the same order whatever its neighbours' lengths are (measured in docs/stages/engine.md).

Legend: S slots (sequences being decoded), C capacity in tokens, Hkv key heads, D head size.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairlead.models.attention import Scoring, attend_by_formula, attend_masked

PREFILL_TOKENS = 16
KEY_TOKENS = 32


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not below `number`."""
    return -(-number // multiple) * multiple


@dataclass(slots=True, eq=False)
class SlotCache:
    """Keys and values of S sequences, grown layer by layer on first use.

    Invariant: row s holds `lengths[s]` valid tokens in every layer; what lies beyond is never read.
    """

    capacity: int
    """Multiple of KEY_TOKENS."""
    lengths: Tensor
    """[S] valid tokens a slot."""
    keys: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    """Layer -> [S, Hkv, C, D]."""
    values: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def write_prefill(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store [S, Hkv, T, D] from position 0; values may have another size than keys."""
        num_slots, heads, length, _ = key.shape
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer] = new.new_zeros(num_slots, heads, self.capacity, new.shape[3])
            kept[layer][:, :, :length] = new

    def append(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store [S, Hkv, 1, D], one token a slot, at each slot's own length (the caller advances `lengths` after the last layer)."""
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer].scatter_(2, self.lengths[:, None, None, None].expand_as(new), new)

    def select(self, slots: Tensor) -> "SlotCache":
        """A cache of the chosen slots, in that order; a slot may be taken several times (one prompt, many samples)."""
        return SlotCache(capacity=self.capacity, lengths=self.lengths[slots],
                         keys={i: k[slots] for i, k in self.keys.items()}, values={i: v[slots] for i, v in self.values.items()})  # fmt: skip


@dataclass(slots=True, eq=False)
class PrefillAttention:
    """Causal attention over padded prompts [S, H, T, D] that fills a cache."""

    cache: SlotCache
    mask: Tensor
    """[S, 1, T, T]"""

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[S, H, T, D] -> [S, T, H, D]."""
        self.cache.write_prefill(module.layer_idx, key, value)
        mask = (
            self.mask if scoring.window is None else self.mask & _within(scoring.window, query.shape[2], query.device)
        )
        return attend_masked(query, key, value, mask, scoring).transpose(1, 2)


def prefill_mask(lengths: Tensor, longest: int) -> Tensor:
    """[S, 1, T, T] causal, right-padded prompts; padding sees itself so that softmax stays finite."""
    position = torch.arange(longest, device=lengths.device)
    causal = position[:, None] >= position[None, :]
    return (
        causal[None] & (position[None, None, :] < lengths[:, None, None])
        | torch.eye(longest, dtype=torch.bool, device=lengths.device)
    )[:, None]


def _within(window: int, length: int, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device)
    return (position[:, None] - position[None, :]) < window


@dataclass(slots=True, eq=False)
class DecodeAttention:
    """One new token a slot [S, H, 1, D] against the cache."""

    cache: SlotCache
    mask: Tensor
    """[S, 1, 1, L], see `decode_mask`."""

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[S, H, 1, D] -> [S, 1, H, D]."""
        layer, longest = module.layer_idx, self.mask.shape[-1]
        self.cache.append(layer, key, value)
        mask = self.mask
        if scoring.window is not None:
            position = torch.arange(longest, device=query.device)
            mask = mask & (self.cache.lengths[:, None, None, None] - position < scoring.window)
        keys, values = self.cache.keys[layer][:, :, :longest], self.cache.values[layer][:, :, :longest]
        # One query a slot: the plain formula is faster than SDPA on CPU, and does not change with the number of slots.
        return attend_by_formula(query, keys, values, mask, scoring).transpose(1, 2)


def decode_mask(lengths: Tensor) -> Tensor:
    """[S, 1, 1, L]: a slot sees its valid tokens and the one that is being written; L is rounded up to KEY_TOKENS."""
    longest = round_up(int(lengths.max()) + 1, KEY_TOKENS)
    return (torch.arange(longest, device=lengths.device) <= lengths[:, None])[:, None, None, :]
