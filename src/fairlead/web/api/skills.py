"""Who can rate what: pairs that wait for a language or skill, and the tests that raters take."""

from fastapi import APIRouter

from fairlead.web import matching, policy, projects, qualification
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import CoverageShown, QualificationShown, TestSent, TestWaiveSent

router = APIRouter(tags=["skills"])


@router.get("/projects/{project_id}/coverage")
def get_coverage(who: Who, data: Data, project_id: str) -> list[CoverageShown]:
    """What waits, by what it asks for, with how many raters can get it."""
    policy.may_see_votes(who)
    with data.read() as rows:
        found = matching.coverage(rows, projects.get_project(rows, project_id))
    return [
        CoverageShown(needs=row.needs, num_items=row.num_items, num_lacking=row.num_lacking, num_raters=row.num_raters)
        for row in found
    ]


@router.get("/projects/{project_id}/qualifications")
def list_qualifications(who: Who, data: Data, project_id: str) -> list[QualificationShown]:
    """Tests taken, newest first: all of them for a lead, one's own for others."""
    policy.may_see_own_votes(who)
    return _shown(data, project_id, None if who.role in policy.ROLES[2:] else who.person_id)


def _shown(data: Data, project_id: str, person_id: str | None) -> list[QualificationShown]:
    with data.read() as rows:
        projects.get_project(rows, project_id)
        found = qualification.attempts(rows, project_id, person_id)
    return [
        QualificationShown(number=each.number, person=each.person_id, need=each.need, state=each.state, num_done=each.num_done,
                           num_items=each.num_items, num_right=each.num_right, num_used=each.num_used,
                           low=each.share.low if each.num_used else None, high=each.share.high if each.num_used else None)
        for each in found
    ]  # fmt: skip


@router.post("/projects/{project_id}/qualifications")
def begin_test(who: Who, data: Data, project_id: str, sent: TestSent) -> list[QualificationShown]:
    """Begin a test: its pairs are the next that `next` gives. Beginning one that is open goes on with it."""
    policy.may_rate(who)
    qualification.begin(data, who, project_id, sent.need)
    return _shown(data, project_id, who.person_id)


@router.post("/projects/{project_id}/qualifications/waive", status_code=204)
def waive_test(who: Who, data: Data, project_id: str, sent: TestWaiveSent) -> None:
    """Let a rater in without the test."""
    policy.may_change_project(who)
    qualification.waive(data, project_id, sent.person, sent.need, by=who.person_id, reason=sent.reason)


@router.post("/projects/{project_id}/qualifications/{number}/again", status_code=204)
def let_try_again(who: Who, data: Data, project_id: str, number: int) -> None:
    """Let a rater take a test again that was not passed."""
    policy.may_change_project(who)
    qualification.let_try_again(data, project_id, number, by=who.person_id)
