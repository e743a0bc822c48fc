"""Drift of single raters, as the hidden anchors tell it: a cumulative sum for each rater, alarms, and what a lead makes of them.

The sum adds the evidence of each anchor for 65 % right against 80 % (Page's test). At level 4 a rater who stays at 80 % sets off one false
alarm in about 1,280 anchors, one who falls to 65 % is found after 55 and a coin-flipper after 23. An alarm proposes; nothing is dropped.
"""

import functools
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.stats.drift import bernoulli_cusum, bernoulli_run_length
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Event, Person, Progress, Verdict
from fairlead.store.annotation.steering import Alarm, Check, Rater
from fairlead.web import rounds
from fairlead.web.anchors import checks_of_all, checks_since
from fairlead.web.choosing import FRONT
from fairlead.web.errors import Refused, missing
from fairlead.web.events import record, repeated
from fairlead.web.projects import checked_reason

P0, P1, LEVEL = 0.80, 0.65, 4.0
ALARM, ANSWERED, MORE_VOTES = "drift.alarm", "drift.answered", "items.more_votes"
KINDS = (ALARM, ANSWERED, MORE_VOTES)


@functools.cache
def run_lengths() -> tuple[float, float, float]:
    """Mean number of anchors to an alarm at P0 (false), at P1, and of a coin-flipper."""
    at_p0, at_p1, at_half = (bernoulli_run_length(p, p0=P0, p1=P1, h=LEVEL) for p in (P0, P1, 0.5))
    return at_p0, at_p1, at_half


def watch(rows: Rows, assignment: Assignment) -> None:
    """After an answer to an anchor: raise an alarm when the sum reaches its level. One alarm of a rater is open at a time."""
    last = _last_alarm(rows, assignment.project_id, assignment.person_id)
    if last is not None and not last.is_closed:
        return
    found = checks_since(rows, assignment.project_id, assignment.person_id, position=last.position if last else -1)
    run = bernoulli_cusum([is_right for _, is_right in found], p0=P0, p1=P1, h=LEVEL)
    if run.alarm is None or run.change_point is None:
        return
    # The change lies between the last anchor before it and the first after it: every vote in between is in doubt.
    since = found[run.change_point - 1][0] + 1 if run.change_point else (last.position + 1 if last else 0)
    answers = [is_right for _, is_right in found[run.change_point : run.alarm + 1]]
    content = {"position": found[run.alarm][0], "since": since, "num": len(answers), "num_right": sum(answers)}
    follow(rows, record(rows, ALARM, person_id=assignment.person_id, project_id=assignment.project_id, content=content))


def _last_alarm(rows: Rows, project_id: str, person_id: str) -> Alarm | None:
    return rows.scalar(
        sa.select(Alarm).where(Alarm.project_id == project_id, Alarm.person_id == person_id).order_by(Alarm.event_number.desc()).limit(1)
    )  # fmt: skip


def _open_alarm(rows: Rows, project_id: str, number: int) -> Alarm:
    alarm = rows.get(Alarm, number)
    if alarm is None or alarm.project_id != project_id:
        raise missing("This alarm")
    if alarm.is_closed:
        raise Refused(409, "closed", "This alarm is closed already. Load the page again.")
    return alarm


def ask_again(database: Database, project_id: str, number: int, *, by: str) -> int:
    """Ask the rater of an alarm to calibrate again; return the number of the round."""
    with database.write() as rows:
        alarm = _open_alarm(rows, project_id, number)
        if alarm.is_asked:
            raise Refused(409, "asked", "The rater has been asked already. Load the page again.")
        reason = f"hidden anchors: {alarm.num_right} of {alarm.num_anchors} right since the change"
        opened = rounds.open_round_in(rows, project_id, reason=reason, by=by, person_id=alarm.person_id, alarm=number)
        _mark(rows, number, asks=True)
        return opened


def rate_again(database: Database, project_id: str, number: int, *, by: str) -> int:
    """Ask one more vote of somebody else for each pair that the rater judged since the change; return how many. No vote is dropped."""
    with database.write() as rows:
        alarm = _open_alarm(rows, project_id, number)
        if alarm.is_rerated:
            raise Refused(409, "rerated", "These pairs are rated again already. Load the page again.")
        items = list(rows.scalars(_doubtful(alarm)))
        content = {"pairs": items, "extra": 1, "alarm": number}
        follow(rows, record(rows, MORE_VOTES, person_id=by, project_id=project_id, content=content))
        return len(items)


def _doubtful(alarm: Alarm) -> sa.Select[str]:
    return (
        sa.select(Assignment.item_id).join(Verdict, Verdict.assignment_id == Assignment.id)
        .join(Progress, Progress.item_id == Assignment.item_id)
        .where(Assignment.project_id == alarm.project_id, Assignment.person_id == alarm.person_id, Assignment.position >= alarm.since,
               Assignment.position <= alarm.position, Progress.use == "production", Verdict.verdict != "skip")
        .order_by(Assignment.position)
    )  # fmt: skip


def close(database: Database, project_id: str, number: int, *, by: str, reason: str) -> None:
    """End an alarm; the rater's sum begins again."""
    reason = checked_reason(reason, why="Closing an alarm")
    with database.write() as rows:
        _open_alarm(rows, project_id, number)
        follow(rows, record(rows, ANSWERED, person_id=by, project_id=project_id, content={"alarm": number, "reason": reason}))  # fmt: skip


