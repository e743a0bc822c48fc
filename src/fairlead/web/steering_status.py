"""What steers a project, in a few counts: anchors, alarms, rounds, tests of skills, what nobody can rate, the active choice of pairs."""

from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from fairlead.core.gates import percent, some
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Person, Project
from fairlead.store.annotation.skills import Qualification
from fairlead.store.annotation.steering import Alarm, Anchor, Round
from fairlead.web import matching
from fairlead.web.inclusion import choice_state
from fairlead.web.steering import steering_of
from fairlead.web.undecided import num_undecidable


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringStatus:
    """Counts of one project that compares."""

    num_anchors: int
    """Pairs with a known answer that are served among others."""
    drifting: list[str]
    """Pseudonyms of raters with an open alarm."""
    num_rounds: int
    """Calibration rounds of everybody."""
    has_passed: bool
    """Has one of them shown that the guideline is clear?"""
    paused_because: str
    tests: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """By language or skill with a test: people by state (open, passed, failed, waived, again)."""
    num_unmatched: int = 0
    """Pairs that lack votes and ask for what no rater has."""
    num_undecidable: int = 0
    """Disputed pairs that nobody may decide: all who may have voted on them."""
    random_share: float = 1.0
    """Of pairs that are opened at random."""
    num_batches: int = 0
    """Of the active choice."""
    num_chosen: dict[str, int] = field(default_factory=dict[str, int])
    """Pairs by the arm that they came from."""


def steering_status(rows: Rows, project: Project) -> SteeringStatus:
    """Read them."""
    of_rounds = (Round.project_id == project.id, Round.person_id.is_(None))
    anchors = sa.select(sa.func.count()).select_from(Anchor).where(
        Anchor.project_id == project.id, Anchor.kind == "gold", Anchor.qualifies == "", ~Anchor.is_retired
    )  # fmt: skip
    drifting = (
        sa.select(Person.pseudonym)
        .distinct()
        .join(Alarm, Alarm.person_id == Person.id)
        .where(Alarm.project_id == project.id, ~Alarm.is_closed)
    )
    states: dict[str, Counter[str]] = {need: Counter() for need in sorted(matching.tested_needs(rows, project.id))}
    newest = {
        (row.need, row.person_id): row.state
        for row in rows.scalars(sa.select(Qualification).where(Qualification.project_id == project.id).order_by(Qualification.number))
    }  # fmt: skip
    for (need, _), state in newest.items():
        states.setdefault(need, Counter())[state] += 1
    choice = choice_state(rows, project)
    return SteeringStatus(
        num_anchors=rows.scalar(anchors) or 0, drifting=sorted(rows.scalars(drifting)),
        num_rounds=rows.scalar(sa.select(sa.func.count()).select_from(Round).where(*of_rounds)) or 0,
        has_passed=rows.scalar(sa.select(Round.number).where(*of_rounds, Round.is_passed).limit(1)) is not None,
        paused_because=project.state_reason, tests={need: dict(sorted(counts.items())) for need, counts in states.items()},
        num_unmatched=sum(row.num_items for row in matching.coverage(rows, project) if not row.num_raters and row.needs),
        num_undecidable=num_undecidable(rows, project.id), random_share=steering_of(project).random_share, num_batches=choice.num_batches,
        num_chosen={arm.name: arm.num_chosen for arm in choice.arms},
    )  # fmt: skip


def in_lines(found: SteeringStatus) -> list[str]:
    """For the terminal: only what there is."""
    lines = [f"paused by itself: {found.paused_because}"] if found.paused_because else []
    if found.num_rounds:
        lines.append(
            f"calibration: {some(found.num_rounds, 'round')}, {'passed' if found.has_passed else 'not passed yet'}"
        )
    lines.append(
        f"hidden anchors: {some(found.num_anchors, 'known answer')}; alarms open for {', '.join(found.drifting) or 'nobody'}"
    )
    names = {"passed": "passed", "failed": "not passed", "open": "begun", "waived": "let in", "again": "may try again"}
    for need, counts in found.tests.items():
        said = ", ".join(f"{num} {names[state]}" for state, num in counts.items()) or "nobody has taken it"
        lines.append(f"test of {need.partition(':')[2]}: {said}")
    if found.num_unmatched:
        lines.append(f"{some(found.num_unmatched, 'pair asks', 'pairs ask')} for a language or skill that no rater has")
    if found.num_undecidable:
        lines.append(f"{some(found.num_undecidable, 'disagreement waits', 'disagreements wait')} that nobody may decide, for all who may "
                     "have voted already: fairlead annotate invite --role adjudicator")  # fmt: skip
    if found.num_batches:
        lines.append(f"choice of pairs: {percent(found.random_share)} at random, {some(found.num_batches, 'batch', 'batches')}, "
                     f"{found.num_chosen['active']:,} chosen and {found.num_chosen['random']:,} at random")  # fmt: skip
    return lines


def steering_statuses(database: Database) -> dict[str, SteeringStatus]:
    """By name, of all projects that compare."""
    with database.read() as rows:
        found = rows.scalars(sa.select(Project).where(Project.kind == "comparison").order_by(Project.name)).all()
        return {project.name: steering_status(rows, project) for project in found}
