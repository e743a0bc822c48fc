"""Attention over the segments of `segments.py` by one variable-length kernel, for CUDA: no padding, one call a layer.

The queries of all segments stand one after the other, and so do their keys, where a shared prompt stands once for each of its
branches; `cu_seq` says where each segment begins. The queries of a segment are the last of its keys, which is what the kernel means by
causal (the mask is aligned at the bottom right).

What the kernel does not know (soft-caps, sinks, fp32, wide heads) is left to the padded blocks of `TreeAttention` on the same device.
The kernel is an argument, so that all but the kernel itself is tested where there is no GPU.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.models.attention import AttentionPlan, Scoring, TreeAttention
from fairlead.models.segments import Segments, plan_segments
from fairlead.text.packing import Layout

Ints = npt.NDArray[np.int64]

_OLDEST_CAPABILITY = (8, 0)
"""Ampere: flash attention has no kernel for older devices."""


@dataclass(frozen=True, slots=True, eq=False)
class VarlenKernel:
    """A function of `torch.nn.attention.varlen.varlen_attn`'s contract, and what it can take."""

    function: Callable[..., Any]
    """(query [Tq, H, D], key [Tk, Hkv, D], value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size) -> [Tq, H, D]; window
    sizes (left, 0) are causal at the bottom right, and a left of -1 sees everything before."""
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16)
    head_multiple: int = 8
    max_head_size: int = 256

    @property
    def groups_heads(self) -> bool:
        """Whether it takes fewer key heads than query heads: by name since torch 2.12, not safely before."""
        return "enable_gqa" in inspect.signature(self.function).parameters

    def takes(self, query: Tensor, value: Tensor, scoring: Scoring) -> bool:
        """Whether it can compute this layer. The values decide the dtype: see `VarlenAttention.attend`."""
        size = query.shape[-1]
        is_sized = size == value.shape[-1] and size <= self.max_head_size and size % self.head_multiple == 0
        return scoring.is_fused and is_sized and value.dtype in self.dtypes


def device_kernel(device: torch.device) -> VarlenKernel | None:
    """torch's kernel where it runs: CUDA from Ampere on."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        return None
    from torch.nn.attention.varlen import varlen_attn

    return VarlenKernel(varlen_attn)


def plan_attention(layout: Layout, *, device: torch.device) -> AttentionPlan:
    """The plan of a micro-batch for a device."""
    kernel = device_kernel(device)
    if kernel is None:
        return TreeAttention(layout, device=device)
    return VarlenAttention(layout, device=device, kernel=kernel)


@dataclass(frozen=True, slots=True, eq=False)
class FlatSegments:
    """Segments one after the other without padding. Legend: R segments, Q queries (the N tokens), K keys."""

    queries: Ints
    """[Q] row of the flat row of each query."""
    home: Ints
    """[N] where each row of the flat row stands among the queries."""
    keys: Ints
    """[K] row of the flat row of each key."""
    num_queries: Ints
    """[R]"""
    num_keys: Ints
    """[R]"""


def flatten(segments: Segments) -> FlatSegments:
    """Take the padding out of a plan of segments."""
    num_queries = np.concatenate([np.zeros(0, dtype=np.int64), *(block.num_queries for block in segments.blocks)])
    num_keys = np.concatenate([np.zeros(0, dtype=np.int64), *(block.num_keys for block in segments.blocks)])
    queries = segments.queries.rows[_real([block.num_queries for block in segments.blocks])]
    home = np.empty_like(queries)
    home[queries] = np.arange(len(queries))
    return FlatSegments(queries, home, segments.keys.rows[_real([block.num_keys for block in segments.blocks])],
                        num_queries, num_keys)  # fmt: skip


def _real(lengths: Sequence[Ints]) -> npt.NDArray[np.bool_]:
    """[S] True at the padded places of blocks that hold something."""
    masks = [(np.arange(n.max())[None] < n[:, None]).reshape(-1) for n in lengths]
    return np.concatenate([np.zeros(0, dtype=bool), *masks])


class VarlenAttention:
    """Isolates trees and siblings, with the results of TreeAttention. Build once per micro-batch. Not thread-safe."""

    def __init__(self, layout: Layout, *, device: torch.device | str, kernel: VarlenKernel) -> None:
        self.layout, self.device, self.kernel = layout, torch.device(device), kernel
        flat = flatten(plan_segments(layout))
        self._queries, self._home, self._keys = (
            torch.from_numpy(x).to(self.device, non_blocking=True) for x in (flat.queries, flat.home, flat.keys)
        )
        lengths = (flat.num_queries, flat.num_keys)
        ends = (np.concatenate([[0], np.cumsum(n)]).astype(np.int32) for n in lengths)
        self._bounds = tuple(torch.from_numpy(end).to(self.device, non_blocking=True) for end in ends)
        self._longest = tuple(int(n.max(initial=0)) for n in lengths)
        self._blocks: TreeAttention | None = None

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Attention of a flat row [1, H, N, D], in the dtype of the values where the kernel computes it.

        Under autocast linear layers give 16 bits, but queries and keys come here in fp32: rotations and norms of theirs are done by
        fp32 factors of the residual stream's dtype. The kernel wants one dtype.
        """
        if not self.kernel.takes(query, value, scoring):
            self._blocks = self._blocks or TreeAttention(self.layout, device=self.device)
            return self._blocks.attend(module, query, key, value, scoring)
        query, key = query.to(value.dtype), key.to(value.dtype)
        q = query[0].transpose(0, 1).index_select(0, self._queries)
        k, v = (x[0].transpose(0, 1).index_select(0, self._keys) for x in (key, value))
        return self._run(q, k, v, scoring).index_select(0, self._home)[None]

    def _run(self, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        options: dict[str, Any] = {}
        if q.shape[1] != k.shape[1]:
            if self.kernel.groups_heads:
                options["enable_gqa"] = True
            else:
                k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        window = -1 if scoring.window is None else scoring.window - 1  # the kernel does not count the query itself
        return self.kernel.function(
            q, k, v, *self._bounds, *self._longest, scale=scoring.scale, window_size=(window, 0), **options
        )
