"""How a model's matrix products are computed on a CPU: in fp32, or in bf16 with fp32 weights, by the faster of the libraries there.

PyTorch hands fp32 products to MKL, which runs at less than half speed on processors of other makers; oneDNN is part of PyTorch too.
`use_arithmetic` gives the linear layers of a loaded model a forward that picks; nothing else of the model changes, and the layers stay
`nn.Linear` for peft, for saving, and for whoever asks.

In bf16 the master weights stay fp32: products read copies, made once a step, and results are bf16 (fp32 in the head and for
attention scores). Residual stream, norms, losses, gradients of weights and the optimiser stay fp32.

Example:
    use_arithmetic(model, choose_arithmetic("bf16"))
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

Precision = Literal["fp32", "bf16"]
_TILES = (2048, 1024, 512, 256)
"""Rows of a product by oneDNN: it keeps buffers for up to 1,024 shapes, which would be gigabytes if each batch brought its own."""
_REPEATS = 25
"""Of a measurement, whose best counts: other programs take their turns in between."""


@dataclass(slots=True, eq=False)
class Arithmetic:
    """Precision and library of a model's products; shared by its layers, not thread-safe."""

    precision: Precision = "fp32"
    is_direct: bool = False
    """fp32 products go to oneDNN directly."""
    _copies: dict[int, tuple[Tensor, int, Tensor]] = field(default_factory=dict[int, tuple[Tensor, int, Tensor]])
    """By `id` of the weight, which is held so that no other gets its id."""
    _last: tuple[Tensor, int, Tensor] | None = None

    def weight(self, weight: Tensor) -> Tensor:
        """The bf16 copy of a weight, made again once autograd has counted a change of the weight.

        What writes without being counted (a fused optimiser, `.data`) must count by itself: `torch.autograd.graph.increment_version`.
        """
        found = self._copies.get(id(weight))
        if found is None or found[1] != weight._version:
            with torch.inference_mode(False), torch.no_grad():  # a copy made while sampling must serve training
                copy = weight.to(torch.bfloat16) if found is None else found[2].copy_(weight)
            found = self._copies[id(weight)] = (weight, weight._version, copy)
        return found[2]

    def activation(self, x: Tensor) -> Tensor:
        """The bf16 copy of an input; the next layers that read the same input (queries, keys, values) get the same copy."""
        if x.dtype == torch.bfloat16:
            return x
        if self._last is None or self._last[0] is not x or self._last[1] != x._version:
            self._last = (x, x._version, x.detach().to(torch.bfloat16))
        return self._last[2]

    def factor(self, weight: Tensor) -> Tensor:
        """A weight as `product` multiplies it (and `wide_product` on CUDA), for callers that do so in pieces: converted once."""
        is_low = self.precision == "bf16" and weight.dtype == torch.float32
        return weight.to(torch.bfloat16) if is_low else weight

    def operand_dtype(self, a: torch.dtype, b: torch.dtype) -> torch.dtype:
        """What a product with fp32 results multiplies on CUDA: never fp32 where bf16 is the precision, which would take ten times as long."""
        wide = torch.promote_types(a, b)
        return torch.bfloat16 if self.precision == "bf16" and wide == torch.float32 else wide

    def wide_product(self, a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
        """[M, N] = a [M, K] times b [N, K] transposed, in fp32 or wider: what is added up is never rounded to less.

        Args:
            out: where the result may go; look at what is returned.
        """
        wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        if a.is_cuda and (self.precision == "bf16" or wide != a.dtype):
            low = self.operand_dtype(a.dtype, b.dtype)
            return product_in_fp32(a.to(low), b.to(low).t(), out=out)
        a, b = a.to(wide), b.to(wide)
        if self.is_direct and self.precision == "fp32" and wide == torch.float32:
            return direct_product(a, b)
        with rounded_products(self.precision == "bf16" and wide == torch.float32):
            return torch.mm(a, b.t(), out=out) if out is not None else torch.mm(a, b.t())

    def product(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        """[M, N] = a [M, K] times b [K, N] as `dtype`, in bf16 when that is the precision: for gradients."""
        if self.precision == "bf16" and a.dtype != torch.float64:
            low, other = a.to(torch.bfloat16), b.to(torch.bfloat16)
            is_wide = a.is_cuda and dtype == torch.float32  # a CPU has no such product
            return product_in_fp32(low, other) if is_wide else torch.mm(low, other).to(dtype)
        if self.is_direct and a.dtype == b.dtype == torch.float32:
            found = direct_product(a, b.t()) if a.is_contiguous() else direct_gram(a.t(), b)
            return found.to(dtype)
        if a.is_cuda and b.dtype != a.dtype:
            return product_in_fp32(a.to(b.dtype), b).to(dtype)
        return torch.mm(a, b.to(a.dtype)).to(dtype)

    def forget(self) -> None:
        """Let go of the last input; `end of a forward`."""
        self._last = None


class Linear(nn.Linear):
    """A linear layer that computes as its model's arithmetic says. Made of an nn.Linear by `use_arithmetic`, never by itself."""

    arithmetic: Arithmetic

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out], bf16 with bf16."""
        how = self.arithmetic
        if how.precision == "bf16":
            return _LowLinear.apply(input, self.weight, self.bias, how.activation(input), how.weight(self.weight))  # pyright: ignore[reportReturnType]
        if how.is_direct and input.dtype == self.weight.dtype == torch.float32:
            return _DirectLinear.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]
        return torch_linear(input, self.weight, self.bias)


def use_arithmetic(module: nn.Module, arithmetic: Arithmetic) -> None:
    """Let every linear layer of a model on the CPU compute so; a later call replaces the arithmetic of an earlier one."""
    for layer in module.modules():
        if type(layer) in (nn.Linear, Linear):
            _become(layer, arithmetic)


def _become(layer: Any, arithmetic: Arithmetic) -> None:
    layer.__class__ = Linear
    layer.arithmetic = arithmetic


class _LowLinear(torch.autograd.Function):
    """bf16 products of an fp32 or bf16 input and an fp32 weight; what the backward needs is kept in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, low_x: Tensor, low_weight: Tensor) -> Tensor:
        ctx.save_for_backward(low_x, low_weight)
        ctx.dtypes = x.dtype, weight.dtype
        return torch_linear(low_x, low_weight, None if bias is None else bias.to(torch.bfloat16))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        g, needs = grads[0].to(torch.bfloat16), ctx.needs_input_grad
        flat = g.flatten(0, -2)
        d_x = (flat @ weight).view(x.shape).to(ctx.dtypes[0]) if needs[0] else None
        d_weight = (flat.t() @ x.flatten(0, -2)).to(ctx.dtypes[1]) if needs[1] else None
        d_bias = flat.sum(0, dtype=ctx.dtypes[1]) if needs[2] else None
        return d_x, d_weight, d_bias, None, None


