"""Live conversations: say something, wait for two replies, vote on them as on any item, go on; all of them for the lead."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from fairlead.core.records import Messages
from fairlead.store.annotation.schema import Person
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web import policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import KeySent, TurnShown
from fairlead.web.chats.talking import Standing, ask_again, latest_chat, say, stand, stand_of
from fairlead.web.errors import Refused, missing
from fairlead.web.projects import get_project

router = APIRouter(tags=["conversations"])
Chat = Annotated[str, Query(max_length=60)]


class SaySent(KeySent):
    """A message to the policy."""

    text: str
    chat: str = ""
    """Empty begins a conversation."""


class AgainSent(KeySent):
    """Let the policy try once more after a failure."""

    chat: str


class ChatMade(BaseModel):
    """Which conversation it is."""

    chat: str


class ChatShown(BaseModel):
    """Where a conversation stands."""

    chat: str
    """Empty for one that nobody has begun."""
    state: str
    """say (it is the rater's turn), waiting, failed, or vote (two replies are there: see `assignment`)."""
    messages: list[TurnShown]
    number: int
    """Of the turn that counts now; the next one in `say`."""
    failure: str
    assignment: str
    """To be voted on; empty in other states."""
    is_left_out: bool
    """The last turn was skipped, or both replies were bad: it is no part of the conversation."""


class ChatLine(BaseModel):
    """A conversation of the list."""

    chat: str
    rater: str
    """Pseudonym."""
    num_turns: int
    began: int
    """Number of the event with which it began."""


class ChatsShown(BaseModel):
    """A page of conversations."""

    chats: list[ChatLine]
    next: int
    """Pass it as `after` for the next page; 0 at the end."""


def _turns(messages: Messages) -> list[TurnShown]:
    return [TurnShown(role=message.role, content=message.content) for message in messages]


def _shown(now: Standing) -> ChatShown:
    return ChatShown(chat=now.chat_id, state=now.state, messages=_turns(now.messages), number=now.number, failure=now.failure,
                     assignment=now.assignment_id or "", is_left_out=now.is_left_out)  # fmt: skip


@router.get("/projects/{project_id}/talk")
def get_standing(who: Who, data: Data, project_id: str, chat: Chat = "") -> ChatShown:
    """One's own conversation by its id, or the latest."""
    policy.may_rate(who)
    with data.read() as rows:
        get_project(rows, project_id)
        return _shown(stand(rows, who, project_id, chat or latest_chat(rows, who, project_id)))


@router.post("/projects/{project_id}/say")
def say_something(request: Request, who: Who, data: Data, project_id: str, sent: SaySent) -> ChatMade:
    """Store a message and let the policy answer; this answer does not wait for it. Ask `talk` until two replies are there."""
    policy.may_rate(who)
    talker = request.app.state.around.talker
    with data.read() as rows:
        get_project(rows, project_id)
    if talker is None:
        raise Refused(409, "closed", "There is no policy to talk to now. Ask the lead.")
    chat = say(data, who, project_id, chat_id=sent.chat, text=sent.text, key=sent.key)
    talker.wake()
    return ChatMade(chat=chat)


@router.post("/projects/{project_id}/again")
def again(request: Request, who: Who, data: Data, project_id: str, sent: AgainSent) -> ChatMade:
    """Let the policy try once more."""
    policy.may_rate(who)
    with data.read() as rows:
        get_project(rows, project_id)
    ask_again(data, who, project_id, chat_id=sent.chat, key=sent.key)
    talker = request.app.state.around.talker
    if talker is not None:
        talker.wake()
    return ChatMade(chat=sent.chat)


@router.get("/projects/{project_id}/chats")
def list_chats(
    who: Who, data: Data, project_id: str, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> ChatsShown:  # fmt: skip
    """Conversations of all raters, oldest first. Their votes are in `votes` and in the export like all others."""
    policy.may_export(who)
    began, num = sa.func.min(ChatTurn.event_number), sa.func.count()
    with data.read() as rows:
        get_project(rows, project_id)
        found = rows.execute(
            sa.select(ChatTurn.chat_id, Person.pseudonym, num, began).join(Person, Person.id == ChatTurn.person_id)
            .where(ChatTurn.project_id == project_id).group_by(ChatTurn.chat_id, Person.pseudonym).having(began > after)
            .order_by(began).limit(limit + 1)
        ).all()  # fmt: skip
    page = [ChatLine(chat=row[0], rater=row[1], num_turns=row[2], began=row[3]) for row in found[:limit]]
    return ChatsShown(chats=page, next=page[-1].began if len(found) > limit else 0)


@router.get("/projects/{project_id}/chats/{chat_id}")
def get_chat(who: Who, data: Data, project_id: str, chat_id: str) -> ChatShown:
    """One conversation of anybody, as it stands."""
    policy.may_export(who)
    with data.read() as rows:
        get_project(rows, project_id)
        person_id = rows.scalar(
            sa.select(ChatTurn.person_id).where(ChatTurn.project_id == project_id, ChatTurn.chat_id == chat_id).limit(1)
        )
        if person_id is None:
            raise missing("This conversation")
        return _shown(stand_of(rows, person_id, project_id, chat_id))
