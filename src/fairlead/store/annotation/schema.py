"""Tables of the rating application. Times are whole milliseconds since 1970, UTC; ids are opaque random texts unless said otherwise.

Three kinds of table:
    content   prompts, completions, items, guidelines: inserted once, never changed
    events    what people did, only ever added to; verdicts, progress and flags are derived from it and can be made again
    service   people, invites, sessions, assignments, drafts, failed logins: may be changed and deleted
"""

from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Id = String(40)
NEEDS = String(200)
"""What an item asks of its rater, as `web.needs` writes it."""
SUBMITTED = "verdict.submitted"
"""Kind of nearly all events."""
_NO_VOTE = f"kind <> '{SUBMITTED}'"
_RANKED = "json_array_length({}completions) > 2"
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in INTEGER columns


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own convention


Mapped_ = TypeVar("Mapped_", bound=Table)


def table_of(mapped: type[Table]) -> sa.Table:
    """The table behind a class, for statements of columns."""
    return cast(sa.Table, mapped.__table__)


def copy_of(mapped: type[Mapped_], row: sa.Row[*tuple[Any, ...]], *, at: int = 0) -> Mapped_:
    """What a row of columns says, apart from any session: what is changed in it is written by a statement or not at all.

    Args:
        at: where the columns of its table begin in the row.
    """
    return mapped(**dict(zip(table_of(mapped).c.keys(), row[at:], strict=False)))


class Project(Table):
    """One collection: texts, raters and guidelines that belong together."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    """comparison, demonstration (`written`) or chat (`talked`)."""
    state: Mapped[str] = mapped_column(String(12))
    """open, or paused: raters then see why and get no items."""
    votes_per_item: Mapped[int]
    state_reason: Mapped[str] = mapped_column(String(500))
    """Why it was paused by itself; opening it again then asks for a reason. Empty otherwise."""
    calibration_items: Mapped[int]
    """Items that every rater votes on before any other; 0 for none."""
    watched_from: Mapped[int] = mapped_column(Number)
    """Number of the event after which votes count for the rolling kappa: the last opening after a pause that it caused."""
    steering: Mapped[dict[str, Any]]
    """What `web.steering.Steering` is set to where it differs from its defaults."""
    created_at: Mapped[int] = mapped_column(Number)


class Guideline(Table):
    """One version of what raters are asked. Never changed: an edit is the next version."""

    __tablename__ = "guidelines"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    """Markdown."""
    scale: Mapped[str] = mapped_column(String(12))
    """binary, or graded (much, better, slightly)."""
    ties: Mapped[str] = mapped_column(String(12))
    """forced, or allowed."""
    both_bad: Mapped[bool]
    """May a rater say that both are bad?"""
    rationale: Mapped[str] = mapped_column(String(12))
    """off, optional or required."""
    criteria: Mapped[list[Any]]
    """What every completion is rated by: {name, question, points, low, high}."""
    spans: Mapped[bool]
    """May a rater mark passages?"""
    edits: Mapped[bool]
    """May a rater write the best completion better?"""
    author_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    published_at: Mapped[int] = mapped_column(Number)


class Prompt(Table):
    """A prompt as `core.records.Prompt` has it; its id is a hash of the content."""

    __tablename__ = "prompts"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    record: Mapped[dict[str, Any]]


class Completion(Table):
    """A completion as `core.records.Completion` has it; its id is a hash of the content."""

    __tablename__ = "completions"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    record: Mapped[dict[str, Any]]


class Item(Table):
    """Two to nine completions of a prompt to be compared."""

    __tablename__ = "items"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    content_id: Mapped[str] = mapped_column(Id)
    """Hash of prompt and completions: they enter a project once. Of two it is the id of their `core.records.Task`."""
    prompt_id: Mapped[str] = mapped_column(Id)
    completions: Mapped[list[Any]]
    """Ids in canonical order, which is that of the ids."""
    use: Mapped[str] = mapped_column(String(12))
    """production, calibration (rated by everybody, before production), or anchor (`steering.Anchor`)."""
    rank: Mapped[int] = mapped_column(Number)
    """Random at import; items are handed out in its order."""
    needs: Mapped[str] = mapped_column(NEEDS, default="")
    """Language and skills that its rater must have, as `web.needs` writes them; empty for none."""
    __table_args__ = (
        UniqueConstraint("project_id", "content_id"),
        Index("items_ranked", "project_id", sqlite_where=sa.text(_RANKED.format("")), postgresql_where=sa.text(_RANKED.format(""))),
    )  # fmt: skip


IS_RANKED = sa.text(_RANKED.format("items."))
"""Items of three completions or more, as the index says it: a query for them does not go through all pairs."""


class Person(Table):
    """Somebody who may log in."""

    __tablename__ = "people"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    """What the person logs in with."""
    pseudonym: Mapped[str] = mapped_column(String(20), unique=True)
    """Stands for the person in every export."""
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(12))
    """rater, adjudicator, lead or admin."""
    state: Mapped[str] = mapped_column(String(12))
    """active, disabled or erased."""
    created_at: Mapped[int] = mapped_column(Number)


class Invite(Table):
    """A link that lets one person in. Only the hash of its secret is kept."""

    __tablename__ = "invites"
    secret_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(12))
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[int] = mapped_column(Number)
    expires_at: Mapped[int] = mapped_column(Number)
    used_at: Mapped[int | None] = mapped_column(Number)
    abilities: Mapped[list[Any]] = mapped_column(default=list)
    """Languages and skills of whoever comes in: language:de, skill:code."""


class Session(Table):
    """A login. Only the hash of the cookie is kept."""

    __tablename__ = "sessions"
    secret_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[int] = mapped_column(Number)
    expires_at: Mapped[int] = mapped_column(Number)


class Failure(Table):
    """Failed logins of one account or one address, for the growing delay."""

    __tablename__ = "failures"
    subject: Mapped[str] = mapped_column(String(120), primary_key=True)
    count: Mapped[int]
    until: Mapped[int] = mapped_column(Number)
    """No attempt is looked at before this time."""


class Assignment(Table):
    """An item in the hands of one rater. The order on the screen is drawn when it is made and never again."""

    __tablename__ = "assignments"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    shown: Mapped[str] = mapped_column(String(9))
    """Canonical positions from left to right, a digit each: `10` has the second completion on the left."""
    position: Mapped[int]
    """Place in the rater's own sequence, from 0."""
    state: Mapped[str] = mapped_column(String(12))
    """open, or done (rated or skipped)."""
    leased_until: Mapped[int] = mapped_column(Number)
    """After this an open assignment no longer keeps others from the item."""
    __table_args__ = (
        UniqueConstraint("item_id", "person_id"),
        UniqueConstraint("project_id", "person_id", "position"),
        Index("assignments_of_person", "project_id", "person_id", "state"),
    )


