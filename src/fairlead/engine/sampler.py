"""From logits to tokens: temperature, cuts, penalty, and one uniform number per token that belongs to the sample alone.

The same sample gets the same tokens whatever else is in the batch: its uniforms come from a counter-based generator keyed by
(seed, request key, sample index), and a token is the inverse of the distribution function at its uniform.

Legend: S samples, V vocabulary.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.core.protocols import Sampling


def sample_uniforms(seed: int, key: str, sample_index: int, num: int) -> npt.NDArray[np.float64]:
    """[num] uniforms in [0, 1) of one sample; element t serves its t-th token."""
    digest = hashlib.sha256(f"{seed}\x00{key}\x00{sample_index}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random(num)


def process_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """[S, V] logits after repetition penalty, temperature, top-k, top-p and min-p; dropped tokens are -inf.

    top-k keeps all tokens that tie with the k-th. top-p keeps the fewest most likely tokens whose probability (after top-k)
    reaches top_p, lower ids first among equals. Greedy sampling (temperature 0) drops nothing.

    Args:
        seen: [S, V] tokens that prompt or completion hold; needed with a repetition penalty.
    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1 (the penalty, as transformers has it, on negative logits too).
    """
    if sampling.repetition_penalty != 1.0:
        assert seen is not None, "a repetition penalty needs the tokens that were seen"
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        return logits
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        dropped = ordered.cumsum(-1) - ordered >= sampling.top_p  # the token that crosses the line stays
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf)
    if sampling.min_p > 0.0:
        logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(sampling.min_p), -torch.inf)
    return logits


def possible_tokens(logits: Tensor) -> npt.NDArray[np.int32]:
    """[S, C] ids of the tokens that `process_logits` left a chance, rising, -1 beyond them; C is the most that a row has."""
    rows, ids = (logits > -torch.inf).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=logits.shape[0])
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    found = torch.full((logits.shape[0], int(counts.max())), -1, dtype=torch.int32, device=logits.device)
    found[rows, places] = ids.to(torch.int32)
    return found.cpu().numpy()


def draw(logits: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """Choose one token a row of [S, V]: the inverse distribution function at `uniforms` [S], or the most likely when None.

    Returns:
        tokens [S] and their logprobs [S], nats.
    """
    if uniforms is None:
        tokens = logits.argmax(-1)
    else:
        # Weights, not probabilities: their sum in float64 is the last entry, so that rounding leaves no gap above it.
        cdf = (logits - logits.amax(-1, keepdim=True)).exp_().cumsum(-1, dtype=torch.float64)
        tokens = torch.searchsorted(cdf, uniforms[:, None] * cdf[:, -1:], right=True)[:, 0]
        tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens, (logits.gather(1, tokens[:, None]) - logits.logsumexp(-1, keepdim=True))[:, 0]
