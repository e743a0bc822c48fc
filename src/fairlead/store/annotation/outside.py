"""Tables of what comes from outside the pages: tokens of programs."""

from sqlalchemy import ForeignKey, String
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
    """read, rate or lead; never more than the owner's role."""
    created_at: Mapped[int] = mapped_column(Number)
    expires_at: Mapped[int] = mapped_column(Number)
    revoked_at: Mapped[int | None] = mapped_column(Number)
    used_at: Mapped[int | None] = mapped_column(Number)
    """Last seen, to the hour."""
