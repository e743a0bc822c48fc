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

from fairlead.store.annotation.caching import large_cache
from fairlead.store.annotation.database import Database, Rows, run
from fairlead.store.annotation.schema import (
    IS_NO_VOTE,
    SUBMITTED,
    Assignment,
    Draft,
    Event,
    Flag,
    Item,
    Progress,
    Project,
    Verdict,
    copy_of,
    table_of,
)
from fairlead.store.annotation.steering import Check
from fairlead.store.annotation.totals import Concord, Work
from fairlead.web import abilities, anchors, budget, choosing, decisions, drift, qualification, rounds, totals
from fairlead.web.answers import MAX_NOTE, Submission, check, check_text
from fairlead.web.bulk import WITHDRAWN, derive_verdicts
from fairlead.web.chats import derive as talk
from fairlead.web.demonstrations import derive
from fairlead.web.errors import Refused, missing
from fairlead.web.events import check_key, find_keyed, full_key, record
from fairlead.web.frames import as_stored
from fairlead.web.outbox import put_finished
from fairlead.web.people import now_ms
from fairlead.web.policy import Actor
from fairlead.web.queue import LEASE_MS, own_assignment
from fairlead.web.steering import forget_derived

_NUM_A_PIECE = 1_000
"""Events that are read at a time."""
MAX_DRAFT = 100_000
"""Characters of a field of a draft."""
_FLAGGED = "item.flagged"
_ADD = sa.insert(table_of(Verdict))
_A, _P, _D, _E = (table_of(each).c for each in (Assignment, Progress, Draft, Event))
_HELD = (
    sa.select(table_of(Assignment), table_of(Progress), table_of(Event), sa.exists().where(_D.assignment_id == _A.id))
    .join_from(table_of(Assignment), table_of(Progress), _P.item_id == _A.item_id)
    .outerjoin(table_of(Event), _E.key == sa.bindparam("key")).where(_A.id == sa.bindparam("assignment"))
)  # fmt: skip
"""An assignment, the progress of its item, the event of a key; and is an answer being written?"""
_STAND = sa.update(table_of(Assignment)).where(_A.id == sa.bindparam("assignment")).values(
    state=sa.bindparam("new_state"), leased_until=sa.bindparam("until")
)  # fmt: skip
_COUNT = sa.update(table_of(Progress)).where(_P.item_id == sa.bindparam("item")).values(
    num_votes=sa.bindparam("votes"), num_skips=sa.bindparam("skips"), num_lacking=sa.bindparam("lacking"), pattern=sa.bindparam("labels")
)  # fmt: skip
_FORGET_DRAFT = sa.delete(table_of(Draft)).where(table_of(Draft).c.assignment_id == sa.bindparam("assignment"))


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
    with database.write(is_urgent=True) as rows:
        held = _held(rows, assignment_id, key=full_key(actor.person_id, submission.key))
        if held is None or held.assignment.person_id != actor.person_id:
            raise missing("This item")
        assignment, progress = held.assignment, held.progress
        repeat = _same(held.keyed, kind=SUBMITTED, assignment_id=assignment_id, content=content)
        if repeat is not None:
            return Saved(event_number=repeat.number, is_repeat=True)
        check(rows, assignment, submission)
        event = record(rows, SUBMITTED, person_id=actor.person_id, project_id=assignment.project_id, assignment_id=assignment_id,
                       key=submission.key, content=content)  # fmt: skip
        _derive(rows, event, assignment, progress)
        put_finished(rows, event, progress)
        if progress.use == "anchor":
            if rows.get(Check, assignment_id) is not None:
                drift.watch(rows, assignment)
            qualification.watch(rows, assignment)
        if held.has_draft:
            run(rows, _FORGET_DRAFT, {"assignment": assignment_id})
        return Saved(event_number=event.number, is_repeat=False)


