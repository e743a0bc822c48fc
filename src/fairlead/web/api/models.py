"""What goes in and out. Unknown fields are refused, never ignored; times are milliseconds since 1970, UTC."""

import dataclasses
import typing
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from fairlead.web.answers import Submission
from fairlead.web.projects import Rules
from fairlead.web.steering_status import SteeringStatus


class Sent(BaseModel):
    """Base of what a program sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


def sent_like(kind: type[Any], name: str) -> type[BaseModel]:
    """A body with the fields of a dataclass, so that both can never differ."""
    types = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = field.default if field.default is not dataclasses.MISSING else ...
        if field.default_factory is not dataclasses.MISSING:
            fields[field.name] = (types[field.name], Field(default_factory=field.default_factory))
        else:
            fields[field.name] = (types[field.name], default)
    made = pydantic.create_model(name, __config__=ConfigDict(extra="forbid"), __doc__=kind.__doc__, **fields)
    return made


VerdictSent = sent_like(Submission, "VerdictSent")
RulesSent = sent_like(Rules, "RulesSent")


class Fault(BaseModel):
    """Why something was not done."""

    code: str
    """For programs: token, scope, forbidden, missing, invalid, key_used, nothing, too_many, storage, http."""
    message: str
    """For people."""


class Refusal(BaseModel):
    """The one shape of every answer that is not a success."""

    error: Fault


class PaceShown(BaseModel):
    """How far one is. Says nothing of others."""

    num_done: int
    num_today: int
    """Votes and skips in the last 24 hours."""
    num_left: int
    """Items that one may still get, as things stand."""
    median_s: float | None
    """Time for an item, from shown to sent, at most a minute old; None before five of them."""


class Me(BaseModel):
    """Who the token stands for."""

    name: str
    role: str


class ProjectSent(Sent):
    """A new project."""

    name: str
    kind: Literal["comparison", "demonstration", "chat"] = "comparison"
    votes_per_item: int = Field(default=3, ge=1, le=100)
    calibration_items: int = Field(default=50, ge=0, le=10_000)


class ProjectShown(BaseModel):
    """A project."""

    id: str
    name: str
    kind: str
    """comparison, demonstration or chat."""
    state: str
    votes_per_item: int
    calibration_items: int


class StateSent(Sent):
    """Pause or open a project; disable a person or let them in again."""

    state: Literal["open", "paused", "active", "disabled"]
    reason: str = ""
    """Needed where a project that paused by itself is opened again."""


class GuidelineSent(Sent):
    """The next version of a guideline."""

    text: str
    """Markdown."""
    rules: RulesSent = Field(default_factory=RulesSent)  # pyright: ignore[reportInvalidTypeForm]
    replaces: int
    """The version that it follows; another in between is refused, so that a repeat or a second lead overwrites nothing."""


class GuidelineShown(BaseModel):
    """A version of a guideline."""

    version: int
    newest: int
    text: str
    rules: dict[str, Any]
    published_at: int


class KeySent(Sent):
    """A submission without content."""

    key: str
    """Made once by the caller, 8 to 64 letters, digits and dashes; the same key again does nothing and gives the same answer."""


class NoteSent(KeySent):
    """A remark on an item; empty takes it back."""

    note: str


class DraftSent(Sent):
    """A rationale that is being written."""

    text: str


class NextSent(Sent):
    """Ask for an item."""

    without: list[str] = Field(default_factory=list, max_length=100)
    """Assignments that the caller holds already."""


class TurnShown(BaseModel):
    """One turn of a conversation."""

    role: str
    content: str


class OptionShown(BaseModel):
    """A verdict that the guideline allows."""

    choice: str
    strength: int
    label: str


class AssignmentShown(BaseModel):
    """An item as its rater sees it: which side is which completion is not said."""

    id: str
    prompt: list[TurnShown]
    replies: list[str]
    """From left to right."""
    options: list[OptionShown]
    guideline_version: int
    rationale: str
    """off, optional or required."""
    criteria: list[dict[str, Any]]
    """By which every reply is to be rated: name, question, points, low, high."""
    spans: bool
    """May passages be marked?"""
    edits: bool
    """May the best reply be written better?"""
    given: str
    """The verdict given before; empty for a new item and for a ranking."""
    places: list[int | None]
    """Given before, from left to right: 1 the best; empty for a new item."""


class NextShown(BaseModel):
    """An item, or why there is none."""

    assignment: AssignmentShown | None
    reason: str
    """Empty with an item; else paused, budget, empty, finished, unmatched, waiting, calibration, cap or pilot."""


class SavedShown(BaseModel):
    """The receipt: on disk when it is given."""

    event: int
    repeat: bool
    """True where the key was sent before."""


class UndoneShown(BaseModel):
    """Which assignment is open again."""

    assignment: str


class OwnVoteShown(BaseModel):
    """One of one's own votes."""

    assignment: str
    given: str
    rationale: str
    at: int


