"""Tables of what leads and adjudicators do, derived from events: decisions on disputed items, and what a project may cost."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Number, Table


class Decision(Table):
    """Derived: what an adjudicator said of an item after reading its votes. It stands beside the votes and replaces none."""

    __tablename__ = "decisions"
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    event_number: Mapped[int] = mapped_column(Number)
    verdict: Mapped[str] = mapped_column(String(12))
    """a, b, tie or both_bad, in the canonical frame. Of a ranking: what it says of the first two completions."""
    ranking: Mapped[list[Any]]
    """Canonical positions, best first, those of a tie together; empty where all are bad. Older decisions place the first two only."""
    criteria: Mapped[dict[str, Any]]
    """By criterion: the rating of each completion, in canonical order."""
    reason: Mapped[str]
    guideline_version: Mapped[int]
    __table_args__ = (Index("decisions_of_project", "project_id", "event_number"),)


class Budget(Table):
    """Derived: prices, what was paid, and how much may be paid."""

    __tablename__ = "budgets"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    dollars_per_vote: Mapped[float]
    limit_dollars: Mapped[float | None]
    """Raters get no further item beyond it; None for no limit."""
    settled_votes: Mapped[int] = mapped_column(Number)
    """Votes and skips that were paid at earlier prices."""
    settled_dollars: Mapped[float]
    """What those cost."""
    other_human: Mapped[float]
    """Dollars to people beside votes: training, adjudication."""
    other_ai: Mapped[float]
    """Dollars to models."""
    is_overridden: Mapped[bool]
    """The work goes on beyond the limit, for a reason that is an event."""
