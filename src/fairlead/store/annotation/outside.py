"""Tables of what is outside the pages: tokens of programs, webhooks and what waits to be sent to them, votes that were given in other tools."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Id, Number, Table


class Token(Table):
    """What a program shows to act for a person. Only the hash of its secret is kept."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    name: Mapped[str] = mapped_column(String(80))
    """What it is for, in the owner's words."""
    prefix: Mapped[str] = mapped_column(String(16))
    """Its first characters, by which the owner knows it again."""
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(12))
    """read, rate, adjudicate or lead; never more than the owner's role."""
    created_at: Mapped[int] = mapped_column(Number)
    expires_at: Mapped[int] = mapped_column(Number)
    revoked_at: Mapped[int | None] = mapped_column(Number)
    used_at: Mapped[int | None] = mapped_column(Number)
    """Last seen, to the hour."""


class Webhook(Table):
    """An address that is told what happens in a project. Its secret is derived from the server's key and stored nowhere."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    events: Mapped[list[Any]]
    """Names of the events that it gets."""
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[int] = mapped_column(Number)


class Delivery(Table):
    """The outbox: one event for one webhook, written in the transaction in which it happened, sent until it arrives."""

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    """The same over all attempts, by which a receiver knows a repeat."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(80))
    """What it is about; a webhook hears of it once."""
    body: Mapped[str]
    """JSON, as it is signed and sent."""
    state: Mapped[str] = mapped_column(String(12))
    """waiting, done or given_up."""
    num_attempts: Mapped[int]
    next_at: Mapped[int] = mapped_column(Number)
    outcome: Mapped[str] = mapped_column(String(200))
    """Of the last attempt."""
    created_at: Mapped[int] = mapped_column(Number)
    __table_args__ = (UniqueConstraint("webhook_id", "event", "subject"), Index("deliveries_due", "state", "next_at"))


class OutsideRater(Table):
    """Somebody who rated in another tool. Appears as a pseudonym wherever votes go out."""

    __tablename__ = "outside_raters"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(400))
    """As the file has it, so that the same rater of a later file is known again."""
    pseudonym: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(12))
    """human, or llm."""
    __table_args__ = (UniqueConstraint("project_id", "name"), UniqueConstraint("project_id", "pseudonym"))


class OutsideRating(Table):
    """What somebody said of an item in another tool; never counted among the project's votes."""

    __tablename__ = "outside_ratings"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), index=True)
    rater_id: Mapped[str] = mapped_column(ForeignKey("outside_raters.id"))
    source: Mapped[str] = mapped_column(String(200))
    """Name of the file."""
    record: Mapped[dict[str, Any]]
    """A `core.annotations.Rating` without its rater; replies are named by their canonical position."""
    imported_at: Mapped[int] = mapped_column(Number)
    __table_args__ = (UniqueConstraint("item_id", "rater_id"),)
