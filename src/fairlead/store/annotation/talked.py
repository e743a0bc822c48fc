"""Table of live conversations. Kinds as in `schema`; what is said is content (prompts, completions, items), and the votes are votes.

chat_turns    derived: each message of a rater, and where the policy's two replies to it stand
"""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Id, Number, Table


class ChatTurn(Table):
    """Derived: one message of a rater and the two replies to it."""

    __tablename__ = "chat_turns"
    chat_id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Of the turn in its conversation, from 0."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    event_number: Mapped[int] = mapped_column(Number)
    """Of the message; turns are answered in its order."""
    prompt_id: Mapped[str] = mapped_column(Id)
    """The conversation up to and with the message."""
    seed: Mapped[int] = mapped_column(Number)
    state: Mapped[str] = mapped_column(String(12))
    """waiting (for the policy), ready (to be voted on, or voted on) or failed."""
    tries: Mapped[int]
    """How often the rater asked again after a failure."""
    failure: Mapped[str] = mapped_column(String(200))
    """Why there are no replies, for the rater."""
    assignment_id: Mapped[str | None] = mapped_column(ForeignKey("assignments.id"))
    __table_args__ = (
        Index("chat_turns_of_person", "project_id", "person_id", "event_number"),
        Index("chat_turns_in_order", "state", "event_number"),
    )