class Draft(Table):
    """An answer that is being written."""

    __tablename__ = "drafts"
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    fields: Mapped[dict[str, Any]]
    """Of the form, as the browser sent them."""
    saved_at: Mapped[int] = mapped_column(Number)


class Event(Table):
    """Something that a person did. Only ever added to."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(Number)
    kind: Mapped[str] = mapped_column(String(40))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    assignment_id: Mapped[str | None] = mapped_column(ForeignKey("assignments.id"), index=True)
    key: Mapped[str | None] = mapped_column(String(120), unique=True)
    """Idempotency key of the submission, with the person before it."""
    content: Mapped[dict[str, Any]]
    __table_args__ = (
        Index("events_of_person", "project_id", "person_id", "number"),
        Index("events_beside_votes", "number", sqlite_where=sa.text(_NO_VOTE), postgresql_where=sa.text(_NO_VOTE)),
    )


IS_NO_VOTE = sa.text(f"events.{_NO_VOTE}")
"""As the index says it, so that it is used: a query for rare events does not go through a million votes."""


class Verdict(Table):
    """Derived: what a rater says now about an item, in the canonical frame."""

    __tablename__ = "verdicts"
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    event_number: Mapped[int] = mapped_column(Number)
    verdict: Mapped[str] = mapped_column(String(12))
    """a, b, tie, both_bad or skip. Of a ranking: what it says of the first two completions, so that figures of pairs hold for rankings
    too, one independent pair an item."""
    strength: Mapped[int]
    """-3 (a much better) to 3 (b much better); 0 when the scale has none."""
    ranking: Mapped[list[Any]]
    """Canonical positions, best first, those of a tie together: [[2], [0, 1]]. Empty for a skip and where all are bad."""
    criteria: Mapped[dict[str, Any]]
    """By criterion: the rating of each completion, in canonical order."""
    spans: Mapped[list[Any]]
    """Marked passages: {completion, start, end, label, note}; offsets count characters of the stored text."""
    edited: Mapped[int | None]
    """The completion that the rater wrote better; None when none."""
    edited_text: Mapped[str]
    """The whole text as the rater would have it."""
    rationale: Mapped[str]
    skip_reason: Mapped[str] = mapped_column(String(20))
    guideline_version: Mapped[int]
    active_ms: Mapped[int | None]
    """From shown to submitted, as the browser measured it."""
    __table_args__ = (
        Index("verdicts_of_person", "project_id", "person_id", "event_number"),
        Index("verdicts_of_item", "item_id", "verdict"),
        Index("verdicts_in_order", "project_id", "event_number"),
    )


class Progress(Table):
    """Derived: how many votes an item has, so that nothing is counted when an item is handed out."""

    __tablename__ = "progress"
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    use: Mapped[str] = mapped_column(String(12))
    rank: Mapped[int] = mapped_column(Number)
    num_votes: Mapped[int]
    num_skips: Mapped[int]
    num_extra: Mapped[int]
    """Votes that this item asks for beyond the project's."""
    num_lacking: Mapped[int]
    """Votes still wanted; below 0 where more were given. 0 for calibration items and anchors before their votes."""
    needs: Mapped[str] = mapped_column(NEEDS, default="")
    """Of the item."""
    pattern: Mapped[str] = mapped_column(String(200))
    """How often the item got each label, as `a:2 b:1 skip:1`; labels in order, those that nobody gave left out."""
    __table_args__ = (
        Index("progress_in_order", "project_id", "use", "needs", "num_lacking", "rank"),
        Index("progress_by_pattern", "project_id", "use", "pattern"),
    )


class Flag(Table):
    """Derived: a rater's remark that something is wrong with an item."""

    __tablename__ = "flags"
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    event_number: Mapped[int] = mapped_column(Number)
    note: Mapped[str]
