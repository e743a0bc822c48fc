"""The lead's figures as the pages show them, at most a minute old: agreement, raters, labels, and what each guideline did to agreement."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Guideline
from fairlead.web import documents, policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.plain import plain
from fairlead.web.dashboard.agreement import agreement_of
from fairlead.web.dashboard.criteria import criteria_of
from fairlead.web.dashboard.labels import labels_of
from fairlead.web.dashboard.raters import raters_of
from fairlead.web.dashboard.versions import figures_of, rule_changes
from fairlead.web.own import own_figures
from fairlead.web.projects import current_guideline, get_guideline, get_project
from fairlead.web.status import pace_of

router = APIRouter(tags=["figures"])


class ReadingShown(BaseModel):
    """Figures by the names of the page's reading; nan is null."""

    reading: dict[str, Any]
    age_s: int


class VersionShown(BaseModel):
    """A version of a guideline and what votes under it look like."""

    version: int
    published_at: int
    changes: list[Any]
    """Of its rules, against the version before."""
    figures: dict[str, Any] | None
    """Null without votes."""


class HistoryShown(BaseModel):
    """All versions, newest first."""

    versions: list[VersionShown]
    age_s: int


class OwnShown(BaseModel):
    """One's own figures, nothing of others."""

    chosen: dict[str, int]
    num_days: int
    hours_left: float | None
    left_share: float | None


def _check(data: Database, project_id: str) -> None:
    with data.read() as rows:
        get_project(rows, project_id)


@router.get("/projects/{project_id}/agreement")
def get_agreement(who: Who, data: Data, project_id: str) -> ReadingShown:
    """Agreement overall, by slice, by criterion, by pair of raters, and over time."""
    policy.may_see_votes(who)
    _check(data, project_id)
    kept = agreement_of(data, project_id)
    reading = {**plain(kept.value), "criteria": plain(criteria_of(data, project_id).value)}
    return ReadingShown(reading=reading, age_s=kept.age_s())


@router.get("/projects/{project_id}/raters")
def get_raters(who: Who, data: Data, project_id: str) -> ReadingShown:
    """Every rater's measures with their healthy ranges."""
    policy.may_see_votes(who)
    _check(data, project_id)
    kept = raters_of(data, project_id)
    return ReadingShown(reading=plain(kept.value), age_s=kept.age_s())


@router.get("/projects/{project_id}/labels")
def get_labels(who: Who, data: Data, project_id: str) -> ReadingShown:
    """What votes become under each method, and the least certain pairs."""
    policy.may_see_votes(who)
    _check(data, project_id)
    kept = labels_of(data, project_id)
    return ReadingShown(reading=plain(kept.value), age_s=kept.age_s())


@router.get("/projects/{project_id}/own")
def get_own(who: Who, data: Data, project_id: str) -> OwnShown:
    """What one has chosen, how fast, and how long it will take."""
    policy.may_see_own_votes(who)
    with data.read() as rows:
        pace = pace_of(rows, get_project(rows, project_id), who.person_id)
        found = own_figures(rows, project_id, who.person_id, pace=pace)
    return OwnShown(chosen=dict(found.chosen), num_days=found.num_days, hours_left=found.hours_left, left_share=found.left_share)  # fmt: skip


@router.get("/projects/{project_id}/guideline/history")
def get_history(who: Who, data: Data, project_id: str) -> HistoryShown:
    """Versions with agreement before and after. Their texts: `guideline?version=`."""
    policy.may_see_votes(who)
    with data.read() as rows:
        get_project(rows, project_id)
        versions = rows.scalars(
            sa.select(Guideline).where(Guideline.project_id == project_id).order_by(Guideline.version)
        ).all()
    kept = figures_of(data, project_id)
    shown = [
        VersionShown(version=now.version, published_at=now.published_at, changes=plain(rule_changes(before, now)) if before else [],
                     figures=plain(kept.value.get(now.version)))
        for before, now in zip([None, *versions], versions, strict=False)
    ]  # fmt: skip
    return HistoryShown(versions=shown[::-1], age_s=kept.age_s())


@router.get("/projects/{project_id}/guideline/document", response_class=PlainTextResponse)
def get_document(
    who: Who, data: Data, project_id: str, version: Annotated[int | None, Query(ge=1)] = None
) -> PlainTextResponse:
    """A guideline with everything that it asks of a verdict, as Markdown."""
    policy.may_read_guideline(who)
    with data.read() as rows:
        project = get_project(rows, project_id)
        found = get_guideline(rows, project_id, version) if version else current_guideline(rows, project_id)
        return PlainTextResponse(documents.as_markdown(project, found), media_type="text/markdown; charset=utf-8")
