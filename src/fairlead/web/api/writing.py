"""Demonstrations: a conversation to reply to or a reply to review, own replies, and all of them for the lead."""

from typing import Annotated, Any, cast

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Person
from fairlead.store.annotation.written import Demonstration, WritingTask
from fairlead.web import policy
from fairlead.web.answers import SKIP_REASONS
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import KeySent, SavedShown, Sent, TurnShown
from fairlead.web.api.plain import plain
from fairlead.web.demonstrations import actions
from fairlead.web.demonstrations.counts import STATES, by_person, counts_of, own_replies
from fairlead.web.demonstrations.desk import next_task, own_task
from fairlead.web.demonstrations.drafts import ask_draft, ask_of
from fairlead.web.demonstrations.showing import prompt_of, show
from fairlead.web.errors import Refused, invalid
from fairlead.web.projects import get_project
from fairlead.web.queue import Nothing
from fairlead.web.verdicts import Saved

router = APIRouter(tags=["demonstrations"])
Limit = Annotated[int, Query(ge=1, le=1000)]


class TaskShown(BaseModel):
    """Something to write or to review. Who wrote a reply, and what model a draft, is not said."""

    id: str
    part: str
    """write, or review."""
    prompt: list[TurnShown]
    text: str
    """What was being written, what came back, or the reply to be reviewed."""
    draft: str
    """As a model wrote it; empty where there is none, and for a review."""
    took_draft: bool
    reason: str
    """Why it was sent back, for its author."""
    is_due: bool
    """False when it was done meanwhile."""
    guideline_version: int
    skip_reasons: list[str]


class NextTaskShown(BaseModel):
    """A task, or why there is none."""

    task: TaskShown | None
    reason: str
    """Empty with a task; else paused, finished or waiting."""


class ReplySent(KeySent):
    """A reply for somebody else to review."""

    text: str
    guideline_version: int
    """The version that was read."""
    took_draft: bool = False
    active_ms: int | None = None


class ReviewSent(KeySent):
    """What a reviewer decides."""

    decision: str
    """accept, edit (with `text`, the whole reply as it shall be) or return (with `reason`)."""
    guideline_version: int
    text: str = ""
    reason: str = ""
    active_ms: int | None = None


class SkipSent(KeySent):
    """Put a task aside."""

    reason: str
    """One of `skip_reasons`."""


class WritingSent(Sent):
    """What is being written."""

    text: str
    took_draft: bool = False


class OwnReplyShown(BaseModel):
    """One of one's own replies."""

    task: str
    about: str
    state: str
    reason: str
    is_edited: bool
    changed_at: int


class DemonstrationShown(BaseModel):
    """A conversation and how far its reply is; people under pseudonyms."""

    id: str
    prompt: list[TurnShown]
    state: str
    """open, written, returned or accepted."""
    text: str
    author: str | None
    reviewer: str | None
    is_drafted: bool
    """Began as a draft by a model."""
    is_edited: bool
    """The reviewer changed it."""
    reason: str
    changed_at: int


class DemonstrationsShown(BaseModel):
    """A page of them."""

    demonstrations: list[DemonstrationShown]
    next: str
    """Pass it as `after` for the next page; empty at the end."""


class WrittenCounts(BaseModel):
    """How far the project is."""

    counts: dict[str, Any]
    people: list[dict[str, Any]]


@router.post("/projects/{project_id}/writing/next")
def take_next(who: Who, data: Data, project_id: str) -> NextTaskShown:
    """Lease the next thing to write or to review; what is open already is given again first."""
    policy.may_rate(who)
    with data.read() as rows:
        get_project(rows, project_id)
    task = next_task(data, who, project_id)
    if isinstance(task, Nothing):
        return NextTaskShown(task=None, reason=task.reason)
    with data.read() as rows:
        return NextTaskShown(task=_shown(rows, *own_task(rows, who, task.id)), reason="")


@router.get("/writing/{task_id}")
def get_task(who: Who, data: Data, task_id: str) -> TaskShown:
    """One of one's own tasks again."""
    policy.may_rate(who)
    with data.read() as rows:
        return _shown(rows, *own_task(rows, who, task_id))


def _shown(rows: Rows, task: WritingTask, found: Demonstration) -> TaskShown:
    shown, prompt = show(rows, task, found), prompt_of(rows, task.writing_id)
    return TaskShown(
        id=task.id, part=task.part, prompt=[TurnShown(role=turn.role, content=turn.content) for turn in prompt.messages], text=shown.text,
        draft=shown.draft, took_draft=shown.took_draft, reason=shown.reason, is_due=shown.is_due, guideline_version=shown.guideline_version,
        skip_reasons=list(SKIP_REASONS),
    )  # fmt: skip


def _saved(saved: Saved) -> SavedShown:
    return SavedShown(event=saved.event_number, repeat=saved.is_repeat)


@router.post("/writing/{task_id}/reply")
def hand_in(who: Who, data: Data, task_id: str, sent: ReplySent) -> SavedShown:
    """Hand a reply in; the answer comes when it is on disk."""
    policy.may_rate(who)
    reply = actions.Reply(key=sent.key, text=sent.text, guideline_version=sent.guideline_version, took_draft=sent.took_draft,
                          active_ms=sent.active_ms)  # fmt: skip
    return _saved(actions.hand_in(data, who, task_id, reply))


