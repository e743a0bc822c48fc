"""The rater's pages: an item with its verdict, the next one for the browser to keep ready, undo, own earlier votes, the guideline."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse, Response

from fairlead.store.annotation.schema import Assignment, Event, Verdict
from fairlead.web import discussion, matching, policy, qualification, verdicts
from fairlead.web.answers import SKIP_REASONS
from fairlead.web.contents import content_of
from fairlead.web.excerpts import excerpt_of_item
from fairlead.web.own import own_figures
from fairlead.web.pages.answering import Posted, read_draft, read_submission, text_of
from fairlead.web.pages.context import actor, around, before_pages, behind_votes, check_csrf, render, see, wants_json
from fairlead.web.people import now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import current_guideline, get_guideline, get_project
from fairlead.web.queue import Nothing, next_assignment, own_assignment
from fairlead.web.showing import Shown, in_words, show
from fairlead.web.status import num_since, pace_of

router = APIRouter()
Text = Annotated[str, Form()]
DAY_MS = 24 * 3600 * 1000
_NUM_OWN = 200
"""Earlier votes on one page."""


@router.get("/p/{project_id}/rate")
async def rate_page(request: Request, project_id: str, a: str = "") -> Response:
    """The next item, or an earlier one to look at and change."""
    return await behind_votes(lambda: _rate_page(request, project_id, a))


def _rate_page(request: Request, project_id: str, a: str) -> Response:
    who = actor(request)
    policy.may_rate(who)
    with around(request).database.read() as rows:
        kind = get_project(rows, project_id).kind
        is_talk = kind == "chat" and (not a or own_assignment(rows, who, a).state == "open")
    if kind == "demonstration" or is_talk:
        return see(f"/p/{project_id}/{'talk' if is_talk else 'write'}")
    return render(request, "rate.html", **_item(request, who, project_id, assignment_id=a, without=()))


@router.get("/p/{project_id}/next")
async def next_item(
    request: Request, project_id: str, without: Annotated[str, Query(max_length=4000)] = "", a: str = ""
) -> Response:
    """The same as a part of a page, for the browser to keep ready.

    Args:
        without: assignments that the browser has, with commas between.
        a: one assignment of this rater in place of the next.
    """
    return await behind_votes(lambda: _next_item(request, project_id, without.split(","), a))


def _next_item(request: Request, project_id: str, without: list[str], a: str) -> Response:
    who = actor(request)
    policy.may_rate(who)
    return render(request, "item.html", **_item(request, who, project_id, assignment_id=a, without=without))


def _item(request: Request, who: Actor, project_id: str, *, assignment_id: str, without: Any) -> dict[str, Any]:
    database = around(request).database
    found = None if assignment_id else next_assignment(database, who, project_id, without=without)
    shown: Shown | None = None
    test: qualification.Place | None = None
    with database.read() as rows:
        project = get_project(rows, project_id)
        if assignment_id:
            found = own_assignment(rows, who, assignment_id)
        if isinstance(found, Assignment):
            is_anchor = content_of(rows, found.item_id).use == "anchor"
            test = qualification.place_of(rows, found) if is_anchor else None
            shown = show(rows, found)
        has_tests = shown is None and bool(matching.tested_needs(rows, project_id))
        guideline = (
            get_guideline(rows, project_id, shown.guideline_version) if shown else current_guideline(rows, project_id)
        )
        pace = pace_of(rows, project, who.person_id)
    return {
        "project": project, "shown": shown, "test": test, "is_earlier": isinstance(found, Assignment) and found.state == "done",
        "has_tests": has_tests, "pace": pace,
        "skip_reasons": SKIP_REASONS, "key": verdicts.new_key(),
        "guideline": guideline, "nothing": found.reason if isinstance(found, Nothing) else "",
    }  # fmt: skip


@router.post("/a/{assignment_id}/verdict")
async def submit(request: Request, assignment_id: str, form: Posted) -> Response:
    """Store a verdict; the answer comes when it is on disk."""
    return await before_pages(lambda: _submit(request, assignment_id, form))


def _submit(request: Request, assignment_id: str, form: Posted) -> Response:
    check_csrf(request, text_of(form, "csrf"))
    who = actor(request)
    policy.may_rate(who)
    database = around(request).database
    saved = verdicts.submit(database, who, assignment_id, read_submission(form))
    if wants_json(request):
        return JSONResponse({"saved": saved.event_number, "repeat": saved.is_repeat})
    with database.read() as rows:
        project_id = own_assignment(rows, who, assignment_id).project_id
    return see(f"/p/{project_id}/rate")


@router.post("/p/{project_id}/undo")
def undo(request: Request, project_id: str, key: Text, csrf: Text = "") -> Response:
    """Take back the last verdict and show its item again."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    assignment_id = verdicts.withdraw_last(around(request).database, who, project_id, key=key)
    if wants_json(request):
        return JSONResponse({"assignment": assignment_id})
    return see(f"/p/{project_id}/rate?a={assignment_id}")


