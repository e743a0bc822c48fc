"""The gate before production: does a rater agree with the others on the pairs of a calibration round?

A rater's answers on the pairs of a round, in the order in which they were given, are held against the majority of the other raters'
(leave one out) by a sequential test of 60 % against 75 %. Passing is recorded by an event. Who fails the newest round gets no production
items. Who is undecided there keeps what an earlier round of everybody said; one who was asked again alone must pass. The round of
everybody is read as a whole as well: a guideline that all disagree on, or single raters who deviate.
"""

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from fairlead.stats.agreement import equals_majority_of_others, leave_one_out_outcomes
from fairlead.stats.intervals import Interval
from fairlead.stats.sequential import SequentialDecision, Sprt, read_sequence
from fairlead.stats.shared_round import RoundVerdict, read_round
from fairlead.stats.votes import Votes, votes_from_rows
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Person, Verdict
from fairlead.store.annotation.steering import Rater, Round, RoundItem
from fairlead.web import rounds
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.projects import checked_reason, get_project

TEST = Sprt(p0=0.60, p1=0.75, alpha=0.05, beta=0.10, cap=100)
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
class RoundReading:
    """A calibration round of everybody: the newest."""

    number: int
    reason: str
    is_passed: bool
    num_items: int
    standings: tuple[Standing, ...]
    verdict: RoundVerdict | None
    """What the round says of the guideline; None before two raters share items."""


def is_let_in(rows: Rows, rater: Rater, round_: Round) -> bool:
    """May this rater, who has rated the pairs of the round, get production items? Passing is found out here, and recorded once."""
    if rater.passed_round >= round_.number:
        return True
    reading = read_limits(outcomes_of(rows, round_, rater.person_id))
    if reading.decision == "pass":
        content = {"round": round_.number, "num": reading.num_used, "num_right": reading.num_right}
        event = record(rows, rounds.PASSED, person_id=rater.person_id, project_id=rater.project_id, content=content)
        rounds.follow(rows, event)
        return True
    return reading.decision != "fail" and round_.person_id is None and rater.passed_round > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the test stands, without the interval, which takes longer."""

    decision: SequentialDecision
    num_used: int
    num_right: int


def read_limits(outcomes: list[bool]) -> Limits:
    """Follow the outcomes up to a bound of the test."""
    fails_at, passes_at = TEST.limits()
    num_right = 0
    for used, is_right in enumerate(outcomes[: TEST.cap], start=1):
        num_right += is_right
        if num_right >= passes_at[used] or num_right <= fails_at[used]:
            return Limits(
                decision="pass" if num_right >= passes_at[used] else "fail", num_used=used, num_right=num_right
            )
    used = min(len(outcomes), TEST.cap)
    return Limits(decision="undecided" if used == TEST.cap else "continue", num_used=used, num_right=num_right)


def outcomes_of(rows: Rows, round_: Round, person_id: str) -> list[bool]:
    """Does each answer equal the majority of the others? In the order of the rater's answers; pairs without a majority are left out."""
    of_round = sa.select(RoundItem.item_id).where(RoundItem.project_id == round_.project_id, RoundItem.number == round_.number)  # fmt: skip
    own = rows.execute(
        sa.select(Verdict.item_id, Verdict.verdict).join(Assignment, Assignment.id == Verdict.assignment_id)
        .where(Assignment.item_id.in_(of_round), Assignment.person_id == person_id, Verdict.verdict != "skip").order_by(Assignment.position)
    ).all()  # fmt: skip
    counts: dict[str, dict[str, int]] = {}
    for item, label, num in rows.execute(
        sa.select(Verdict.item_id, Verdict.verdict, sa.func.count())
        .where(Verdict.item_id.in_(of_round), Verdict.verdict != "skip").group_by(Verdict.item_id, Verdict.verdict)
    ).all():  # fmt: skip
        counts.setdefault(item, {})[label] = num
    found = (equals_majority_of_others(counts[item], label) for item, label in own)
    return [is_right for is_right in found if is_right is not None]


