"""What a rater does: the next item, a verdict, undo, a flag, a draft, own earlier votes."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Assignment, Event, Verdict
from fairlead.web import policy, projects, verdicts
from fairlead.web.answers import Submission
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import (
    AssignmentShown,
    DraftSent,
    KeySent,
    Me,
    NextSent,
    NextShown,
    NoteSent,
    OptionShown,
    OwnVoteShown,
    SavedShown,
    TurnShown,
    UndoneShown,
    VerdictSent,
)
from fairlead.web.contents import content_of
from fairlead.web.queue import Nothing, next_assignment, own_assignment
from fairlead.web.showing import given_before, options_of, places_before

router = APIRouter(tags=["rating"])
_NUM_OWN = 200


@router.get("/me")
def get_me(who: Who) -> Me:
    """Who the token stands for, and as what."""
    policy.may_rate(who)
    return Me(name=who.name, role=who.role)


@router.post("/projects/{project_id}/next")
def take_next(who: Who, data: Data, project_id: str, sent: NextSent) -> NextShown:
    """Lease the next item; one that is open already is given again first."""
    policy.may_rate(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
    found = next_assignment(data, who, project_id, without=sent.without)
    if isinstance(found, Nothing):
        return NextShown(assignment=None, reason=found.reason)
    with data.read() as rows:
        return NextShown(assignment=_shown(rows, found), reason="")


@router.get("/assignments/{assignment_id}")
def get_assignment(who: Who, data: Data, assignment_id: str) -> AssignmentShown:
    """One of one's own items again."""
    policy.may_rate(who)
    with data.read() as rows:
        return _shown(rows, own_assignment(rows, who, assignment_id))


def _shown(rows: Rows, assignment: Assignment) -> AssignmentShown:
    item = content_of(rows, assignment.item_id)
    guideline = projects.current_guideline(rows, assignment.project_id)
    texts = [item.completions[int(digit)].text for digit in assignment.shown]
    verdict = rows.get(Verdict, assignment.id)
    return AssignmentShown(
        id=assignment.id, prompt=[TurnShown(role=turn.role, content=turn.content) for turn in item.prompt.messages], replies=texts,
        options=[_option(option.value, option.label) for option in options_of(guideline, num=len(texts))], guideline_version=guideline.version,
        rationale=guideline.rationale, criteria=guideline.criteria, spans=guideline.spans, edits=guideline.edits,
        given=given_before(verdict, assignment) if verdict else "", places=places_before(verdict, assignment) if verdict else [],
    )  # fmt: skip


def _option(value: str, label: str) -> OptionShown:
    choice = value.rstrip("0123")
    return OptionShown(choice=choice, strength=int(value[len(choice) :] or 0), label=label)


@router.post("/assignments/{assignment_id}/verdict")
def submit(who: Who, data: Data, assignment_id: str, sent: VerdictSent) -> SavedShown:  # pyright: ignore[reportInvalidTypeForm]
    """Store a verdict or change an earlier one; the answer comes when it is on disk."""
    policy.may_rate(who)
    values: dict[str, Any] = {name: getattr(sent, name) for name in VerdictSent.model_fields}
    saved = verdicts.submit(data, who, assignment_id, Submission(**values))
    return SavedShown(event=saved.event_number, repeat=saved.is_repeat)


@router.post("/projects/{project_id}/undo")
def undo(who: Who, data: Data, project_id: str, sent: KeySent) -> UndoneShown:
    """Take back the last verdict."""
    policy.may_rate(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
    return UndoneShown(assignment=verdicts.withdraw_last(data, who, project_id, key=sent.key))


@router.post("/assignments/{assignment_id}/flag", status_code=204)
def flag(who: Who, data: Data, assignment_id: str, sent: NoteSent) -> None:
    """Remark that something is wrong with an item."""
    policy.may_rate(who)
    verdicts.flag(data, who, assignment_id, note=sent.note, key=sent.key)


@router.put("/assignments/{assignment_id}/draft", status_code=204)
def save_draft(who: Who, data: Data, assignment_id: str, sent: DraftSent) -> None:
    """Keep what is being written."""
    policy.may_rate(who)
    verdicts.save_draft(data, who, assignment_id, {"rationale": sent.text})


@router.get("/projects/{project_id}/mine")
def list_own(who: Who, data: Data, project_id: str) -> list[OwnVoteShown]:
    """One's own votes, newest first."""
    policy.may_see_own_votes(who)
    with data.read() as rows:
        projects.get_project(rows, project_id)
        found = rows.execute(
            sa.select(Verdict, Assignment, Event.at).join(Assignment, Assignment.id == Verdict.assignment_id)
            .join(Event, Event.number == Verdict.event_number)
            .where(Verdict.project_id == project_id, Verdict.person_id == who.person_id).order_by(Verdict.event_number.desc()).limit(_NUM_OWN)
        ).all()  # fmt: skip
        return [
            OwnVoteShown(assignment=assignment.id, given=given_before(verdict, assignment), rationale=verdict.rationale, at=at)
            for verdict, assignment, at in found
        ]  # fmt: skip