def ask_more_votes(
    database: Database, project_id: str, items: list[str], *, extra: int, by: str | None, reason: str, key: str | None = None
) -> None:  # fmt: skip
    """Ask more votes for single pairs than the project does. The same key again asks no more.

    Args:
        key: of the submission; None where nothing is sent twice.
    Raises:
        Refused: an item of another project, one that is not production, or the key was used for something else.
    """
    reason = checked_reason(reason, why="Asking for more votes")
    content: dict[str, Any] = {"pairs": items, "extra": extra, "alarm": None, "reason": reason}
    with database.write() as rows:
        if by is not None and key is not None and _is_repeat(rows, by, key, project_id, content):
            return
        for item_id in items:
            progress = rows.get(Progress, item_id)
            if progress is None or progress.project_id != project_id or progress.use != "production" or not 1 <= extra <= 100:  # fmt: skip
                raise missing(f"Pair {item_id}")
        follow(rows, record(rows, MORE_VOTES, person_id=by, project_id=project_id, content=content, key=key))


def _is_repeat(rows: Rows, by: str, key: str, project_id: str, content: dict[str, Any]) -> bool:
    return repeated(rows, by, key, kind=MORE_VOTES, project_id=project_id, said=content) is not None


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event about drift what is true now."""
    content = event.content
    if event.kind == ALARM:
        assert event.project_id is not None and event.person_id is not None, f"event {event.number} names no rater"
        rows.add(Alarm(event_number=event.number, project_id=event.project_id, person_id=event.person_id, at=event.at,
                       position=content["position"], since=content["since"], num_anchors=content["num"], num_right=content["num_right"],
                       is_asked=False, is_rerated=False, is_closed=False))  # fmt: skip
        rows.flush()
        return
    if event.kind == MORE_VOTES:
        for item_id in content["pairs"]:
            progress = rows.get(Progress, item_id)
            assert progress is not None, f"event {event.number} names no item"
            progress.num_extra += content["extra"]
            progress.num_lacking += content["extra"]
            if progress.rank >= 0:  # asked for by name: not to wait until the active choice opens it
                progress.rank -= FRONT
    _mark(rows, content["alarm"], closes=event.kind == ANSWERED, rerates=event.kind == MORE_VOTES)


def follow_round(rows: Rows, event: Event) -> None:
    """A round that an alarm asked for."""
    _mark(rows, event.content["alarm"], asks=True)


def _mark(rows: Rows, number: int | None, *, closes: bool = False, rerates: bool = False, asks: bool = False) -> None:
    """What was done about an alarm; with both done it is closed."""
    if number is None:
        return
    alarm = rows.get(Alarm, number)
    assert alarm is not None, f"alarm {number} is not there"
    alarm.is_rerated |= rerates
    alarm.is_asked |= asks
    alarm.is_closed |= closes or (alarm.is_asked and alarm.is_rerated)


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(Alarm))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One rater through the anchors, for the lead."""

    name: str
    person_id: str
    num_anchors: int
    num_right: int
    num_missed: int
    evidence: float
    """Of the cumulative sum now, nats; an alarm at LEVEL."""
    items_since: int
    alarm: Alarm | None
    """The open one."""
    num_doubtful: int
    """Votes since the change that the alarm is about."""


def watched(rows: Rows, project_id: str) -> list[Watched]:
    """Everybody who has rated, by name."""
    found = rows.execute(
        sa.select(Rater, Person.name).join(Person, Person.id == Rater.person_id).where(Rater.project_id == project_id).order_by(Person.name)
    ).all()  # fmt: skip
    answered = rows.execute(
        sa.select(Check.person_id, sa.func.count(), sa.func.sum(sa.cast(Check.is_right, sa.Integer)))
        .where(Check.project_id == project_id, Check.is_right.is_not(None)).group_by(Check.person_id)
    ).all()  # fmt: skip
    totals = {row[0]: (row[1], row[2]) for row in answered}
    alarms = {
        alarm.person_id: alarm
        for alarm in rows.scalars(sa.select(Alarm).where(Alarm.project_id == project_id).order_by(Alarm.event_number))
    }
    answers: dict[str, list[bool]] = {}
    for person_id, position, is_right in checks_of_all(rows, project_id):
        last = alarms.get(person_id)
        if (
            last is None or not last.is_closed or position > last.position
        ):  # the sum begins again after an alarm that is closed
            answers.setdefault(person_id, []).append(is_right)
    return [
        _watched(rows, rater, name, totals.get(rater.person_id, (0, 0)), alarms.get(rater.person_id), answers.get(rater.person_id, []))
        for rater, name in found
    ]  # fmt: skip


def _watched(
    rows: Rows, rater: Rater, name: str, total: tuple[int, int], last: Alarm | None, answers: list[bool]
) -> Watched:
    alarm = last if last is not None and not last.is_closed else None
    path = bernoulli_cusum(answers, p0=P0, p1=P1, h=LEVEL).path
    num = rows.scalar(sa.select(sa.func.count()).select_from(_doubtful(alarm).subquery())) if alarm else 0
    return Watched(name=name, person_id=rater.person_id, num_anchors=total[0], num_right=total[1], num_missed=rater.num_missed,
                   evidence=float(path[-1]) if len(path) else 0.0, items_since=rater.items_since, alarm=alarm, num_doubtful=num or 0)  # fmt: skip
