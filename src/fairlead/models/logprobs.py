"""Log-probabilities of given tokens from hidden states, without ever holding the logits of all positions.

Hidden states are projected in chunks of rows; each chunk's logits are used and dropped, in the forward and again in the
backward (a small batch keeps them instead, see KEPT_BYTES). Low-precision weights are multiplied with fp32 results (a logit of 20
rounded to bf16 is off by up to 0.06 nats); float64 stays float64. Only what is asked for is computed.

Legend: K kept positions, H hidden size, V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MiB in fp32, which stays in the allocator instead of the kernel
KEPT_BYTES = 128 << 20
"""Log-probabilities of the whole vocabulary up to this size are kept from the forward for the backward; beyond it each chunk is
computed again, which costs a third of the head's arithmetic and bounds memory whatever the vocabulary."""


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
    collision_logprobs: Tensor | None = None
    """[K] log of the summed squared probabilities, without gradient (WPO's weights); None when not asked for."""


def token_logprobs(
    hidden: Tensor, head: OutputHead, targets: Tensor, *, temperature: float = 1.0, needs: Collection[str] = ()
) -> TokenLogprobs:
    """Compute log softmax(logits / temperature) at `targets`.

    Args:
        hidden: [K, H] hidden states at the positions that predict the targets.
        targets: [K] token ids.
        temperature: divides the logits; the same value must be used for all policies that are compared.
        needs: what to compute beyond logprobs: any of "entropy", "mean_logprobs", "collision_logprobs"; other names are ignored.
    Returns:
        [K] tensors, fp32 (float64 for float64 weights), with gradient to hidden, weight and bias.
    """
    wanted = ("entropy" in needs, "mean_logprobs" in needs, "collision_logprobs" in needs)
    outputs = _TokenLogprobs.apply(
        hidden, head.weight, head.bias, targets, head.softcap, head.scale / temperature, wanted
    )
    optional = (value if is_wanted else None for value, is_wanted in zip(outputs[1:], wanted, strict=True))
    return TokenLogprobs(outputs[0], *optional)


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
        wanted: tuple[bool, bool, bool],
    ) -> Any:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        count, vocabulary = len(targets), weight.shape[0]
        logprob, norm, entropy, mean, collision = (hidden.new_zeros(count, dtype=dtype) for _ in range(5))
        learns = any(ctx.needs_input_grad[:3])
        keeps = learns and count * vocabulary * logprob.element_size() <= KEPT_BYTES
        kept = hidden.new_empty(count if keeps else 0, vocabulary, dtype=dtype)
        scratch = hidden.new_empty(min(count, _chunk_rows(vocabulary)), vocabulary, dtype=dtype)
        for rows in _chunks(count, vocabulary):
            room = scratch[: rows.stop - rows.start]
            logits = chunk_logits(hidden[rows], weight, bias, softcap, scale, out=room)
            norm[rows] = logits.logsumexp(-1)
            logp = torch.sub(logits, norm[rows, None], out=kept[rows] if keeps else logits)
            logprob[rows] = logp.gather(1, targets[rows, None])[:, 0]
            if wanted[1]:
                mean[rows] = logp.mean(-1)
            if wanted[0]:
                entropy[rows] = -(logp.exp() * logp).sum(-1)
            if wanted[2]:
                collision[rows] = (2 * logp).logsumexp(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, norm, entropy, kept if keeps else None)
        ctx.softcap, ctx.scale = softcap, scale
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(collision)
        return logprob, entropy, mean, collision

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        hidden, weight, bias, targets, norm, entropy, kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=norm.dtype) if needs_weight else None
        d_bias = torch.zeros_like(bias, dtype=norm.dtype) if bias is not None and needs_bias else None
        scratch = norm.new_empty(min(len(targets), _chunk_rows(weight.shape[0])), weight.shape[0])
        for rows in _chunks(len(targets), weight.shape[0]):
            room = scratch[: rows.stop - rows.start]
            if kept is None:
                logits = chunk_logits(hidden[rows], weight, bias, ctx.softcap, ctx.scale, out=room)
                logp = logits.sub_(norm[rows, None])
            else:
                logp = kept[rows]
            slope = None
            if ctx.softcap is not None:
                slope = 1 - ((logp + norm[rows, None]) / (ctx.scale * ctx.softcap)) ** 2
            part = [None if g is None else g[rows, None] for g in grads[:3]]
            d = _logit_gradient(logp, targets[rows, None], entropy[rows, None], *part, out=room)
            if slope is not None:
                d *= slope.mul_(ctx.scale)
            elif ctx.scale != 1.0:
                d *= ctx.scale
            d_low = d.to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(d_low, weight, out=d_hidden[rows])
            if d_weight is not None:
                _add_product(d_weight, d_low.t(), hidden[rows])
            if d_bias is not None:
                d_bias += d.sum(0)
        return d_hidden, _cast(d_weight, weight), _cast(d_bias, bias), None, None, None, None


def chunk_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """[K, V] logits of a few rows in fp32 or wider, without gradient; into `out` when it is given."""
    logits = _product(hidden, weight.t(), out)
    if bias is not None:
        logits += bias
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    return logits.mul_(scale) if scale != 1.0 else logits


def _product(a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    """Matrix product in fp32 or wider, never rounded to a low precision on the way."""
    if a.is_cuda and a.dtype not in (torch.float32, torch.float64):
        return torch.mm(a, b, out_dtype=torch.float32)
    a, b = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
    return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, in the precision of `total`."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        total += torch.mm(a, b, out_dtype=torch.float32)
    else:
        total.addmm_(a.float(), b.float())


def _logit_gradient(
    logp: Tensor,
    targets: Tensor,
    entropy: Tensor,
    d_logprob: Tensor | None,
    d_entropy: Tensor | None,
    d_mean: Tensor | None,
    *,
    out: Tensor,
) -> Tensor:
    """[K, V] gradient of the scaled, capped logits, from log p [K, V] and gradients [K, 1]; `out` may be `logp` itself.

    d logprob = onehot - p;  d entropy = -p (log p + entropy);  d mean = 1/V - p
    """
    total = sum((g for g in (d_logprob, d_mean) if g is not None), start=torch.zeros_like(entropy))
    if d_entropy is not None:
        total = total + d_entropy * (logp + entropy)  # -p * (d_logprob + d_mean + d_entropy * (log p + entropy))
    d = torch.exp(logp, out=out).mul_(-total)
    if d_mean is not None:
        d += d_mean / logp.shape[1]
    if d_logprob is not None:
        d.scatter_add_(1, targets, d_logprob)
    return d


def _cast(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    return grad if grad is None or like is None else grad.to(like.dtype)


def _chunk_rows(vocabulary: int) -> int:
    return max(1, _CHUNK_ELEMENTS // vocabulary)


def _chunks(num_rows: int, vocabulary: int) -> list[slice]:
    size = _chunk_rows(vocabulary)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
