"""How far a project is: counts that pages and the command line show."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Event, Person, Progress, Project, Verdict
from fairlead.store.annotation.totals import Work
from fairlead.web.demonstrations.counts import counts_of

_LATEST = 101
"""Verdicts behind the median time for an item."""
_EXACT = 500
"""Wanted items up to which a rater's own are counted each time."""
_MAX_AGE_S, _MAX_KEPT = 60.0, 10_000
_COUNTS: dict[tuple[str, str, str], tuple[float, int]] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts of one project."""

    name: str
    kind: str
    state: str
    votes_per_item: int
    num_items: int
    num_finished: int
    """Production items with all votes that are wanted; of demonstrations, accepted replies."""
    num_calibration: int
    num_wanted: int
    """Votes that production items still lack."""
    num_votes: int
    num_skips: int
    num_raters: int
    """People with at least one vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far one rater is. Shown to the rater; says nothing of others."""

    num_done: int
    num_today: int
    """Votes and skips in the last 24 hours."""
    num_left: int
    """Items that this rater may still get, as things stand."""
    median_s: float | None
    """Time for an item, from shown to sent; None before five of them."""


def all_statuses(database: Database) -> list[Status]:
    """Every project by name."""
    with database.read() as rows:
        return [status_of(rows, project) for project in rows.scalars(sa.select(Project).order_by(Project.name)).all()]


def status_of(rows: Rows, project: Project) -> Status:
    """Counts of one project, from the rows that verdicts keep current."""
    if project.kind == "demonstration":
        counts = counts_of(rows, project.id)
        return Status(name=project.name, kind=project.kind, state=project.state, votes_per_item=1, num_items=counts.num_all, num_votes=0,
                      num_skips=counts.num_skips, num_finished=counts.by_state["accepted"], num_calibration=0, num_wanted=0,
                      num_raters=counts.num_authors)  # fmt: skip
    is_production, lacking = Progress.use == "production", Progress.num_lacking
    totals = rows.execute(
        sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(Progress.num_votes), 0), sa.func.coalesce(sa.func.sum(Progress.num_skips), 0),
            sa.func.coalesce(sa.func.sum(sa.case((is_production & (Progress.num_lacking <= 0), 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((is_production, 0), else_=1)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((is_production & (lacking > 0), lacking), else_=0)), 0),
        ).where(Progress.project_id == project.id, Progress.use != "anchor")
    ).one()  # fmt: skip
    num_raters = rows.scalar(
        sa.select(sa.func.count(Work.person_id.distinct())).where(Work.project_id == project.id, Work.num > 0, Work.choice != "skip")
    )  # fmt: skip
    return Status(name=project.name, kind=project.kind, state=project.state, votes_per_item=project.votes_per_item, num_items=totals[0],
                  num_votes=totals[1], num_skips=totals[2], num_finished=totals[3], num_calibration=totals[4], num_wanted=totals[5],
                  num_raters=num_raters or 0)  # fmt: skip


def pace_of(rows: Rows, project: Project, person_id: str, *, since: int) -> Pace:
    """Own figures of one rater.

    Args:
        since: milliseconds since 1970 from which `num_today` counts.
    """
    num_done = rows.scalar(sa.select(sa.func.sum(Work.num)).where(Work.project_id == project.id, Work.person_id == person_id)) or 0  # fmt: skip
    mine = (Verdict.project_id == project.id, Verdict.person_id == person_id)
    latest = rows.execute(
        sa.select(Verdict.event_number, Verdict.active_ms).where(*mine).order_by(Verdict.event_number.desc()).limit(_LATEST)
    ).all()  # fmt: skip
    first = first_event_since(rows, since)
    num_today = sum(number >= first for number, _ in latest)
    if num_today == _LATEST:
        num_today = rows.scalar(sa.select(sa.func.count()).select_from(Verdict).where(*mine, Verdict.event_number >= first)) or 0  # fmt: skip
    known = sorted(time for _, time in latest if time is not None)
    return Pace(num_done=num_done, num_today=num_today, num_left=_num_left(rows, project, person_id),
                median_s=known[len(known) // 2] / 1000 if len(known) >= 5 else None)  # fmt: skip


def first_event_since(rows: Rows, since: int) -> int:
    """Number of the first event at or after a time, by halving: events are numbered as they come. May be a minute old."""

    def find() -> int:
        low, high = 1, (rows.scalar(sa.select(sa.func.max(Event.number))) or 0) + 1
        while low < high:
            middle = (low + high) // 2
            at = rows.scalar(sa.select(Event.at).where(Event.number >= middle).order_by(Event.number).limit(1))
            low, high = (low, middle) if at is None or at >= since else (middle + 1, high)
        return low

    return _kept(rows, ("first event", ""), find)


def _num_left(rows: Rows, project: Project, person_id: str) -> int:
    """Exact in a project with few wanted items; else the wanted ones and those of them that are done are counted once a minute."""
    is_wanted = (Progress.project_id == project.id) & ((Progress.use == "calibration") | (Progress.num_lacking > 0))
    given = sa.select(Assignment.item_id).where(
        Assignment.item_id == Progress.item_id, Assignment.person_id == person_id, Assignment.state == "done"
    )
    few = sa.select(Progress.item_id).where(is_wanted).limit(_EXACT + 1).subquery()
    if (rows.scalar(sa.select(sa.func.count()).select_from(few)) or 0) <= _EXACT:
        return rows.scalar(sa.select(sa.func.count()).select_from(Progress).where(is_wanted, ~given.exists())) or 0
    own = sa.select(sa.func.count()).select_from(Assignment).join(Progress, Progress.item_id == Assignment.item_id)
    own = own.where(
        Assignment.project_id == project.id, Assignment.person_id == person_id, Assignment.state == "done", is_wanted
    )
    wanted = _kept(
        rows,
        (project.id, ""),
        lambda: rows.scalar(sa.select(sa.func.count()).select_from(Progress).where(is_wanted)) or 0,
    )
    return max(0, wanted - _kept(rows, (project.id, person_id), lambda: rows.scalar(own) or 0))


def _kept(rows: Rows, key: tuple[str, str], make: Callable[[], int]) -> int:
    """A count that may be a minute old."""
    place = (str(rows.get_bind().engine.url), *key)
    with _LOCK:
        made_at, found = _COUNTS.get(place, (-math.inf, 0))
    if time.monotonic() - made_at > _MAX_AGE_S:
        found = make()
        with _LOCK:
            if len(_COUNTS) > _MAX_KEPT:
                _COUNTS.clear()
            _COUNTS[place] = (time.monotonic(), found)
    return found


def count_people(database: Database) -> dict[str, int]:
    """Active people by role."""
    with database.read() as rows:
        found = rows.execute(sa.select(Person.role, sa.func.count()).where(Person.state == "active").group_by(Person.role)).all()  # fmt: skip
    return {row[0]: row[1] for row in found}