class ItemShown(BaseModel):
    """An item with its counts, for the lead."""

    id: str
    use: str
    num_votes: int
    num_skips: int
    rank: int


class ItemsShown(BaseModel):
    """A page of items."""

    items: list[ItemShown]
    next: str
    """Pass it as `after` for the next page; empty at the end."""


class VoteShown(BaseModel):
    """A vote in the canonical frame, its rater under a pseudonym."""

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


class PersonShown(BaseModel):
    """Somebody with an account."""

    id: str
    name: str
    pseudonym: str
    role: str
    state: str
    languages: list[str]
    skills: list[str]


class AbilitiesSent(Sent):
    """Languages and skills of a person: all that count from now on."""

    languages: list[str] = Field(default_factory=list, max_length=60)
    skills: list[str] = Field(default_factory=list, max_length=60)


class InviteSent(AbilitiesSent, KeySent):
    """Ask for a link that lets one person in."""

    role: str = "rater"


class InviteShown(BaseModel):
    """The link; shown once, good for seven days."""

    link: str
    role: str


class WaiveSent(Sent):
    """Let a rater into production without the calibration, on record."""

    person: str
    reason: str


class TestSent(Sent):
    """Begin the test of a language or skill."""

    need: str
    """language:de, or skill:code."""


class TestWaiveSent(WaiveSent):
    """Let a rater in without a test, on record."""

    need: str


class CoverageShown(BaseModel):
    """Pairs that ask for the same, and how many raters can get them."""

    needs: str
    """Such as `language:de skill:code`; empty for pairs that ask for nothing."""
    num_items: int
    num_lacking: int
    """Votes that they lack."""
    num_raters: int


class QualificationShown(BaseModel):
    """One attempt at a test."""

    number: int
    person: str
    need: str
    state: str
    """open, passed, failed, waived, or again (failed, and may be tried again)."""
    num_done: int
    num_items: int
    num_right: int
    """0 until it ended."""
    num_used: int
    """Answers that counted; 0 until it ended."""
    low: float | None
    """Of the 95 % interval of the share of right answers."""
    high: float | None


class SteeringSent(Sent):
    """Settings to change."""

    settings: dict[str, bool | int | float] = Field(default_factory=dict)
    """By name; those that are not named stay."""
    votes_per_item: int | None = None
    reason: str = ""
    """Needed for more votes an item where kappa is not above 0.6."""


class SteeringShown(BaseModel):
    """What steers who rates what."""

    votes_per_item: int
    settings: dict[str, bool | int | float | str]
    status: SteeringStatus
    """Anchors, alarms, rounds, tests and the active choice in counts."""


class ArmShown(BaseModel):
    """Pairs that came in one way."""

    name: str
    """active, or random."""
    num_chosen: int
    num_rated: int
    num_twice: int
    """Rated at least twice."""
    differ: float | None
    """Share of those on which votes differ."""


class ChoiceShown(BaseModel):
    """How the active choice of pairs goes."""

    is_on: bool
    num_batches: int
    num_scores: int
    """Completions with a score of a reward model."""
    arms: list[ArmShown]


class ScoreSent(Sent):
    """What a reward model says of a completion, named by its id or by its whole text."""

    completion_id: str = ""
    completion: str = ""
    score: float = Field(allow_inf_nan=False)
    """Log odds: the difference of two is that of the better one being better."""


class ScoresShown(BaseModel):
    """What an import of scores changed."""

    num_scores: int
    num_unknown: int
    """Rows that name no completion of the project."""


class MoreVotesSent(KeySent):
    """Ask more votes for single pairs."""

    items: list[str] = Field(max_length=10_000)
    extra: int = Field(default=1, ge=1, le=100)
    reason: str


class QualityShown(BaseModel):
    """How well raters agree."""

    figures: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    notes: list[str]
    age_s: int


class ImportShown(BaseModel):
    """What an import changed, and what became of the rest."""

    num_items: int
    num_calibration: int
    num_known: int
    num_repeats: int
    """Items that stand in the file more than once; they were taken once, with all of their votes."""
    num_uneven: int
    """Conversations with two turns of one speaker in a row; kept, for that is what the models saw."""
    num_outside: int
    """Votes of other tools that the file held; kept apart from the project's."""
    left_out: dict[str, int]
    """Rows and pairs that gave nothing, by reason."""
    faults: list[str]
    """The first faulty rows with their line and reason."""


class WebhookSent(KeySent):
    """An address that is told what happens."""

    url: str
    events: list[str] = Field(max_length=20)


class WebhookShown(BaseModel):
    """A webhook and how its deliveries go."""

    id: str
    url: str
    events: list[str]
    num_waiting: int
    num_done: int
    num_given_up: int
    last_outcome: str


class WebhookMade(BaseModel):
    """A new webhook with the secret of its signatures, which is shown once."""

    id: str
    secret: str
