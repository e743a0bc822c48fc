"""Prompts that also stand in an evaluation file: equal, or sharing a run of 13 words with it.

A prompt is contaminated when it (or its last turn) is equal to an evaluation prompt in normal form, or when the two share an
n-gram of words: n = `ngram_words` (13), or the whole evaluation prompt where it has fewer words, but never fewer than 8 (a run of
five words is everyday language): shorter evaluation prompts are matched by equality only. Runs that more than ten prompts of one
evaluation file share are its template and say nothing about a leak.

Source: Brown et al. 2020, arXiv:2005.14165, appendix C (13-grams, at least 8, frequent ones ignored).
Differs: n by evaluation prompt instead of by data set, so that no long prompt is left out because others are short; frequency is
counted in the evaluation file instead of the training data, where a benchmark that leaked eleven times would be forgiven.

Example:
    overlap = find_overlap(hash_words(plain), keys=plain, evaluation=["natalia sold clips to 48 of her friends ..."])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.prompts.words import HashedTexts, Hashes, Index, hash_words, ngrams

NGRAM_WORDS = 13
MIN_NGRAM_WORDS = 8
MAX_SHARING_PROMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Which prompts overlap with one evaluation file, and how they were compared."""

    is_exact: npt.NDArray[np.bool_]
    """[n] equal to an evaluation prompt."""
    has_ngram: npt.NDArray[np.bool_]
    """[n] shares a run of words with one."""
    sizes: tuple[int, ...]
    """Lengths of the runs that were compared, in words; empty when all evaluation prompts are too short."""
    num_too_short: int
    """Evaluation prompts that are matched by equality only."""

    @property
    def is_contaminated(self) -> npt.NDArray[np.bool_]:
        """[n] either."""
        return self.is_exact | self.has_ngram

    def rule(self) -> str:
        """How the comparison was made, in words."""
        if not self.sizes:
            return "equality only"
        low, high = min(self.sizes), max(self.sizes)
        return f"equality and {low}-grams" if low == high else f"equality and {low}- to {high}-grams"


def find_overlap(
    texts: HashedTexts, *, keys: Sequence[tuple[str, ...]], evaluation: Sequence[str], ngram_words: int = NGRAM_WORDS
) -> Overlap:
    """Compare prompts with the prompts of one evaluation file.

    Args:
        texts: normalised prompts.
        keys: normalised forms of each prompt that are compared for equality (all of it, its last turn).
        evaluation: normalised evaluation prompts.
        ngram_words: longest run that is asked for.
    """
    known = set(evaluation)
    is_exact = np.fromiter((any(key in known for key in forms) for forms in keys), bool, count=len(texts))
    hashed = hash_words(list(known))
    shortest = min(MIN_NGRAM_WORDS, ngram_words)
    has_ngram, sizes = np.zeros(len(texts), bool), list[int]()
    for size in range(shortest, ngram_words + 1):
        wanted = _telling_ngrams(hashed, size, is_longest=size == ngram_words)
        if len(wanted):
            hashes, index = ngrams(texts, size)
            has_ngram[index[np.isin(hashes, wanted)]] = True
            sizes.append(size)
    return Overlap(is_exact=is_exact, has_ngram=has_ngram, sizes=tuple(sizes),
                   num_too_short=int((hashed.lengths < shortest).sum()))  # fmt: skip


def _telling_ngrams(evaluation: HashedTexts, size: int, *, is_longest: bool) -> Hashes:
    """n-grams of the texts that are compared at this size: exactly `size` words long, or longer too when it is the longest."""
    hashes, index = ngrams(evaluation, size)
    lengths: Index = evaluation.lengths[index]
    is_compared = (lengths >= size) if is_longest else (lengths == size)
    by_text = np.unique(np.stack([hashes[is_compared], index[is_compared].astype(np.uint64)], axis=1), axis=0)
    values, num_texts = np.unique(by_text[:, 0], return_counts=True)
    return values[num_texts <= MAX_SHARING_PROMPTS]
