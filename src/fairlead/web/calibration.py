"""The gate before production: does a rater agree with the others on the items that everybody rates?

A rater's answers on the calibration items, in the order in which they were given, are held against the majority of the other raters'
(leave one out) by a sequential test of 60 % against 75 %. Who passes is let into production for good, by an event. The project as a whole is
read as well: a guideline that all disagree on, or single raters who deviate.
"""

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from fairlead.stats.agreement import leave_one_out_outcomes
from fairlead.stats.intervals import Interval
from fairlead.stats.sequential import SequentialDecision, Sprt, read_sequence
from fairlead.stats.shared_round import RoundVerdict, read_round
from fairlead.stats.votes import Votes, votes_from_rows
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Event, Person, Progress, Verdict
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.projects import get_project

TEST = Sprt(p0=0.60, p1=0.75, alpha=0.05, beta=0.10, cap=100)
PASSED, WAIVED = "calibration.passed", "calibration.waived"
State = Literal["passed", "waived", "calibrating", "waiting", "failed", "undecided"]
"""waiting: rated everything, and the answers of others decide; undecided: the cap was reached between the bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one rater is."""

    person_id: str
    name: str
    state: State
    num_done: int
    """Calibration items rated or skipped."""
    share: Interval
    """Agreement with the majority of the others, with an interval that allows for looking after every answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The calibration of a project."""

    num_items: int
    standings: tuple[Standing, ...]
    verdict: RoundVerdict | None
    """What the round says of the guideline; None before two raters share items."""


def is_let_in(rows: Rows, project_id: str, person_id: str) -> bool:
    """May this rater get production items? Passing is found out here, and recorded once."""
    if _has_event(rows, project_id, person_id):
        return True
    outcomes = leave_one_out_outcomes(_votes(rows, project_id)).get(person_id, [])
    fails_at, passes_at = TEST.limits()
    num_right = 0
    for used, (_, is_right) in enumerate(outcomes[: TEST.cap], start=1):
        num_right += is_right
        if num_right >= passes_at[used]:
            record(
                rows, PASSED, person_id=person_id, project_id=project_id, content={"num": used, "num_right": num_right}
            )
            return True
        if num_right <= fails_at[used]:
            return False
    return False


def _has_event(rows: Rows, project_id: str, person_id: str) -> bool:
    found = sa.select(Event.number).where(
        Event.project_id == project_id, Event.person_id == person_id, Event.kind.in_((PASSED, WAIVED))
    )
    return rows.scalar(found.limit(1)) is not None


def waive(database: Database, project_id: str, person_id: str, *, by: str, reason: str) -> None:
    """Let a rater in on record, whatever the test says."""
    if not 1 <= len(reason.strip()) <= 500 or "\0" in reason + person_id:
        raise invalid("Letting a rater in without the calibration needs a reason. Write one.")
    with database.write() as rows:
        get_project(rows, project_id)
        if rows.get(Person, person_id) is None:
            raise invalid("This person is not there. Choose another.")
        record(rows, WAIVED, person_id=person_id, project_id=project_id, content={"by": by, "reason": reason.strip()})


def _votes(rows: Rows, project_id: str) -> Votes:
    """Votes on calibration items by person id, in the order in which each rater gave them."""
    found = rows.execute(
        sa.select(Verdict.item_id, Verdict.person_id, Verdict.verdict).join(Progress, Progress.item_id == Verdict.item_id)
        .join(Assignment, Assignment.id == Verdict.assignment_id)
        .where(Verdict.project_id == project_id, Progress.use == "calibration", Verdict.verdict != "skip")
        .order_by(Verdict.person_id, Assignment.position)
    ).all()  # fmt: skip
    return votes_from_rows([(row.item_id, row.person_id, row.verdict) for row in found])


def read_calibration(rows: Rows, project_id: str) -> Round:
    """Everybody who has begun, and what the round says as a whole."""
    num_items = rows.scalar(
        sa.select(sa.func.count()).select_from(Progress).where(Progress.project_id == project_id, Progress.use == "calibration")
    ) or 0  # fmt: skip
    votes = _votes(rows, project_id)
    outcomes = leave_one_out_outcomes(votes) if votes.num_raters else {}
    begun = rows.execute(
        sa.select(Person.id, Person.name, sa.func.count()).join(Verdict, Verdict.person_id == Person.id)
        .join(Progress, Progress.item_id == Verdict.item_id)
        .where(Verdict.project_id == project_id, Progress.use == "calibration").group_by(Person.id, Person.name).order_by(Person.name)
    ).all()  # fmt: skip
    kinds = rows.execute(
        sa.select(Event.person_id, Event.kind).where(Event.project_id == project_id, Event.kind.in_((PASSED, WAIVED)))
    ).all()
    events = {row[0]: row[1] for row in kinds}
    standings: list[Standing] = []
    for person_id, name, num_done in begun:
        reading = read_sequence(TEST, [is_right for _, is_right in outcomes.get(person_id, [])])
        state = _state(events.get(person_id), reading.decision, num_done=num_done, num_items=num_items)
        standings.append(Standing(person_id=person_id, name=name, state=state, num_done=num_done, share=reading.share))
    names = {person_id: name for person_id, name, _ in begun}
    verdict = read_round(_renamed(votes, names), seed=0, num_resamples=500) if votes.num_raters > 1 else None
    return Round(num_items=num_items, standings=tuple(standings), verdict=verdict)


def _state(event: str | None, decision: SequentialDecision, *, num_done: int, num_items: int) -> State:
    if event is not None:
        return "passed" if event == PASSED else "waived"
    if decision == "continue":
        return "waiting" if num_done >= num_items else "calibrating"
    return "passed" if decision == "pass" else "failed" if decision == "fail" else "undecided"


def _renamed(votes: Votes, names: dict[str, str]) -> Votes:
    return Votes(items=votes.items, raters=votes.raters, labels=votes.labels, item_names=votes.item_names, label_names=votes.label_names,
                 rater_names=tuple(names[name] for name in votes.rater_names))  # fmt: skip