def waive(database: Database, project_id: str, person_id: str, *, by: str, reason: str) -> None:
    """Let a rater in on record, whatever the test of the newest round says."""
    reason = checked_reason(reason, why="Letting a rater in without the calibration")
    with database.write() as rows:
        get_project(rows, project_id)
        if "\0" in person_id or rows.get(Person, person_id) is None:
            raise invalid("This person is not there. Choose another.")
        newest = rounds.current_round(rows, project_id, person_id)
        content = {"by": by, "reason": reason, "round": newest.number if newest else 1}
        rounds.follow(rows, record(rows, rounds.WAIVED, person_id=person_id, project_id=project_id, content=content))


def votes_of_round(rows: Rows, round_: Round) -> Votes:
    """Votes on the pairs of a round by person id, in the order in which each rater gave them."""
    found = rows.execute(
        sa.select(Verdict.item_id, Verdict.person_id, Verdict.verdict).join(RoundItem, RoundItem.item_id == Verdict.item_id)
        .join(Assignment, Assignment.id == Verdict.assignment_id)
        .where(RoundItem.project_id == round_.project_id, RoundItem.number == round_.number, Verdict.verdict != "skip")
        .order_by(Verdict.person_id, Assignment.position)
    ).all()  # fmt: skip
    return votes_from_rows([(row.item_id, row.person_id, row.verdict) for row in found])


def verdict_of_round(rows: Rows, round_: Round, *, num_resamples: int = 500) -> RoundVerdict | None:
    """What the round says of the guideline; None before two raters share items."""
    votes = votes_of_round(rows, round_)
    return read_round(votes, seed=0, num_resamples=num_resamples) if votes.num_raters > 1 else None


def read_calibration(rows: Rows, project_id: str) -> RoundReading | None:
    """Everybody who has begun the newest round of everybody, and what it says as a whole; None when there is none."""
    round_ = rounds.current_round(rows, project_id, None)
    if round_ is None:
        return None
    is_of_round = sa.and_(RoundItem.project_id == project_id, RoundItem.number == round_.number)
    num_items = rows.scalar(sa.select(sa.func.count()).select_from(RoundItem).where(is_of_round)) or 0
    votes = votes_of_round(rows, round_)
    outcomes = leave_one_out_outcomes(votes) if votes.num_raters else {}
    begun = rows.execute(
        sa.select(Person.id, Person.name, sa.func.count()).join(Verdict, Verdict.person_id == Person.id)
        .join(RoundItem, RoundItem.item_id == Verdict.item_id).where(is_of_round).group_by(Person.id, Person.name).order_by(Person.name)
    ).all()  # fmt: skip
    raters = {row.person_id: row for row in rows.scalars(sa.select(Rater).where(Rater.project_id == project_id))}
    standings: list[Standing] = []
    for person_id, name, num_done in begun:
        reading = read_sequence(TEST, [is_right for _, is_right in outcomes.get(person_id, [])])
        state = _state(raters.get(person_id), round_, reading.decision, is_done=num_done >= num_items)
        standings.append(Standing(person_id=person_id, name=name, state=state, num_done=num_done, share=reading.share))
    names = {person_id: name for person_id, name, _ in begun}
    verdict = read_round(_renamed(votes, names), seed=0, num_resamples=500) if votes.num_raters > 1 else None
    return RoundReading(number=round_.number, reason=round_.reason, is_passed=round_.is_passed, num_items=num_items,
                        standings=tuple(standings), verdict=verdict)  # fmt: skip


def _state(rater: Rater | None, round_: Round, decision: SequentialDecision, *, is_done: bool) -> State:
    if rater is not None and rater.passed_round >= round_.number:
        return "waived" if rater.is_waived else "passed"
    if decision == "continue":
        return "waiting" if is_done else "calibrating"
    return "passed" if decision == "pass" else "failed" if decision == "fail" else "undecided"


def _renamed(votes: Votes, names: dict[str, str]) -> Votes:
    return Votes(items=votes.items, raters=votes.raters, labels=votes.labels, item_names=votes.item_names, label_names=votes.label_names,
                 rater_names=tuple(names[name] for name in votes.rater_names))  # fmt: skip
