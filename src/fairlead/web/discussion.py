"""After a calibration round: its disagreements with votes and rationales, nobody named, for all who have rated the round.

The lead opens it; until then, and for anybody who still has items of the round to rate, it is closed: votes stay independent.
"""

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Verdict
from fairlead.store.annotation.steering import RoundItem
from fairlead.web import rounds
from fairlead.web.cases import Case, case_of
from fairlead.web.errors import Refused
from fairlead.web.events import record
from fairlead.web.matching import matched_needs
from fairlead.web.policy import ROLES, Actor
from fairlead.web.projects import get_project

OPENED, CLOSED = "discussion.opened", "discussion.closed"
MAX_CASES = 60
"""Items on one page; a round has 50."""


def set_discussion(database: Database, project_id: str, *, is_open: bool, by: str) -> None:
    """Open or close it, on record."""
    with database.write() as rows:
        get_project(rows, project_id)
        newest = rounds.current_round(rows, project_id, None)
        content = {"round": newest.number if newest else 0}
        record(rows, OPENED if is_open else CLOSED, person_id=by, project_id=project_id, content=content)


def is_open(rows: Rows, project_id: str) -> bool:
    """Did a lead open the newest round last? Only leads' events are searched, by the index of persons."""
    leads = sa.select(Person.id).where(Person.role.in_(ROLES[2:]))
    newest = rows.scalar(
        sa.select(Event).where(Event.project_id == project_id, Event.person_id.in_(leads), Event.kind.in_((OPENED, CLOSED)))
        .order_by(Event.number.desc()).limit(1)
    )  # fmt: skip
    round_ = rounds.current_round(rows, project_id, None)
    return (
        newest is not None
        and newest.kind == OPENED
        and newest.content.get("round", 0) == (round_.number if round_ else 0)
    )


def require_finished(rows: Rows, project_id: str, person_id: str) -> None:
    """Refuse a reader who may still be asked to rate an item of the round."""
    round_ = rounds.current_round(rows, project_id, None)
    if round_ is None:
        return
    in_hand = rows.scalar(
        sa.select(Assignment.id).join(RoundItem, RoundItem.item_id == Assignment.item_id)
        .where(RoundItem.project_id == project_id, RoundItem.number == round_.number, Assignment.person_id == person_id, Assignment.state == "open")
        .limit(1)
    )  # fmt: skip
    needs, _ = matched_needs(rows, get_project(rows, project_id), person_id)
    if in_hand is not None or rounds.next_in_round(rows, round_, person_id, needs=needs) is not None:
        raise Refused(
            409,
            "not_finished",
            "You have calibration items left. Rate them first; then the discussion is yours to read.",
        )


def read_discussion(rows: Rows, actor: Actor, project_id: str) -> list[Case]:
    """Items of the round on which votes differ, most disputed first.

    Raises:
        Refused: it is closed, or the reader has not finished the round; leads always read it.
    """
    if actor.role not in ("lead", "admin"):
        if not is_open(rows, project_id):
            raise Refused(409, "closed", "The discussion is not open yet. The lead opens it when the round is done.")
        require_finished(rows, project_id, actor.person_id)
    round_ = rounds.current_round(rows, project_id, None)
    if round_ is None:
        return []
    of_round = (RoundItem.project_id == project_id, RoundItem.number == round_.number, Verdict.verdict != "skip")
    num_labels = sa.func.count(Verdict.verdict.distinct())
    found = rows.scalars(
        sa.select(Item).join(Verdict, Verdict.item_id == Item.id).join(RoundItem, RoundItem.item_id == Item.id).where(*of_round)
        .group_by(Item.id).having(num_labels > 1).order_by(num_labels.desc(), sa.func.count().desc(), Item.rank).limit(MAX_CASES)
    ).all()  # fmt: skip
    return [case_of(rows, item, actor.person_id) for item in found]
