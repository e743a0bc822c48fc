"""The key-value cache of the local engine: preallocated slots, no concatenation per step, and the attention plans that use it.

Prompts are padded to a multiple of `PREFILL_TOKENS` and keys are read up to a multiple of `KEY_TOKENS`: with such sizes the CPU's
kernels sum the keys of a sequence in the same order whatever its neighbours' lengths are (measured in docs/stages/engine.md).

Legend: S slots (sequences being decoded), C capacity in tokens, Hkv key heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairlead.models.attention import Scoring, attend_by_formula, attend_masked

PREFILL_TOKENS = 16
KEY_TOKENS = 32


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not below `number`."""
    return -(-number // multiple) * multiple


def kept_sizes(config: Any, *, hidden_size: int) -> tuple[int, int, int]:
    """(layers, key heads, head size) of a transformers config; of models whose keys and values differ in size an estimate."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return text.num_hidden_layers, heads, getattr(text, "head_dim", None) or hidden_size // text.num_attention_heads


class SlotCache:
    """Keys and values of S sequences, made once: nothing is concatenated or made again while tokens come.

    Pages are touched when tokens reach them, so memory follows the tokens and not the capacity. What a slot holds beyond its sequence is
    left over from earlier ones, finite, and never read.
    """

    def __init__(self, num_slots: int, capacity: int) -> None:
        self.num_slots = num_slots
        self.capacity = capacity
        """Multiple of KEY_TOKENS."""
        self.keys: dict[int, Tensor] = {}
        """Layer -> [S, Hkv, C, D]."""
        self.values: dict[int, Tensor] = {}
        """The same; values may have another size than keys."""

    @property
    def num_bytes(self) -> int:
        """Of all layers that were made."""
        return sum(kept.nbytes for kept in (*self.keys.values(), *self.values.values()))

    def serves(self, num_slots: int, capacity: int) -> bool:
        """Is it as large?"""
        return num_slots <= self.num_slots and capacity <= self.capacity

    def allocate(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Make room for a layer whose keys and values look like these [1|S, Hkv, T, D]."""
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer] = new.new_zeros(self.num_slots, new.shape[1], self.capacity, new.shape[3])

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Store [P, Hkv, T, D] from position 0 of some slots."""
        if layer not in self.keys:
            self.allocate(layer, key, value)
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer][slots, :, : new.shape[2]] = new

    def append(self, layer: int, lengths: Tensor, key: Tensor, value: Tensor) -> None:
        """Store [S, Hkv, 1, D], one token in each of the first S slots, at their own lengths."""
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer][: len(lengths)].scatter_(2, lengths[:, None, None, None].expand_as(new), new)

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """The first tokens of one slot to others, in every layer."""
        for kept in (*self.keys.values(), *self.values.values()):
            for target in targets:
                kept[target, :, :length] = kept[source, :, :length]


@dataclass(slots=True, eq=False)
class PrefillAttention:
    """Causal attention over padded prompts [P, H, T, D] that fills slots of a cache."""

    cache: SlotCache
    slots: Tensor
    """[P]"""
    mask: Tensor
    """[P, 1, T, T]"""

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[P, H, T, D] -> [P, T, H, D]."""
        self.cache.write(module.layer_idx, self.slots, key, value)
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
    """One new token in each of the first S slots [S, H, 1, D] against the cache."""

    cache: SlotCache
    lengths: Tensor
    """[S] tokens before the new one."""
    mask: Tensor
    """[S, 1, 1, L], see `decode_mask`."""

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[S, H, 1, D] -> [S, 1, H, D]."""
        layer, count, longest = module.layer_idx, len(self.lengths), self.mask.shape[-1]
        self.cache.append(layer, self.lengths, key, value)
        mask = self.mask
        if scoring.window is not None:
            position = torch.arange(longest, device=query.device)
            mask = mask & (self.lengths[:, None, None, None] - position < scoring.window)
        keys, values = self.cache.keys[layer][:count, :, :longest], self.cache.values[layer][:count, :, :longest]
        # One query a slot: the plain formula is faster than SDPA on CPU, and does not change with the number of slots.
        return attend_by_formula(query, keys, values, mask, scoring).transpose(1, 2)


def decode_mask(lengths: Tensor, longest: int) -> Tensor:
    """[S, 1, 1, L]: a slot sees its tokens and the one that is being written; `longest` of these, rounded up to KEY_TOKENS."""
    longest = round_up(longest, KEY_TOKENS)
    return (torch.arange(longest, device=lengths.device) <= lengths[:, None])[:, None, None, :]
