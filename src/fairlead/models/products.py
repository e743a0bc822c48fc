"""Attention of a packed row on a CPU by batched matrix products: the forward and the gradient of `softmax(scale q k^T) v`.

Fused attention kernels on CPUs work in tiles of a few rows, where matrix products reach a tenth of their speed; whole segments of a
few hundred tokens are large enough for batched products at full speed and small enough to stay in the cache. Scores are fp32
always; with bf16 the operands of the products are rounded, never their results.

    block of segments -> tasks (some segments, some queries, the keys that these see) -> scores -> weights -> outputs

Keys beyond the last that a task's queries see are not computed, so long causal segments cost half of a square.

Legend: N tokens of the row, R segments, T queries, L keys, D head size, Hkv key heads, G query heads that share one, S padded places.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlead.models.arithmetic import rounded_products
from fairlead.models.segments import Block, Segments

_TASK_SCORES = 1 << 20
"""Scores of a task: 4 MiB in fp32, which stay in the cache from product to product."""
_QUERY_STEP = 128
"""Queries of a task when a segment is cut: the finer, the less is computed above the diagonal."""
KEPT_KEYS = 768
"""Weights of segments up to so many keys are kept for the backward; longer ones are computed again, so memory stays linear."""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """Some queries of some segments; `n` is segments x Hkv, `m` is G x queries."""

    q_index: Tensor
    """[n m] rows of the [N H, D] queries; padding points at the first row."""
    g_index: Tensor
    """The same for gradients of the output; padding points at a row of zeros behind the last."""
    keys: slice
    """Keys that one of the queries sees."""
    hidden: Tensor | None
    """[R or 1, 1, 1, T, L'] minus infinity where a query does not see one of the last L' of these keys, else 0; None when all see
    all. Added: filling by a boolean mask takes as long as the softmax."""
    place: slice
    """Rows of the padded output."""
    shape: tuple[int, int, int, int, int]
    """R, Hkv, G, T, L of the scores."""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Segments whose keys are gathered once for all their tasks."""

    k_index: Tensor
    """[n L] rows of the [N Hkv, D] keys."""
    shape: tuple[int, int]
    """n, L."""
    place: slice
    """Rows of the padded gradients of keys."""
    tasks: tuple[_Task, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """A packed row cut into products, for one number of heads and one window."""

    groups: tuple[_Group, ...]
    q_home: Tensor
    """[N H] row of the padded output where each query lies."""
    k_home: Tensor
    """[N Hkv] row of the padded gradients where each key of its own segment lies."""
    k_extra: Tensor
    """Rows of keys that stand in further segments too (prompts)."""
    k_extra_places: Tensor
    """Their rows of the padded gradients."""
    num_places: tuple[int, int]
    """Rows of the padded output, and of the padded gradients of keys."""


def plan_tasks(plan: Segments, *, heads: int, kv_heads: int, window: int | None) -> Tasks:
    """Cut the blocks of a row into tasks; index arrays only, built once a micro-batch."""
    groups: list[_Group] = []
    q_places = np.zeros((len(plan.queries.rows), heads), dtype=np.int64)
    k_places = np.zeros((len(plan.keys.rows), kv_heads), dtype=np.int64)
    q_start = k_start = q_end = k_end = 0
    for block in plan.blocks:
        num, longest_query, longest_key = block.shape
        q_rows = plan.queries.rows[q_start : q_start + num * longest_query].reshape(num, longest_query)
        k_rows = plan.keys.rows[k_start : k_start + num * longest_key].reshape(num, longest_key)
        step = longest_query if longest_query <= 1.5 * _QUERY_STEP else _QUERY_STEP
        size = max(1, _TASK_SCORES // (heads * step * longest_key))
        for first in range(0, num, size):
            part = slice(first, min(first + size, num))
            tasks: list[_Task] = []
            for begin in range(0, longest_query, step):
                queries = slice(begin, min(begin + step, longest_query))
                index = _by_head(q_rows[part, queries], heads, kv_heads)
                places = q_end + np.arange(index.size).reshape(index.shape)
                where = q_start + (np.arange(num)[part, None] * longest_query + np.arange(longest_query)[None, queries])
                q_places[where.reshape(-1)] = places.transpose(0, 3, 1, 2).reshape(-1, heads)
                is_real = np.arange(queries.start, queries.stop) < block.num_queries[part, None]
                g_index = np.where(is_real[:, None, None], index, len(plan.queries.home) * heads)
                place = slice(q_end, q_end + index.size)
                tasks.append(_task(block, part, queries, (index, g_index), place, window))
                q_end += index.size
            index = k_rows[part, None, :] * kv_heads + np.arange(kv_heads)[None, :, None]
            places = k_end + np.arange(index.size).reshape(index.shape)
            where = k_start + np.arange(part.start * longest_key, part.stop * longest_key)
            k_places[where] = places.transpose(0, 2, 1).reshape(-1, kv_heads)
            shape = (index.shape[0] * kv_heads, longest_key)
            groups.append(_Group(_ints(index), shape, slice(k_end, k_end + index.size), tuple(tasks)))
            k_end += index.size
        q_start, k_start = q_start + num * longest_query, k_start + num * longest_key
    extra = plan.keys.extra_rows[:, None] * kv_heads + np.arange(kv_heads)
    return Tasks(tuple(groups), _ints(q_places[plan.queries.home]), _ints(k_places[plan.keys.home]), _ints(extra),
                 _ints(k_places[plan.keys.extra_places]), (q_end, k_end))  # fmt: skip


def _by_head(rows: np.ndarray, heads: int, kv_heads: int) -> np.ndarray:
    """[R, Hkv, G, T] rows of [N H, D] for [R, T] rows of the flat row."""
    head = np.arange(heads).reshape(1, kv_heads, heads // kv_heads, 1)
    return rows[:, None, None, :] * heads + head


def _task(
    block: Block, part: slice, queries: slice, indices: tuple[np.ndarray, np.ndarray], place: slice, window: int | None
) -> _Task:
    num_queries, num_keys = block.num_queries[part, None], block.num_keys[part, None]
    query = np.minimum(
        np.arange(queries.start, queries.stop)[None], num_queries - 1
    )  # padding looks where the last does
    last = query + num_keys - num_queries  # [R, T] the last key that each sees
    if (last == last[:1]).all():
        last = last[:1]
    end = int(last.max()) + 1
    start = 0 if window is None else max(0, int(last.min()) - window + 1)
    seen_by_all = start if window is not None else int(last.min()) + 1
    hidden = None
    if seen_by_all < end:
        key = np.arange(seen_by_all, end)
        mask = key > last[..., None]
        if window is not None:
            mask |= key <= last[..., None] - window
        if mask.any():
            hidden = torch.from_numpy(np.where(mask[:, None, None], np.float32(-np.inf), np.float32(0)))
    num, kv_heads, per_key, length = indices[0].shape
    return _Task(
        _ints(indices[0]),
        _ints(indices[1]),
        slice(start, end),
        hidden,
        place,
        (num, kv_heads, per_key, length, end - start),
    )


def _ints(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values).reshape(-1))


def attend(q: Tensor, k: Tensor, v: Tensor, tasks: Tasks, *, scale: float, low: torch.dtype) -> Tensor:
    """Attention of a flat row.

    Args:
        q: [N, H, D];  k: [N, Hkv, D];  v: [N, Hkv, D'], where D' may be another size (latent attention).
        low: dtype that the weights are multiplied in, torch.bfloat16 or that of q.
    Returns:
        [N, H, D'] in `low`.
    """
    return _Attend.apply(q, k, v, tasks, scale, low)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tasks: Tasks, scale: float, low: torch.dtype) -> Tensor:
        flat_q, flat_k, flat_v = (x.reshape(-1, x.shape[-1]) for x in (q, k, v.to(low)))
        padded = flat_v.new_empty(tasks.num_places[0], flat_v.shape[1])
        learns = any(ctx.needs_input_grad[:3])
        kept: list[Tensor] = []
        with rounded_products(low != q.dtype):
            for group in tasks.groups:
                keys, values = (x.index_select(0, group.k_index).view(*group.shape, -1) for x in (flat_k, flat_v))
                for task in group.tasks:
                    weights = _weights(flat_q, keys, task, scale)[1].to(low)
                    out = padded[task.place].view(*weights.shape[:2], -1)
                    torch.bmm(weights, values[:, task.keys], out=out)
                    if learns and group.shape[1] <= KEPT_KEYS:
                        kept.append(weights)
        out = padded.index_select(0, tasks.q_home).view(*q.shape[:2], -1)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.tasks, ctx.scale, ctx.low = tasks, scale, low
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, out, *kept = ctx.saved_tensors
        tasks, low = ctx.tasks, ctx.low
        flat_q, flat_k, flat_v = (x.reshape(-1, x.shape[-1]) for x in (q, k, v))
        flat_g, flat_out = (_with_zero_row(x.reshape(-1, x.shape[-1]), q.dtype) for x in (grads[0], out))
        delta = torch.linalg.vecdot(flat_g, flat_out).unsqueeze_(1)
        d_q = q.new_empty(tasks.num_places[0], q.shape[-1], dtype=low)
        d_k, d_v = (q.new_zeros(tasks.num_places[1], x.shape[-1]) for x in (k, v))
        kept_weights = iter(kept)
        with rounded_products(low != q.dtype):
            for group in tasks.groups:
                wide_keys, values = (
                    x.index_select(0, group.k_index).view(*group.shape, -1).to(q.dtype) for x in (flat_k, flat_v)
                )
                keys = wide_keys.to(low)
                into_k, into_v = (x[group.place].view(*group.shape, -1) for x in (d_k, d_v))
                for task in group.tasks:
                    if group.shape[1] <= KEPT_KEYS:
                        queries, weights = _queries(flat_q, task, ctx.scale), next(kept_weights)
                    else:
                        queries, weights = _weights(flat_q, wide_keys, task, ctx.scale)
                    g = flat_g.index_select(0, task.g_index).view(*queries.shape[:2], -1)
                    into_v[:, task.keys] += torch.bmm(weights.transpose(1, 2), g.to(weights.dtype))
                    d = torch.bmm(g, values[:, task.keys].transpose(1, 2))
                    d.sub_(delta.index_select(0, task.g_index).view(*g.shape[:2], 1)).mul_(weights.to(d.dtype))
                    d = d.to(low)
                    torch.bmm(d, keys[:, task.keys], out=d_q[task.place].view(queries.shape))
                    into_k[:, task.keys] += torch.bmm(d.transpose(1, 2), queries.to(low))
        d_q = d_q.index_select(0, tasks.q_home).to(q.dtype).mul_(ctx.scale).view(q.shape)
        return d_q, *(_home(x, tasks, y) for x, y in ((d_k, k), (d_v, v))), None, None, None


def _with_zero_row(x: Tensor, dtype: torch.dtype) -> Tensor:
    out = x.new_empty(len(x) + 1, x.shape[1], dtype=dtype)
    out[:-1] = x
    out[-1] = 0
    return out


def _queries(flat: Tensor, task: _Task, scale: float) -> Tensor:
    """[n, m, D] queries of a task, scaled."""
    num, kv_heads, per_key, length, _ = task.shape
    return flat.index_select(0, task.q_index).mul_(scale).view(num * kv_heads, per_key * length, -1)


def _weights(flat: Tensor, keys: Tensor, task: _Task, scale: float) -> tuple[Tensor, Tensor]:
    """Queries [n, m, D] and weights [n, m, L] of a task."""
    queries = _queries(flat, task, scale)
    scores = torch.bmm(queries, keys[:, task.keys].transpose(1, 2))
    if task.hidden is not None:
        scores.view(task.shape)[..., -task.hidden.shape[-1] :].add_(task.hidden)
    return queries, torch.softmax(scores, -1)


def _home(padded: Tensor, tasks: Tasks, like: Tensor) -> Tensor:
    """Gradients of keys or values, those of further segments added."""
    d = padded.index_select(0, tasks.k_home)
    if len(tasks.k_extra):
        d.index_add_(0, tasks.k_extra, padded.index_select(0, tasks.k_extra_places))
    return d.view(like.shape).to(like.dtype)
