"""A look at a project as a whole: what takes a scan of votes and therefore is done at most once a minute, outside of any rater's transaction.

Has the calibration round passed? Is the next one due? Does the rolling kappa lie below 0.4, so that the project pauses? What is found is
stored, and shown to the lead with its age; what follows from it is an event.
"""

import math
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.feedback.recalibration import RecalibrationRule, may_go_on, recalibration_due
from fairlead.stats.intervals import Interval
from fairlead.stats.rolling import WINDOW, rolling_alpha
from fairlead.stats.votes import votes_from_rows
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Progress, Project, Verdict
from fairlead.store.annotation.steering import Look, Rater, Round, RoundItem
from fairlead.web import rounds
from fairlead.web.calibration import verdict_of_round
from fairlead.web.errors import Refused
from fairlead.web.events import record
from fairlead.web.people import now_ms
from fairlead.web.projects import get_project
from fairlead.web.steering import steering_of

MAX_AGE_S = 60.0
MIN_WINDOW = 50
"""Pairs with two votes before the rolling kappa may pause a project: on fewer, intervals are wide or wrong."""
_NUM_NEWEST = 3000
"""Votes among which the window's pairs are sought."""
MIN_SHARED = 0.8
"""Of a round's pairs that have two votes before the round may pass."""
PASSING = ("clear", "raters_deviate")
"""Kinds of round after which production goes on: where single raters deviate, the guideline is not at fault, and they fail their own test."""
NEVER = 10**9
DAY_MS = 24 * 3600 * 1000
_LAST: dict[tuple[str, str], float] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look found. Stored as JSON."""

    kappa: dict[str, float] | None
    """value, low, high, n; None before there are two votes on `MIN_WINDOW` pairs."""
    round_kind: str
    """`stats.shared_round` of the newest round of everybody; empty without one."""
    notes: list[str]
    """What could not be done, and why."""


def look_if_due(database: Database, project_id: str) -> None:
    """Look, unless that was done within the last minute."""
    key = (str(database.engine.url), project_id)
    with _LOCK:
        if time.monotonic() - _LAST.get(key, -math.inf) < MAX_AGE_S:
            return
        _LAST[key] = time.monotonic()
    look(database, project_id)


def look(database: Database, project_id: str) -> Found:
    """Read all votes that matter, store what was found, do what follows from it."""
    with database.read() as rows:
        project = get_project(rows, project_id)
        kappa = rolling_kappa(rows, project)
        newest = rounds.current_round(rows, project_id, None)
        verdict = verdict_of_round(rows, newest) if newest is not None else None
        passes = newest is not None and verdict is not None and verdict.kind in PASSING and not newest.is_passed and (
            verdict.agreement.n >= MIN_SHARED * _num_items(rows, newest)
        )  # fmt: skip
        due = _due(rows, project, newest)
    notes: list[str] = []
    with database.write() as rows:
        if passes and newest is not None and verdict is not None:
            agreement = verdict.agreement
            content: dict[str, Any] = {
                "round": newest.number,
                "kind": verdict.kind,
                "agreement": agreement.value,
                "num": agreement.n,
            }
            rounds.follow(
                rows, record(rows, rounds.PROJECT_PASSED, person_id=None, project_id=project_id, content=content)
            )
        notes += _open_due(rows, project_id, newest, due)
        _pause(rows, project_id, kappa)
        found = Found(kappa=_stored(kappa), round_kind=verdict.kind if verdict else "", notes=notes)
        rows.merge(Look(project_id=project_id, at=now_ms(), found=asdict(found)))
    return found


def _num_items(rows: Rows, round_: Round) -> int:
    of_round = (RoundItem.project_id == round_.project_id, RoundItem.number == round_.number)
    return rows.scalar(sa.select(sa.func.count()).select_from(RoundItem).where(*of_round)) or 0


def _stored(kappa: Interval | None) -> dict[str, float] | None:
    if kappa is None or not math.isfinite(kappa.value):
        return None
    return {"value": kappa.value, "low": kappa.low, "high": kappa.high, "n": kappa.n}


def rolling_kappa(rows: Rows, project: Project) -> Interval | None:
    """Alpha of the newest hundred production pairs with two votes; None before there are fifty."""
    is_counted = (
        Verdict.project_id == project.id,
        Verdict.event_number > project.watched_from,
        Verdict.verdict != "skip",
    )
    newest = (
        sa.select(Verdict.item_id, Verdict.event_number).where(*is_counted).order_by(Verdict.event_number.desc()).limit(_NUM_NEWEST)
    ).subquery()  # fmt: skip
    last = sa.func.max(newest.c.event_number)
    window = list(rows.scalars(
        sa.select(newest.c.item_id).join(Progress, Progress.item_id == newest.c.item_id)
        .where(Progress.use == "production", Progress.num_votes >= 2).group_by(newest.c.item_id).order_by(last.desc()).limit(2 * WINDOW)
    ))  # fmt: skip
    found = rows.execute(  # sorted here, and the project not named: SQLite would go through all of its votes in their order
        sa.select(Verdict.item_id, Verdict.person_id, Verdict.verdict, Verdict.event_number).where(Verdict.item_id.in_(window), *is_counted[1:])
    ).all()  # fmt: skip
    found = sorted(found, key=lambda row: row.event_number)
    numbers: dict[str, int] = {}
    for item_id, *_ in found:
        numbers[item_id] = numbers.get(item_id, 0) + 1
    kept = {item_id for item_id in window if numbers.get(item_id, 0) >= 2}
    kept &= set([item_id for item_id in window if item_id in kept][:WINDOW])
    if len(kept) < MIN_WINDOW:
        return None
    votes = votes_from_rows([(row[0], row[1], row[2]) for row in found if row[0] in kept])
    return rolling_alpha(votes, seed=0, window=WINDOW, num_resamples=500)[-1].alpha


def _pause(rows: Rows, project_id: str, kappa: Interval | None) -> None:
    project = get_project(rows, project_id)
    if kappa is None or project.state != "open":
        return
    permission = may_go_on(kappa)
    if not permission.is_granted:
        project.state, project.state_reason = "paused", permission.reason
        record(rows, "project.paused", person_id=None, project_id=project_id, content={"reason": permission.reason})


def _due(rows: Rows, project: Project, newest: Round | None) -> str:
    """Why everybody is to calibrate again; empty when nobody is."""
    if newest is None or project.state != "open":
        return ""
    settings = steering_of(project)
    items_since = rows.scalar(sa.select(sa.func.max(Rater.items_since)).where(Rater.project_id == project.id)) or 0
    rule = RecalibrationRule(every_items=settings.every_items or NEVER, every_days=settings.every_days or NEVER)
    days = (now_ms() - newest.opened_at) / DAY_MS if items_since else 0.0
    return "; ".join(recalibration_due(rule, items_since=items_since, days_since=days).reasons)


def _open_due(rows: Rows, project_id: str, newest: Round | None, due: str) -> list[str]:
    current = rounds.current_round(rows, project_id, None)
    if not due or newest is None or current is None or current.number != newest.number:
        return []
    try:
        rounds.open_round_in(rows, project_id, reason=due, by=None)
    except Refused as error:  # told to the lead until there are pairs
        return [f"A calibration round is due ({due}). {error.message}"]
    return []


def last_look(rows: Rows, project_id: str) -> tuple[Found, int] | None:
    """What the last look found, and when."""
    look_ = rows.get(Look, project_id)
    return None if look_ is None else (Found(**look_.found), look_.at)
