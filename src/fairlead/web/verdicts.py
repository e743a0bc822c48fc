"""Verdicts: submitted, changed, withdrawn. Each is an event; `apply` derives what is true now from it, live and in a replay.

Events are in the frame that the rater saw (places from the left); `apply` turns them into the canonical one by the assignment's order.

Example:
    submission = Submission(key="9b1c...", choice="left", strength=2, guideline_version=1)
    saved = submit(database, actor, assignment_id, submission)
    saved.is_repeat        # True when the same key was sent before: nothing was stored twice
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Draft, Event, Flag, Item, Progress, Project, Verdict
from fairlead.store.annotation.steering import Check
from fairlead.store.annotation.totals import Concord, Work
from fairlead.web import anchors, budget, decisions, drift, rounds, totals
from fairlead.web.answers import MAX_NOTE, Submission, check, check_text
from fairlead.web.chats import derive as talk
from fairlead.web.demonstrations import derive
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import record
from fairlead.web.frames import as_stored
from fairlead.web.outbox import put_finished
from fairlead.web.people import now_ms
from fairlead.web.policy import Actor
from fairlead.web.queue import LEASE_MS, own_assignment
from fairlead.web.steering import forget_derived

MAX_DRAFT = 100_000
"""Characters of a field of a draft."""
_SUBMITTED, _WITHDRAWN, _FLAGGED = "verdict.submitted", "verdict.withdrawn", "item.flagged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The receipt: on disk when it is given."""

    event_number: int
    is_repeat: bool


def new_key() -> str:
    """A key for a form that works without scripts."""
    return secrets.token_hex(16)


def submit(database: Database, actor: Actor, assignment_id: str, submission: Submission) -> Saved:
    """Store a verdict, or change an earlier one of the same assignment.

    Raises:
        Refused: the assignment is not this rater's, the guideline does not allow the choice, or the key was used for something else.
    """
    check_key(submission.key)
    content = submission.content()
    with database.write() as rows:
        assignment = own_assignment(rows, actor, assignment_id)
        repeat = same_key(rows, actor, submission.key, kind=_SUBMITTED, assignment_id=assignment_id, content=content)
        if repeat is not None:
            return Saved(event_number=repeat.number, is_repeat=True)
        check(rows, assignment, submission)
        event = record(rows, _SUBMITTED, person_id=actor.person_id, project_id=assignment.project_id, assignment_id=assignment_id,
                       key=submission.key, content=content)  # fmt: skip
        apply(rows, event)
        put_finished(rows, event, assignment.item_id)
        if rows.get(Check, assignment_id) is not None:
            drift.watch(rows, assignment)
        rows.execute(sa.delete(Draft).where(Draft.assignment_id == assignment_id))
        return Saved(event_number=event.number, is_repeat=False)


def withdraw_last(database: Database, actor: Actor, project_id: str, *, key: str) -> str:
    """Take back the verdict or skip given last; return its assignment, which is open again.

    The same key twice takes back one verdict, not two.
    """
    check_key(key)
    with database.write() as rows:
        repeat = same_key(rows, actor, key, kind=_WITHDRAWN, assignment_id=None, content=None)
        if repeat is not None:
            assert repeat.assignment_id is not None
            return repeat.assignment_id
        last = rows.scalar(
            sa.select(Verdict).where(Verdict.project_id == project_id, Verdict.person_id == actor.person_id)
            .order_by(Verdict.event_number.desc()).limit(1)
        )  # fmt: skip
        if last is None:
            raise Refused(409, "nothing", "There is nothing to take back.")
        event = record(rows, _WITHDRAWN, person_id=actor.person_id, project_id=project_id, assignment_id=last.assignment_id,
                       key=key, content={"event": last.event_number})  # fmt: skip
        apply(rows, event)
        return last.assignment_id


def flag(database: Database, actor: Actor, assignment_id: str, *, note: str, key: str) -> None:
    """Remark that something is wrong with an item; an empty note takes the remark back."""
    check_key(key)
    check_text("note", note, MAX_NOTE)
    with database.write() as rows:
        assignment = own_assignment(rows, actor, assignment_id)
        if same_key(rows, actor, key, kind=_FLAGGED, assignment_id=assignment_id, content={"note": note}) is None:
            apply(rows, record(rows, _FLAGGED, person_id=actor.person_id, project_id=assignment.project_id,
                               assignment_id=assignment_id, key=key, content={"note": note}))  # fmt: skip


def save_draft(database: Database, actor: Actor, assignment_id: str, fields: Mapping[str, str]) -> None:
    """Keep an answer that is being written."""
    for name, text in fields.items():
        check_text(name, text, MAX_DRAFT)
    with database.write() as rows:
        own_assignment(rows, actor, assignment_id)
        rows.merge(Draft(assignment_id=assignment_id, fields=dict(fields), saved_at=now_ms()))


