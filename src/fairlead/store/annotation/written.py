"""Tables of demonstrations: replies that people write and others review. Kinds as in `schema`.

writings         content: conversations that want a reply, with a draft by a model where there is one
writing_tasks    service: who has one on the desk, to write or to review; the text is saved here while it is written
demonstrations   derived: what has become of each writing
draft_asks       derived: drafts that people asked the served policy for
"""

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import NEEDS, Id, Number, Table


class Writing(Table):
    """A conversation that wants a reply."""

    __tablename__ = "writings"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    prompt_id: Mapped[str] = mapped_column(Id)
    draft_id: Mapped[str | None] = mapped_column(Id)
    """Completion that is offered as a draft."""
    rank: Mapped[int] = mapped_column(Number)
    """Random at import; writings are handed out in its order."""
    needs: Mapped[str] = mapped_column(NEEDS, default="")
    """Language and skills that its author and reviewer must have, as `web.needs` writes them."""
    __table_args__ = (UniqueConstraint("project_id", "prompt_id"),)


class WritingTask(Table):
    """A writing on the desk of one person. Its state follows from the events."""

    __tablename__ = "writing_tasks"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    writing_id: Mapped[str] = mapped_column(ForeignKey("writings.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    part: Mapped[str] = mapped_column(String(12))
    """write, or review."""
    round: Mapped[int]
    """Replies to this writing that had been handed in before."""
    state: Mapped[str] = mapped_column(String(12))
    """open, done or skipped."""
    leased_until: Mapped[int] = mapped_column(Number)
    """After this an open task no longer keeps others from the writing."""
    text: Mapped[str | None]
    """What is being written; None before the first letter."""
    took_draft: Mapped[bool]
    """The draft was put into the text."""
    __table_args__ = (
        UniqueConstraint("writing_id", "person_id", "part", "round"),
        Index("writing_tasks_of_person", "project_id", "person_id", "state"),
    )


class Demonstration(Table):
    """Derived: the reply to a writing, and how far it is."""

    __tablename__ = "demonstrations"
    writing_id: Mapped[str] = mapped_column(ForeignKey("writings.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    rank: Mapped[int] = mapped_column(Number)
    state: Mapped[str] = mapped_column(String(12))
    """open, written (waits for a review), returned (to its author) or accepted."""
    changed_at: Mapped[int] = mapped_column(Number)
    event_number: Mapped[int] = mapped_column(Number)
    round: Mapped[int]
    """Replies handed in so far."""
    num_skips: Mapped[int]
    author_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """Who wrote the text; who rewrote most of it in a review has become its author."""
    text: Mapped[str]
    guideline_version: Mapped[int]
    """That its author read; 0 before there is a text."""
    active_ms: Mapped[int | None]
    draft_id: Mapped[str | None] = mapped_column(Id)
    """The draft that was offered."""
    is_drafted: Mapped[bool]
    """Its author took the draft, or half of the text is the draft's."""
    from_draft: Mapped[float]
    """Share of the text's words that stand so in the draft."""
    draft_kept: Mapped[float]
    """Share of the draft's words that stand so in the text."""
    reviewer_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """Who accepted it, or sent it back last."""
    is_edited: Mapped[bool]
    """The reviewer changed it while accepting."""
    review_kept: Mapped[float]
    """Share of the author's words that the reviewer left; 1 where nothing was edited."""
    reason: Mapped[str]
    """Why it was sent back last."""
    __table_args__ = (Index("demonstrations_in_order", "project_id", "state", "rank"),)


class DraftAsk(Table):
    """Derived: a draft of one writing, asked for by whoever writes it."""

    __tablename__ = "draft_asks"
    writing_id: Mapped[str] = mapped_column(ForeignKey("writings.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    event_number: Mapped[int] = mapped_column(Number)
    """Of the asking; drafts are written in its order."""
    seed: Mapped[int] = mapped_column(Number)
    state: Mapped[str] = mapped_column(String(12))
    """waiting (for the policy), ready or failed."""
    tries: Mapped[int]
    """How often somebody asked again after a failure."""
    failure: Mapped[str] = mapped_column(String(200))
    """Why there is none, for the person who writes."""
    draft_id: Mapped[str | None] = mapped_column(Id)
    """Completion; None before it is ready."""
    __table_args__ = (Index("draft_asks_in_order", "state", "event_number"),)
