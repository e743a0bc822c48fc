"""What a rater does in a conversation: say something, ask again after a failure; and where the conversation stands."""

import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.core.records import Completion, Message, Messages, Prompt, from_dict, to_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Item, Verdict
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web.answers import check_text
from fairlead.web.chats.derive import ASKED_AGAIN, SAID, follow
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import check_key, record
from fairlead.web.people import new_id
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.verdicts import same_key

MAX_MESSAGE = 20_000
"""Characters of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a conversation stands."""

    chat_id: str
    """Empty for one that nobody has begun."""
    state: str
    """say (it is the rater's turn), waiting, failed, or vote (two replies are there)."""
    messages: Messages
    """All that was said; with the chosen reply in `say`, with the unanswered message in the others."""
    number: int
    """Of the turn that counts now; the next one in `say`."""
    failure: str = ""
    assignment_id: str | None = None
    num_before: int = 0
    """Of a waiting turn: how many are answered before it."""
    is_left_out: bool = False
    """The last turn was skipped, or both replies were bad: it is no part of the conversation."""


def stand(rows: Rows, actor: Actor, project_id: str, chat_id: str) -> Standing:
    """Where a conversation of this person stands. One with an open vote is at that vote, whatever came later."""
    return stand_of(rows, actor.person_id, project_id, chat_id)


def stand_of(rows: Rows, person_id: str, project_id: str, chat_id: str) -> Standing:
    """The same for a reader who may see everybody's."""
    turns = rows.scalars(
        sa.select(ChatTurn).where(ChatTurn.project_id == project_id, ChatTurn.person_id == person_id, ChatTurn.chat_id == chat_id)
        .order_by(ChatTurn.number)
    ).all()  # fmt: skip
    if not turns:
        if chat_id:
            raise missing("This conversation")
        return Standing(chat_id="", state="say", messages=(), number=0)
    assignments = {turn.number: rows.get(Assignment, turn.assignment_id) for turn in turns if turn.assignment_id}
    is_open = [turn for turn in turns if (found := assignments.get(turn.number)) is not None and found.state == "open"]
    turn = is_open[0] if is_open else turns[-1]
    messages = _prompt(rows, turn).messages
    if is_open:
        return Standing(
            chat_id=chat_id, state="vote", messages=messages, number=turn.number, assignment_id=turn.assignment_id
        )
    if turn.state != "ready":
        return Standing(chat_id=chat_id, state=turn.state, messages=messages, number=turn.number, failure=turn.failure,
                        num_before=_num_before(rows, turn) if turn.state == "waiting" else 0)  # fmt: skip
    chosen = _chosen(rows, assignments[turn.number])
    said = messages[:-1] if chosen is None else (*messages, Message(role="assistant", content=chosen))
    return Standing(chat_id=chat_id, state="say", messages=said, number=turn.number + 1, is_left_out=chosen is None)


def _num_before(rows: Rows, turn: ChatTurn) -> int:
    earlier = (ChatTurn.state == "waiting") & (ChatTurn.event_number < turn.event_number)
    return rows.scalar(sa.select(sa.func.count()).select_from(ChatTurn).where(earlier)) or 0


def _prompt(rows: Rows, turn: ChatTurn) -> Prompt:
    found = rows.get(schema.Prompt, (turn.project_id, turn.prompt_id))
    assert found is not None, f"turn {turn.number} of {turn.chat_id} lacks its prompt"
    return from_dict(Prompt, found.record)


def _chosen(rows: Rows, assignment: Assignment | None) -> str | None:
    """The reply from which it goes on; of a tie the one on the left, which was drawn. None after a skip and when both are bad."""
    assert assignment is not None, "a ready turn has an assignment"
    verdict, item = rows.get(Verdict, assignment.id), rows.get(Item, assignment.item_id)
    assert verdict is not None and item is not None, f"assignment {assignment.id} is done without a verdict"
    places = {"a": 0, "b": 1, "tie": int(assignment.shown[0])}
    if verdict.verdict not in places:
        return None
    found = rows.get(schema.Completion, (item.project_id, item.completions[places[verdict.verdict]]))
    assert found is not None, f"item {item.id} lacks a reply"
    return from_dict(Completion, found.record).text


def latest_chat(rows: Rows, actor: Actor, project_id: str) -> str:
    """The conversation in which this person said something last; empty where there is none."""
    last = sa.select(ChatTurn.chat_id).where(ChatTurn.project_id == project_id, ChatTurn.person_id == actor.person_id)
    return rows.scalar(last.order_by(ChatTurn.event_number.desc()).limit(1)) or ""


def say(database: Database, actor: Actor, project_id: str, *, chat_id: str, text: str, key: str) -> str:
    """Say something; return the conversation, which is new when `chat_id` is empty. The replies come later.

    Raises:
        Refused: it is not the rater's turn, the project is paused or compares, the text is empty or too long.
    """
    check_key(key)
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise invalid("The message is empty. Write one.")
    check_text("message", text, MAX_MESSAGE)
    with database.write() as rows:
        repeat = same_key(rows, actor, key, kind=SAID, assignment_id=None, content=None)
        if repeat is not None:
            return str(repeat.content["chat"])
        project = get_project(rows, project_id)
        if project.kind != "chat" or project.state != "open":
            raise Refused(409, "closed", "Nobody can talk in this project now. Your message is kept in this browser.")
        now = stand(rows, actor, project_id, chat_id)
        if now.state in ("waiting", "vote"):
            raise Refused(409, "not_yet", "Choose a reply first, then say more.")
        before = now.messages[:-1] if now.state == "failed" else now.messages
        prompt = Prompt(messages=(*before, Message(role="user", content=text)), source="live chat")
        if rows.get(schema.Prompt, (project_id, prompt.id)) is None:
            rows.add(schema.Prompt(project_id=project_id, id=prompt.id, record=to_dict(prompt)))
        chat_id = chat_id or new_id()
        number = now.number + (now.state == "failed")
        content = {
            "chat": chat_id,
            "number": number,
            "text": text,
            "prompt_id": prompt.id,
            "seed": secrets.randbelow(2**31),
        }
        follow(rows, record(rows, SAID, person_id=actor.person_id, project_id=project_id, key=key, content=content))
        return chat_id


def ask_again(database: Database, actor: Actor, project_id: str, *, chat_id: str, key: str) -> None:
    """Let the policy try once more after a failure."""
    check_key(key)
    with database.write() as rows:
        if same_key(rows, actor, key, kind=ASKED_AGAIN, assignment_id=None, content=None) is not None:
            return
        now = stand(rows, actor, project_id, chat_id)
        if now.state != "failed":
            raise Refused(409, "not_yet", "There is nothing to ask again. Load the page again.")
        content = {"chat": chat_id, "number": now.number, "seed": secrets.randbelow(2**31)}
        follow(
            rows, record(rows, ASKED_AGAIN, person_id=actor.person_id, project_id=project_id, key=key, content=content)
        )
