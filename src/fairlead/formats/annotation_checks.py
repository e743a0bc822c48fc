"""What every imported item must satisfy, whichever tool wrote it; each fault is an `Unusable` with fixed words."""

import itertools
from collections.abc import Iterable
from typing import Any

from fairlead.core.annotations import MAX_REPLIES, RatedItem, Rating, Reply
from fairlead.core.records import Messages
from fairlead.formats.base import Unusable
from fairlead.formats.conversations import check_prompt, user
from fairlead.formats.fields import is_messages, messages, number

MAX_CHARS = 1_000_000
"""Of one reply or turn: longer ones are files, not replies, and no rater reads them."""
MAX_STRENGTH = 3


def checked_item(item: RatedItem) -> RatedItem:
    """Return an item that can be shown and stored.

    Raises:
        Unusable: the prompt asks for nothing; fewer than two replies or more than nine; an empty, very long or repeated reply; a
            rating of a reply that is not there; NUL, which databases refuse.
    """
    check_prompt(item.prompt)
    if not 2 <= len(item.replies) <= MAX_REPLIES:
        raise Unusable("fewer than two replies" if len(item.replies) < 2 else f"more than {MAX_REPLIES} replies")
    names = [reply.id for reply in item.replies]
    if len(set(names)) < len(names):
        raise Unusable("two replies have one id")
    texts = [reply.text for reply in item.replies]
    if not all(text.strip() for text in texts):
        raise Unusable("empty reply")
    if len({text.strip() for text in texts}) < 2:
        raise Unusable("all replies are identical")
    _check_text((*texts, *(turn.content for turn in item.prompt)))
    raters = [rating.rater for rating in item.ratings]
    if len(set(raters)) < len(raters):
        raise Unusable("a rater rated the item twice")
    for rating in item.ratings:
        _check_rating(rating, frozenset(names))
    return item


def has_alternating_turns(prompt: Messages) -> bool:
    """Do user and assistant take turns? Files of conversations break this now and then; raters see what the models saw."""
    said = [turn.role for turn in prompt if turn.role in ("user", "assistant")]
    return all(first != second for first, second in itertools.pairwise(said))


def _check_text(texts: Iterable[str]) -> None:
    for text in texts:
        if len(text) > MAX_CHARS:
            raise Unusable(f"a text is longer than {MAX_CHARS:,} characters")
        if "\x00" in text:
            raise Unusable("a text holds NUL, which is no character")


def _check_rating(rating: Rating, names: frozenset[str]) -> None:
    if not rating.rater.strip():
        raise Unusable("a rating without a rater")
    if abs(rating.strength) > MAX_STRENGTH:
        raise Unusable("strength is not from -3 to 3")
    if (rating.verdict == "a" and rating.strength > 0) or (rating.verdict == "b" and rating.strength < 0):
        raise Unusable("verdict and strength contradict each other")
    ranked = [name for tied in rating.ranking for name in tied]
    if len(set(ranked)) < len(ranked) or not names.issuperset(ranked):
        raise Unusable("ranking does not name the replies, each once")
    if rating.confidence is not None and not 0 <= rating.confidence <= 1:
        raise Unusable("confidence is not in [0, 1]")
    if rating.cost is not None and rating.cost < 0:
        raise Unusable("cost is negative")
    if rating.duration_ms is not None and rating.duration_ms < 0:
        raise Unusable("duration is negative")
    _check_text((rating.rater, rating.rationale, rating.skip_reason))


def prompt_from(value: Any, name: str) -> Messages:
    """A prompt as text or as messages."""
    if isinstance(value, str):
        if not value.strip():
            raise Unusable(f"empty {name}")
        return user(value)
    if value is None:
        raise Unusable(f"missing {name}")
    if not is_messages(value):
        raise Unusable(f"{name} is neither text nor messages")
    return messages(value, name)


def ranking_of(ranks: dict[str, float | None]) -> tuple[tuple[str, ...], ...]:
    """Reply ids by rank, 1 the best; equal ranks stand together, and what has no rank is left out."""
    known = sorted({rank for rank in ranks.values() if rank is not None})
    return tuple(tuple(name for name, rank in ranks.items() if rank == level) for level in known)


def verdict_of_ranking(ranking: tuple[tuple[str, ...], ...], replies: tuple[Reply, ...]) -> Any:
    """The verdict that a ranking of two replies is; None for more or for an incomplete one."""
    ranked = [name for tied in ranking for name in tied]
    if len(replies) != 2 or sorted(ranked) != sorted(reply.id for reply in replies):
        return None
    if len(ranking) == 1:
        return "tie"
    return "a" if ranking[0][0] == replies[0].id else "b"


def seconds_to_ms(value: Any) -> int | None:
    """Seconds, as tools give them, to whole milliseconds; None where there are none."""
    seconds = number(value)
    return None if seconds is None else round(seconds * 1000)