def withdraw_last(database: Database, actor: Actor, project_id: str, *, key: str) -> str:
    """Take back the verdict or skip given last; return its assignment, which is open again.

    The same key twice takes back one verdict, not two.
    """
    check_key(key)
    with database.write() as rows:
        repeat = same_key(rows, actor, key, kind=WITHDRAWN, assignment_id=None, content=None)
        if repeat is not None:
            assert repeat.assignment_id is not None
            return repeat.assignment_id
        last = rows.scalar(
            sa.select(Verdict).where(Verdict.project_id == project_id, Verdict.person_id == actor.person_id)
            .order_by(Verdict.event_number.desc()).limit(1)
        )  # fmt: skip
        if last is None:
            raise Refused(409, "nothing", "There is nothing to take back.")
        event = record(rows, WITHDRAWN, person_id=actor.person_id, project_id=project_id, assignment_id=last.assignment_id,
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


def same_key(
    rows: Rows, actor: Actor, key: str, *, kind: str, assignment_id: str | None, content: dict[str, Any] | None
) -> Event | None:
    """The event of this key. None in place of an assignment or content is not compared."""
    return _same(find_keyed(rows, actor.person_id, key), kind=kind, assignment_id=assignment_id, content=content)


def _same(found: Event | None, *, kind: str, assignment_id: str | None, content: dict[str, Any] | None) -> Event | None:
    if found is None:
        return None
    is_same = found.kind == kind and assignment_id in (None, found.assignment_id) and content in (None, found.content)
    if not is_same:
        raise Refused(409, "key_used", "This key was used for another submission. Load the page again.")
    return found


def apply(rows: Rows, event: Event) -> None:
    """Bring the derived tables up to date with one event; events that derive nothing change nothing here."""
    if event.kind not in (SUBMITTED, WITHDRAWN, _FLAGGED):
        _follow(rows, event)
        return
    held = _held(rows, event.assignment_id)
    if held is None:
        raise missing(f"The assignment of event {event.number}")
    if event.kind == _FLAGGED:
        rows.execute(sa.delete(Flag).where(Flag.assignment_id == held.assignment.id))
        if event.content["note"]:
            rows.add(Flag(assignment_id=held.assignment.id, event_number=event.number, note=event.content["note"]))
        return
    _derive(rows, event, held.assignment, held.progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What a verdict changes, as it is before."""

    assignment: Assignment
    progress: Progress
    """Of its item."""
    keyed: Event | None
    """The event of the key that was asked for."""
    has_draft: bool


def _held(rows: Rows, assignment_id: str | None, *, key: str | None = None) -> _Held | None:
    row = run(rows, _HELD, {"assignment": assignment_id, "key": key}).one_or_none()
    if row is None:
        return None
    of_event = len(_A) + len(_P)
    return _Held(
        assignment=copy_of(Assignment, row), progress=copy_of(Progress, row, at=len(_A)),
        keyed=None if row[of_event] is None else copy_of(Event, row, at=of_event), has_draft=row[-1],
    )  # fmt: skip


def _derive(rows: Rows, event: Event, assignment: Assignment, progress: Progress) -> None:
    """Store what a verdict, or its withdrawal, changes; both are brought up to date too."""
    before = rows.get(Verdict, assignment.id) if assignment.state == "done" else None
    counted = None
    if before is not None:
        earlier = rows.get(Event, before.event_number)
        assert earlier is not None, f"the verdict of {assignment.id} names no event"
        counted = (before.verdict, earlier)
        _count(progress, before.verdict, -1)
        rows.delete(before)
        rows.flush()
    verdict = None
    if event.kind == WITHDRAWN:
        assignment.state, assignment.leased_until = "open", event.at + LEASE_MS
    else:
        said = as_stored(event.content, shown=assignment.shown)
        verdict = said["verdict"]
        run(rows, _ADD, {
            "assignment_id": assignment.id, "project_id": assignment.project_id, "item_id": assignment.item_id, "person_id": assignment.person_id,
            "event_number": event.number, **said,
        })  # fmt: skip
        assignment.state = "done"
        _count(progress, verdict, 1)
    totals.count(rows, assignment, progress, before=counted, after=None if verdict is None else (verdict, event))
    _store(rows, assignment, progress)
    anchors.check(rows, assignment, progress, verdict)


def _store(rows: Rows, assignment: Assignment, progress: Progress) -> None:
    stands = {"assignment": assignment.id, "new_state": assignment.state, "until": assignment.leased_until}
    run(rows, _STAND, stands)
    run(rows, _COUNT, {
        "item": progress.item_id, "votes": progress.num_votes, "skips": progress.num_skips, "lacking": progress.num_lacking,
        "labels": progress.pattern,
    })  # fmt: skip


def _count(progress: Progress, verdict: str, by: int) -> None:
    if verdict == "skip":
        progress.num_skips += by
    else:
        progress.num_votes += by
        progress.num_lacking -= by


def _follow(rows: Rows, event: Event) -> None:
    """Events about anything but verdicts."""
    for module in (decisions, budget, derive, talk, rounds, anchors, drift, abilities, qualification, choosing):
        if event.kind in module.KINDS:
            module.follow(rows, event)
    if event.kind == rounds.OPENED:
        drift.follow_round(rows, event)


def rebuild(database: Database) -> int:
    """Make the derived tables again from the events; return how many events were read.

    Events about verdicts come last and all at once: no other kind of event looks at verdicts when it is followed.
    """
    with database.write() as rows, large_cache(rows):
        decisions.forget_derived(rows)
        budget.forget_derived(rows)
        for table in (Verdict, Flag, Progress, Work, Concord):
            rows.execute(sa.delete(table))
        wanted = sa.case((Item.use == "production", Project.votes_per_item), else_=0)
        rows.execute(
            sa.insert(Progress).from_select(
                [
                    "item_id",
                    "project_id",
                    "use",
                    "rank",
                    "needs",
                    "num_votes",
                    "num_skips",
                    "num_extra",
                    "num_lacking",
                    "pattern",
                ],
                sa.select(
                    Item.id,
                    Item.project_id,
                    Item.use,
                    Item.rank,
                    Item.needs,
                    *[sa.literal(0)] * 3,
                    wanted,
                    sa.literal(""),
                ).join(Project, Project.id == Item.project_id),
            )
        )
        forget_derived(rows)
        for module in (rounds, anchors, drift, abilities, qualification, choosing, derive, talk):
            module.forget_derived(rows)
        rows.expire_all()
        others = sa.select(Event).where(IS_NO_VOTE, Event.kind != WITHDRAWN).order_by(Event.number).limit(_NUM_A_PIECE)
        num = last = 0
        while piece := rows.scalars(others.where(Event.number > last)).all():
            for event in piece:
                apply(rows, event)
            num, last = num + len(piece), piece[-1].number
            rows.flush()
            rows.expunge_all()
        return num + derive_verdicts(rows)
