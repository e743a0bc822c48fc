"""Attention of a packed row by the kernels of attention.c: bf16 products, fp32 scores, memory that grows with the tokens only.

Legend: N tokens of the row, H heads, Hkv key heads, D head size, D' size of values.
"""

import ctypes
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlead.models.native.build import library
from fairlead.text.packing import Layout

_MAX_SIZE = 512


class _Steps(ctypes.Structure):
    """Elements from one token to the next, and from one head to the next."""

    _fields_ = (("row", ctypes.c_int64), ("head", ctypes.c_int64))


class _Matrix(ctypes.Structure):
    """See attention.c."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("at", _Steps),
        ("is_low", ctypes.c_int64),
        ("cosine", ctypes.c_void_p),
        ("sine", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A layout as the kernels read it: int64 arrays."""

    segments: np.ndarray
    """[S, 5] prompt start and length, branch start and length, first query; see attention.c."""
    tree_starts: np.ndarray
    """[P + 1] segments of each tree."""
    row_starts: np.ndarray
    """[P + 1] rows of each tree."""


def plan(layout: Layout) -> Segments:
    """Each tree's prompt with its first branch that has tokens, then each other branch against the prompt."""
    row_starts = np.searchsorted(layout.tree_index, np.arange(layout.num_trees + 1)).astype(np.int64)
    segments: list[tuple[int, int, int, int, int]] = []
    tree_starts = [0]
    for start, end in itertools.pairwise(row_starts.tolist()):
        branch = layout.branch_index[start:end]
        edges = [start + int(x) for x in np.searchsorted(branch, np.arange(int(branch[-1]) + 2 if end > start else 1))]
        prompt = edges[1] - edges[0] if len(edges) > 1 else 0
        parts = [(a, b - a) for a, b in itertools.pairwise(edges[1:]) if b > a] or [(start + prompt, 0)]
        for number, (first, length) in enumerate(parts):
            if prompt + length:
                segments.append((start, prompt, first, length, 0 if number == 0 else prompt))
        tree_starts.append(len(segments))
    table = np.array(segments, dtype=np.int64).reshape(-1, 5)
    return Segments(table, np.array(tree_starts, dtype=np.int64), row_starts)


def can_attend(size: int) -> bool:
    """Whether the kernels can be used on this machine, for heads of this size."""
    return size <= _MAX_SIZE and size % 2 == 0 and library() is not None


def attend(
    q: Tensor, k: Tensor, v: Tensor, where: Segments, *, scale: float, window: int | None, rotation: tuple[Tensor, Tensor] | None = None
) -> Tensor:  # fmt: skip
    """softmax(scale q k^T) v within the segments.

    Args:
        q: [N, H, D];  k: [N, Hkv, D];  v: [N, Hkv, D'] in bf16. Any strides with adjacent d.
        rotation: cosine and sine [N, D] that q and k are rotated by first (rotary positions, in halves); then these may be bf16.
    Returns:
        [N, H, D'] in bf16.
    """
    return _Attend.apply(q, k, v, where, scale, window or 0, rotation)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, where: Segments, scale: float, window: int, rotation: tuple[Tensor, Tensor] | None
    ) -> Tensor:  # fmt: skip
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        cosine, sine = (x.contiguous() for x in rotation) if rotation is not None else (None, None)
        (num, heads, size), (_, kv_heads, value_size) = q.shape, v.shape
        _require_dtypes(q, k, v, cosine, sine)
        out = v.new_empty(num, heads, value_size)
        norms = torch.empty(num, heads, device=q.device)
        done = _kernels().attend_forward(
            _rotated(q, cosine, sine), _rotated(k, cosine, sine), *_matrix(v), _at(out), _at(norms), _array(where.segments),
            _array(where.tree_starts), len(where.tree_starts) - 1, heads, kv_heads, size, value_size, window, ctypes.c_float(scale),
        )  # fmt: skip
        _require(done)
        ctx.save_for_backward(q, k, v, out, norms, cosine, sine)
        ctx.where, ctx.scale, ctx.window = where, scale, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, out, norms, cosine, sine = ctx.saved_tensors
        where: Segments = ctx.where
        (num, heads, size), (_, kv_heads, value_size) = q.shape, v.shape
        g = grads[0].to(torch.bfloat16).contiguous()
        d_q, d_k = q.new_empty(num, heads, size), k.new_empty(num, kv_heads, size)
        d_v = v.new_empty(num, kv_heads, value_size)
        done = _kernels().attend_backward(
            _rotated(q, cosine, sine), _rotated(k, cosine, sine), *_matrix(v), _at(out), _at(norms), _at(g), _at(d_q), _at(d_k), _at(d_v),
            _array(where.segments), _array(where.tree_starts), _array(where.row_starts), len(where.tree_starts) - 1, heads, kv_heads, size,
            value_size, ctx.window, ctypes.c_float(ctx.scale),
        )  # fmt: skip
        _require(done)
        return d_q, d_k, d_v, None, None, None, None


def _require_dtypes(q: Tensor, k: Tensor, v: Tensor, cosine: Tensor | None, sine: Tensor | None) -> None:
    """The kernels read memory as what it is said to be."""
    assert q.dtype in (torch.float32, torch.bfloat16) and k.dtype in (torch.float32, torch.bfloat16), (q.dtype, k.dtype)
    assert v.dtype == torch.bfloat16, v.dtype
    for x in (cosine, sine):
        assert x is None or (x.dtype == torch.float32 and x.shape == (len(q), q.shape[2])), (x.dtype, x.shape)


def _rotated(x: Tensor, cosine: Tensor | None, sine: Tensor | None) -> Any:
    parts = (None if y is None else y.data_ptr() for y in (cosine, sine))
    return ctypes.byref(_Matrix(x.data_ptr(), _Steps(x.stride(0), x.stride(1)), int(x.dtype == torch.bfloat16), *parts))


def _kernels() -> ctypes.CDLL:
    found = library()
    assert found is not None, "attend needs can_attend()"
    return found


def _matrix(x: Tensor) -> tuple[ctypes.c_void_p, _Steps]:
    return _at(x), _Steps(x.stride(0), x.stride(1))


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _array(x: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def _require(done: int) -> None:
    if not done:
        raise MemoryError("attention found no memory for its scratch")
