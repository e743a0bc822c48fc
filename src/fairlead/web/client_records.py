"""What the client of the API gives out: projects, items to rate, votes, receipts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project."""

    id: str
    name: str
    kind: str
    """comparison, demonstration or chat."""
    state: str
    votes_per_item: int
    calibration_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A verdict that the guideline allows."""

    choice: str
    strength: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """An item as its rater sees it."""

    id: str
    prompt: tuple[Turn, ...]
    replies: tuple[str, ...]
    """From left to right."""
    options: tuple[Choice, ...]
    guideline_version: int
    rationale: str
    """off, optional or required."""
    criteria: tuple[dict[str, Any], ...]
    """By which every reply is to be rated: name, question, points, low, high."""
    spans: bool
    """May passages be marked?"""
    edits: bool
    """May the best reply be written better?"""
    given: str
    """The verdict given before; empty for a new item and for a ranking."""
    places: tuple[int | None, ...]
    """Given before, from left to right: 1 the best; empty for a new item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The receipt of a verdict: it is on disk."""

    event: int
    repeat: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A vote in the canonical frame."""

    event: int
    item: str
    rater: str
    verdict: str
    strength: int
    ranking: list[list[int]]
    """Canonical positions, best first, equal ones together."""
    criteria: dict[str, list[int]]
    """Ratings of the completions in canonical order."""
    spans: list[dict[str, Any]]
    edited: int | None
    edited_text: str
    rationale: str
    skip_reason: str
    guideline_version: int
    active_ms: int | None
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import changed."""

    num_items: int
    """Of gold, known answers."""
    num_calibration: int
    num_known: int
    num_repeats: int = 0
    """Items that stood in the file more than once; taken once, with all of their votes."""
    num_uneven: int = 0
    """Conversations with two turns of one speaker in a row; kept."""
    num_outside: int = 0
    """Votes of other tools; kept apart."""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    faults: Sequence[str] = ()
