"""Drafts by the policy that is served, asked for by who writes. Nothing is filled in: a person takes a draft or leaves it.

asked -> waiting -> ready        (or failed, with words for the person, and asked again)
"""

import secrets
from collections.abc import Sequence

import sqlalchemy as sa

from fairlead.core.records import Completion, Prompt, from_dict, to_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.written import DraftAsk, Writing
from fairlead.web.chats.asks import Ask
from fairlead.web.demonstrations.derive import DRAFT_ASKED, DRAFT_FAILED, DRAFT_WRITTEN, follow
from fairlead.web.demonstrations.desk import due_task
from fairlead.web.errors import Refused
from fairlead.web.events import check_key, record
from fairlead.web.policy import Actor
from fairlead.web.verdicts import same_key

MAX_DRAFT = 50_000
"""Characters: as many as a reply may have."""


def ask_draft(database: Database, actor: Actor, task_id: str, *, key: str) -> None:
    """Ask for a draft of the reply that this person writes; one that is being written or there already is not asked for again.

    Raises:
        Refused: the task is not this person's or not to be written now, or its conversation came with a draft.
    """
    check_key(key)
    with database.write() as rows:
        if same_key(rows, actor, key, kind=DRAFT_ASKED, assignment_id=None, content=None) is not None:
            return
        task, _ = due_task(rows, actor, task_id, part="write")
        writing = rows.get(Writing, task.writing_id)
        assert writing is not None, f"writing {task.writing_id} is not there"
        if writing.draft_id is not None:
            raise Refused(409, "is_there", "This conversation has a draft already. Open it below your reply.")
        now = rows.get(DraftAsk, task.writing_id)
        if now is not None and now.state != "failed":
            return
        content = {"writing": task.writing_id, "task": task.id, "seed": secrets.randbelow(2**31)}
        follow(
            rows,
            record(rows, DRAFT_ASKED, person_id=actor.person_id, project_id=task.project_id, key=key, content=content),
        )


def ask_of(rows: Rows, writing_id: str) -> tuple[str, str]:
    """State of the asked draft (empty when nobody asked) and why there is none."""
    found = rows.get(DraftAsk, writing_id)
    return ("", "") if found is None else (found.state, found.failure)


class Drafts:
    """Implements Source."""

    hint = "Ask again, or write without one."

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, *, limit: int) -> list[Ask]:
        """See Source."""
        with self._database.read() as rows:
            found = rows.scalars(
                sa.select(DraftAsk).where(DraftAsk.state == "waiting").order_by(DraftAsk.event_number).limit(limit)
            )
            return [_ask(rows, each) for each in found]

    def store(self, ask: Ask, completions: Sequence[Completion], *, policy: str) -> None:
        """See Source."""
        (draft,) = completions
        if len(draft.text) > MAX_DRAFT:
            self.fail(ask, "The draft is too long. Ask again, or write without one.", f"{len(draft.text):,} characters")
            return
        with self._database.write() as rows:
            now = _still_waiting(rows, ask)
            if now is None:
                return
            if rows.get(schema.Completion, (now.project_id, draft.id)) is None:
                rows.add(schema.Completion(project_id=now.project_id, id=draft.id, record=to_dict(draft)))
            content = {"writing": now.writing_id, "draft_id": draft.id, "policy": policy}
            follow(rows, record(rows, DRAFT_WRITTEN, person_id=None, project_id=now.project_id, content=content))

    def fail(self, ask: Ask, failure: str, cause: str) -> None:
        """See Source."""
        with self._database.write() as rows:
            now = _still_waiting(rows, ask)
            if now is not None:
                content = {"writing": now.writing_id, "failure": failure, "cause": cause[:2000]}
                follow(rows, record(rows, DRAFT_FAILED, person_id=None, project_id=now.project_id, content=content))


def _ask(rows: Rows, each: DraftAsk) -> Ask:
    writing = rows.get(Writing, each.writing_id)
    assert writing is not None, f"writing {each.writing_id} is not there"
    prompt = rows.get(schema.Prompt, (each.project_id, writing.prompt_id))
    assert prompt is not None, f"writing {writing.id} lacks its prompt"
    return Ask(name=f"draft:{writing.id}:{each.tries}", event_number=each.event_number, prompt=from_dict(Prompt, prompt.record), seed=each.seed,
               num_samples=1, place=(writing.id, 0), tries=each.tries)  # fmt: skip


def _still_waiting(rows: Rows, ask: Ask) -> DraftAsk | None:
    now = rows.get(DraftAsk, ask.place[0], with_for_update=True)
    return now if now is not None and now.state == "waiting" and now.tries == ask.tries else None
