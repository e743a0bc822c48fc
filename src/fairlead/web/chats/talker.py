"""Lets the policy answer, outside any request and transaction: one thread takes waiting turns from the database in their order.

A server that is killed while a reply is written finds the turn still waiting when it starts again. One process may do this.
"""

import concurrent.futures
import logging
import threading
from collections.abc import Sequence

import sqlalchemy as sa

from fairlead.core.protocols import ReplyRequest, ReplySampler
from fairlead.core.records import Completion, Prompt, from_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Item, Person
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web.chats.derive import FAILED, REPLIED, follow
from fairlead.web.events import record
from fairlead.web.importing import NewItem, put_items
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.queue import hand_out

TIMEOUT_S = 120.0
MAX_DRAWS = 4
"""Seeds tried for two replies that differ and are not empty."""
_IDLE_S = 5.0
_LOG = logging.getLogger(__name__)


class Talker:
    """Start with `wake`, end with `stop`. Thread-safe."""

    def __init__(self, database: Database, sampler: ReplySampler, *, timeout_s: float = TIMEOUT_S) -> None:
        self._database, self._sampler, self._timeout_s = database, sampler, timeout_s
        self._news, self._is_over, self._lock = threading.Event(), False, threading.Lock()
        self._thread: threading.Thread | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")

    def wake(self) -> None:
        """There is something to answer; returns at once."""
        with self._lock:
            if self._thread is None and not self._is_over:
                self._thread = threading.Thread(target=self._run, daemon=True, name="talker")
                self._thread.start()
        self._news.set()

    def stop(self) -> None:
        """Take no more turns; the one in hand is finished or left waiting."""
        self._is_over = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=self._timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._is_over:
            self._news.clear()
            try:
                while not self._is_over and self.answer_next():
                    pass
            except Exception:  # the database is away: the turn waits, and is taken up again
                _LOG.exception("a reply could not be stored; trying again in %s s", _IDLE_S)
            self._news.wait(_IDLE_S)

    def answer_next(self) -> bool:
        """Answer the turn that waits longest; False when none does."""
        with self._database.read() as rows:
            turn = rows.scalar(
                sa.select(ChatTurn).where(ChatTurn.state == "waiting").order_by(ChatTurn.event_number).limit(1)
            )
            found = None if turn is None else rows.get(schema.Prompt, (turn.project_id, turn.prompt_id))
        if turn is None:
            return False
        assert found is not None, f"turn {turn.number} of {turn.chat_id} lacks its prompt"
        prompt = from_dict(Prompt, found.record)
        try:
            completions = self._draw(turn, prompt)
        except concurrent.futures.TimeoutError:
            self._fail(
                turn,
                f"No reply came within {self._timeout_s:g} seconds. Ask again, or begin a new conversation.",
                "timeout",
            )
        except (
            Exception
        ) as error:  # whatever the policy fails by: the rater is told, and the cause is kept for the lead
            _LOG.exception("the policy could not answer")
            self._fail(
                turn,
                "The policy could not answer. Ask again, say it another way, or begin a new conversation.",
                repr(error),
            )
        else:
            if completions is None:
                self._fail(
                    turn, "The policy gave no two different replies. Ask again, or say it another way.", "equal replies"
                )
            else:
                self._store(turn, prompt, completions)
        return True

    def _draw(self, turn: ChatTurn, prompt: Prompt) -> Sequence[Completion] | None:
        for draw in range(MAX_DRAWS):
            key = f"{turn.chat_id}:{turn.number}:{turn.tries}:{draw}"
            request = ReplyRequest(key=key, prompt=prompt, num_samples=2, seed=turn.seed)
            found = self._pool.submit(self._sampler.reply, request).result(timeout=self._timeout_s)
            texts = {completion.text.strip() for completion in found}
            if len(texts) == 2 and "" not in texts and not any("\0" in text for text in texts):
                return found
        return None

    def _store(self, turn: ChatTurn, prompt: Prompt, completions: Sequence[Completion]) -> None:
        with self._database.write() as rows:
            now = self._still_waiting(rows, turn)
            if now is None:
                return
            project = get_project(rows, turn.project_id)
            item = NewItem.of(prompt, completions)
            put_items(rows, project, [item], by=None)
            made = rows.scalar(sa.select(Item).where(Item.project_id == project.id, Item.content_id == item.content_id))
            person = rows.get(Person, turn.person_id)
            assert made is not None and person is not None, "the item and the person of a turn are there"
            actor = Actor(person_id=person.id, name=person.name, role="rater")
            assignment = hand_out(rows, project, actor, made.id)
            rows.flush()
            content = {
                "chat": turn.chat_id,
                "number": turn.number,
                "item": made.id,
                "policy": self._sampler.name,
                "seed": turn.seed,
            }
            follow(
                rows,
                record(
                    rows, REPLIED, person_id=None, project_id=project.id, assignment_id=assignment.id, content=content
                ),
            )

    def _fail(self, turn: ChatTurn, failure: str, cause: str) -> None:
        with self._database.write() as rows:
            if self._still_waiting(rows, turn) is not None:
                content = {"chat": turn.chat_id, "number": turn.number, "failure": failure, "cause": cause[:2000]}
                follow(rows, record(rows, FAILED, person_id=None, project_id=turn.project_id, content=content))

    def _still_waiting(self, rows: Rows, turn: ChatTurn) -> ChatTurn | None:
        now = rows.get(ChatTurn, (turn.chat_id, turn.number), with_for_update=True)
        return now if now is not None and now.state == "waiting" and now.tries == turn.tries else None