@router.post("/a/{assignment_id}/flag")
def flag(request: Request, assignment_id: str, key: Text, csrf: Text = "", note: Text = "") -> Response:
    """Remark that something is wrong with the item."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    database = around(request).database
    verdicts.flag(database, who, assignment_id, note=note, key=key)
    if wants_json(request):
        return JSONResponse({"flagged": bool(note)})
    with database.read() as rows:
        project_id = own_assignment(rows, who, assignment_id).project_id
    return see(f"/p/{project_id}/rate?a={assignment_id}")


@router.post("/a/{assignment_id}/draft")
def draft(request: Request, assignment_id: str, form: Posted) -> Response:
    """Keep what is being written."""
    check_csrf(request, text_of(form, "csrf"))
    who = actor(request)
    policy.may_rate(who)
    verdicts.save_draft(around(request).database, who, assignment_id, read_draft(form))
    return JSONResponse({"saved": True})


@router.get("/p/{project_id}/mine")
def own_votes(request: Request, project_id: str) -> Response:
    """Own earlier votes, newest first, and own figures."""
    who = actor(request)
    policy.may_see_own_votes(who)
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        found = rows.execute(
            sa.select(Verdict, Assignment, Event.at).join(Assignment, Assignment.id == Verdict.assignment_id)
            .join(Event, Event.number == Verdict.event_number)
            .where(Verdict.project_id == project_id, Verdict.person_id == who.person_id).order_by(Verdict.event_number.desc()).limit(_NUM_OWN)
        ).all()  # fmt: skip
        votes = [
            {"assignment_id": assignment.id, "label": in_words(verdict, assignment), "at": at, "rationale": verdict.rationale,
             "skip_reason": SKIP_REASONS.get(verdict.skip_reason, ""), "about": excerpt_of_item(rows, assignment.item_id)}
            for verdict, assignment, at in found
        ]  # fmt: skip
        pace = pace_of(rows, project, who.person_id)
        num_today = num_since(rows, project_id, who.person_id, since=now_ms() - DAY_MS)
        own = own_figures(rows, project_id, who.person_id, pace=pace)
        has_discussion = discussion.is_open(rows, project_id)
        has_tests = bool(matching.tested_needs(rows, project_id))
    return render(
        request,
        "mine.html",
        project=project,
        votes=votes,
        pace=pace,
        num_today=num_today,
        own=own,
        has_discussion=has_discussion,
        has_tests=has_tests,
        now=now_ms(),
    )


@router.get("/p/{project_id}/guideline")
def guideline_page(request: Request, project_id: str, version: int | None = None) -> Response:
    """What raters are asked: the newest version, or an earlier one."""
    who = actor(request)
    policy.may_read_guideline(who)
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        newest = current_guideline(rows, project_id)
        found = get_guideline(rows, project_id, version) if version else newest
    return render(request, "guideline.html", project=project, guideline=found, newest=newest.version)
