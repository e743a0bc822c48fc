"""What people do with demonstrations: hand in, review, skip, take back. Each is an event; drafts are saved beside them.

Example:
    reply = Reply(key="9b1c...", text="Here is how:", guideline_version=1)
    hand_in(database, actor, task_id, reply).is_repeat      # True when the same key was sent before
"""

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Completion
from fairlead.store.annotation.written import Demonstration, DraftAsk, Writing, WritingTask
from fairlead.web.answers import MAX_ACTIVE_MS, SKIP_REASONS, check_text
from fairlead.web.demonstrations.derive import REVIEWED, SKIPPED, TAKEN_BACK, WRITTEN, follow
from fairlead.web.demonstrations.desk import LEASE_MS, due_task, own_task
from fairlead.web.demonstrations.kept import share_standing
from fairlead.web.errors import Refused, invalid
from fairlead.web.events import check_key, record
from fairlead.web.people import now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import get_guideline
from fairlead.web.verdicts import Saved, same_key

Decision = Literal["accept", "edit", "return"]
MAX_REPLY = 50_000
"""Characters; as a form it must fit a request (`guard.py`)."""
MAX_REASON = 2_000
DRAFTED_SHARE = 0.5
"""A text of which this much is the draft's is marked as drafted, however it came there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What somebody hands in."""

    key: str
    text: str
    guideline_version: int
    """The version that was read."""
    took_draft: bool = False
    """The draft was put into the text at some time."""
    active_ms: int | None = None
    """From shown to handed in, pauses left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a reviewer decides."""

    key: str
    decision: Decision
    guideline_version: int
    text: str = ""
    """The whole reply as it shall be, for an edit."""
    reason: str = ""
    """For the author, when it is sent back."""
    active_ms: int | None = None


def hand_in(database: Database, actor: Actor, task_id: str, reply: Reply) -> Saved:
    """Store a reply for somebody else to review.

    Raises:
        Refused: the task is not this person's or no longer open, the text is empty or too long, or the key was used for something else.
    """
    text = _text(reply.text, MAX_REPLY, what="reply")
    with database.write() as rows:
        saved = _repeat(rows, actor, reply.key, WRITTEN, {"task": task_id, "text": text})
        if saved is not None:
            return saved
        task, found = due_task(rows, actor, task_id, part="write")
        _check_read(rows, task, reply.guideline_version, reply.active_ms)
        content = {"guideline_version": reply.guideline_version, "active_ms": reply.active_ms, "text": text,
                   **_provenance(rows, task, text, took_draft=reply.took_draft or task.took_draft, found=found)}  # fmt: skip
        return _store(rows, actor, task, WRITTEN, reply.key, content)


def review(database: Database, actor: Actor, task_id: str, given: Review) -> Saved:
    """Accept a reply, accept it with changes, or send it back with a reason. An edit that leaves less than half is a new reply.

    Raises:
        Refused: as for `hand_in`; an edit that changes nothing; a return without a reason.
    """
    if given.decision not in ("accept", "edit", "return"):
        raise invalid(f"{given.decision} is no decision. Accept, edit or return it.")
    text = _text(given.text, MAX_REPLY, what="reply") if given.decision == "edit" else ""
    reason = _text(given.reason, MAX_REASON, what="reason for its author") if given.decision == "return" else ""
    with database.write() as rows:
        content: dict[str, Any] = {"task": task_id, "decision": given.decision, "reason": reason}
        saved = _repeat(rows, actor, given.key, REVIEWED, {**content, **({"text": text} if text else {})})
        if saved is not None:
            return saved
        task, found = due_task(rows, actor, task_id, part="review")
        _check_read(rows, task, given.guideline_version, given.active_ms)
        content |= {"guideline_version": given.guideline_version, "active_ms": given.active_ms}
        if given.decision == "edit":
            if text == found.text:
                raise invalid("Nothing was changed. Accept the reply as it is, or change it first.")
            provenance = _provenance(rows, task, text, took_draft=found.is_drafted, found=found)
            content |= {"text": text, "kept": share_standing(found.text, text), **provenance}
        return _store(rows, actor, task, REVIEWED, given.key, content)


