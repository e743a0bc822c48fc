"""What follows from the events about demonstrations, live and in a replay."""

from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Event
from fairlead.store.annotation.written import Demonstration, DraftAsk, Writing, WritingTask

WRITTEN, REVIEWED, SKIPPED, TAKEN_BACK = (
    "demonstration.written",
    "demonstration.reviewed",
    "demonstration.skipped",
    "demonstration.taken_back",
)
DRAFT_ASKED, DRAFT_WRITTEN, DRAFT_FAILED = "draft.asked", "draft.written", "draft.failed"
KINDS = (WRITTEN, REVIEWED, SKIPPED, TAKEN_BACK, DRAFT_ASKED, DRAFT_WRITTEN, DRAFT_FAILED)
MOST_KEPT = 0.5
"""An edit that leaves less of the author's words than this is a new reply, for somebody else to review."""


def follow(rows: Rows, event: Event) -> None:
    """Bring the derived rows up to date with one event of `KINDS`."""
    content = event.content
    if "writing" in content:
        _draft(rows, event)
        return
    task = rows.get(WritingTask, content["task"])
    assert task is not None, f"event {event.number} names a task {content['task']} that is not there"
    found = rows.get(Demonstration, task.writing_id)
    assert found is not None, f"writing {task.writing_id} has no row of its state"
    found.changed_at, found.event_number = event.at, event.number
    if event.kind == TAKEN_BACK:
        found.state, found.reason, found.reviewer_id = "returned", "", None
        return
    task.state = "skipped" if event.kind == SKIPPED else "done"
    if event.kind == SKIPPED:
        found.num_skips += 1
        if task.part == "write":
            found.state = "open"  # what its author gives up is anybody's
    elif event.kind == WRITTEN:
        _hand_in(found, event.person_id, content)
    else:
        _review(found, event.person_id, content)


def _hand_in(found: Demonstration, author_id: str | None, content: dict[str, Any]) -> None:
    found.state, found.author_id, found.round = "written", author_id, found.round + 1
    found.is_edited, found.review_kept = False, 1.0
    for name in ("text", "guideline_version", "active_ms", "draft_id", "is_drafted", "from_draft", "draft_kept"):
        setattr(found, name, content[name])


def _review(found: Demonstration, reviewer_id: str | None, content: dict[str, Any]) -> None:
    if content["decision"] == "edit" and content["kept"] < MOST_KEPT:
        _hand_in(found, reviewer_id, content)
        found.reviewer_id, found.reason = None, ""
        return
    found.reviewer_id = reviewer_id
    if content["decision"] == "return":
        found.state, found.reason = "returned", content["reason"]
        return
    found.state, found.reason = "accepted", ""
    if content["decision"] == "edit":
        found.text, found.is_edited, found.review_kept = content["text"], True, content["kept"]
        found.from_draft, found.draft_kept = content["from_draft"], content["draft_kept"]


def _draft(rows: Rows, event: Event) -> None:
    content = event.content
    found = rows.get(DraftAsk, content["writing"])
    if event.kind == DRAFT_ASKED:
        if found is None:
            found = DraftAsk(writing_id=content["writing"], project_id=event.project_id, tries=-1)
            rows.add(found)
        found.state, found.failure, found.draft_id, found.tries = "waiting", "", None, found.tries + 1
        found.event_number, found.seed = event.number, content["seed"]
    else:
        assert found is not None, f"event {event.number} speaks of a draft that nobody asked for"
        if event.kind == DRAFT_WRITTEN:
            found.state, found.draft_id = "ready", content["draft_id"]
        else:
            found.state, found.failure = "failed", content["failure"]
    rows.flush()


def forget_derived(rows: Rows) -> None:
    """As if nothing had happened yet."""
    rows.execute(sa.delete(Demonstration))
    rows.execute(sa.delete(DraftAsk))
    rows.execute(sa.update(WritingTask).values(state="open"))
    for writing in rows.scalars(sa.select(Writing)).all():
        rows.add(untouched(writing.id, writing.project_id, writing.rank))
    rows.flush()


def untouched(writing_id: str, project_id: str, rank: int) -> Demonstration:
    """The state of a writing that nobody has touched."""
    return Demonstration(
        writing_id=writing_id, project_id=project_id, rank=rank, state="open", changed_at=0, event_number=0, round=0, num_skips=0, text="",
        guideline_version=0, is_drafted=False, from_draft=0.0, draft_kept=0.0, is_edited=False, review_kept=1.0, reason="",
    )  # fmt: skip
