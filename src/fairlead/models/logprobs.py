"""Log-probabilities of given tokens from hidden states, without ever holding the logits of all positions.

Hidden states are projected in chunks of rows; each chunk's logits are used and dropped, in the forward and again in the
backward. Low-precision weights are multiplied with fp32 results (a logit of 20 rounded to bf16 is off by up to 0.06 nats);
float64 stays float64. Only what is asked for is computed.

Legend: K kept positions, H hidden size, V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MiB in fp32, which stays in the allocator instead of the kernel


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """How hidden states become logits: weight [V, H], optional bias [V], soft-cap, scale (logits are multiplied by it)."""

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0


class TokenLogprobs(NamedTuple):
    """Per kept position, nats."""

    logprobs: Tensor
    """[K] of the target token."""
    entropy: Tensor | None = None
    """[K] of the whole distribution; None when not asked for."""
    mean_logprobs: Tensor | None = None
    """[K] mean over the vocabulary (label smoothing); None when not asked for."""


def token_logprobs(
    hidden: Tensor, head: OutputHead, targets: Tensor, *, temperature: float = 1.0, needs: Collection[str] = ()
) -> TokenLogprobs:
    """Compute log softmax(logits / temperature) at `targets`.

    Args:
        hidden: [K, H] hidden states at the positions that predict the targets.
        targets: [K] token ids.
        temperature: divides the logits; the same value must be used for all policies that are compared.
        needs: what to compute beyond logprobs: any of "entropy", "mean_logprobs"; other names are ignored.
    Returns:
        [K] tensors, fp32 (float64 for float64 weights), with gradient to hidden, weight and bias.
    """
    wanted = ("entropy" in needs, "mean_logprobs" in needs)
    outputs = _TokenLogprobs.apply(
        hidden, head.weight, head.bias, targets, head.softcap, head.scale / temperature, wanted
    )
    logprobs, entropy, mean = outputs  # pyright: ignore[reportGeneralTypeIssues]
    return TokenLogprobs(logprobs, entropy if wanted[0] else None, mean if wanted[1] else None)


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, scale: float) -> Tensor:
    """[K, V] logits of a few rows in fp32 or wider, without gradient."""
    logits = _product(hidden, weight.t())
    if bias is not None:
        logits += bias
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    return logits.mul_(scale) if scale != 1.0 else logits


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in fp32 or wider, never rounded to a low precision on the way."""
    if a.dtype in (torch.float32, torch.float64):
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        scale: float,
        wanted: tuple[bool, bool],
    ) -> Any:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprob, norm, entropy, mean = (hidden.new_zeros(len(targets), dtype=dtype) for _ in range(4))
        for rows in _chunks(len(targets), weight.shape[0]):
            logits = chunk_logits(hidden[rows], weight, bias, softcap, scale)
            norm[rows] = logits.logsumexp(-1)
            logprob[rows] = logits.gather(1, targets[rows, None])[:, 0] - norm[rows]
            if wanted[1]:
                mean[rows] = logits.mean(-1) - norm[rows]
            if wanted[0]:
                logits -= norm[rows, None]  # now log p
                entropy[rows] = -(logits.exp() * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, norm, entropy)
        ctx.softcap, ctx.scale = softcap, scale
        ctx.set_materialize_grads(False)
        return logprob, entropy, mean

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        hidden, weight, bias, targets, norm, entropy = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=norm.dtype) if needs_weight else None
        d_bias = torch.zeros_like(bias, dtype=norm.dtype) if bias is not None and needs_bias else None
        for rows in _chunks(len(targets), weight.shape[0]):
            logits = chunk_logits(hidden[rows], weight, bias, ctx.softcap, ctx.scale)
            slope = None if ctx.softcap is None else 1 - (logits / (ctx.scale * ctx.softcap)) ** 2
            part = [None if g is None else g[rows, None] for g in grads]
            d = _logit_gradient(logits.sub_(norm[rows, None]), targets[rows, None], entropy[rows, None], *part)
            d *= ctx.scale if slope is None else slope.mul_(ctx.scale)
            d_low = d.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[rows] = d_low @ weight
            if d_weight is not None:
                d_weight += _product(d_low.t(), hidden[rows])
            if d_bias is not None:
                d_bias += d.sum(0)
        return d_hidden, _cast(d_weight, weight), _cast(d_bias, bias), None, None, None, None


def _logit_gradient(
    logp: Tensor,
    targets: Tensor,
    entropy: Tensor,
    d_logprob: Tensor | None,
    d_entropy: Tensor | None,
    d_mean: Tensor | None,
) -> Tensor:
    """[K, V] gradient of the scaled, capped logits, from log p [K, V] and gradients [K, 1].

    d logprob = onehot - p;  d entropy = -p (log p + entropy);  d mean = 1/V - p
    """
    p = logp.exp()
    total = sum((g for g in (d_logprob, d_mean) if g is not None), start=torch.zeros_like(entropy))
    d = p * -total
    if d_entropy is not None:
        d -= p.mul_(logp + entropy).mul_(d_entropy)
    if d_mean is not None:
        d += d_mean / logp.shape[1]
    if d_logprob is not None:
        d.scatter_add_(1, targets, d_logprob)
    return d


def _cast(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    return grad if grad is None or like is None else grad.to(like.dtype)


def _chunks(num_rows: int, vocabulary: int) -> list[slice]:
    size = max(1, _CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
