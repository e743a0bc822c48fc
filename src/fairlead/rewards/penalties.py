"""Rules about a reply's form that hold whatever it says: how long it is, whether it ends, whether it repeats itself, how it is laid out.

Of a reply of several turns they read what the policy wrote and not what tools answered. All penalties are in [-1, 0], so that a component's
weight is what the worst reply loses.

Example:
    rule = make_rule({"kind": "length_penalty", "max_tokens": 512, "free_tokens": 384})
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Prompt
from fairlead.core.transcripts import num_written_tokens, written_text
from fairlead.rewards.options import Options
from fairlead.stats.diversity import repeated_ngram_share

Floats = npt.NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class LengthPenalty:
    """What every token past `free_tokens` costs: 0 up to there, falling evenly to -1 at `max_tokens`. Stateless; picklable.

    score = -clip((tokens - free_tokens) / (max_tokens - free_tokens), 0, 1)

    Source: with free_tokens = max_tokens - cache this is the soft overlong punishment of DAPO, arXiv:2503.14476, eq. 13.
    """

    max_tokens: int
    free_tokens: int = 0
    name: str = "length_penalty"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """Return [B] scores in [-1, 0].

        Raises:
            DataError: a reply comes without its tokens.
        """
        num = np.array([_num_tokens(c, self.name) for c in completions], dtype=np.float64)
        return -np.clip((num - self.free_tokens) / (self.max_tokens - self.free_tokens), 0, 1)


@dataclass(slots=True, kw_only=True)
class RepetitionPenalty:
    """Minus the share of the reply's word n-grams that occurred in it before; 0 for replies shorter than n. Stateless; picklable."""

    n: int = 3
    name: str = "repetition"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """Return [B] scores in [-1, 0]."""
        return -repeated_ngram_share([written_text(c).lower().split() for c in completions], n=self.n)


@dataclass(slots=True, kw_only=True)
class MissingEosPenalty:
    """-1 for a reply that was cut off at the limit or says nothing, else 0. Stateless; picklable."""

    name: str = "missing_eos"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """Return [B] scores, -1 or 0."""
        return -np.array(
            [c.finish_reason == "length" or not written_text(c).strip() for c in completions], dtype=np.float64
        )


@dataclass(slots=True, kw_only=True)
class TagRule:
    """1 when every tag stands in the reply exactly once and in this order, else 0. Stateless; picklable.

    With `is_partial` the share of the tags that do, counted from the first: a start for models that know no format yet.
    """

    tags: tuple[str, ...]
    is_partial: bool = False
    name: str = "tags"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """Return [B] scores in [0, 1]."""
        shares = np.array([self._share(written_text(c)) for c in completions], dtype=np.float64)
        return shares if self.is_partial else np.floor(shares)

    def _share(self, text: str) -> float:
        place = num = 0
        for tag in self.tags:
            found = [match.start() for match in re.finditer(re.escape(tag), text)]
            if len(found) != 1 or found[0] < place:
                break
            place, num = found[0] + len(tag), num + 1
        return num / len(self.tags)


def _num_tokens(completion: Completion, name: str) -> int:
    if completion.text and not completion.token_ids:
        raise DataError(explain(f"{name}: completion", completion.id, "has text and no token_ids", expected="what the engine sampled",
                                remedy="Use kind: length, which counts words"))  # fmt: skip
    return num_written_tokens(completion)


def _make_length_penalty(read: Options) -> Scorer:
    longest = read.take("max_tokens", int, "tokens at which it is -1")
    free = read.take("free_tokens", int, "tokens that cost nothing", default=0)
    if not 0 <= free < longest:
        raise ConfigError(explain(f"{read.where}.free_tokens", free, f"does not fit max_tokens={longest}",
                                  expected="0 <= free_tokens < max_tokens", remedy="Change one of them"))  # fmt: skip
    return LengthPenalty(
        max_tokens=longest, free_tokens=free, name=read.take("name", str, "a name", default="length_penalty")
    )


def _make_repetition(read: Options) -> Scorer:
    n = read.take("n", int, "words", default=3)
    if n < 1:
        raise ConfigError(explain(f"{read.where}.n", n, "is not a number of words", expected=">= 1", remedy="Raise it"))
    return RepetitionPenalty(n=n, name=read.take("name", str, "a name", default="repetition"))


def _make_missing_eos(read: Options) -> Scorer:
    return MissingEosPenalty(name=read.take("name", str, "a name", default="missing_eos"))


def _make_tags(read: Options) -> Scorer:
    tags = tuple(str(tag) for tag in read.take("tags", (list, tuple), "a list of texts"))
    if not tags or not all(tags):
        raise ConfigError(
            explain(
                f"{read.where}.tags", tags, "has an empty tag", expected="texts such as <answer>", remedy="Name them"
            )
        )
    is_partial = read.take("partial", bool, "true or false", default=False)
    return TagRule(tags=tags, is_partial=is_partial, name=read.take("name", str, "a name", default="tags"))


PENALTIES: Mapping[str, Callable[[Options], Scorer]] = {
    "length_penalty": _make_length_penalty,
    "repetition": _make_repetition,
    "missing_eos": _make_missing_eos,
    "tags": _make_tags,
}
