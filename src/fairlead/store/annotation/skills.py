"""Tables of who can rate what. Kinds as in `schema`; what `rebuild` makes again from the events is marked derived.

demands               content: which combinations of a language and skills the items of a project ask for
abilities             derived: languages and skills of people, as a lead wrote them down
qualifications        derived: tests of a skill, one row an attempt or a waiver, and their items

What an item asks for is a text (`web.needs`), `language:de skill:code`; empty for nothing.
"""

from sqlalchemy import Float, ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import NEEDS, Number, Table


class Demand(Table):
    """What items of a project ask for: few rows, so that a rater's are found without looking at items."""

    __tablename__ = "demands"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    needs: Mapped[str] = mapped_column(NEEDS, primary_key=True)


class Ability(Table):
    """Derived: a language or a skill of a person."""

    __tablename__ = "abilities"
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    need: Mapped[str] = mapped_column(String(40), primary_key=True)
    """language:de, or skill:code."""


class Qualification(Table):
    """Derived: one person's attempt at the test of a skill in a project, or a lead's word in its place."""

    __tablename__ = "qualifications"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """From 1 in each project."""
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    need: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(12))
    """open, passed, failed, waived (let in by a lead), or again (failed, and may be tried again)."""
    share: Mapped[float] = mapped_column(Float)
    """Right answers that pass, of those that count."""
    num_used: Mapped[int]
    """Answers that counted; 0 until it ended."""
    num_right: Mapped[int]
    at: Mapped[int] = mapped_column(Number)
    __table_args__ = (Index("qualifications_of_person", "project_id", "person_id", "need", "number"),)


class QualificationItem(Table):
    """Derived: one pair of a test."""

    __tablename__ = "qualification_items"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    rank: Mapped[int]
    expected: Mapped[str] = mapped_column(String(12))
    """Known answer, in the canonical frame."""
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "number"], ["qualifications.project_id", "qualifications.number"]),
        Index("qualification_items_of_item", "item_id"),
    )
