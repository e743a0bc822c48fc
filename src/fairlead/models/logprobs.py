"""Log-probabilities of given tokens from hidden states, without ever holding the logits of all positions.

Hidden states are projected in chunks of rows; each chunk's logits are used and dropped, in the forward and again in the
backward (a small batch keeps them instead, see KEPT_BYTES). Low-precision weights are multiplied with fp32 results (a logit of 20
rounded to bf16 is off by up to 0.06 nats); float64 stays float64. Only what is asked for is computed.

Legend: K kept positions, H hidden size, V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairlead.models.arithmetic import Arithmetic
from fairlead.models.native import rows as native

_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits held at once, by the kind of device: 16 MiB in fp32 stay in the cache of a CPU from pass to pass; a GPU wants products of
hundreds of rows (256 MiB; not measured)."""
_FEWEST_ROWS = 128  # fewer would read all weights for little: a product wants both sides large
_NO_CHANCE = -1e30
"""Logit of a token that has no probability: its exp is 0, and 0 times it is 0 where 0 times infinity would be NaN."""
KEPT_BYTES = 128 << 20
"""Log-probabilities of the whole vocabulary up to this size are kept from the forward for the backward; beyond it each chunk is
computed again, which costs a third of the head's arithmetic and bounds memory whatever the vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """How hidden states become logits: weight [V, H], optional bias [V], soft-cap, scale (logits are multiplied by it), products."""

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0
    arithmetic: Arithmetic = field(default_factory=Arithmetic)


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
    hidden: Tensor, head: OutputHead, targets: Tensor, *, temperature: float = 1.0, needs: Collection[str] = (),
    choices: Tensor | None = None,
) -> TokenLogprobs:  # fmt: skip
    """Compute log softmax(logits / temperature) at `targets`.

    Args:
        hidden: [K, H] hidden states at the positions that predict the targets.
        targets: [K] token ids.
        temperature: divides the logits; the same value must be used for all policies that are compared.
        choices: [K, C] ids of the only tokens that have a probability at each position, -1 beyond them; the softmax is over these. None
            means all of them.
        needs: what to compute beyond logprobs: any of "entropy", "mean_logprobs", "collision_logprobs"; other names are ignored.
    Returns:
        [K] tensors, fp32 (float64 for float64 weights), with gradient to hidden, weight and bias.
    """
    wanted = ("entropy" in needs, "mean_logprobs" in needs, "collision_logprobs" in needs)
    assert choices is None or not wanted[1], (
        "the mean over the vocabulary has no value where some tokens have no probability"
    )
    outputs = _TokenLogprobs.apply(
        hidden, head.weight, head.bias, targets, head, head.scale / temperature, wanted, choices
    )
    optional = (value if is_wanted else None for value, is_wanted in zip(outputs[1:], wanted, strict=True))
    return TokenLogprobs(outputs[0], *optional)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: OutputHead, scale: float,
        wanted: tuple[bool, bool, bool], choices: Tensor | None,
    ) -> Any:  # fmt: skip
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        count, vocabulary = len(targets), weight.shape[0]
        logprob, norm, entropy, mean, collision = (hidden.new_zeros(count, dtype=dtype) for _ in range(5))
        is_low = head.arithmetic.precision == "bf16" and head.softcap is None
        kept_dtype = torch.bfloat16 if is_low else dtype  # probabilities, else log-probabilities
        learns = any(ctx.needs_input_grad[:3])
        keeps = learns and count * vocabulary * kept_dtype.itemsize <= KEPT_BYTES
        kept = hidden.new_empty(count if keeps else 0, vocabulary, dtype=kept_dtype)
        scratch = hidden.new_empty(min(count, chunk_rows(vocabulary, hidden.device.type)), vocabulary, dtype=dtype)
        projecting = _converted(head, hidden)
        in_one_pass = is_low and not (wanted[1] or wanted[2]) and dtype == torch.float32 and native.can_compute(scratch)
        for rows in _chunks(count, vocabulary, hidden.device.type):
            target = targets[rows, None]
            logits = chunk_logits(hidden[rows], projecting, scale, out=scratch[: rows.stop - rows.start])
            if choices is not None:
                logits.masked_fill_(_impossible(choices[rows], vocabulary), _NO_CHANCE)
            if in_one_pass:
                native.softmax(logits, targets[rows], logprob=logprob[rows], norm=norm[rows], entropy=entropy[rows] if wanted[0] else None,
                               probabilities=kept[rows] if keeps else None)  # fmt: skip
                continue
            at_target = logits.gather(1, target)[:, 0]
            logp = _log_softmax(logits, kept[rows] if keeps and not is_low else logits)
            logprob[rows] = logp.gather(1, target)[:, 0]
            norm[rows] = at_target - logprob[rows]
            if wanted[1]:
                mean[rows] = logp.mean(-1)
            if wanted[0]:
                entropy[rows] = -(logp.exp() * logp).sum(-1)
            if wanted[2]:
                collision[rows] = (2 * logp).logsumexp(-1)
            if keeps and is_low:
                kept[rows] = logp.exp_()
        ctx.save_for_backward(hidden, weight, bias, targets, norm, entropy, logprob)
        ctx.kept = kept if keeps else None
        ctx.head, ctx.scale, ctx.is_low, ctx.choices = head, scale, is_low, choices
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(collision)
        return logprob, entropy, mean, collision

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        hidden, weight, bias, targets, norm, entropy, logprob = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None  # its chunks become their own gradients; a second backward computes them again
        if ctx.is_low and grads[1] is not None:
            kept = None  # the gradient of an entropy reads log-probabilities
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        how: Arithmetic = ctx.head.arithmetic
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=norm.dtype) if needs_weight else None
        d_bias = torch.zeros_like(bias, dtype=norm.dtype) if bias is not None and needs_bias else None
        vocabulary = weight.shape[0]
        scratch = norm.new_empty(
            min(len(targets), chunk_rows(vocabulary, hidden.device.type)) if kept is None else 0, vocabulary
        )
        projecting, factor = _converted(ctx.head, hidden), weight if norm.dtype == torch.float64 else how.factor(weight)
        for rows in _chunks(len(targets), vocabulary, hidden.device.type):
            room = scratch[: rows.stop - rows.start] if kept is None else kept[rows]
            slope = None
            if kept is None:
                logits = chunk_logits(hidden[rows], projecting, ctx.scale, out=room)
                if ctx.head.softcap is not None:
                    slope = 1 - (logits / (ctx.scale * ctx.head.softcap)) ** 2
                if ctx.choices is not None:
                    logits.masked_fill_(_impossible(ctx.choices[rows], vocabulary), _NO_CHANCE)
                room = _log_softmax(logits, logits)
            elif ctx.head.softcap is not None:
                slope = 1 - ((room + norm[rows, None]) / (ctx.scale * ctx.head.softcap)) ** 2
            part = [None if g is None else g[rows, None] for g in grads[:3]]
            sure = logprob[rows, None] if ctx.is_low and kept is not None else None
            d = _logit_gradient(room, targets[rows, None], entropy[rows, None], *part, sure=sure)
            if slope is not None:
                d *= slope
            if ctx.choices is not None:  # 0 but for what a soft-cap makes of _NO_CHANCE
                d.masked_fill_(_impossible(ctx.choices[rows], vocabulary), 0.0)
            if ctx.scale != 1.0:
                d *= ctx.scale
            if d_hidden is not None:
                d_hidden[rows] = how.product(d, factor, hidden.dtype)
            if d_weight is not None:
                d_weight += how.product(d.t(), hidden[rows], norm.dtype)
            if d_bias is not None:
                d_bias += d.sum(0, dtype=norm.dtype)
        return d_hidden, _cast(d_weight, weight), _cast(d_bias, bias), None, None, None, None, None


def _impossible(choices: Tensor, vocabulary: int) -> Tensor:
    """[K, V] True for tokens that are not among [K, C] choices."""
    found = torch.ones(len(choices), vocabulary + 1, dtype=torch.bool, device=choices.device)
    return found.scatter_(1, torch.where(choices < 0, vocabulary, choices).long(), False)[:, :vocabulary]


def _converted(head: OutputHead, hidden: Tensor) -> OutputHead:
    """On CUDA with its weight as the products of all chunks read it; a CPU's fp32 products round by themselves."""
    is_low = hidden.is_cuda and hidden.dtype != torch.float64
    return replace(head, weight=head.arithmetic.factor(head.weight)) if is_low else head


