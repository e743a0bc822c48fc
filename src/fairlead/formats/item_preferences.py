"""Preferences of rated items by plain counting: what a recipe reads when it names a file of another tool.

`preferences/item_export.py` does the same with a model of the raters.
"""

from collections.abc import Callable
from typing import Any

from fairlead.core.annotations import RatedItem, inclusion_in
from fairlead.core.io import Row
from fairlead.core.records import Preference, Prompt
from fairlead.formats.base import Item, LeftOut, Pairing, Read, Unusable
from fairlead.formats.conversations import checked
from fairlead.formats.ranking import Candidate, ranked_preferences

NO_VOTE = "no vote on the item"


def preferences_by(read: Callable[[Row], list[Item]]) -> Read:
    """A reader of preferences from a reader of items."""

    def found(row: Row) -> list[Item]:
        return [
            part for item in read(row) for part in (item_preferences(item) if isinstance(item, RatedItem) else [item])
        ]

    return found


def prompts_of(read: Callable[[Row], list[Item]]) -> Read:
    """A reader of prompts from a reader of items."""

    def found(row: Row) -> list[Item]:
        return [
            Prompt(messages=item.prompt, slice=item.slice, split=item.split, meta={"item": item.item})
            for item in read(row)
            if isinstance(item, RatedItem)
        ]

    return found


def item_preferences(item: RatedItem, *, pairs: Pairing = "all") -> list[Item]:
    """One preference of a pair by its votes; those of a ranking by mean rank. A vote for a tie, or that both are bad, is half a vote."""
    if len(item.replies) > 2:
        return _from_rankings(item, pairs)
    votes = [rating for rating in item.ratings if rating.verdict in ("a", "b", "tie", "both_bad")]
    if not votes:
        return [LeftOut(reason=NO_VOTE, is_fault=False)]
    counts = {verdict: sum(rating.verdict == verdict for rating in votes) for verdict in ("a", "b", "tie", "both_bad")}
    ties = counts["tie"] + counts["both_bad"]
    p_first = (counts["a"] + ties / 2) / len(votes)
    first, second = (item.replies[side] for side in range(2))
    better, worse = (first, second) if p_first >= 0.5 else (second, first)
    strengths = [rating.strength for rating in votes]
    meta: dict[str, Any] = {"item": item.item, **inclusion_in(item.meta)}
    found = Preference(
        prompt=item.prompt, chosen=better.text, rejected=worse.text, p_chosen=max(p_first, 1 - p_first), is_tie=p_first == 0.5,
        num_votes=len(votes), agreement=max(counts["a"], counts["b"], ties) / len(votes), slice=item.slice, split=item.split,
        judgments=tuple(rating.source_id for rating in votes if rating.source_id),
        meta=meta | ({"votes": strengths} if any(strengths) else {}),
    )  # fmt: skip
    return [checked(found)]


def _from_rankings(item: RatedItem, pairs: Pairing) -> list[Item]:
    ranks: dict[str, list[float]] = {reply.id: [] for reply in item.replies}
    for rating in item.ratings:
        for place, tied in enumerate(rating.ranking):
            for name in tied:
                ranks[name].append(float(place))
    candidates = [
        Candidate(text=reply.text, score=-sum(ranks[reply.id]) / len(ranks[reply.id]), meta={"reply": reply.id})
        for reply in item.replies
        if ranks[reply.id]
    ]
    if not candidates:
        return [LeftOut(reason=NO_VOTE, is_fault=False)]
    try:
        return ranked_preferences(item.prompt, candidates, pairs=pairs, split=item.split, meta=inclusion_in(item.meta))
    except Unusable as fault:
        return [LeftOut(reason=str(fault))]
