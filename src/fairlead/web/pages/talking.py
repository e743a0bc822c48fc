"""The page of live conversations: say something, wait for two replies, choose one, go on."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, Response

from fairlead.core.records import Prompt
from fairlead.store.annotation.schema import Project
from fairlead.web import policy
from fairlead.web.answers import SKIP_REASONS
from fairlead.web.chats.counts import STRENGTHS, talks_of
from fairlead.web.chats.talker import MAX_TOGETHER
from fairlead.web.chats.talking import Standing, ask_again, latest_chat, say, stand
from fairlead.web.errors import Refused
from fairlead.web.pages.context import actor, around, check_csrf, render, see, wants_json
from fairlead.web.projects import current_guideline, get_project
from fairlead.web.queue import own_assignment
from fairlead.web.showing import show, turns_of
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/p/{project_id}/talk")
def talk_page(request: Request, project_id: str, chat: str = "", new: bool = False) -> Response:
    """The latest conversation, one by its id, or a new one."""
    who = actor(request)
    policy.may_rate(who)
    here = around(request)
    with here.database.read() as rows:
        project = get_project(rows, project_id)
        now = stand(rows, who, project_id, "" if new else chat or latest_chat(rows, who, project_id))
        shown = show(rows, own_assignment(rows, who, now.assignment_id)) if now.assignment_id else None
        guideline = current_guideline(rows, project_id)
    if now.state == "waiting" and here.talker is not None:
        here.talker.wake()
    turns = turns_of(Prompt(messages=now.messages)) if now.messages else ()
    return render(request, "talk.html", project=project, now=now, turns=turns, shown=shown, guideline=guideline, key=new_key(),
                  skip_reasons=SKIP_REASONS, has_policy=here.talker is not None, waiting=waiting_words(now))  # fmt: skip


def waiting_words(now: Standing) -> str:
    """What a rater who waits is told; nothing for one who does not."""
    if now.state != "waiting":
        return ""
    if now.num_before < MAX_TOGETHER:
        return "Two replies are being written. Nothing is lost if you close the page."
    return (
        f"{now.num_before} others are answered first; your turn comes by itself. Nothing is lost if you close the page."
    )


@router.get("/p/{project_id}/talk/state")
def talk_state(request: Request, project_id: str, chat: str = "") -> Response:
    """Where a conversation stands, for the page that waits."""
    who = actor(request)
    policy.may_rate(who)
    with around(request).database.read() as rows:
        now = stand(rows, who, project_id, chat)
    return JSONResponse({"state": now.state, "number": now.number, "words": waiting_words(now)})


@router.post("/p/{project_id}/say")
def say_something(request: Request, project_id: str, key: Text, text: Text = "", chat: Text = "", csrf: Text = "") -> Response:  # fmt: skip
    """Store a message and let the policy answer; the answer to this request does not wait for it."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    here = around(request)
    if here.talker is None:
        raise Refused(
            409, "closed", "There is no policy to talk to now. Your message is kept in this browser; ask the lead."
        )
    chat_id = say(here.database, who, project_id, chat_id=chat, text=text, key=key)
    here.talker.wake()
    return JSONResponse({"chat": chat_id}) if wants_json(request) else see(f"/p/{project_id}/talk?chat={chat_id}")


@router.post("/p/{project_id}/again")
def again(request: Request, project_id: str, key: Text, chat: Text = "", csrf: Text = "") -> Response:
    """Let the policy try once more."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    here = around(request)
    ask_again(here.database, who, project_id, chat_id=chat, key=key)
    if here.talker is not None:
        here.talker.wake()
    return JSONResponse({"chat": chat}) if wants_json(request) else see(f"/p/{project_id}/talk?chat={chat}")


def overview(request: Request, project: Project) -> Response:
    """How far a project of conversations is; `lead.overview` has asked the policy."""
    here = around(request)
    with here.database.read() as rows:
        all_, people = talks_of(rows, project.id)
    strengths = list(zip(STRENGTHS, all_.by_strength, strict=True))[::-1]
    return render(
        request,
        "talks.html",
        project=project,
        all=all_,
        people=people,
        strengths=strengths,
        has_policy=here.talker is not None,
    )
