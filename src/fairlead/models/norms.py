"""Root-mean-square norms in half the passes over memory: on a CPU a norm of transformers costs as much time as a product.

A module takes part when its class is called ...RMSNorm and its results on random input are those of one of the two known forms; so a
norm that does something else keeps its own forward.

    y = x / sqrt(mean(x^2) + eps) * (weight + offset)        offset 1 for Gemma's kind, else 0

Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fairlead.models.arithmetic import Arithmetic
from fairlead.models.native import rows

_NEAR = 1e-5


class RootMeanSquareNorm(nn.Module):
    """A norm with its gradient written out. Made of a model's own norm by `use_norms`, never by itself."""

    weight: Tensor
    offset: float
    epsilon: float
    is_low: bool
    """Results are bf16, for what reads them are linear layers that would round them."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., H]"""
        dtype = torch.bfloat16 if self.is_low else hidden_states.dtype
        return _Norm.apply(hidden_states, self.weight, self.offset, self.epsilon, dtype)  # pyright: ignore[reportReturnType]


def use_norms(module: nn.Module, arithmetic: Arithmetic) -> None:
    """Give the norms of a model on the CPU this forward, where it computes what theirs does."""
    is_low = arithmetic.precision == "bf16" and _has_only_layers(module)
    for layer in module.modules():
        if isinstance(layer, RootMeanSquareNorm):
            layer.is_low = is_low
        elif type(layer).__name__.endswith("RMSNorm") and (found := _recognise(layer)) is not None:
            _become(layer, offset=found[0], epsilon=found[1], is_low=is_low)


def _has_only_layers(module: nn.Module) -> bool:
    """Every matrix belongs to a linear layer or an embedding: routers and stacked experts multiply fp32 weights by themselves."""
    owners = (nn.Linear, nn.Embedding)
    return all(
        isinstance(layer, owners) or parameter.dim() < 2
        for layer in module.modules()
        for parameter in layer.parameters(recurse=False)
    )


def _become(layer: Any, *, offset: float, epsilon: float, is_low: bool) -> None:
    layer.__class__ = RootMeanSquareNorm
    layer.offset, layer.epsilon, layer.is_low = offset, epsilon, is_low


@torch.no_grad()
def _recognise(layer: nn.Module) -> tuple[float, float] | None:
    """(offset, epsilon) of a norm of a known form, tried on an input whose epsilon matters."""
    weight = layer._parameters.get("weight")
    epsilons = [
        value for name, value in vars(layer).items() if name in ("variance_epsilon", "eps") and isinstance(value, float)
    ]
    if (
        weight is None
        or len(layer._parameters) != 1
        or layer._buffers
        or len(epsilons) != 1
        or weight.dtype not in (torch.float32, torch.float64)
    ):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, len(weight), generator=generator, dtype=weight.dtype) * torch.tensor([[1e-3], [1.0], [30.0]])
    own = layer(x)
    for offset in (0.0, 1.0):
        ours = _Norm.apply(x, weight, offset, epsilons[0], weight.dtype)
        if (
            isinstance(own, Tensor)
            and own.shape == x.shape
            and float((ours - own).abs().max()) <= _NEAR * float(own.abs().max())
        ):  # pyright: ignore[reportOperatorIssue, reportArgumentType]
            return offset, epsilons[0]
    return None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: float, epsilon: float, dtype: torch.dtype) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        ctx.offset, ctx.dtype = offset, x.dtype
        if wide.dtype == weight.dtype == torch.float32 and rows.can_compute(wide, weight):
            out, inverse = rows.norm(wide, weight, offset=offset, epsilon=epsilon, dtype=dtype)
            ctx.save_for_backward(wide, weight, inverse)
            return out
        inverse = (
            torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        )
        ctx.save_for_backward(wide, weight, inverse)
        return (wide * inverse).mul_(weight + offset if offset else weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """With n = x inverse and h = g (weight + offset): dx = inverse (h - n mean(h n)), dweight = sum of g n."""
        x, weight, inverse = ctx.saved_tensors
        if inverse.dim() < x.dim():
            d_x, d_weight = rows.norm_gradient(
                x, weight, inverse, grads[0], offset=ctx.offset, learns_weight=ctx.needs_input_grad[1]
            )
            return d_x.to(ctx.dtype), d_weight, None, None, None
        g = grads[0].to(x.dtype)
        normed = x * inverse
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (g * normed).flatten(0, -2).sum(0).to(weight.dtype)
        h = g * (weight + ctx.offset if ctx.offset else weight)
        mean = torch.linalg.vecdot(h, normed).div_(x.shape[-1]).unsqueeze_(-1)
        d_x = h.addcmul_(normed, mean, value=-1).mul_(inverse)
        return d_x.to(ctx.dtype), d_weight, None, None, None
