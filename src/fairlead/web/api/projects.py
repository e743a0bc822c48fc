"""Projects, their items and votes, guideline, status and quality."""

import dataclasses
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query

from fairlead.store.annotation.schema import Event, Person, Progress, Project, Verdict
from fairlead.web import calibration, policy, projects
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import (
    GuidelineSent,
    GuidelineShown,
    ItemShown,
    ItemsShown,
    PaceShown,
    ProjectSent,
    ProjectShown,
    QualityShown,
    StateSent,
    VoteShown,
    WaiveSent,
)
from fairlead.web.errors import Refused, invalid
from fairlead.web.quality import quality_of
from fairlead.web.status import Status, num_since, pace_of, status_of

router = APIRouter(tags=["projects"])
Limit = Annotated[int, Query(ge=1, le=1000)]
_SORTS = {"rank": Progress.rank, "num_votes": Progress.num_votes, "num_skips": Progress.num_skips}
"""Columns by which items may be sorted: nothing that a caller writes reaches the database as a name."""
_DAY_MS = 24 * 3600 * 1000


def _shown(project: Project) -> ProjectShown:
    return ProjectShown(id=project.id, name=project.name, kind=project.kind, state=project.state, votes_per_item=project.votes_per_item,
                        calibration_items=project.calibration_items)  # fmt: skip


@router.get("/projects")
def list_projects(who: Who, data: Data) -> list[ProjectShown]:
    """All projects by name."""
    policy.may_read_guideline(who)
    with data.read() as rows:
        return [_shown(project) for project in rows.scalars(sa.select(Project).order_by(Project.name))]


@router.post("/projects", status_code=201)
def create_project(who: Who, data: Data, sent: ProjectSent) -> ProjectShown:
    """Make a project with the first guideline. A name that is taken is refused, so a repeat makes no second one."""
    policy.may_create_project(who)
    return _shown(projects.create_project(data, sent.name, kind=sent.kind, votes_per_item=sent.votes_per_item,
                                          calibration_items=sent.calibration_items, by=who.person_id))  # fmt: skip


@router.get("/projects/{project_id}")
def get_project(who: Who, data: Data, project_id: str) -> ProjectShown:
    """One project."""
    policy.may_read_guideline(who)
    with data.read() as rows:
        return _shown(projects.get_project(rows, project_id))


@router.post("/projects/{project_id}/state")
def set_state(who: Who, data: Data, project_id: str, sent: StateSent) -> ProjectShown:
    """Pause or open again."""
    policy.may_change_project(who)
    projects.set_project_state(data, project_id, state=sent.state, by=who.person_id, reason=sent.reason)
    with data.read() as rows:
        return _shown(projects.get_project(rows, project_id))


@router.get("/projects/{project_id}/status")
def get_status(who: Who, data: Data, project_id: str) -> Status:
    """How far it is."""
    policy.may_see_votes(who)
    with data.read() as rows:
        return status_of(rows, projects.get_project(rows, project_id))


@router.get("/projects/{project_id}/pace")
def get_pace(who: Who, data: Data, project_id: str) -> PaceShown:
    """One's own figures."""
    policy.may_see_own_votes(who)
    with data.read() as rows:
        project = projects.get_project(rows, project_id)
        pace = pace_of(rows, project, who.person_id)
        num_today = num_since(rows, project_id, who.person_id, since=projects.now_ms() - _DAY_MS)
    return PaceShown(**dataclasses.asdict(pace), num_today=num_today)


