"""Tables of the active choice of pairs. Kinds as in `schema`; what `rebuild` makes again from the events is marked derived.

scores        service: what a reward model says of completions; a later file replaces an earlier one
batches       derived: pairs that were drawn together
choices       derived: each of them, with how it came in and with which probability
"""

from sqlalchemy import Float, ForeignKey, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import NEEDS, Id, Number, Table


class ModelScore(Table):
    """What a reward model says of a completion."""

    __tablename__ = "model_scores"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    completion_id: Mapped[str] = mapped_column(Id, primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    """Log odds: the difference of two is that of the better one being better."""


class Batch(Table):
    """Derived: pairs drawn together from all that nobody had begun and that ask for the same."""

    __tablename__ = "batches"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """From 1 in each project."""
    event_number: Mapped[int] = mapped_column(Number)
    at: Mapped[int] = mapped_column(Number)
    needs: Mapped[str] = mapped_column(NEEDS)
    num_pool: Mapped[int]
    """Pairs that it was drawn from."""
    num_scored: Mapped[int]
    """Of those looked at, pairs with scores of a reward model."""
    num_seen: Mapped[int]
    """Pairs looked at: a random part of the pool where that is large."""


class PairChoice(Table):
    """Derived: one pair of a batch."""

    __tablename__ = "choices"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    number: Mapped[int]
    arm: Mapped[str] = mapped_column(String(8))
    """active, or random."""
    inclusion: Mapped[float] = mapped_column(Float)
    """Probability with which the batch was to hold it, from whichever arm."""
    __table_args__ = (ForeignKeyConstraint(["project_id", "number"], ["batches.project_id", "batches.number"]),)
