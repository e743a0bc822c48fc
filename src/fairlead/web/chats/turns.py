"""Turns of conversations that wait for two replies, and what becomes of them. See `asks.Source`."""

from collections.abc import Sequence

import sqlalchemy as sa

from fairlead.core.records import Completion, Prompt, from_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Item, Person
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web.chats.asks import Ask
from fairlead.web.chats.derive import FAILED, REPLIED, follow
from fairlead.web.events import record
from fairlead.web.importing import NewItem, put_items
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.queue import hand_out


class Turns:
    """Implements Source."""

    hint = "Ask again, say it another way, or begin a new conversation."

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, *, limit: int) -> list[Ask]:
        """See Source."""
        with self._database.read() as rows:
            found = rows.scalars(
                sa.select(ChatTurn).where(ChatTurn.state == "waiting").order_by(ChatTurn.event_number).limit(limit)
            )
            return [_ask(rows, turn) for turn in found]

    def store(self, ask: Ask, completions: Sequence[Completion], *, policy: str) -> None:
        """The item of the two replies, handed to the person who talks."""
        with self._database.write() as rows:
            turn = _still_waiting(rows, ask)
            if turn is None:
                return
            project = get_project(rows, turn.project_id)
            item = NewItem.of(ask.prompt, completions)
            put_items(rows, project, [item], by=None)
            made = rows.scalar(sa.select(Item).where(Item.project_id == project.id, Item.content_id == item.content_id))
            person = rows.get(Person, turn.person_id)
            assert made is not None and person is not None, "the item and the person of a turn are there"
            assignment = hand_out(rows, project, Actor(person_id=person.id, name=person.name, role="rater"), made.id)
            rows.flush()
            content = {
                "chat": turn.chat_id,
                "number": turn.number,
                "item": made.id,
                "policy": policy,
                "seed": turn.seed,
            }
            made_of = record(
                rows, REPLIED, person_id=None, project_id=project.id, assignment_id=assignment.id, content=content
            )
            follow(rows, made_of)

    def fail(self, ask: Ask, failure: str, cause: str) -> None:
        """See Source."""
        with self._database.write() as rows:
            turn = _still_waiting(rows, ask)
            if turn is not None:
                content = {"chat": turn.chat_id, "number": turn.number, "failure": failure, "cause": cause[:2000]}
                follow(rows, record(rows, FAILED, person_id=None, project_id=turn.project_id, content=content))


def _ask(rows: Rows, turn: ChatTurn) -> Ask:
    found = rows.get(schema.Prompt, (turn.project_id, turn.prompt_id))
    assert found is not None, f"turn {turn.number} of {turn.chat_id} lacks its prompt"
    return Ask(name=f"{turn.chat_id}:{turn.number}:{turn.tries}", event_number=turn.event_number, prompt=from_dict(Prompt, found.record),
               seed=turn.seed, num_samples=2, place=(turn.chat_id, turn.number), tries=turn.tries)  # fmt: skip


def _still_waiting(rows: Rows, ask: Ask) -> ChatTurn | None:
    now = rows.get(ChatTurn, ask.place, with_for_update=True)
    return now if now is not None and now.state == "waiting" and now.tries == ask.tries else None
