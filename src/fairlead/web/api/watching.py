"""Raters through hidden anchors: drift alarms and their answers, calibration rounds, scaling."""

from typing import Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Person
from fairlead.store.annotation.steering import Anchor, Round
from fairlead.web import anchors, drift, looking, policy, rounds, steering
from fairlead.web.api.access import Data, Who
from fairlead.web.api.costs import ReasonSent
from fairlead.web.api.models import KeySent, Sent
from fairlead.web.api.plain import plain
from fairlead.web.projects import get_project

router = APIRouter(tags=["steering"])


class RoundShown(BaseModel):
    """A calibration round."""

    number: int
    reason: str
    rater: str
    """Pseudonym of the only one who is asked; empty for everybody."""
    opened_at: int


class AlarmShown(BaseModel):
    """Hidden anchors say that a rater's answers have changed."""

    number: int
    at: int
    num_anchors: int
    num_right: int
    num_doubtful: int
    """Votes since the change."""
    is_asked: bool
    """To calibrate again."""
    is_rerated: bool


class WatchedShown(BaseModel):
    """A rater through the anchors."""

    rater: str
    num_anchors: int
    num_right: int
    num_missed: int
    evidence: float
    """Of drift, nats; an alarm at 4."""
    items_since: int
    """Since the last round that was passed."""
    alarm: AlarmShown | None


class WatchShown(BaseModel):
    """Where raters stand."""

    raters: list[WatchedShown]
    rounds: list[RoundShown]
    num_gold: int
    """Hidden anchors with a known answer."""
    look: dict[str, Any] | None
    """The rolling kappa and what follows from it; null before the first look."""
    looked_at: int | None


class AnswerSent(Sent):
    """What is to be done about an alarm."""

    act: Literal["ask", "rerate", "close"]
    """Ask the rater to calibrate again, have the votes since the change rated again, or close it with a reason."""
    reason: str = ""


class AnchorsShown(BaseModel):
    """What came of it."""

    num_new: int


class RoundSent(KeySent):
    """Why everybody calibrates again."""

    reason: str


class RoundMade(BaseModel):
    """A round that was opened."""

    number: int


@router.get("/projects/{project_id}/watched")
def get_watched(who: Who, data: Data, project_id: str) -> WatchShown:
    """Where raters stand: hidden anchors, open alarms, rounds, the rolling kappa."""
    policy.may_see_votes(who)
    return _watch(data, project_id)


def _watch(data: Database, project_id: str) -> WatchShown:
    looking.look_if_due(data, project_id)
    with data.read() as rows:
        get_project(rows, project_id)
        pseudonyms = {row[0]: row[1] for row in rows.execute(sa.select(Person.id, Person.pseudonym))}
        watched = [_watched(each, pseudonyms) for each in drift.watched(rows, project_id)]
        held = rows.scalars(sa.select(Round).where(Round.project_id == project_id).order_by(Round.number.desc())).all()
        num_gold = rows.scalar(
            sa.select(sa.func.count()).select_from(Anchor)
            .where(Anchor.project_id == project_id, Anchor.kind == "gold", Anchor.qualifies == "",
                   ~Anchor.is_retired)
        ) or 0  # fmt: skip
        seen = looking.last_look(rows, project_id)
        return WatchShown(
            raters=watched, num_gold=num_gold,
            rounds=[RoundShown(number=r.number, reason=r.reason, rater=pseudonyms.get(r.person_id or "", ""), opened_at=r.opened_at) for r in held],
            look=plain(seen[0]) if seen else None, looked_at=seen[1] if seen else None,
        )  # fmt: skip


def _watched(each: drift.Watched, pseudonyms: dict[str, str]) -> WatchedShown:
    alarm = None if each.alarm is None else AlarmShown(
        number=each.alarm.event_number, at=each.alarm.at, num_anchors=each.alarm.num_anchors, num_right=each.alarm.num_right,
        num_doubtful=each.num_doubtful, is_asked=each.alarm.is_asked, is_rerated=each.alarm.is_rerated,
    )  # fmt: skip
    return WatchedShown(rater=pseudonyms[each.person_id], num_anchors=each.num_anchors, num_right=each.num_right, num_missed=each.num_missed,
                        evidence=each.evidence, items_since=each.items_since, alarm=alarm)  # fmt: skip


@router.post("/projects/{project_id}/scale")
def scale(who: Who, data: Data, project_id: str, sent: ReasonSent) -> WatchShown:
    """Let more raters begin than the pilot's: with a kappa above 0.6, or with a reason."""
    policy.may_change_project(who)
    steering.scale(data, project_id, by=who.person_id, reason=sent.reason)
    return _watch(data, project_id)


@router.post("/projects/{project_id}/rounds", status_code=201)
def open_round(who: Who, data: Data, project_id: str, sent: RoundSent) -> RoundMade:
    """Ask everybody to calibrate again."""
    policy.may_change_project(who)
    return RoundMade(number=rounds.open_round(data, project_id, reason=sent.reason, by=who.person_id, key=sent.key))


@router.post("/projects/{project_id}/alarms/{number}", status_code=204)
def answer_alarm(who: Who, data: Data, project_id: str, number: int, sent: AnswerSent) -> None:
    """Answer a drift alarm; a repeat is refused."""
    policy.may_change_project(who)
    if sent.act == "ask":
        drift.ask_again(data, project_id, number, by=who.person_id)
    elif sent.act == "rerate":
        drift.rate_again(data, project_id, number, by=who.person_id)
    else:
        drift.close(data, project_id, number, by=who.person_id, reason=sent.reason)


@router.post("/projects/{project_id}/anchors")
def make_anchors(who: Who, data: Data, project_id: str) -> AnchorsShown:
    """Make anchors of the calibration pairs on which raters agree; those that are anchors already stay."""
    policy.may_change_project(who)
    return AnchorsShown(num_new=anchors.anchors_from_calibration(data, project_id, by=who.person_id))
