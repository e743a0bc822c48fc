"""Attention over trees and over the engine's cache, registered with transformers' attention interface; no model is patched.

A forward passes `fairlead=TreeAttention(...)` (or a plan of the engine's cache) as an extra keyword, which transformers hands down
to every layer. Queries, keys and values come in the flat row; they are gathered into the blocks of `segments.plan_segments`, each
block goes through one fused SDPA call, and the results are gathered back. Everything outside attention works on the flat row and
sees no padding.

Legend: N tokens of the row, R segments of a block, T its longest queries, L its longest keys, D head size, H heads, S padded places.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from fairlead.models import products
from fairlead.models.native import attention as native
from fairlead.models.segments import Block, Gather, plan_segments
from fairlead.text.packing import Layout

NAME = "fairlead"


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """How one layer turns queries and keys into weights."""

    scale: float
    window: int | None = None
    """A query sees so many of the last keys, itself included; None sees all."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""
    sinks: Tensor | None = None
    """[H] score of a key that every query sees and whose value is 0."""

    @property
    def is_fused(self) -> bool:
        """Whether SDPA has a kernel for it."""
        return self.softcap is None and self.sinks is None


class AttentionPlan(Protocol):
    """What a forward hands to every attention layer."""

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[1|B, H, T, D] queries, [1|B, Hkv, T, D] keys and values -> [1|B, T, H, D]."""
        ...


class TreeAttention:
    """Isolates trees and siblings. Build once per micro-batch, use in every layer. Not thread-safe.

    Args:
        by_blocks: padded blocks of fused attention, in place of the products that a CPU is faster with; None is as the device wants it.
    """

    def __init__(self, layout: Layout, *, device: torch.device | str = "cpu", by_blocks: bool | None = None) -> None:
        self.device = torch.device(device)
        self.by_blocks = self.device.type != "cpu" if by_blocks is None else by_blocks
        self.num_tokens = len(layout.token_ids)
        self._plan = plan = plan_segments(layout)
        self.blocks = plan.blocks
        self._queries, self._keys = (_Places.of(gather, self.device) for gather in (plan.queries, plan.keys))
        self._layout = layout
        self._native: native.Segments | None = None
        self._tasks: dict[tuple[int, int, int | None], products.Tasks] = {}
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor] = {}

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Attention of a flat row [1, H, N, D]."""
        num_heads, num_tokens = query.shape[1:3]
        assert num_tokens == self.num_tokens, f"{num_tokens} tokens for a layout of {self.num_tokens}"
        if scoring.is_fused and not self.by_blocks:
            return self._by_products(query, key, value, scoring)
        dtype = torch.promote_types(query.dtype, value.dtype)
        query, key, value = (x.to(dtype) for x in (query, key, value))
        q = _spread(query[0].transpose(0, 1), self._queries)  # [S, H, D]
        k, v = (_spread(x[0].transpose(0, 1), self._keys) for x in (key, value))
        outputs, q_start, k_start = [], 0, 0
        for number, block in enumerate(self.blocks):
            rows, longest_query, longest_key = block.shape
            q_end, k_end = q_start + rows * longest_query, k_start + rows * longest_key
            parts = (
                x[start:end].unflatten(0, (rows, -1)).transpose(1, 2)
                for x, start, end in ((q, q_start, q_end), (k, k_start, k_end), (v, k_start, k_end))
            )
            out = self._attend_block(number, block, *parts, scoring)  # [R, H, T, D]
            outputs.append(out.transpose(1, 2).reshape(rows * longest_query, num_heads, value.shape[-1]))
            q_start, k_start = q_end, k_end
        return _collect(outputs[0] if len(outputs) == 1 else torch.cat(outputs), self._queries)[None]

    @property
    def pieces(self) -> native.Segments:
        """The layout as the kernels of `models/native` read it."""
        if self._native is None:
            self._native = native.plan(self._layout)
        return self._native

    def _by_products(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Scores in fp32 or wider; weights and values are multiplied in the dtype of the values."""
        wide = torch.promote_types(query.dtype, torch.float32)
        q, k = (x[0].transpose(0, 1).to(wide) for x in (query, key))
        v = value[0].transpose(0, 1)
        if v.dtype == torch.bfloat16 and wide == torch.float32 and native.can_attend(max(q.shape[2], v.shape[2])):
            return native.attend(q, k, v, self.pieces, scale=scoring.scale, window=scoring.window)[None]
        name = (query.shape[1], key.shape[1], scoring.window)
        if name not in self._tasks:
            heads, kv_heads, window = name
            self._tasks[name] = products.plan_tasks(self._plan, heads=heads, kv_heads=kv_heads, window=window)
        return products.attend(q, k, v, self._tasks[name], scale=scoring.scale, low=v.dtype)[None]

    def _attend_block(self, number: int, block: Block, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        if scoring.is_fused and block.is_causal and (scoring.window is None or scoring.window >= block.shape[2]):
            return fused(q, k, v, mask=None, scale=scoring.scale, repeats=q.is_cuda)
        return attend_masked(q, k, v, self._mask(number, scoring, q.dtype), scoring)

    def _mask(self, number: int, scoring: Scoring, dtype: torch.dtype) -> Tensor:
        """Additive for fused attention, which would convert a boolean one in every layer; boolean for the formula."""
        dtype = dtype if scoring.is_fused else torch.bool
        name = (number, scoring.window, dtype)
        if name not in self._masks:
            seen = torch.from_numpy(self.blocks[number].mask(scoring.window)).to(self.device)
            if dtype != torch.bool:
                seen = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill_(~seen, -torch.inf)
            self._masks[name] = seen
        return self._masks[name]


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """A Gather as tensors; None where padded places are the flat row itself."""

    rows: Tensor
    home: Tensor
    extra_rows: Tensor
    extra_places: Tensor

    @classmethod
    def of(cls, gather: Gather, device: torch.device) -> "_Places | None":
        if gather.is_identity:
            return None
        parts = (gather.rows, gather.home, gather.extra_rows, gather.extra_places)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))


def _spread(x: Tensor, places: _Places | None) -> Tensor:
    return x if places is None else _Spread.apply(x, places)  # pyright: ignore[reportReturnType]


def _collect(x: Tensor, places: _Places | None) -> Tensor:
    return x if places is None else _Collect.apply(x, places)  # pyright: ignore[reportReturnType]


class _Spread(torch.autograd.Function):
    """[N, ...] to padded places [S, ...]. Autograd's own gradient adds row by row; here all but shared prompts is one gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: _Places) -> Tensor:
        ctx.places = places
        return x.index_select(0, places.rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        places: _Places = ctx.places
        d = grads[0].index_select(0, places.home)
        if len(places.extra_rows):
            d.index_add_(0, places.extra_rows, grads[0].index_select(0, places.extra_places))
        return d, None


class _Collect(torch.autograd.Function):
    """Padded places [S, ...] back to [N, ...]; nothing flows into padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: _Places) -> Tensor:
        ctx.places, ctx.num_places = places, len(x)
        return x.index_select(0, places.home)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        padded = grads[0].new_zeros(ctx.num_places, *grads[0].shape[1:])
        return padded.index_copy_(0, ctx.places.home, grads[0]), None


def attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    """SDPA with grouped keys, or the plain formula where there is no fused kernel; `mask` is boolean for the formula."""
    if scoring.is_fused:
        return fused(q, k, v, mask=mask, scale=scoring.scale, repeats=q.is_cuda)
    return attend_by_formula(q, k, v, mask, scoring)


def fused(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, scale: float, repeats: bool) -> Tensor:
    """SDPA with grouped keys; causal without a mask.

    Args:
        repeats: give every query head its own copy of the keys. On CUDA only flash attention knows grouped ones, and that takes neither fp32
            nor a mask; the plain kernel that is left would write out all scores.
    """
    groups = q.shape[1] // k.shape[1]
    if repeats and groups > 1:
        k, v, groups = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), 1
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=groups > 1)  # fmt: skip


def attend_by_formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    """softmax(scores of q and k) v, the heads of a group stacked as rows of one product: no copies of k and v.

    Args:
        q: [R, H, T, D];  k: [R, Hkv, L, D];  v: [R, Hkv, L, E];  mask: [R, 1, T, L], True where seen, with a key for every query.
    Returns:
        [R, H, T, E]
    """
    rows, heads, length, size = q.shape
    groups = k.shape[1]
    stacked = q.reshape(rows * groups, heads // groups * length, size)
    scores = torch.bmm(stacked, k.flatten(0, 1).transpose(1, 2)) * scoring.scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores.view(rows, heads, length, -1).masked_fill(~mask, -torch.inf)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if scoring.sinks is None:
        weights = scores.softmax(-1)
    else:
        sink = scoring.sinks.to(scores.dtype).view(1, heads, 1, 1).expand(rows, heads, length, 1)
        weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    weights = weights.to(v.dtype).reshape(stacked.shape[0], stacked.shape[1], -1)
    return torch.bmm(weights, v.flatten(0, 1)).view(rows, heads, length, v.shape[-1])


class PlanError(RuntimeError):
    """A layer that a plan cannot stand in for; the message says what it does, after the model's name."""


_UNSAID = -1
"""Of a window: the layer says nothing about it, which is not the same as None, for none."""


def _fairlead_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float | None = None,
    fairlead: AttentionPlan | None = None, sliding_window: int | None = _UNSAID, softcap: float | None = None,
    s_aux: Tensor | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What transformers calls in each layer."""
    if fairlead is None:
        raise PlanError("calls its attention without a plan")
    if attention_mask is not None:
        raise PlanError("makes a mask of its own")
    if sliding_window == _UNSAID:
        sliding_window = None
        if getattr(module.config.get_text_config(), "sliding_window", None) is not None:
            raise PlanError("does not tell its layers their windows")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scoring = Scoring(scale=scale, window=sliding_window, softcap=softcap, sinks=s_aux)
    return fairlead.attend(module, query, key, value, scoring), None


def register() -> None:
    """Make the name "fairlead" known to transformers; safe to call again."""
    AttentionInterface.register(NAME, _fairlead_attention)
