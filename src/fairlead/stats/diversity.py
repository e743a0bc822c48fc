"""Diversity of samples: self-BLEU per prompt, distinct and repeated n-grams, phrases that a policy overuses.

Texts are lists of tokens (words, ids): tokenising belongs to the caller. Compare a policy with its reference on the same prompts
and pair by prompt; the level of these numbers depends on tokens, length and number of samples.

Legend:
    P  prompts, each with its samples

Example:
    before, after = self_bleu(reference_samples), self_bleu(policy_samples)
    paired_interval(before, after)
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.stats.arrays import FloatArray

Tokens = Sequence[Hashable]
Ngram = tuple[Hashable, ...]

MAX_ORDER = 4
"""BLEU-4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramLift:
    """How much more often texts contain a phrase than reference texts do."""

    ngram: Ngram
    share: float
    """Share of texts that contain it."""
    reference_share: float
    lift: float
    """share / reference_share, each with half a text added so that phrases new to the policy stay finite."""


def self_bleu(texts_by_prompt: Sequence[Sequence[Tokens]]) -> FloatArray:
    """Mean BLEU-4 of each sample against the other samples of its prompt, [P]: 1 says the same thing, 0 shares nothing.

    Returns:
        In [0, 1]; nan for prompts with fewer than two samples.
    Source: Zhu et al. 2018, arXiv:1802.01886; +1 smoothing of orders above 1 as Lin and Och 2004.
    Equals: sacrebleu sentence BLEU / 100 with smooth_method add-k, value 1 (tested).
    """
    return np.array([_prompt_self_bleu(samples) for samples in texts_by_prompt], dtype=np.float64)


def distinct_n(texts: Iterable[Tokens], n: int) -> float:
    """Distinct n-grams as a share of all n-grams of the texts together; nan without n-grams. Falls with length.

    Source: Li et al. 2016, arXiv:1510.03055.
    """
    found = Counter(ngram for text in texts for ngram in ngrams(text, n))
    total = found.total()
    return len(found) / total if total else math.nan


def repeated_ngram_share(texts: Iterable[Tokens], *, n: int = 4) -> FloatArray:
    """Share of each text's n-grams that occurred in it before, one value per text; 0 for texts shorter than n."""
    shares: list[float] = []
    for text in texts:
        found = ngrams(text, n)
        shares.append(1 - len(set(found)) / len(found) if found else 0.0)
    return np.array(shares, dtype=np.float64)


def ngram_lift(
    texts: Sequence[Tokens],
    reference: Sequence[Tokens],
    *,
    orders: Sequence[int] = (1, 2, 3, 4),
    min_share: float = 0.05,
    top: int = 50,
) -> tuple[NgramLift, ...]:
    """Phrases that the texts contain more often than the reference texts, largest lift first.

    Args:
        orders: lengths of phrases in tokens.
        min_share: share of texts below which a phrase is not worth showing.
        top: at most this many come back.
    """
    found, known = _document_counts(texts, orders), _document_counts(reference, orders)
    lifts: list[NgramLift] = []
    for ngram, times in found.items():
        share = times / len(texts)
        if share < min_share:
            continue
        smoothed = (times + 0.5) / (len(texts) + 0.5)
        smoothed_reference = (known[ngram] + 0.5) / (len(reference) + 0.5)
        lifts.append(NgramLift(ngram=ngram, share=share, reference_share=known[ngram] / max(len(reference), 1),
                               lift=smoothed / smoothed_reference))  # fmt: skip
    lifts.sort(key=lambda found: (-found.lift, -found.share, -len(found.ngram), repr(found.ngram)))
    return tuple(lifts[:top])


def ngrams(text: Tokens, n: int) -> list[Ngram]:
    """Return the n-grams of a text in order, repeats included."""
    return list(zip(*(text[start:] for start in range(n)), strict=False))


def _document_counts(texts: Iterable[Tokens], orders: Sequence[int]) -> Counter[Ngram]:
    """In how many texts each phrase occurs."""
    return Counter(ngram for text in texts for ngram in {phrase for n in orders for phrase in ngrams(text, n)})


def _prompt_self_bleu(samples: Sequence[Tokens]) -> float:
    if len(samples) < 2:
        return math.nan
    lengths = [len(sample) for sample in samples]
    matches = [_clipped_matches([Counter(ngrams(s, n)) for s in samples]) for n in range(1, MAX_ORDER + 1)]
    return float(np.mean([_bleu([order[i] for order in matches], lengths, i) for i in range(len(samples))]))


def _clipped_matches(counts: Sequence[Counter[Ngram]]) -> list[int]:
    """For each sample the number of its n-grams found in another sample, clipped to the most that any other has.

    The most among the others is the largest count of all, or the second largest for the sample that holds the largest.
    """
    best: dict[Ngram, tuple[int, int, int]] = {}
    for sample, found in enumerate(counts):
        for ngram, times in found.items():
            first, second, holder = best.get(ngram, (0, 0, -1))
            if times > first:
                best[ngram] = (times, first, sample)
            elif times > second:
                best[ngram] = (first, times, holder)
    return [
        sum(
            min(times, best[ngram][1] if best[ngram][2] == sample else best[ngram][0]) for ngram, times in found.items()
        )
        for sample, found in enumerate(counts)
    ]


def _bleu(matches: Sequence[int], lengths: Sequence[int], sample: int) -> float:
    """BLEU of one sample with +1 on matches and totals of the orders above 1; 0 where no single token matches."""
    length = lengths[sample]
    if matches[0] == 0:
        return 0.0
    log_precision = math.log(matches[0] / length)
    for order in range(2, MAX_ORDER + 1):
        log_precision += math.log((matches[order - 1] + 1) / (max(length - order + 1, 0) + 1))
    others = [other for i, other in enumerate(lengths) if i != sample]
    closest = min(others, key=lambda other: (abs(other - length), other))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(log_precision / MAX_ORDER + brevity)
