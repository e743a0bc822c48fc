"""Who gets what: first what is on the own desk, then replies of others to be reviewed, then conversations without a reply.

What was sent back waits a week for its author, then anybody may write it. Nobody reviews what is their own, and nobody gets again what they
skipped, nor what asks for a language or skill that does not count for them (`matching`). A writing on somebody's
desk is left alone until the lease ends, which every saved letter prolongs.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Project
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web.errors import Refused, missing
from fairlead.web.matching import matched_needs
from fairlead.web.people import new_id, now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.queue import Nothing

LEASE_MS = 60 * 60 * 1000
"""How long a writing waits for the person who has it; a reply takes longer than a vote."""
AUTHOR_MS = 7 * 24 * 3600 * 1000
"""How long a reply that was sent back waits for its author."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that may be put on a desk."""

    found: Demonstration
    part: str


def next_task(database: Database, actor: Actor, project_id: str) -> WritingTask | Nothing:
    """Lease the next thing to write or to review to a person."""
    with database.write() as rows:
        project = rows.scalar(sa.select(Project).where(Project.id == project_id).with_for_update()) or get_project(rows, project_id)  # fmt: skip
        if project.state != "open":
            return Nothing(reason="paused")
        held = _held(rows, actor, project_id)
        if held is not None:
            held.leased_until = now_ms() + LEASE_MS
            return held
        candidate = _candidate(rows, actor, project)
        if isinstance(candidate, Nothing):
            return candidate
        task = WritingTask(
            id=new_id(), project_id=project_id, writing_id=candidate.found.writing_id, person_id=actor.person_id, part=candidate.part,
            round=candidate.found.round, state="open", leased_until=now_ms() + LEASE_MS, text=None, took_draft=False,
        )  # fmt: skip
        rows.add(task)
        return task


def _held(rows: Rows, actor: Actor, project_id: str) -> WritingTask | None:
    """An own open task that can still be done: what was begun is finished first, and what came back before what is new."""
    tasks = rows.execute(
        sa.select(WritingTask, Demonstration).join(Demonstration, Demonstration.writing_id == WritingTask.writing_id)
        .where(WritingTask.project_id == project_id, WritingTask.person_id == actor.person_id, WritingTask.state == "open")
        .order_by(WritingTask.part.desc(), WritingTask.leased_until)
    ).all()  # fmt: skip
    return next((task for task, found in tasks if is_due(task, found) and not _others_have(rows, task)), None)


def is_due(task: WritingTask, found: Demonstration) -> bool:
    """Is this still to be done, or has somebody else done it?"""
    if task.round != found.round:
        return False
    return found.state == "written" if task.part == "review" else found.state in ("open", "returned")


def _others_have(rows: Rows, task: WritingTask) -> bool:
    others = _leased(task.part).where(WritingTask.writing_id == task.writing_id, WritingTask.person_id != task.person_id)  # fmt: skip
    return rows.scalar(others.limit(1)) is not None


def _leased(part: str) -> sa.Select[str]:
    return sa.select(WritingTask.id).where(
        WritingTask.part == part, WritingTask.state == "open", WritingTask.leased_until > now_ms()
    )


def _candidate(rows: Rows, actor: Actor, project: Project) -> Candidate | Nothing:
    whole = sa.select(Demonstration).where(Demonstration.project_id == project.id)
    needs, is_all = matched_needs(rows, project, actor.person_id)
    fitting = sa.select(Writing.id).where(Writing.project_id == project.id, Writing.needs.in_(needs))
    all_ = whole if is_all else whole.where(Demonstration.writing_id.in_(fitting))
    for part, wanted in (("write", _own_returned(actor)), ("review", _to_review(actor)), ("write", _to_write(actor))):
        free = ~_of(_leased(part)).exists()
        order = Demonstration.event_number if part == "review" else Demonstration.rank
        found = rows.scalar(all_.where(wanted, free).order_by(order).limit(1))
        if found is not None:
            return Candidate(found=found, part=part)
    if rows.scalar(all_.where(Demonstration.state != "accepted").limit(1)) is not None:
        return Nothing(reason="waiting")
    is_left = not is_all and rows.scalar(whole.where(Demonstration.state != "accepted").limit(1)) is not None
    return Nothing(reason="unmatched" if is_left else "finished")


def _of(tasks: sa.Select[str]) -> sa.Select[str]:
    return tasks.where(WritingTask.writing_id == Demonstration.writing_id)


def _skipped(actor: Actor, part: str) -> sa.ColumnElement[bool]:
    """Has this person put it aside?"""
    return _of(
        sa.select(WritingTask.id).where(
            WritingTask.person_id == actor.person_id, WritingTask.part == part, WritingTask.state == "skipped"
        )
    ).exists()


def _own_returned(actor: Actor) -> sa.ColumnElement[bool]:
    return (
        (Demonstration.state == "returned")
        & (Demonstration.author_id == actor.person_id)
        & ~_skipped(actor, "write")
    )  # fmt: skip


def _to_review(actor: Actor) -> sa.ColumnElement[bool]:
    is_own = Demonstration.author_id == actor.person_id
    return (Demonstration.state == "written") & ~is_own & ~_skipped(actor, "review")


def _to_write(actor: Actor) -> sa.ColumnElement[bool]:
    is_left = (Demonstration.state == "returned") & (Demonstration.changed_at < now_ms() - AUTHOR_MS)
    return ((Demonstration.state == "open") | is_left) & ~_skipped(actor, "write")


def own_task(rows: Rows, actor: Actor, task_id: str, *, locks: bool = False) -> tuple[WritingTask, Demonstration]:
    """A task of this person with the state of its writing.

    Args:
        locks: keep others from changing the state until the transaction ends.
    Raises:
        Refused: it is not there, or somebody else's.
    """
    task = rows.get(WritingTask, task_id)
    if task is None or task.person_id != actor.person_id:
        raise missing("This task")
    found = rows.get(Demonstration, task.writing_id, with_for_update=locks)
    assert found is not None, f"writing {task.writing_id} has no row of its state"
    return task, found


def due_task(rows: Rows, actor: Actor, task_id: str, *, part: str) -> tuple[WritingTask, Demonstration]:
    """The same, if it is still to be done."""
    task, found = own_task(rows, actor, task_id, locks=True)
    is_own = part == "review" and found.author_id == actor.person_id
    if task.part != part or task.state != "open" or not is_due(task, found) or is_own:
        raise Refused(409, "over", "This was done meanwhile, by you or by somebody else. What you wrote is kept; go on with the next.")  # fmt: skip
    return task, found
