"""Between what stands on a rater's screen (places from the left, 0 first) and the canonical order of an item's completions.

Example:
    as_stored(content, shown="10")["verdict"]     # "b" for a vote to the left: the second completion stood there
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Ranking = list[list[int]]


def stands_after(shown: str, first: int, second: int) -> bool:
    """Did the first of two completions stand to the right of the second?"""
    return shown.index(str(second)) < shown.index(str(first))


def is_swapped(shown: str) -> bool:
    """Did the second completion stand before the first?"""
    return stands_after(shown, 0, 1)


def as_stored(content: Mapping[str, Any], *, shown: str) -> dict[str, Any]:
    """What a submission says, as columns of a verdict.

    Args:
        content: of the event, in the frame of the screen; answers that were not given may be missing.
        shown: of the assignment.
    """
    at = [int(digit) for digit in shown]
    ranking = [sorted(at[place] for place in tied) for tied in content.get("ranking", ())]
    choice, strength = content["choice"], 0
    if choice in ("left", "right"):
        best = at[0] if choice == "left" else at[1]
        ranking, strength = [[best], [1 - best]], -content["strength"] if best == 0 else content["strength"]
    elif choice == "tie":
        ranking = [[0, 1]]
    edit = content.get("edit")
    return {
        "verdict": verdict_on(ranking, 0, 1) if ranking else choice, "strength": strength, "ranking": ranking,
        "criteria": {name: _canonical(ratings, at) for name, ratings in content.get("criteria", {}).items()},
        "spans": [_span(span, at) for span in content.get("spans", ())],
        "edited": at[edit["place"]] if edit else None, "edited_text": edit["text"] if edit else "",
        "rationale": content["rationale"], "skip_reason": content["skip_reason"] if choice == "skip" else "",
        "guideline_version": content["guideline_version"], "active_ms": content["active_ms"],
    }  # fmt: skip


def _span(span: Mapping[str, Any], at: Sequence[int]) -> dict[str, Any]:
    return {"completion": at[span["place"]], **{name: span[name] for name in ("start", "end", "label", "note")}}


def _canonical(ratings: Sequence[int], at: Sequence[int]) -> list[int]:
    found = dict(zip(at, ratings, strict=True))
    return [found[position] for position in range(len(at))]


def verdict_on(ranking: Ranking, first: int, second: int) -> str:
    """What a ranking says of two of its completions: a (the first is better), b or tie."""
    place = {position: rank for rank, tied in enumerate(ranking) for position in tied}
    gap = place[first] - place[second]
    return "tie" if gap == 0 else "a" if gap < 0 else "b"


def pairs_of(num: int) -> Iterator[tuple[int, int]]:
    """Every two of `num` completions, in canonical order."""
    return ((i, j) for i in range(num) for j in range(i + 1, num))
