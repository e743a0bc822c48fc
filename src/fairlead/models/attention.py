"""Attention over trees and over the engine's cache, registered with transformers' attention interface; no model is patched.

A forward passes `fairlead=TreeAttention(...)` or `fairlead=CachedAttention(...)` as an extra keyword, which transformers hands down
to every layer. Queries, keys and values come in the flat row; they are gathered into one padded block per bucket of trees, go
through one fused SDPA call with a boolean mask, and are scattered back. Everything outside attention works on the flat row and
sees no padding.

Legend: N tokens of the row, R rows (trees) of a bucket, T longest tree of the bucket, D head size, H heads, S cache slots.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from fairlead.core.errors import ModelError, explain
from fairlead.text.packing import Layout

NAME = "fairlead"
_BUCKET_WASTE = (
    1.5  # a bucket's longest tree may be this many times its shortest: measured, more buckets cost more calls
)


class AttentionPlan(Protocol):
    """What a forward hands to every attention layer."""

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """[1|B, H, T, D] queries, [1|B, Hkv, T, D] keys and values -> [1|B, T, H, D]."""
        ...


@dataclass(slots=True, eq=False)
class _Bucket:
    gather: Tensor
    """[R * T] rows of the flat row, padding points at row 0."""
    tokens: Tensor
    """[n] rows of the flat row that this bucket owns, ascending."""
    scatter: Tensor
    """[n] place of each of them in [R * T]."""
    mask: Tensor
    """[R, 1, T, T] True where the query (row) may see the key (column)."""
    distance: Tensor
    """[R, 1, T, T] position of the query minus position of the key, for sliding windows."""
    shape: tuple[int, int]
    windows: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


class TreeAttention:
    """Isolates trees and siblings. Build once per micro-batch, use in every layer. Not thread-safe."""

    def __init__(self, layout: Layout, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.num_tokens = len(layout.token_ids)
        self.buckets = [self._bucket(layout, trees) for trees in _bucket_trees(layout)]

    def _bucket(self, layout: Layout, trees: list[np.ndarray]) -> _Bucket:
        longest = max(len(rows) for rows in trees)
        gather = np.zeros((len(trees), longest), dtype=np.int64)
        present = np.zeros((len(trees), longest), dtype=bool)
        for r, rows in enumerate(trees):
            gather[r, : len(rows)], present[r, : len(rows)] = rows, True
        tokens = gather[present]
        order = np.argsort(tokens)
        branch, position = layout.branch_index[gather], layout.position_ids[gather]
        distance = position[:, :, None] - position[:, None, :]
        same = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
        mask = same & (distance >= 0) & present[:, None, :] & present[:, :, None]
        # A query without any key is NaN in softmax: padding sees itself.
        mask |= np.eye(longest, dtype=bool)[None] & ~present[:, :, None]
        to = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(self.device)  # noqa: E731
        return _Bucket(gather=to(gather.reshape(-1)), tokens=to(tokens[order]), scatter=to(np.flatnonzero(present)[order]),
                       mask=to(mask[:, None]), distance=to(distance[:, None]), shape=(len(trees), longest))  # fmt: skip

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Attention of a flat row [1, H, N, D]."""
        num_heads, num_tokens, size = query.shape[1:]
        assert num_tokens == self.num_tokens, f"{num_tokens} tokens for a layout of {self.num_tokens}"
        flat = [x[0].transpose(0, 1) for x in (query, key, value)]  # [N, H, D]
        if len(self.buckets) == 1:
            return self._attend_bucket(self.buckets[0], flat, scale, window, softcap)[None]
        output = query.new_empty(num_tokens, num_heads, size)
        for bucket in self.buckets:
            output = output.index_copy(0, bucket.tokens, self._attend_bucket(bucket, flat, scale, window, softcap))
        return output[None]

    @staticmethod
    def _attend_bucket(
        bucket: _Bucket,
        flat: list[Tensor],
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        rows, longest = bucket.shape
        q, k, v = (x[bucket.gather].view(rows, longest, x.shape[1], x.shape[2]).transpose(1, 2) for x in flat)
        mask = bucket.mask
        if window is not None:
            mask = bucket.windows.setdefault(window, bucket.mask & (bucket.distance < window))
        out = attend_masked(q, k, v, mask, scale=scale, softcap=softcap)  # [R, H, T, D]
        return out.transpose(1, 2).reshape(rows * longest, q.shape[1], q.shape[3])[bucket.scatter]


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, softcap: float | None) -> Tensor:
    """SDPA with grouped keys; soft-capped scores have no fused kernel and take the plain formula."""
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return attend_by_formula(q, k, v, mask, scale=scale, softcap=softcap)


def attend_by_formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, softcap: float | None) -> Tensor:
    """softmax(softcap * tanh(q k / softcap)) v, the heads of a group stacked as rows of one product: no copies of k and v.

    Args:
        q: [R, H, T, D];  k, v: [R, Hkv, L, D];  mask: [R, 1, T, L] with a key for every query.
    Returns:
        [R, H, T, D]
    """
    rows, heads, length, size = q.shape
    groups = k.shape[1]
    stacked = q.reshape(rows * groups, heads // groups * length, size)
    scores = torch.bmm(stacked, k.flatten(0, 1).transpose(1, 2)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.view(rows, heads, length, -1).masked_fill(~mask, -torch.inf)
    weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(v.dtype)
    return torch.bmm(weights.view(stacked.shape[0], stacked.shape[1], -1), v.flatten(0, 1)).view(
        rows, heads, length, size
    )


def _bucket_trees(layout: Layout) -> list[list[np.ndarray]]:
    """Rows of each tree, grouped so that padding inside a group stays small; order of first appearance inside."""
    starts = np.searchsorted(layout.tree_index, np.arange(layout.num_trees + 1))
    rows = sorted((np.arange(a, b) for a, b in itertools.pairwise(starts)), key=lambda r: (len(r), r[0]))
    buckets: list[list[np.ndarray]] = []
    for tree in rows:
        if buckets and len(tree) <= _BUCKET_WASTE * len(buckets[-1][0]):
            buckets[-1].append(tree)
        else:
            buckets.append([tree])
    return buckets


def _fairlead_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float | None = None,
    fairlead: AttentionPlan | None = None, sliding_window: int | None = None, softcap: float | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What transformers calls in each layer."""
    if fairlead is None:
        raise RuntimeError("a model with fairlead attention was called without a plan; use models.forward functions")
    if kwargs.get("s_aux") is not None:
        raise ModelError(explain("model", type(module).__name__, "uses attention sinks", expected="plain softmax attention",
                                 remedy="Choose another model"))  # fmt: skip
    window = sliding_window if sliding_window is not None else getattr(module, "sliding_window", None)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return fairlead.attend(module, query, key, value, scale=scale, window=window, softcap=softcap), None


def register() -> None:
    """Make the name "fairlead" known to transformers; safe to call again."""
    AttentionInterface.register(NAME, _fairlead_attention)
