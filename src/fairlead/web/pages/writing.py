"""The pages of demonstrations: a conversation to reply to or a reply to review, own replies, and how far the project is for its lead."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, Response

from fairlead.store.annotation.schema import Project
from fairlead.web import policy
from fairlead.web.answers import SKIP_REASONS
from fairlead.web.demonstrations import actions
from fairlead.web.demonstrations.actions import Decision, Reply, Review
from fairlead.web.demonstrations.counts import by_person, counts_of, own_replies
from fairlead.web.demonstrations.desk import next_task, own_task
from fairlead.web.demonstrations.drafts import ask_draft, ask_of
from fairlead.web.demonstrations.reviews import reviews_of
from fairlead.web.demonstrations.showing import Shown, show
from fairlead.web.errors import Refused
from fairlead.web.matching import coverage
from fairlead.web.pages.context import actor, around, check_csrf, render, see, wants_json
from fairlead.web.people import now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import current_guideline, get_project
from fairlead.web.queue import Nothing
from fairlead.web.verdicts import Saved, new_key

router = APIRouter()
Text = Annotated[str, Form()]
Time = Annotated[int | None, Form()]


@router.get("/p/{project_id}/write")
def write_page(request: Request, project_id: str, t: str = "") -> Response:
    """What is to be done next, or one task of this person.

    Args:
        t: an own task.
    """
    who = actor(request)
    policy.may_rate(who)
    database = around(request).database
    task = None if t else next_task(database, who, project_id)
    shown: Shown | None = None
    with database.read() as rows:
        project = get_project(rows, project_id)
        if t or not isinstance(task, Nothing):
            shown = show(rows, *own_task(rows, who, t or cast(Any, task).id))
        guideline = current_guideline(rows, project_id)
    return render(request, "write.html", project=project, shown=shown, guideline=guideline, skip_reasons=SKIP_REASONS, key=new_key(),
                  nothing=task.reason if isinstance(task, Nothing) else "", gives_drafts=_gives_drafts(request))  # fmt: skip


def _gives_drafts(request: Request) -> bool:
    """Does this server let people ask its policy for a draft?"""
    talker = around(request).talker
    return talker is not None and talker.gives_drafts


@router.post("/w/{task_id}/reply")
def hand_in(
    request: Request, task_id: str, key: Text, guideline_version: Annotated[int, Form()], text: Text = "", csrf: Text = "",
    took_draft: Annotated[bool, Form()] = False, active_ms: Time = None,
) -> Response:  # fmt: skip
    """Hand a reply in; the answer comes when it is on disk."""
    who = _writer(request, csrf)
    reply = Reply(key=key, text=text, guideline_version=guideline_version, took_draft=took_draft, active_ms=active_ms)
    return _done(request, who, task_id, actions.hand_in(around(request).database, who, task_id, reply))


@router.post("/w/{task_id}/review")
def review(
    request: Request, task_id: str, key: Text, decision: Text, guideline_version: Annotated[int, Form()], text: Text = "", reason: Text = "",
    csrf: Text = "", active_ms: Time = None,
) -> Response:  # fmt: skip
    """Accept, accept with changes, or send back."""
    who = _writer(request, csrf)
    given = Review(key=key, decision=cast(Decision, decision), guideline_version=guideline_version, text=text, reason=reason,
                   active_ms=active_ms)  # fmt: skip
    return _done(request, who, task_id, actions.review(around(request).database, who, task_id, given))


@router.post("/w/{task_id}/skip")
def skip(request: Request, task_id: str, key: Text, reason: Text = "", csrf: Text = "") -> Response:
    """Put a task aside with a reason."""
    who = _writer(request, csrf)
    return _done(request, who, task_id, actions.skip(around(request).database, who, task_id, reason=reason, key=key))


@router.post("/w/{task_id}/take-back")
def take_back(request: Request, task_id: str, key: Text, csrf: Text = "") -> Response:
    """Get an own reply back that nobody has begun to review."""
    who = _writer(request, csrf)
    return _done(request, who, task_id, actions.take_back(around(request).database, who, task_id, key=key))


@router.post("/w/{task_id}/draft")
def save(
    request: Request, task_id: str, text: Text = "", csrf: Text = "", took_draft: Annotated[bool, Form()] = False,
    takes: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Keep what is being written.

    Args:
        takes: put the model's draft behind it, for browsers without scripts.
    """
    who = _writer(request, csrf)
    database = around(request).database
    if takes:
        with database.read() as rows:
            draft = actions.draft_of(rows, own_task(rows, who, task_id)[0].writing_id)[1]
        text = f"{text}\n\n{draft}" if text.strip() else draft
    actions.save_text(database, who, task_id, text=text, took_draft=took_draft or takes)
    if wants_json(request):
        return JSONResponse({"saved": True})
    with database.read() as rows:
        project_id = own_task(rows, who, task_id)[0].project_id
    return see(f"/p/{project_id}/write?t={task_id}")


@router.post("/w/{task_id}/ask")
def ask_for_draft(
    request: Request, task_id: str, key: Text, text: Text = "", csrf: Text = "", took_draft: Annotated[bool, Form()] = False
) -> Response:  # fmt: skip
    """Keep what is being written, and let the policy write a draft; the answer does not wait for it."""
    who = _writer(request, csrf)
    here = around(request)
    with here.database.read() as rows:
        project_id = own_task(rows, who, task_id)[0].project_id
    if not _gives_drafts(request) or here.talker is None:
        raise Refused(409, "closed", "Nobody writes drafts here now. Write without one.")
    actions.save_text(here.database, who, task_id, text=text, took_draft=took_draft)
    ask_draft(here.database, who, task_id, key=f"{key}-d")
    here.talker.wake()
    if wants_json(request):
        return JSONResponse({"state": "waiting"})
    return see(f"/p/{project_id}/write?t={task_id}")


@router.get("/w/{task_id}/asked")
def asked_draft(request: Request, task_id: str) -> Response:
    """How far the asked draft is, for the page that waits."""
    who = actor(request)
    policy.may_rate(who)
    with around(request).database.read() as rows:
        state, failure = ask_of(rows, own_task(rows, who, task_id)[0].writing_id)
    return JSONResponse({"state": state, "failure": failure})


def _writer(request: Request, csrf: str) -> Actor:
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    return who


def _done(request: Request, who: Actor, task_id: str, saved: Saved) -> Response:
    if wants_json(request):
        return JSONResponse({"saved": saved.event_number, "repeat": saved.is_repeat})
    with around(request).database.read() as rows:
        project_id = own_task(rows, who, task_id)[0].project_id
    return see(f"/p/{project_id}/write")


@router.get("/p/{project_id}/written")
def written(request: Request, project_id: str) -> Response:
    """Own replies, what became of them, and why they came back."""
    who = actor(request)
    policy.may_see_own_votes(who)
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        replies = own_replies(rows, project_id, who.person_id)
    return render(request, "written.html", project=project, replies=replies, now=now_ms(), keys=[new_key() for _ in replies])  # fmt: skip


def overview(request: Request, project: Project) -> Response:
    """How far a project of demonstrations is; `lead.overview` has asked the policy."""
    with around(request).database.read() as rows:
        counts, people = counts_of(rows, project.id), by_person(rows, project.id)
        alone = [row for row in coverage(rows, project) if not row.num_raters and row.needs]
    reviews = reviews_of(around(request).database, project.id).value
    return render(
        request, "demonstrations.html", project=project, counts=counts, people=people, reviews=reviews, alone=alone
    )
