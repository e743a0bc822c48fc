"""Log-probabilities of given tokens from hidden states, without ever holding the logits of all positions.

Hidden states are projected in chunks of rows; each chunk's logits are used and dropped, in the forward and again in the
backward. Accumulation is fp32 whatever the weights are. The same function serves training, scoring and the tests' reference.

Legend: K kept positions, H hidden size, V vocabulary.
"""

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
    entropy: Tensor
    """[K] of the whole distribution."""
    mean_logprobs: Tensor
    """[K] mean over the vocabulary (label smoothing)."""


def token_logprobs(hidden: Tensor, head: OutputHead, targets: Tensor, *, temperature: float = 1.0) -> TokenLogprobs:
    """Compute log softmax(logits / temperature) at `targets`, with entropy and mean.

    Args:
        hidden: [K, H] hidden states at the positions that predict the targets.
        targets: [K] token ids.
        temperature: divides the logits; the same value must be used for all policies that are compared.
    Returns:
        Three [K] fp32 tensors with gradient to hidden, weight and bias.
    """
    inputs = (hidden, head.weight, head.bias, targets, head.softcap, head.scale / temperature)
    return TokenLogprobs(*_TokenLogprobs.apply(*inputs))  # pyright: ignore[reportGeneralTypeIssues]


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, scale: float) -> Tensor:
    """Logits of a few rows in fp32 (bf16 products are accumulated in fp32 by the matrix unit, then widened)."""
    logits = (hidden @ weight.t()).float()
    if bias is not None:
        logits += bias.float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits * scale if scale != 1.0 else logits


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
    ) -> Any:
        outputs = [hidden.new_empty(len(targets), dtype=torch.float32) for _ in range(3)]
        for rows in _chunks(len(targets), weight.shape[0]):
            logits = chunk_logits(hidden[rows], weight, bias, softcap, scale)
            norm = logits.logsumexp(-1)
            outputs[0][rows] = logits.gather(1, targets[rows, None])[:, 0] - norm
            outputs[2][rows] = logits.mean(-1) - norm
            logits -= norm[:, None]  # now log p
            outputs[1][rows] = -(logits.exp() * logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, outputs[1])
        ctx.softcap, ctx.scale = softcap, scale
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias, targets, entropy = ctx.saved_tensors
        d_logprob, d_entropy, d_mean = grads
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        for rows in _chunks(len(targets), weight.shape[0]):
            logits = chunk_logits(hidden[rows], weight, bias, ctx.softcap, ctx.scale)
            logp = logits - logits.logsumexp(-1, keepdim=True)
            p = logp.exp()
            # d logprob = onehot - p;  d entropy = -p (log p + entropy);  d mean = 1/V - p
            d = -p * (d_logprob[rows] + d_mean[rows])[:, None]
            if bool(d_entropy.any()):
                d -= p * (logp + entropy[rows, None]) * d_entropy[rows, None]
            d += (d_mean[rows] / weight.shape[0])[:, None]
            d.scatter_add_(1, targets[rows, None], d_logprob[rows, None])
            d *= ctx.scale
            if ctx.softcap is not None:
                d *= 1 - (logits / (ctx.scale * ctx.softcap)) ** 2
            d_low = d.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[rows] = d_low @ weight
            if d_weight is not None:
                d_weight += d_low.t() @ hidden[rows]
            if d_bias is not None:
                d_bias += d.sum(0)
        return d_hidden, _cast(d_weight, weight), _cast(d_bias, bias), None, None, None


def _cast(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    return grad if grad is None or like is None else grad.to(like.dtype)


def _chunks(num_rows: int, vocabulary: int) -> list[slice]:
    size = max(1, _CHUNK_ELEMENTS // vocabulary)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
