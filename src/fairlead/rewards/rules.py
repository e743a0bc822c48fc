"""Scorers that follow a written rule instead of a trained model: exact, free, and the same for everybody.

They serve as gold standard in controlled experiments and as penalties beside a reward model. All implement `core.protocols.Scorer` and
read the completions only. What a reply costs whatever it says is in penalties.py; what may take long or needs a reference (a pattern, a JSON
schema, an answer) is a verifier, in a process of its own.

Example:
    rule = make_rule({"kind": "lexicon", "path": "lexicon.json"})
    scores = rule.score(prompts, completions)        # float64[B]
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.io import read_json
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Prompt
from fairlead.core.transcripts import written_text
from fairlead.rewards.options import Options
from fairlead.rewards.penalties import PENALTIES

MAX_SENTIMENT = 2
MAX_HEDGES = 2
HEDGE_PENALTY = 0.5
UNFINISHED_PENALTY = 1.0

_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def word_tokens(text: str) -> list[str]:
    """Lower-cased words; an apostrophe inside a word stays ("don't"), every other sign separates."""
    return _TOKEN.findall(text.lower().replace("\u2019", "'"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Word lists of the gold rule. Immutable; the lists of words are disjoint.

    Matching knows whole word tokens only: no inflection, no negation ("not lovely" is warm).
    """

    warm: Collection[str]
    """Single words that count +1 each time they occur."""
    cold: Collection[str]
    """Single words that count -1 each time they occur."""
    hedges: Collection[str]
    """Words or phrases; at any place the longest one counts, and matches do not overlap."""
    _phrases: Mapping[str, tuple[tuple[str, ...], ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("warm", "cold"):
            entries = frozenset[str](getattr(self, name))
            bad = sorted(w for w in entries if word_tokens(w) != [w])
            if bad:
                raise DataError(explain(f"lexicon.{name}", bad[0], "is not a single lower-case word", expected="one word an entry",
                                        remedy="Fix the entry"))  # fmt: skip
            object.__setattr__(self, name, entries)
        both = sorted(frozenset(self.warm) & frozenset(self.cold))
        if both:
            raise DataError(
                explain("lexicon", both[0], "is warm and cold", expected="disjoint lists", remedy="Remove it from one")
            )
        empty = [h for h in self.hedges if not word_tokens(h)]
        if empty:
            raise DataError(
                explain("lexicon.hedges", empty[0], "has no word", expected="words or phrases", remedy="Remove it")
            )
        phrases = sorted({tuple(word_tokens(h)) for h in self.hedges}, key=len, reverse=True)
        by_first = {p[0]: tuple(q for q in phrases if q[0] == p[0]) for p in phrases}
        object.__setattr__(self, "_phrases", by_first)

    def count(self, text: str) -> tuple[int, int, int]:
        """Occurrences of (warm words, cold words, hedges) in one text."""
        tokens = word_tokens(text)
        num_warm = sum(token in self.warm for token in tokens)
        num_cold = sum(token in self.cold for token in tokens)
        return num_warm, num_cold, self._count_hedges(tokens)

    def _count_hedges(self, tokens: Sequence[str]) -> int:
        num_found, i = 0, 0
        while i < len(tokens):
            phrases = self._phrases.get(tokens[i], ())
            length = next((len(p) for p in phrases if tuple(tokens[i : i + len(p)]) == p), 0)
            num_found += length > 0
            i += max(length, 1)
        return num_found


@dataclass(slots=True, kw_only=True)
class LexiconRule:
    """Warm, direct and finished: the gold rule of the quickstart. Stateless; picklable.

    score = clip(#warm - #cold, -2, 2) - 0.5 min(#hedges, 2) - [unfinished or empty]

    A reply is unfinished when its finish reason is "length"; it is empty when it has no word token. Range [-4, 2].
    """

    lexicon: Lexicon
    name: str = "lexicon"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """Return [B] scores; the prompts are not looked at."""
        counts = np.array([self.lexicon.count(c.text) for c in completions], dtype=np.float64).reshape(-1, 3)
        is_unfinished = np.array(
            [c.finish_reason == "length" or not word_tokens(c.text) for c in completions], dtype=np.float64
        )
        sentiment = np.clip(counts[:, 0] - counts[:, 1], -MAX_SENTIMENT, MAX_SENTIMENT)
        return sentiment - HEDGE_PENALTY * np.minimum(counts[:, 2], MAX_HEDGES) - UNFINISHED_PENALTY * is_unfinished


@dataclass(slots=True, kw_only=True)
class LengthRule:
    """1 inside [min_words, max_words], falling to 0 in proportion to the distance. Stateless; picklable.

    score = 1 - min(1, distance / max_words)
    """

    min_words: int
    max_words: int
    name: str = "length"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """Return [B] scores in [0, 1]."""
        num = np.array([len(written_text(c).split()) for c in completions], dtype=np.float64)
        distance = np.maximum(np.maximum(self.min_words - num, num - self.max_words), 0)
        return 1 - np.minimum(1, distance / self.max_words)


def load_rule(path: Path | str, *, name: str = "lexicon") -> LexiconRule:
    """Read the word lists {warm, cold, hedges} of a lexicon.json."""
    data = read_json(path)
    if not isinstance(data, dict) or set(data) != {"warm", "cold", "hedges"}:
        raise DataError(
            explain(
                path, None, "is not a lexicon", expected="an object with warm, cold and hedges", remedy="Fix the file"
            )
        )
    for key, value in data.items():
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise DataError(
                explain(
                    f"{path}: {key}", value, "is not a list of words", expected="a list of texts", remedy="Fix the file"
                )
            )
    return LexiconRule(lexicon=Lexicon(**data), name=name)


def _make_lexicon(read: Options) -> Scorer:
    path, name = read.take("path", str, "a lexicon.json"), read.take("name", str, "a name", default="lexicon")
    return load_rule(path, name=name)


def _make_length(read: Options) -> Scorer:
    low, high = read.take("min_words", int, "words", default=0), read.take("max_words", int, "words")
    if not 0 <= low <= high or high == 0:
        raise ConfigError(explain(f"{read.where}.max_words", high, f"does not fit min_words={low}", expected="0 <= min_words <= max_words > 0",
                                  remedy="Change one of them"))  # fmt: skip
    return LengthRule(min_words=low, max_words=high, name=read.take("name", str, "a name", default="length"))


RULES: Mapping[str, Callable[[Options], Scorer]] = {
    "lexicon": _make_lexicon,
    "length": _make_length,
    **PENALTIES,
}


def make_rule(config: Mapping[str, Any], *, where: str = "rule") -> Scorer:
    """Build a scorer from `{kind: ..., options}`.

    Args:
        config: `kind` is one of RULES; the other keys are the fields of that rule (lexicon: `path`).
        where: recipe path of the mapping, used in error messages.
    Raises:
        ConfigError: unknown kind or key, a missing or wrong option.
    """
    read = Options(config, where)
    kind = read.take("kind", str, "one of " + ", ".join(RULES))
    if kind not in RULES:
        raise ConfigError(explain(f"{where}.kind", kind, f"is not known{nearest(kind, RULES)}", expected="one of " + ", ".join(RULES),
                                  remedy="Change it; patterns and JSON are verifiers (docs/stages/verifiers.md)"))  # fmt: skip
    scorer = RULES[kind](read)
    read.end()
    return scorer