def skip(database: Database, actor: Actor, task_id: str, *, reason: str, key: str) -> Saved:
    """Put a task aside; it goes to somebody else."""
    if reason not in SKIP_REASONS:
        raise invalid("A skip needs a reason. Choose one of the list.")
    with database.write() as rows:
        saved = _repeat(rows, actor, key, SKIPPED, {"task": task_id, "reason": reason})
        if saved is not None:
            return saved
        task, _ = own_task(rows, actor, task_id)
        task, _ = due_task(rows, actor, task_id, part=task.part)
        return _store(rows, actor, task, SKIPPED, key, {"reason": reason})


def take_back(database: Database, actor: Actor, task_id: str, *, key: str) -> Saved:
    """Get an own reply back that nobody has begun to review."""
    with database.write() as rows:
        saved = _repeat(rows, actor, key, TAKEN_BACK, {"task": task_id})
        if saved is not None:
            return saved
        task, found = own_task(rows, actor, task_id, locks=True)
        under_review = sa.select(WritingTask.id).where(
            WritingTask.writing_id == task.writing_id, WritingTask.part == "review", WritingTask.state == "open",
            WritingTask.round == found.round, WritingTask.leased_until > now_ms(),
        )  # fmt: skip
        is_free = found.state == "written" and found.author_id == actor.person_id
        if not is_free or rows.scalar(under_review.limit(1)) is not None:
            raise Refused(409, "over", "Somebody is reading this reply already. Wait for the review.")
        return _store(rows, actor, task, TAKEN_BACK, key, {})


def save_text(database: Database, actor: Actor, task_id: str, *, text: str, took_draft: bool) -> None:
    """Keep what is being written; the task stays on the desk for another hour."""
    if text:
        _text(text, MAX_REPLY, what="reply", may_be_blank=True)
    with database.write() as rows:
        task, _ = own_task(rows, actor, task_id)
        task.text, task.took_draft = text, task.took_draft or took_draft
        task.leased_until = now_ms() + LEASE_MS


def _text(text: str, limit: int, *, what: str, may_be_blank: bool = False) -> str:
    text = text.replace("\r\n", "\n")
    if not text.strip() and not may_be_blank:
        raise invalid(f"The {what} is empty. Write one.")
    check_text(what, text, limit)
    return text


def _check_read(rows: Rows, task: WritingTask, version: int, active_ms: int | None) -> None:
    get_guideline(rows, task.project_id, version)
    if active_ms is not None and not 0 <= active_ms <= MAX_ACTIVE_MS:
        raise invalid("The time on the task is not possible. Load the page again.")


def _repeat(rows: Rows, actor: Actor, key: str, kind: str, content: dict[str, Any]) -> Saved | None:
    """The receipt of the same submission, if it was made before; shares are computed, and not compared."""
    check_key(key)
    event = same_key(rows, actor, key, kind=kind, assignment_id=None, content=None)
    if event is None:
        return None
    if any(event.content.get(name) != value for name, value in content.items()):
        raise Refused(409, "key_used", "This key was used for another submission. Load the page again.")
    return Saved(event_number=event.number, is_repeat=True)


def _store(rows: Rows, actor: Actor, task: WritingTask, kind: str, key: str, content: dict[str, Any]) -> Saved:
    event = record(rows, kind, person_id=actor.person_id, project_id=task.project_id, key=key, content={"task": task.id, **content})  # fmt: skip
    follow(rows, event)
    return Saved(event_number=event.number, is_repeat=False)


def _provenance(rows: Rows, task: WritingTask, text: str, *, took_draft: bool, found: Demonstration) -> dict[str, Any]:
    """Which draft was there, and how much of it is in the text."""
    draft_id, draft = draft_of(rows, task.writing_id)
    from_draft = share_standing(text, draft)
    is_drafted = bool(draft) and (took_draft or found.is_drafted or from_draft >= DRAFTED_SHARE)
    return {
        "draft_id": draft_id,
        "is_drafted": is_drafted,
        "from_draft": from_draft,
        "draft_kept": share_standing(draft, text),
    }


def draft_of(rows: Rows, writing_id: str) -> tuple[str | None, str]:
    """Id and text of the draft of a writing, imported or asked for; None and nothing where there is none."""
    writing, asked = rows.get(Writing, writing_id), rows.get(DraftAsk, writing_id)
    assert writing is not None, f"writing {writing_id} is not there"
    draft_id = writing.draft_id or (asked.draft_id if asked else None)
    if draft_id is None:
        return None, ""
    completion = rows.get(Completion, (writing.project_id, draft_id))
    assert completion is not None, f"draft {draft_id} is not there"
    return draft_id, completion.record["text"]
