"""Rated items: a prompt, its replies, and everything that raters said about them. What annotation tools exchange.

A `RatedItem` is wider than a `Task` with its `Judgment`s: it takes two to nine replies, rankings, ratings by criterion, edits, cost and
time, so that no field of another tool has to be dropped on the way through. Everything stands in the canonical frame: verdict `a` means
the first of `replies`, whatever side it was shown on.

Example:
    item = RatedItem(item="42", prompt=(Message(role="user", content="Hi"),), replies=(Reply(id="a", text="Hello"), Reply(id="b", text="Go away")),
                     ratings=(Rating(rater="ann", verdict="a", strength=-2),))
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fairlead.core.records import SCHEMA_VERSION, Messages, RaterKind, Record, Split, Verdict

MAX_REPLIES = 9
INCLUSION = ("arm", "inclusion", "inclusion_weight")
"""Keys of `meta` where items were chosen actively: from which arm of the choice, with which probability, and how many items it stands for."""

ASKED = ("language", "skills", "programming_language")
"""Keys of `meta` that say who can rate an item."""


def asked_in(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What an item asks of its raters, as its `meta` says it."""
    return {name: meta[name] for name in ASKED if name in meta}


def inclusion_in(meta: Mapping[str, Any]) -> dict[str, Any]:
    """How an item came in, as its `meta` says it; empty where nothing was chosen."""
    if not isinstance(meta.get("arm"), str):  # a table has the column for the others too
        return {}
    plain = (str, int, float, type(None))  # files of others may hold anything under these names
    return {name: meta[name] for name in INCLUSION if name in meta and isinstance(meta[name], plain)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One completion of an item."""

    id: str
    """Unique within the item."""
    text: str
    model: str = ""
    """Who wrote it; empty when unknown or hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """All that one rater said about one item, once."""

    rater: str
    rater_kind: RaterKind = "human"
    verdict: Verdict | None = None
    """None where nothing was asked that gives one (a ranking of more than two, ratings alone)."""
    strength: int = 0
    """-3 (a much better) to 3 (b much better); 0 when none was given."""
    swapped: bool = False
    """True when the second reply was shown on the left."""
    ranking: tuple[tuple[str, ...], ...] = ()
    """Ids of replies, best first; tied ones stand together."""
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By the name of the question: a number, {reply id: number}, a list of labels, or text."""
    rationale: str = ""
    edits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """{reply id: the text as the rater would have it}."""
    skip_reason: str = ""
    confidence: float | None = None
    cost: float | None = None
    """Dollars."""
    duration_ms: int | None = None
    guideline_version: str = "none"
    created_at: str = ""
    """ISO 8601, as the source wrote it."""
    is_anchor: bool = False
    source_id: str = ""
    """Of the annotation in the tool it came from."""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedItem(Record):
    """A prompt with its replies and their ratings."""

    prefix: typing.ClassVar[str] = "i"
    prompt: Messages
    replies: tuple[Reply, ...]
    ratings: tuple[Rating, ...] = ()
    item: str = ""
    """Id in the source; empty when it has none."""
    slice: str = "all"
    source: str = "unknown"
    split: Split = "train"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA_VERSION
    id: str = ""


class RatedItems(Protocol):
    """Rated items that can be gone through as often as needed: a list, or items that are read anew each time (`web.rated`)."""

    def __iter__(self) -> Iterator[RatedItem]: ...
    def __len__(self) -> int: ...
