"""Exact and fuzzy match with a reference answer.

    exact   1 when the normalised texts are equal, else 0
    fuzzy   token_f1 = 2 |common words| / (|words of one| + |words of the other|), words counted as often as they occur
            edits    = 1 - Levenshtein distance / length of the longer one

Source: token F1 as in SQuAD, Rajpurkar et al. 2016, arXiv:1606.05250.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable

import numpy as np

from fairlead.rewards.verifiers.answers import AnswerVerifier
from fairlead.rewards.verifiers.config import ExactSection, FuzzySection

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, steps: Iterable[str]) -> str:
    """Apply the named steps in a fixed order: accents, case, punctuation, articles, space."""
    wanted = set(steps)
    text = unicodedata.normalize("NFKC", text)
    if "accents" in wanted:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    if "case" in wanted:
        text = text.casefold()
    if "punctuation" in wanted:
        text = text.translate(_PUNCTUATION)
    if "articles" in wanted:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split()) if "space" in wanted else text.strip()


def token_f1(a: str, b: str) -> float:
    """Overlap of the words of two texts, in [0, 1]; two empty texts are equal."""
    words_a, words_b = Counter(a.split()), Counter(b.split())
    num = words_a.total() + words_b.total()
    return 1.0 if num == 0 else 2 * (words_a & words_b).total() / num


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the fewest characters to insert, delete or replace.

    A row of the usual table at a time. Insertions run along the row: row[j] = min over k <= j of (best[k] + j - k), which is a running
    minimum of best[k] - k.
    """
    if len(a) < len(b):
        a, b = b, a
    codes = np.fromiter(map(ord, b), dtype=np.int64, count=len(b))
    steps = np.arange(len(b) + 1)
    row = steps.copy()
    for char in a:
        best = row + 1
        np.minimum(best[1:], row[:-1] + (codes != ord(char)), out=best[1:])
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])


def edit_similarity(a: str, b: str) -> float:
    """1 - distance / length of the longer text, in [0, 1]; two empty texts are equal."""
    longest = max(len(a), len(b))
    return 1.0 if longest == 0 else 1 - edit_distance(a, b) / longest


class ExactMatch(AnswerVerifier[ExactSection]):
    """1 for an answer that equals a reference after normalisation, 0 for another or none."""

    __slots__ = ()
    version = "1"

    def compare(self, answer: str, references: tuple[str, ...]) -> float:
        """0 or 1."""
        steps = self.section.normalise
        return float(normalise(answer, steps) in {normalise(reference, steps) for reference in references})


class FuzzyMatch(AnswerVerifier[FuzzySection]):
    """How near an answer is to the nearest reference, in [0, 1]."""

    __slots__ = ()
    version = "1"

    def compare(self, answer: str, references: tuple[str, ...]) -> float:
        """Similarity, or 0 and 1 with a threshold."""
        steps = self.section.normalise
        measure = token_f1 if self.section.measure == "token_f1" else edit_similarity
        best = max(measure(normalise(answer, steps), normalise(reference, steps)) for reference in references)
        return best if self.section.threshold is None else float(best >= self.section.threshold)
