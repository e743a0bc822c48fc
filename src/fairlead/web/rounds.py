"""Calibration rounds: pairs that everybody rates before going on, and those of one rater who is asked again.

Round 1 is what an import set aside. Later ones are drawn from production pairs: those that nobody has rated yet for a round of everybody (the
votes count as any), those that others have rated already for a round of one rater, so that nobody has to be waited for.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Progress, Project
from fairlead.store.annotation.skills import Demand
from fairlead.store.annotation.steering import Rater, Round, RoundItem
from fairlead.web.errors import invalid
from fairlead.web.events import record, repeated
from fairlead.web.matching import matched_needs
from fairlead.web.projects import checked_reason, get_project
from fairlead.web.steering import rater_of

OPENED, PROJECT_PASSED = "round.opened", "round.passed"
PASSED, WAIVED = "calibration.passed", "calibration.waived"
KINDS = (OPENED, PROJECT_PASSED, PASSED, WAIVED)
MIN_ITEMS = 13
"""Of a round: fewer right answers in a row do not pass the test of 60 % against 75 %."""


def current_round(rows: Rows, project_id: str, person_id: str | None) -> Round | None:
    """The newest round that concerns a rater; of everybody, when no rater is given."""
    concerns = Round.person_id.is_(None) if person_id is None else Round.person_id.is_(None) | (Round.person_id == person_id)  # fmt: skip
    return rows.scalar(sa.select(Round).where(Round.project_id == project_id, concerns).order_by(Round.number.desc()).limit(1))  # fmt: skip


def has_passed(rows: Rows, project_id: str) -> bool:
    """Has any round of everybody shown that the guideline is clear enough?"""
    found = sa.select(Round.number).where(Round.project_id == project_id, Round.person_id.is_(None), Round.is_passed)
    return rows.scalar(found.limit(1)) is not None


def next_in_round(rows: Rows, round_: Round, person_id: str, *, needs: Sequence[str]) -> str | None:
    """The first item of a round that this rater has not had.

    Args:
        needs: what items may ask for so that this rater gets them.
    """
    mine = sa.select(Assignment.id).where(Assignment.item_id == RoundItem.item_id, Assignment.person_id == person_id)
    decided = sa.select(Decision.item_id).where(Decision.item_id == RoundItem.item_id, Decision.person_id == person_id)
    of_round = (RoundItem.project_id == round_.project_id, RoundItem.number == round_.number)
    return rows.scalar(
        sa.select(RoundItem.item_id).join(Progress, Progress.item_id == RoundItem.item_id)
        .where(*of_round, Progress.needs.in_(needs), ~mine.exists(), ~decided.exists())
        .order_by(RoundItem.rank).limit(1)
    )  # fmt: skip


def open_round(
    database: Database, project_id: str, *, reason: str, by: str | None, person_id: str | None = None, key: str | None = None
) -> int:  # fmt: skip
    """Ask everybody, or one rater, to calibrate again; return the number of the round. The same key again is the same round.

    Args:
        key: of the submission; None where nothing is sent twice.
    Raises:
        Refused: no reason, an unknown person, too few pairs to draw from, or the key was used for something else.
    """
    reason = checked_reason(reason, why="A round")
    with database.write() as rows:
        if by is not None and key is not None:
            said = {"person": person_id, "reason": reason}
            before = repeated(rows, by, key, kind=OPENED, project_id=project_id, said=said)
            if before is not None:
                return before.content["round"]
        return open_round_in(rows, project_id, reason=reason, by=by, person_id=person_id, key=key)


def open_round_in(
    rows: Rows, project_id: str, *, reason: str, by: str | None, person_id: str | None = None, alarm: int | None = None, key: str | None = None
) -> int:  # fmt: skip
    """A round of everybody or of one rater, within a running transaction."""
    project = get_project(rows, project_id)
    if person_id is not None and rows.get(Person, person_id) is None:
        raise invalid("This person is not there. Choose another.")
    items = _drawn(rows, project, person_id, num=max(project.calibration_items, MIN_ITEMS))
    if len(items) < MIN_ITEMS:
        what = "that nobody has rated yet" if person_id is None else "that this rater may rate and has not"
        raise invalid(f"A round needs {MIN_ITEMS} pairs {what}; there are {len(items)}. Import more pairs first.")
    secrets.SystemRandom().shuffle(items)
    number = (rows.scalar(sa.select(sa.func.max(Round.number)).where(Round.project_id == project_id)) or 0) + 1
    content: dict[str, Any] = {"round": number, "person": person_id, "reason": reason, "pairs": items, "alarm": alarm}
    if person_id is None:
        rows.execute(sa.update(Rater).where(Rater.project_id == project_id).values(items_since=0))
    follow(rows, record(rows, OPENED, person_id=by, project_id=project_id, key=key, content=content))
    return number


def _drawn(rows: Rows, project: Project, person_id: str | None, *, num: int) -> list[str]:
    """Pairs of a round, in an order that the index has: however many pairs there are, a few are looked at."""
    of = (Progress.project_id == project.id, Progress.use == "production")
    if person_id is None:
        needs = rows.scalars(sa.select(Demand.needs).where(Demand.project_id == project.id)).all()
        of = (*of, Progress.num_lacking == project.votes_per_item, Progress.num_votes == 0, Progress.rank >= 0)
    else:
        needs, _ = matched_needs(rows, project, person_id)
        mine = sa.select(Assignment.id).where(Assignment.item_id == Progress.item_id, Assignment.person_id == person_id)
        of = (*of, ~mine.exists())
    drawn = sa.select(Progress.num_lacking, Progress.rank, Progress.item_id).where(*of).order_by(Progress.num_lacking, Progress.rank)  # fmt: skip
    found = [
        (row[0], row[1], row[2])
        for each in needs
        for row in rows.execute(drawn.where(Progress.needs == each).limit(num)).all()
    ]
    return [item_id for _, _, item_id in sorted(found)[:num]]


def first_round(rows: Rows, project_id: str, items: list[tuple[str, int]]) -> None:
    """Add (item, rank) to the round before production, which an import fills."""
    if not items:
        return
    if rows.get(Round, (project_id, 1)) is None:
        opened_at = get_project(rows, project_id).created_at
        rows.add(Round(project_id=project_id, number=1, person_id=None, opened_at=opened_at, reason="before production",
                       is_passed=False))  # fmt: skip
        rows.flush()
    rows.add_all(RoundItem(project_id=project_id, number=1, item_id=item, rank=rank) for item, rank in items)


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event about rounds what is true now."""
    assert event.project_id is not None, f"event {event.number} names no project"
    if event.kind in (PASSED, WAIVED):
        assert event.person_id is not None, f"event {event.number} names no rater"
        rater = rater_of(rows, event.project_id, event.person_id)
        number = event.content.get("round", 1)
        if number >= rater.passed_round:
            rater.passed_round, rater.is_waived = number, event.kind == WAIVED
        return
    number = event.content["round"]
    if event.kind == PROJECT_PASSED:
        rows.execute(sa.update(Round).where(Round.project_id == event.project_id, Round.number == number).values(is_passed=True))  # fmt: skip
        return
    rows.add(Round(project_id=event.project_id, number=number, person_id=event.content["person"], opened_at=event.at,
                   reason=event.content["reason"], is_passed=False))  # fmt: skip
    rows.flush()
    rows.add_all(RoundItem(project_id=event.project_id, number=number, item_id=item, rank=rank)
                 for rank, item in enumerate(event.content["pairs"]))  # fmt: skip


def forget_derived(rows: Rows) -> None:
    """Before a replay: only the rounds that imports made are known."""
    rows.execute(sa.delete(RoundItem))
    rows.execute(sa.delete(Round))
    rows.expire_all()
    found = rows.execute(sa.select(Item.project_id, Item.id, Item.rank).where(Item.use == "calibration")).all()
    for project_id in sorted({row[0] for row in found}):
        first_round(rows, project_id, [(row[1], row[2]) for row in found if row[0] == project_id])
    rows.flush()
