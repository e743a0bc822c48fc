"""Norms, gated activations and softmax by the kernels of rows.c: one pass where PyTorch makes four. fp32 or bf16, on the CPU."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from fairlead.models.native.build import library


def can_compute(*tensors: Tensor) -> bool:
    """Whether the kernels are there and take tensors of these dtypes and devices."""
    dtypes = (torch.float32, torch.bfloat16)
    return all(x.device.type == "cpu" and x.dtype in dtypes for x in tensors) and library() is not None


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one dtype and shape; what is kept for the gradient is the two of them."""
    return _Gated.apply(gate, up)  # pyright: ignore[reportReturnType]


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        assert gate.dtype == up.dtype and gate.shape == up.shape, (gate.dtype, up.dtype)
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        _kernels().gate_forward(_at(gate), _at(up), _at(out), _is_low(gate), ctypes.c_int64(gate.numel()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        g = grads[0].to(gate.dtype).contiguous()
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        count = ctypes.c_int64(gate.numel())
        _kernels().gate_backward(_at(gate), _at(up), _at(g), _at(d_gate), _at(d_up), _is_low(gate), count)
        return d_gate, d_up


def norm(x: Tensor, weight: Tensor, *, offset: float, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm of fp32 rows [..., H]: (result in `dtype`, inverse root mean square of each row)."""
    x, weight = x.contiguous(), weight.contiguous()
    assert x.dtype == weight.dtype == torch.float32 and x.shape[-1] == len(weight), (x.dtype, weight.dtype)
    out, inverse = torch.empty_like(x, dtype=dtype), torch.empty(x.shape[:-1])
    _kernels().norm_forward(_at(x), _at(weight), ctypes.c_float(offset), ctypes.c_float(epsilon), _at(out), _is_low(out), _at(inverse),
                            ctypes.c_int64(inverse.numel()), ctypes.c_int64(len(weight)))  # fmt: skip
    return out, inverse


def norm_gradient(
    x: Tensor, weight: Tensor, inverse: Tensor, g: Tensor, *, offset: float, learns_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `norm` to x and to the weight, fp32."""
    x, weight, g = x.contiguous(), weight.contiguous(), g.contiguous()
    d_x, d_weight = torch.empty_like(x), torch.empty_like(weight) if learns_weight else None
    done = _kernels().norm_backward(_at(x), _at(weight), ctypes.c_float(offset), _at(inverse), _at(g), _is_low(g), _at(d_x), _at(d_weight),
                                    ctypes.c_int64(inverse.numel()), ctypes.c_int64(len(weight)))  # fmt: skip
    if not done:
        raise MemoryError("a norm found no memory for its sums")
    return d_x, d_weight


def softmax(
    logits: Tensor,
    targets: Tensor,
    *,
    logprob: Tensor,
    norm: Tensor,
    entropy: Tensor | None,
    probabilities: Tensor | None,
) -> None:
    """Of [K, V] logits in fp32, into what is given: log softmax at the targets, log of the sum of exponentials, entropy, all [K]; bf16 [K, V].

    The logits are lost where probabilities are wanted.
    """
    targets = targets.contiguous()
    found = [x for x in (logits, logprob, norm, entropy, probabilities) if x is not None]
    assert all(x.is_contiguous() for x in found) and logits.dtype == logprob.dtype == norm.dtype == torch.float32, (
        logits.dtype
    )
    assert probabilities is None or (probabilities.dtype == torch.bfloat16 and probabilities.shape == logits.shape), (
        logits.shape
    )
    _kernels().softmax_rows(_at(logits), _at(targets), _at(logprob), _at(norm), _at(entropy), _at(probabilities),
                            ctypes.c_int64(logits.shape[0]), ctypes.c_int64(logits.shape[1]))  # fmt: skip


def _kernels() -> ctypes.CDLL:
    found = library()
    assert found is not None, "these need can_compute()"
    return found


def _at(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _is_low(x: Tensor) -> int:
    return int(x.dtype == torch.bfloat16)