class _DirectLinear(torch.autograd.Function):
    """fp32 products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return direct_product(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        flat, needs = grads[0].flatten(0, -2), ctx.needs_input_grad
        d_x = direct_product(flat, weight.t()).view(x.shape) if needs[0] else None
        d_weight = direct_gram(flat, x.flatten(0, -2)) if needs[1] else None
        return d_x, d_weight, flat.sum(0) if needs[2] else None


@contextmanager
def rounded_products(enabled: bool) -> Iterator[None]:
    """Products of fp32 matrices inside round their operands to bf16 and add in fp32 (oneDNN)."""
    if not enabled:
        yield
        return
    settings = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextmanager
def exact_products(arithmetic: Arithmetic) -> Iterator[None]:
    """Linear layers of a model on a CPU compute in fp32 inside, from their own weights; its norms go on as they do."""
    before = arithmetic.precision
    arithmetic.precision = "fp32"
    try:
        yield
    finally:
        arithmetic.precision = before


def product_in_fp32(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """a [M, K] times b [K, N], both of one dtype, added up and left in fp32: a product that CUDA has, and no CPU."""
    if out is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b, out_dtype=torch.float32, out=out)


def direct_product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M, K] times b [N, K] transposed, plus bias [N], by oneDNN."""
    parts = [_direct(a[tile], b, bias) for tile in _tiles(len(a))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def direct_gram(a: Tensor, b: Tensor) -> Tensor:
    """a [K, M] transposed times b [K, N], by oneDNN: the gradient of a weight, where K are the tokens."""
    first, *others = _tiles(len(a))
    total = _direct(a[first].t(), b[first].t())
    for tile in others:
        total += _direct(a[tile].t(), b[tile].t())
    return total


def _direct(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Small shapes are left to MKL: each shape that oneDNN has seen holds buffers of its result's size."""
    if min(len(a), a.shape[1]) < _TILES[-1]:
        return torch_linear(a, b, bias)
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def _tiles(count: int) -> list[slice]:
    """Rows 0 to `count` in pieces of a few sizes, so that batches of every size are a few shapes."""
    found, start = [], 0
    for size in _TILES:
        while count - start >= size:
            found.append(slice(start, start + size))
            start += size
    if start < count or not found:
        found.append(slice(start, count))
    return found


def has_low_precision() -> bool:
    """Does this processor multiply bf16 in hardware? Without it bf16 is slower than fp32."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


@functools.cache
def is_direct_better() -> bool:
    """Whether fp32 products go to oneDNN: MKL is at home on Intel's processors, and by half slower elsewhere.

    A rule and not a measurement, so that the same machine gives the same bits every time; `measure_products` shows the speeds.
    """
    found = torch.cpu.get_capabilities()
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and "Intel" not in str(found.get("cpu_name", "Intel")) and found.get("architecture") == "x86_64"


def measure_products(rows: int, inner: int, columns: int) -> dict[str, float]:
    """GFLOP/s of a product of that shape: fp32 as PyTorch does it, fp32 by oneDNN, bf16 with the conversion of one operand."""
    a, b = torch.randn(rows, inner), torch.randn(columns, inner)
    low = b.to(torch.bfloat16)
    calls: dict[str, Callable[[], object]] = {
        "fp32": lambda: torch_linear(a, b), "bf16": lambda: torch_linear(a.to(torch.bfloat16), low),
    }  # fmt: skip
    if is_direct_better():
        calls["fp32 by oneDNN"] = lambda: direct_product(a, b)
    return {name: 2 * rows * inner * columns / _seconds(call) / 1e9 for name, call in calls.items()}


def _seconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