@router.post("/writing/{task_id}/review")
def review(who: Who, data: Data, task_id: str, sent: ReviewSent) -> SavedShown:
    """Accept, accept with changes, or send back."""
    policy.may_rate(who)
    given = actions.Review(key=sent.key, decision=cast(actions.Decision, sent.decision), guideline_version=sent.guideline_version, text=sent.text,
                           reason=sent.reason, active_ms=sent.active_ms)  # fmt: skip
    return _saved(actions.review(data, who, task_id, given))


@router.post("/writing/{task_id}/skip")
def skip(who: Who, data: Data, task_id: str, sent: SkipSent) -> SavedShown:
    """Put a task aside with a reason; it goes to somebody else."""
    policy.may_rate(who)
    return _saved(actions.skip(data, who, task_id, reason=sent.reason, key=sent.key))


@router.post("/writing/{task_id}/take-back")
def take_back(who: Who, data: Data, task_id: str, sent: KeySent) -> SavedShown:
    """Get an own reply back that nobody has begun to review."""
    policy.may_rate(who)
    return _saved(actions.take_back(data, who, task_id, key=sent.key))


@router.put("/writing/{task_id}/draft", status_code=204)
def save_draft(who: Who, data: Data, task_id: str, sent: WritingSent) -> None:
    """Keep what is being written."""
    policy.may_rate(who)
    actions.save_text(data, who, task_id, text=sent.text, took_draft=sent.took_draft)


class AskedShown(BaseModel):
    """How far an asked draft is."""

    state: str
    """Empty when nobody asked; else waiting, ready or failed."""
    failure: str


@router.post("/writing/{task_id}/ask")
def ask_for_draft(request: Request, who: Who, data: Data, task_id: str, sent: KeySent) -> AskedShown:
    """Let the policy write a draft, where the server does that; this answer does not wait for it."""
    policy.may_rate(who)
    talker = request.app.state.around.talker
    with data.read() as rows:
        own_task(rows, who, task_id)
    if talker is None or not talker.gives_drafts:
        raise Refused(409, "closed", "Nobody writes drafts here now. Write without one.")
    ask_draft(data, who, task_id, key=sent.key)
    talker.wake()
    return get_asked(who, data, task_id)


@router.get("/writing/{task_id}/asked")
def get_asked(who: Who, data: Data, task_id: str) -> AskedShown:
    """How far the asked draft is."""
    policy.may_rate(who)
    with data.read() as rows:
        state, failure = ask_of(rows, own_task(rows, who, task_id)[0].writing_id)
    return AskedShown(state=state, failure=failure)


@router.get("/projects/{project_id}/written")
def list_own(who: Who, data: Data, project_id: str) -> list[OwnReplyShown]:
    """One's own replies, what changed last first."""
    policy.may_see_own_votes(who)
    with data.read() as rows:
        get_project(rows, project_id)
        return [
            OwnReplyShown(task=own.task_id, about=own.about, state=own.state, reason=own.reason, is_edited=own.is_edited, changed_at=own.changed_at)
            for own in own_replies(rows, project_id, who.person_id)
        ]  # fmt: skip


@router.get("/projects/{project_id}/demonstrations/counts")
def get_counts(who: Who, data: Data, project_id: str) -> WrittenCounts:
    """How far the project is, by state and by person."""
    policy.may_see_votes(who)
    with data.read() as rows:
        get_project(rows, project_id)
        counts, people = counts_of(rows, project_id), by_person(rows, project_id)
    return WrittenCounts(counts=plain(counts), people=[plain(each) for each in people])


@router.get("/projects/{project_id}/demonstrations")
def list_demonstrations(
    who: Who, data: Data, project_id: str, state: Annotated[str, Query(max_length=20)] = "",
    after: Annotated[str, Query(max_length=60)] = "", limit: Limit = 100,
) -> DemonstrationsShown:  # fmt: skip
    """All conversations with their replies, a page at a time; `state` is open, written, returned or accepted, or all when left out."""
    policy.may_export(who)
    if state not in ("", *STATES):
        raise invalid(f"state is not one of {', '.join(STATES)}. Choose one of them, or leave it out.")
    asked = sa.select(Demonstration).where(Demonstration.project_id == project_id, Demonstration.writing_id > after)
    if state:
        asked = asked.where(Demonstration.state == state)
    with data.read() as rows:
        get_project(rows, project_id)
        found = rows.scalars(asked.order_by(Demonstration.writing_id).limit(limit + 1)).all()
        page = found[:limit]
        people = {each for row in page for each in (row.author_id, row.reviewer_id) if each is not None}
        names = {row[0]: row[1] for row in rows.execute(sa.select(Person.id, Person.pseudonym).where(Person.id.in_(people)))}  # fmt: skip
        shown = [_demonstration(rows, row, names) for row in page]
    return DemonstrationsShown(demonstrations=shown, next=page[-1].writing_id if len(found) > limit else "")


def _demonstration(rows: Rows, row: Demonstration, names: dict[str, str]) -> DemonstrationShown:
    prompt = prompt_of(rows, row.writing_id)
    return DemonstrationShown(
        id=row.writing_id, prompt=[TurnShown(role=turn.role, content=turn.content) for turn in prompt.messages], state=row.state, text=row.text,
        author=names.get(row.author_id or ""), reviewer=names.get(row.reviewer_id or ""), is_drafted=row.is_drafted, is_edited=row.is_edited,
        reason=row.reason, changed_at=row.changed_at,
    )  # fmt: skip