def check_key(key: str) -> None:
    """Refuse what is no key of a submission."""
    if not 8 <= len(key) <= 64 or not key.isascii() or not key.replace("-", "").isalnum():
        raise invalid("The submission has no proper key. Load the page again and send it once more.")


def same_key(
    rows: Rows, actor: Actor, key: str, *, kind: str, assignment_id: str | None, content: dict[str, Any] | None
) -> Event | None:
    """The event of this key. None in place of an assignment or content is not compared."""
    found = rows.scalar(sa.select(Event).where(Event.key == f"{actor.person_id}:{key}"))
    if found is None:
        return None
    is_same = found.kind == kind and assignment_id in (None, found.assignment_id) and content in (None, found.content)
    if not is_same:
        raise Refused(409, "key_used", "This key was used for another submission. Load the page again.")
    return found


def apply(rows: Rows, event: Event) -> None:
    """Bring the derived tables up to date with one event; events that derive nothing change nothing here."""
    if event.kind not in (_SUBMITTED, _WITHDRAWN, _FLAGGED):
        _follow(rows, event)
        return
    assignment = rows.get(Assignment, event.assignment_id)
    if assignment is None:
        raise missing(f"The assignment of event {event.number}")
    if event.kind == _FLAGGED:
        rows.execute(sa.delete(Flag).where(Flag.assignment_id == assignment.id))
        if event.content["note"]:
            rows.add(Flag(assignment_id=assignment.id, event_number=event.number, note=event.content["note"]))
        return
    progress = rows.get(Progress, assignment.item_id)
    assert progress is not None, f"item {assignment.item_id} has no row of progress"
    before = rows.get(Verdict, assignment.id)
    counted = None
    if before is not None:
        earlier = rows.get(Event, before.event_number)
        assert earlier is not None, f"the verdict of {assignment.id} names no event"
        counted = (before.verdict, earlier)
        _count(progress, before.verdict, -1)
        rows.delete(before)
        rows.flush()
    if event.kind == _WITHDRAWN:
        assignment.state, assignment.leased_until = "open", event.at + LEASE_MS
        totals.count(rows, assignment, progress, before=counted, after=None)
        anchors.check(rows, assignment, progress, None)
        return
    said = as_stored(event.content, shown=assignment.shown)
    rows.add(Verdict(
        assignment_id=assignment.id, project_id=assignment.project_id, item_id=assignment.item_id, person_id=assignment.person_id,
        event_number=event.number, rationale=event.content["rationale"],
        skip_reason=event.content["skip_reason"] if said["verdict"] == "skip" else "", guideline_version=event.content["guideline_version"],
        active_ms=event.content["active_ms"], **said,
    ))  # fmt: skip
    assignment.state = "done"
    _count(progress, said["verdict"], 1)
    totals.count(rows, assignment, progress, before=counted, after=(said["verdict"], event))
    anchors.check(rows, assignment, progress, said["verdict"])


def _count(progress: Progress, verdict: str, by: int) -> None:
    if verdict == "skip":
        progress.num_skips += by
    else:
        progress.num_votes += by
        progress.num_lacking -= by


def _follow(rows: Rows, event: Event) -> None:
    """Events about anything but verdicts."""
    for module in (decisions, budget, derive, talk, rounds, anchors, drift):
        if event.kind in module.KINDS:
            module.follow(rows, event)
    if event.kind == rounds.OPENED:
        drift.follow_round(rows, event)


def rebuild(database: Database) -> int:
    """Make the derived tables again from the events; return how many events were read."""
    with database.write() as rows:
        decisions.forget_derived(rows)
        budget.forget_derived(rows)
        for table in (Verdict, Flag, Progress, Work, Concord):
            rows.execute(sa.delete(table))
        rows.execute(sa.update(Assignment).values(state="open"))
        wanted = sa.case((Item.use == "production", Project.votes_per_item), else_=0)
        rows.execute(
            sa.insert(Progress).from_select(
                [
                    "item_id",
                    "project_id",
                    "use",
                    "rank",
                    "num_votes",
                    "num_skips",
                    "num_extra",
                    "num_lacking",
                    "pattern",
                ],
                sa.select(
                    Item.id, Item.project_id, Item.use, Item.rank, *[sa.literal(0)] * 3, wanted, sa.literal("")
                ).join(Project, Project.id == Item.project_id),
            )
        )
        forget_derived(rows)
        for module in (rounds, anchors, drift, derive, talk):
            module.forget_derived(rows)
        rows.expire_all()
        num = 0
        for event in rows.scalars(sa.select(Event).order_by(Event.number)).all():
            apply(rows, event)
            num += 1
        return num