def chunk_logits(hidden: Tensor, head: OutputHead, scale: float, *, out: Tensor | None = None) -> Tensor:
    """[K, V] logits of a few rows times `scale` in fp32 or wider, without gradient; into `out` where that saves a copy."""
    logits = head.arithmetic.wide_product(hidden, head.weight, out=out)
    if head.bias is not None:
        logits += head.bias
    if head.softcap is not None:
        logits = logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits.mul_(scale) if scale != 1.0 else logits


def _log_softmax(logits: Tensor, out: Tensor) -> Tensor:
    """In one pass, where logsumexp and a subtraction are five; `out` may be `logits`."""
    return torch.ops.aten._log_softmax.out(logits, -1, False, out=out)


def _logit_gradient(
    logp: Tensor, targets: Tensor, entropy: Tensor, d_logprob: Tensor | None, d_entropy: Tensor | None, d_mean: Tensor | None,
    *, sure: Tensor | None,
) -> Tensor:  # fmt: skip
    """[K, V] gradient of the scaled, capped logits in the place of `logp`, from log p [K, V] and gradients [K, 1].

    d logprob = onehot - p;  d entropy = -p (log p + entropy);  d mean = 1/V - p

    Args:
        sure: [K, 1] log p of the targets in fp32 when `logp` holds p in bf16, whose 1 - p would be 0 from p = 0.998 on.
    """
    total = sum((g for g in (d_logprob, d_mean) if g is not None), start=torch.zeros_like(entropy))
    if d_entropy is not None:
        total = total + d_entropy * (logp + entropy)  # -p * (d_logprob + d_mean + d_entropy * (log p + entropy))
    d = (logp if sure is not None else logp.exp_()).mul_(-total.to(logp.dtype))
    flat = torch.zeros_like(entropy) if d_mean is None else d_mean / logp.shape[1]
    if d_mean is not None:
        d += flat.to(d.dtype)
    if sure is not None:
        own = torch.zeros_like(entropy) if d_logprob is None else d_logprob
        at_target = flat - own * torch.expm1(sure) - (0 if d_mean is None else d_mean * sure.exp())
        d.scatter_(1, targets, at_target.to(d.dtype))
    elif d_logprob is not None:
        d.scatter_add_(1, targets, d_logprob)
    return d


def _cast(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    return grad if grad is None or like is None else grad.to(like.dtype)


def chunk_rows(vocabulary: int, kind: str = "cpu") -> int:
    """Positions whose logits are held at once on a kind of device."""
    return max(_FEWEST_ROWS, _CHUNK_ELEMENTS.get(kind, _CHUNK_ELEMENTS["cpu"]) // vocabulary)


def _chunks(num_rows: int, vocabulary: int, kind: str) -> list[slice]:
    size = chunk_rows(vocabulary, kind)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
