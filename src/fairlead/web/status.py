"""How far a project is: counts that pages and the command line show."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows, run
from fairlead.store.annotation.schema import Assignment, Event, Person, Progress, Project, Verdict, table_of
from fairlead.store.annotation.totals import Work
from fairlead.web.demonstrations.counts import counts_of
from fairlead.web.matching import matched_needs
from fairlead.web.totals import labels_by_use

_LATEST = 101
"""Verdicts behind the median time for an item."""
_EXACT = 500
"""Wanted items up to which a rater's own are counted each time."""
_MAX_AGE_S, _MAX_KEPT = 60.0, 10_000
_COUNTS: dict[tuple[str, ...], tuple[float, int]] = {}
_LOCK = threading.Lock()
_WORK, _VERDICT = table_of(Work).c, table_of(Verdict).c
_NUM_DONE = sa.select(sa.func.sum(_WORK.num)).where(
    _WORK.project_id == sa.bindparam("project"), _WORK.person_id == sa.bindparam("person")
)
_TIMES = (
    sa.select(_VERDICT.active_ms)
    .where(_VERDICT.project_id == sa.bindparam("project"), _VERDICT.person_id == sa.bindparam("person"))
    .order_by(_VERDICT.event_number.desc()).limit(_LATEST)
)  # fmt: skip


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
    num_left: int
    """Items that this rater may still get, as things stand."""
    median_s: float | None
    """Time for an item, from shown to sent, at most a minute old; None before five of them."""


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
    given, wanted = labels_by_use(rows, project.id), _wanted(rows, project.id)
    num_raters = rows.scalar(
        sa.select(sa.func.count(Work.person_id.distinct())).where(Work.project_id == project.id, Work.num > 0, Work.choice != "skip")
    )  # fmt: skip
    num_skips = sum(labels["skip"] for labels in given.values())
    return Status(
        name=project.name, kind=project.kind, state=project.state, votes_per_item=project.votes_per_item,
        num_items=sum(num for _, num, _, _ in wanted), num_votes=sum(labels.total() for labels in given.values()) - num_skips, num_skips=num_skips,
        num_finished=sum(num for use, _, num, _ in wanted if use == "production"),
        num_calibration=sum(num for use, num, _, _ in wanted if use != "production"),
        num_wanted=sum(num for use, _, _, num in wanted if use == "production"), num_raters=num_raters or 0,
    )  # fmt: skip


def _wanted(rows: Rows, project_id: str) -> list[tuple[str, int, int, int]]:
    """By use: items, those that lack no vote, votes that the others lack. Read from an index alone."""
    lacking = Progress.num_lacking
    is_finished, num_lacking = sa.case((lacking <= 0, 1), else_=0), sa.case((lacking > 0, lacking), else_=0)
    found = rows.execute(
        sa.select(Progress.use, sa.func.count(), sa.func.sum(is_finished), sa.func.sum(num_lacking))
        .where(Progress.project_id == project_id, Progress.use != "anchor").group_by(Progress.use)
    )  # fmt: skip
    return [(row[0], row[1], int(row[2]), int(row[3])) for row in found]


def pace_of(rows: Rows, project: Project, person_id: str) -> Pace:
    """Own figures of one rater."""
    who = {"project": project.id, "person": person_id}
    num_done = run(rows, _NUM_DONE, who).scalar() or 0

    def median_ms() -> int:
        known = sorted(time for (time,) in run(rows, _TIMES, who) if time is not None)
        return known[len(known) // 2] if len(known) >= 5 else -1

    median = _kept(rows, (project.id, person_id, "median"), median_ms)
    return Pace(num_done=num_done, num_left=_num_left(rows, project, person_id), median_s=median / 1000 if median >= 0 else None)  # fmt: skip


def num_since(rows: Rows, project_id: str, person_id: str, *, since: int) -> int:
    """Votes and skips of one rater that stand. Args: since: milliseconds since 1970."""
    first = first_event_since(rows, since)
    mine = (Verdict.project_id == project_id, Verdict.person_id == person_id, Verdict.event_number >= first)
    return rows.scalar(sa.select(sa.func.count()).select_from(Verdict).where(*mine)) or 0


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
    needs, is_all = matched_needs(rows, project, person_id)

    def is_wanted() -> sa.ColumnElement[bool]:
        found = (Progress.project_id == project.id) & ((Progress.use == "calibration") | (Progress.num_lacking > 0))
        return found if is_all else found & Progress.needs.in_(needs)

    def num_done() -> int:
        own = sa.select(sa.func.count()).select_from(Assignment).join(Progress, Progress.item_id == Assignment.item_id)
        is_done = (Assignment.project_id == project.id, Assignment.person_id == person_id, Assignment.state == "done")
        return rows.scalar(own.where(*is_done, is_wanted())) or 0

    count = sa.select(sa.func.count()).select_from(Progress)
    key = (project.id, "" if is_all else " / ".join(needs))
    wanted = _kept(rows, key, lambda: rows.scalar(count.where(is_wanted())) or 0, above=_EXACT)
    if wanted <= _EXACT:
        given = sa.select(Assignment.item_id).where(
            Assignment.item_id == Progress.item_id, Assignment.person_id == person_id, Assignment.state == "done"
        )
        return rows.scalar(count.where(is_wanted(), ~given.exists())) or 0
    return max(0, wanted - _kept(rows, (project.id, person_id), num_done))


def _kept(rows: Rows, key: tuple[str, ...], make: Callable[[], int], *, above: int = -1) -> int:
    """A count that may be a minute old; only one above this is kept."""
    place = (str(rows.get_bind().engine.url), *key)
    with _LOCK:
        made_at, found = _COUNTS.get(place, (-math.inf, 0))
    if time.monotonic() - made_at > _MAX_AGE_S:
        found = make()
        with _LOCK:
            if len(_COUNTS) > _MAX_KEPT:
                _COUNTS.clear()
            if found > above:
                _COUNTS[place] = (time.monotonic(), found)
    return found


def count_people(database: Database) -> dict[str, int]:
    """Active people by role."""
    with database.read() as rows:
        found = rows.execute(sa.select(Person.role, sa.func.count()).where(Person.state == "active").group_by(Person.role)).all()  # fmt: skip
    return {row[0]: row[1] for row in found}