@router.get("/projects/{project_id}/quality")
def get_quality(who: Who, data: Data, project_id: str) -> QualityShown:
    """Agreement with intervals, at most a minute old."""
    policy.may_see_votes(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
    kept = quality_of(data, project_id)
    found = kept.value
    return QualityShown(figures=[dataclasses.asdict(each) for each in found.figures], gates=[dataclasses.asdict(each) for each in found.gates],
                        notes=list(found.notes), age_s=kept.age_s())  # fmt: skip


@router.get("/projects/{project_id}/items")
def list_items(
    who: Who, data: Data, project_id: str, sort: str = "rank", use: str = "", after: str = "", limit: Limit = 100
) -> ItemsShown:
    """Items with their counts, a page at a time.

    `sort` is rank, num_votes or num_skips; `use` is production, calibration or anchor, or all when left out; `after` is `next` of the page before.
    """
    policy.may_see_votes(who)
    column = _SORTS.get(sort)
    if column is None:
        raise invalid(f"sort is not one of {', '.join(_SORTS)}. Choose one of them.")
    if use not in ("", "production", "calibration", "anchor"):
        raise invalid("use is not production, calibration or anchor. Choose one of them, or leave it out.")
    asked = sa.select(Progress).where(Progress.project_id == project_id)
    if use:
        asked = asked.where(Progress.use == use)
    if after:
        value, _, name = after.partition(":")
        digits = value.removeprefix("-")  # ranks of chosen pairs are below 0
        if not value.isascii() or not digits.isdigit() or len(value) > 20 or not name:
            raise invalid("after is not what the page before gave as next. Start again without it.")
        asked = asked.where(sa.tuple_(column, Progress.item_id) > sa.tuple_(sa.literal(int(value)), sa.literal(name)))
    with data.read() as rows:
        projects.get_project(rows, project_id)
        found = rows.scalars(asked.order_by(column, Progress.item_id).limit(limit + 1)).all()
    page = found[:limit]
    shown = [
        ItemShown(id=row.item_id, use=row.use, num_votes=row.num_votes, num_skips=row.num_skips, rank=row.rank)
        for row in page
    ]
    more = f"{getattr(page[-1], sort)}:{page[-1].item_id}" if len(found) > limit else ""
    return ItemsShown(items=shown, next=more)


@router.get("/projects/{project_id}/votes")
def list_votes(
    who: Who, data: Data, project_id: str, after: Annotated[int, Query(ge=0)] = 0, limit: Limit = 100
) -> list[VoteShown]:
    """Votes that stand now, oldest first. `after` is the number of the last event that the caller has."""
    policy.may_export(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
        found = rows.execute(
            sa.select(Verdict, Person.pseudonym, Event.at).join(Person, Person.id == Verdict.person_id)
            .join(Event, Event.number == Verdict.event_number)
            .where(Verdict.project_id == project_id, Verdict.event_number > after).order_by(Verdict.event_number).limit(limit)
        ).all()  # fmt: skip
        return [
            VoteShown(event=v.event_number, item=v.item_id, rater=pseudonym, verdict=v.verdict, strength=v.strength, ranking=v.ranking,
                      criteria=v.criteria, spans=v.spans, edited=v.edited, edited_text=v.edited_text, rationale=v.rationale,
                      skip_reason=v.skip_reason, guideline_version=v.guideline_version, active_ms=v.active_ms, at=at)
            for v, pseudonym, at in found
        ]  # fmt: skip


@router.get("/projects/{project_id}/guideline")
def get_guideline(
    who: Who, data: Data, project_id: str, version: Annotated[int | None, Query(ge=1)] = None
) -> GuidelineShown:
    """The newest version, or an earlier one."""
    policy.may_read_guideline(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
        newest = projects.current_guideline(rows, project_id)
        found = projects.get_guideline(rows, project_id, version) if version else newest
        return GuidelineShown(version=found.version, newest=newest.version, text=found.text, published_at=found.published_at,
                              rules=dataclasses.asdict(projects.rules_of(found)))  # fmt: skip


@router.post("/projects/{project_id}/guideline", status_code=201)
def publish_guideline(who: Who, data: Data, project_id: str, sent: GuidelineSent) -> GuidelineShown:
    """Publish the next version."""
    policy.may_edit_guideline(who)
    rules = projects.Rules(**_values(sent.rules))
    with data.read() as rows:
        projects.get_project(rows, project_id)
        newest = projects.current_guideline(rows, project_id).version
    if newest != sent.replaces:
        raise Refused(409, "stale", f"The newest version is {newest}, not {sent.replaces}. Read it first.")
    projects.publish_guideline(data, project_id, text=sent.text, rules=rules, by=who.person_id)
    return get_guideline(who, data, project_id)


def _values(sent: Any) -> dict[str, Any]:
    return {name: getattr(sent, name) for name in type(sent).model_fields}


@router.get("/projects/{project_id}/calibration")
def get_calibration(who: Who, data: Data, project_id: str) -> calibration.RoundReading | None:
    """Who has passed the newest round; null without one."""
    policy.may_see_votes(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
        return calibration.read_calibration(rows, project_id)


@router.post("/projects/{project_id}/waive", status_code=204)
def waive(who: Who, data: Data, project_id: str, sent: WaiveSent) -> None:
    """Let a rater into production on record."""
    policy.may_change_project(who)
    calibration.waive(data, project_id, sent.person, by=who.person_id, reason=sent.reason)
