"""What a round of samples says about the policy besides its reward: the numbers that the rules of `telemetry/rules.py` watch.

Pure functions over numpy arrays of one round, a few milliseconds for thousands of completions; every name is one of docs/metrics.md.

Legend:
    N  sampled tokens of the round, flat

Example:
    metrics |= text_signals(token_ids) | {"rl/reference_perplexity": perplexity(ref_logprobs)}
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

DISTINCT_TOKENS = (
    32  # of each completion: as many from long ones as from short ones, for distinct n-grams fall with length
)
REPEATED_ORDER = 4
_MAX_NATS = 20.0  # a perplexity of 5e8 is no language in any case
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplies consecutive ids far apart


def kl_efficiency(*, gain: float, spread: float, kl_sequence: float) -> dict[str, float]:
    """Reward gained for the KL spent, against the most that a small tilt of the reference can gain; empty where that is 0.

    eta = gain / (spread * sqrt(2 KL))

    Args:
        gain: mean score minus that of the reference.
        spread: standard deviation of the reference's scores, same unit.
        kl_sequence: nats a sequence.
    """
    if spread <= 0 or kl_sequence <= 0:
        return {}
    return {"rl/kl_efficiency": gain / (spread * math.sqrt(2 * kl_sequence))}


def text_signals(token_ids: Sequence[Ints]) -> dict[str, float]:
    """Diversity across completions and repetition inside them, from token ids.

    Equals: `stats.diversity.distinct_n` of the first 32 tokens, and the mean of `repeated_ngram_share` (tested).
    """
    pairs = _ngrams([ids[:DISTINCT_TOKENS] for ids in token_ids], 2)
    found: dict[str, float] = {}
    if pairs.size:
        found["rl/distinct_2"] = len(np.unique(pairs)) / len(pairs)
    owners = np.concatenate(
        [np.full(max(len(ids) - REPEATED_ORDER + 1, 0), i, dtype=np.uint64) for i, ids in enumerate(token_ids)]
    )
    grams = _ngrams(token_ids, REPEATED_ORDER)
    _, first = np.unique(grams * _ODD + owners, return_index=True)
    num = np.bincount(owners.astype(np.int64), minlength=len(token_ids))
    num_distinct = np.bincount(owners[first].astype(np.int64), minlength=len(token_ids))
    found["rl/repetition"] = float(np.where(num > 0, 1 - num_distinct / np.maximum(num, 1), 0.0).mean())
    return found


def perplexity(logprobs: Floats) -> float:
    """Of the samples under a frozen model, from [N] nats: it rises when text turns incoherent, whatever the reward says."""
    return math.exp(min(-float(logprobs.mean()), _MAX_NATS))


def first_ratio_gap(approx_kl: float) -> dict[str, float]:
    """Root mean square of the log-ratio, from half its mean square at the first minibatch of a round that is on-policy: 0 but for rounding."""
    return {"rl/first_ratio_gap": math.sqrt(2 * max(approx_kl, 0.0))}


def _ngrams(token_ids: Sequence[Ints], order: int) -> npt.NDArray[np.uint64]:
    """All n-grams of all completions in order, each as one number of 64 bits (equal ones equal; others differ but for a chance of 2^-64)."""
    rows: list[npt.NDArray[np.uint64]] = []
    for ids in token_ids:
        wide, total = ids.astype(np.uint64), np.zeros(max(len(ids) - order + 1, 0), dtype=np.uint64)
        for k in range(order):
            total = (total + wide[k : k + len(total)] + np.uint64(1)) * _ODD
            total ^= total >> np.uint64(29)
        rows.append(total)
    return np.concatenate(rows) if rows else np.zeros(0, dtype=np.uint64)
