"""From rankings and ratings of several completions to pairs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.core.records import Messages, Preference, Split
from fairlead.formats.base import Item, LeftOut, Pairing, Unusable
from fairlead.formats.conversations import checked

EQUAL_SCORE = "pair: equal rank or score"
NO_SECOND = "completion: nothing to compare it with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One completion with the score that orders it; higher is better (a rank enters negated)."""

    text: str
    score: float
    meta: dict[str, Any] = field(default_factory=dict[str, Any])


def cut_pairs(candidates: Sequence[Candidate], *, pairs: Pairing) -> Iterator[tuple[Candidate, Candidate]]:
    """Yield (better, worse) by descending score; candidates of equal score are yielded too, for the caller to count.

    all: every pair. adjacent: each with the next in order. best_vs_each: the best with every other.
    best_vs_worst: one pair.
    """
    ordered = sorted(candidates, key=lambda c: -c.score)
    if pairs == "all":
        yield from itertools.combinations(ordered, 2)
    elif pairs == "adjacent":
        yield from itertools.pairwise(ordered)
    elif pairs == "best_vs_each":
        yield from ((ordered[0], other) for other in ordered[1:])
    else:
        yield from [(ordered[0], ordered[-1])][: len(ordered) - 1]


def ranked_preferences(
    prompt: Messages, candidates: Sequence[Candidate], *, pairs: Pairing, split: Split = "train", meta: Mapping[str, Any] | None = None
) -> list[Item]:  # fmt: skip
    """Make preferences of a ranking; equal scores, equal texts and a lone completion are left out and counted.

    Args:
        meta: what every pair says beside the meta of its two sides.
    """
    if len(candidates) < 2:
        return [LeftOut(reason=NO_SECOND, is_fault=False) for _ in candidates]
    found: list[Item] = []
    for better, worse in cut_pairs(candidates, pairs=pairs):
        if better.score == worse.score:
            found.append(LeftOut(reason=EQUAL_SCORE, is_fault=False))
            continue
        sides = {f"chosen_{k}": v for k, v in better.meta.items()} | {f"rejected_{k}": v for k, v in worse.meta.items()}
        try:
            pair = Preference(
                prompt=prompt, chosen=better.text, rejected=worse.text, split=split, meta={**sides, **(meta or {})}
            )
            found.append(checked(pair))
        except Unusable as fault:
            found.append(LeftOut(reason=str(fault)))
    return found
