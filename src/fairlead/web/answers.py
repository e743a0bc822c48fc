"""What a rater sends for one item, and whether the guideline that was read allows it. Everything is in the frame of the screen.

Example:
    Submission(key="9b1c...", choice="ranked", ranking=((2,), (0, 1)), guideline_version=1)      # the third is best, the others are equal
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Assignment, Guideline
from fairlead.web.contents import content_of
from fairlead.web.errors import invalid
from fairlead.web.projects import get_guideline, rules_of

Choice = Literal["left", "right", "tie", "ranked", "both_bad", "skip"]
SKIP_REASONS = {
    "unclear": "The request is unclear",
    "expertise": "I do not know the subject",
    "language": "I do not know the language",
    "broken": "A text is broken or missing",
    "distressing": "Too distressing",
    "other": "Another reason",
}
MAX_RATIONALE = 10_000  # characters
MAX_NOTE = 2_000  # characters
MAX_EDIT = 50_000
"""Characters of an edited text; as a form it must fit a request (`guard.py`)."""
MAX_SPANS = 100
MAX_ACTIVE_MS = 24 * 3600 * 1000
LABELS = ("good", "bad")
"""Of a marked passage."""
_STRICT = ConfigDict(extra="forbid")
"""For programs that send them as JSON: a field that is not known is refused."""
_NEW = ("ranking", "criteria", "spans", "edit")
"""Not stored where empty, so that a submission of pairs reads as it always did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A marked passage of a completion's stored text."""

    __pydantic_config__ = _STRICT

    place: int
    start: int
    end: int
    """After the last character; offsets count characters (code points)."""
    label: str
    """good or bad."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A completion as the rater would have it."""

    __pydantic_config__ = _STRICT

    place: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a rater sends for one item."""

    key: str
    """Made once by the browser; the same key is the same submission."""
    choice: Choice
    guideline_version: int
    """The version that the rater read."""
    strength: int = 0
    """1 slightly, 2 better, 3 much; 0 with a binary scale, a tie, a ranking or a skip."""
    ranking: tuple[tuple[int, ...], ...] = ()
    """Places on the screen, best first, equal ones together; of three or more completions only."""
    criteria: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """By criterion: the rating of the completion at each place."""
    spans: tuple[Span, ...] = ()
    edit: Edit | None = None
    rationale: str = ""
    skip_reason: str = ""
    active_ms: int | None = None
    """From shown to submitted, pauses left out."""
    first_key_ms: int | None = None
    """From shown to the first key or click."""

    def content(self) -> dict[str, Any]:
        """As an event keeps it."""
        values = {name: value for name, value in asdict(self).items() if name != "key" and (name not in _NEW or value)}
        return json.loads(json.dumps(values))


def check_text(name: str, text: str, limit: int) -> None:
    """Refuse text that is too long or cannot be stored."""
    if len(text) > limit or "\0" in text:
        raise invalid(f"The {name} is too long ({len(text):,} characters). Shorten it to {limit:,}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"The {name} holds half a character. Remove it.") from error


def check(rows: Rows, assignment: Assignment, sent: Submission) -> None:
    """Does the guideline that the rater read allow this?

    Raises:
        Refused: it does not, or an answer cannot be.
    """
    guideline = get_guideline(rows, assignment.project_id, sent.guideline_version)
    _check_choice(guideline, sent, num=len(assignment.shown))
    if sent.active_ms is not None and not 0 <= sent.active_ms <= MAX_ACTIVE_MS:
        raise invalid("The time on the item is not possible. Load the page again.")
    check_text("rationale", sent.rationale, MAX_RATIONALE)
    if sent.choice == "skip":
        if sent.skip_reason not in SKIP_REASONS:
            raise invalid("A skip needs a reason. Choose one of the list.")
        if sent.criteria or sent.spans or sent.edit:
            raise invalid("A skip says nothing of the texts. Send it without ratings, passages and edits.")
        return
    if guideline.rationale == "required" and not sent.rationale.strip():
        raise invalid("This guideline asks for a reason. Write one or two sentences.")
    check_criteria(guideline, sent.criteria, num=len(assignment.shown))
    _check_spans(rows, guideline, assignment, sent)
    _check_edit(rows, guideline, assignment, sent)


def _check_choice(guideline: Guideline, sent: Submission, *, num: int) -> None:
    check_order(guideline, choice=sent.choice, ranking=sent.ranking, num=num)
    is_graded = guideline.scale == "graded" and sent.choice in ("left", "right")
    lowest, highest = (1, 3) if is_graded else (0, 0)
    if not lowest <= sent.strength <= highest:
        raise invalid(f"strength is {sent.strength}. Send {lowest} to {highest}.")


def check_order(guideline: Guideline, *, choice: str, ranking: tuple[tuple[int, ...], ...], num: int) -> None:
    """Does the guideline allow this choice, or this ranking, of so many replies?

    Raises:
        Refused: it does not, or the ranking does not name each reply once.
    """
    allowed = ("left", "right", "tie", "both_bad", "skip") if num == 2 else ("ranked", "both_bad", "skip")
    if choice not in allowed:
        raise invalid(f"{choice} is no verdict on {num} replies. Choose one of {', '.join(allowed)}.")
    if choice == "tie" and guideline.ties != "allowed":
        raise invalid("This guideline asks for a choice: a tie is not allowed. Choose the slightly better reply.")
    if choice == "both_bad" and not guideline.both_bad:
        raise invalid("This guideline does not know both bad. Choose the less bad reply.")
    named = [place for tied in ranking for place in tied]
    if sorted(named) != (list(range(num)) if choice == "ranked" else []) or not all(ranking):
        raise invalid(f"The ranking does not name each of the {num} replies once. Give every reply a place.")
    if len(ranking) < len(named) and guideline.ties != "allowed":
        raise invalid("This guideline asks for a choice: no two replies may share a place. Put them in order.")


def check_criteria(guideline: Guideline, criteria: Mapping[str, tuple[int, ...]], *, num: int) -> None:
    """Is every reply rated by every criterion of the guideline, and by no other?

    Raises:
        Refused: it is not.
    """
    known = {criterion.name: criterion for criterion in rules_of(guideline).criteria}
    if criteria.keys() != known.keys():
        lacking = ", ".join(sorted(known.keys() ^ criteria.keys()))
        raise invalid(f"The ratings do not fit the criteria of the guideline ({lacking}). Rate every reply by each of them.")  # fmt: skip
    for name, ratings in criteria.items():
        if len(ratings) != num or not all(1 <= rating <= known[name].points for rating in ratings):
            raise invalid(f"{name} is not rated from 1 to {known[name].points} for each of the {num} replies. Rate every reply.")  # fmt: skip


def _check_spans(rows: Rows, guideline: Guideline, assignment: Assignment, sent: Submission) -> None:
    if sent.spans and not guideline.spans:
        raise invalid("This guideline does not ask for marked passages. Send without them.")
    if len(sent.spans) > MAX_SPANS:
        raise invalid(f"{len(sent.spans)} passages are marked. Keep the {MAX_SPANS} that matter.")
    texts = texts_on_screen(rows, assignment) if sent.spans else []
    for span in sent.spans:
        check_text("note of a passage", span.note, MAX_NOTE)
        if span.label not in LABELS or not 0 <= span.place < len(texts) or not 0 <= span.start < span.end <= len(texts[span.place]):  # fmt: skip
            raise invalid("A marked passage lies outside its text. Mark it again.")


def _check_edit(rows: Rows, guideline: Guideline, assignment: Assignment, sent: Submission) -> None:
    if sent.edit is None:
        return
    if not guideline.edits:
        raise invalid("This guideline does not ask for edits. Send without one.")
    check_text("edited text", sent.edit.text, MAX_EDIT)
    texts = texts_on_screen(rows, assignment)
    if sent.edit.place not in best_places(sent, num=len(texts)):
        raise invalid("Only the reply that you put first can be edited. Edit that one.")
    text = sent.edit.text.strip()
    if not text or text in {original.strip() for original in texts}:
        raise invalid("The edited text is empty or as it was. Change it, or send without an edit.")


def best_places(sent: Submission, *, num: int) -> set[int]:
    """Where the best completion stands; all of them where none is better."""
    if sent.choice in ("left", "right"):
        return {0 if sent.choice == "left" else 1}
    return set(sent.ranking[0]) if sent.ranking else set(range(num))


def texts_on_screen(rows: Rows, assignment: Assignment) -> list[str]:
    """The stored texts from left to right."""
    completions = content_of(rows, assignment.item_id).completions
    return [completions[int(digit)].text for digit in assignment.shown]
