"""Tables that steer which item goes to whom. Kinds as in `schema`; what `rebuild` makes again from the events is marked derived.

raters        service and derived: where a rater stands in a project, so that nothing is counted when an item is handed out
anchors       content: items with a known answer, and copies of items that a rater gets once more
checks        service (served with what answer expected) and derived (was it given?)
alarms        derived: a rater who drifted, as the anchors say
rounds        derived: calibration rounds of everybody or of one rater, and their items
looks         service: what was found when a project was last looked at as a whole
"""

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Number, Table


class Rater(Table):
    """One rater in one project. Made when the first item is handed out."""

    __tablename__ = "raters"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    num_given: Mapped[int]
    """Items handed out so far: the position of the next."""
    side_lead: Mapped[int]
    """How much oftener the second of a pair has stood on the left."""
    num_production: Mapped[int]
    """Of them, items that count: neither calibration nor anchors."""
    sitting: Mapped[int]
    """Number of the sitting, from 0; a long break begins the next."""
    place: Mapped[int]
    """Items of this sitting so far, those of calibration rounds left out."""
    given_at: Mapped[int] = mapped_column(Number)
    num_missed: Mapped[int]
    """Anchors that were due when there was none to give."""
    items_since: Mapped[int]
    """Production items since the last round of everybody was opened."""
    passed_round: Mapped[int]
    """Derived: newest calibration round that was passed or waived; 0 for none."""
    is_waived: Mapped[bool]
    """Derived: let in by a lead, whatever the test says."""


class Anchor(Table):
    """An item that is served to see whether its answer is the expected one."""

    __tablename__ = "anchors"
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    root_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    """The item with the same texts that was there first; of an item that was made as an anchor, itself."""
    kind: Mapped[str] = mapped_column(String(12))
    """gold: the answer is known; repeat: a copy of an ordinary item, for raters who rated that one."""
    answer: Mapped[str] = mapped_column(String(12))
    """a, b or tie in the canonical frame; empty for a repeat, where each rater's own earlier verdict is expected."""
    is_retired: Mapped[bool]
    """Derived: no longer served, nor counted."""
    qualifies: Mapped[str] = mapped_column(String(40), default="")
    """Of a pair of the test of a language or skill, which one (`skills`): it is no hidden anchor. Empty for all others."""
    __table_args__ = (Index("anchors_of_project", "project_id", "kind"), Index("anchors_of_root", "root_id"))


class Check(Table):
    """An anchor in a rater's work."""

    __tablename__ = "checks"
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"))
    position: Mapped[int]
    """Of the assignment in the rater's sequence."""
    expected: Mapped[str] = mapped_column(String(12))
    """In the canonical frame, as known when it was served."""
    is_right: Mapped[bool | None]
    """Derived; None until it is answered, and for a skip."""
    __table_args__ = (Index("checks_of_person", "project_id", "person_id", "position"),)


class Alarm(Table):
    """Derived: the anchors of a rater say that something changed."""

    __tablename__ = "alarms"
    event_number: Mapped[int] = mapped_column(Number, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    at: Mapped[int] = mapped_column(Number)
    position: Mapped[int]
    """Of the anchor at which it was raised; the sum begins again after it."""
    since: Mapped[int]
    """Position from which the change is most likely: votes from here on are those to be looked at."""
    num_anchors: Mapped[int]
    """Answered since `since`."""
    num_right: Mapped[int]
    is_asked: Mapped[bool]
    """The rater was asked to calibrate again."""
    is_rerated: Mapped[bool]
    """Votes since the change go to others too."""
    is_closed: Mapped[bool]
    __table_args__ = (Index("alarms_of_person", "project_id", "person_id", "event_number"),)


class Round(Table):
    """Derived: pairs that everybody (or one rater) rates before going on."""

    __tablename__ = "rounds"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """Whom it is for; None for everybody."""
    opened_at: Mapped[int] = mapped_column(Number)
    reason: Mapped[str] = mapped_column(String(500))
    is_passed: Mapped[bool]
    """The project's verdict on a round of everybody: the guideline is clear enough."""


class RoundItem(Table):
    """Derived: one pair of a round."""

    __tablename__ = "round_items"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(Number)
    __table_args__ = (ForeignKeyConstraint(["project_id", "number"], ["rounds.project_id", "rounds.number"]),)


class Look(Table):
    """What the votes of a project said when all of them were last looked at; at most once a minute."""

    __tablename__ = "looks"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    at: Mapped[int] = mapped_column(Number)
    found: Mapped[dict[str, Any]]
    """As `web.looking.Found` writes it."""
