"""Where raters disagree: the list, one item with its votes, the decision on it, and the discussion of a calibration round."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from fairlead.web import adjudication, disputes, drift, policy
from fairlead.web.discussion import is_open, read_discussion, set_discussion
from fairlead.web.pages.answering import Posted, read_submission, text_of
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.projects import get_project, require_kind
from fairlead.web.undecided import waiting_of
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]
Short = Annotated[str, Query(max_length=120)]


@router.get("/p/{project_id}/disagreements")
def list_page(
    request: Request, project_id: str, kind: Short = "any", state: Short = "open", use: Short = "all", sort: Short = "disagreement",
    part: Annotated[str, Query(max_length=300)] = "", flagged: bool = False, page: int = 1,
) -> Response:  # fmt: skip
    """Items on which votes differ.

    Args:
        part: field and value of a slice, with a tab between.
    """
    who = actor(request)
    policy.may_adjudicate(who)
    field, _, value = part.partition("\t")
    wanted = disputes.Wanted(
        kind=kind, state=state, use=use, sort=sort, field=field, value=value, flagged=flagged, page=page
    )
    database = around(request).database
    with database.read() as rows:
        project = get_project(rows, project_id)
        require_kind(project, ("comparison",))
        waiting = waiting_of(rows, project_id, who.person_id)
    found = disputes.find_disputes(database, project_id, wanted)
    choices = (("kind", disputes.KINDS), ("state", disputes.STATES), ("use", disputes.USES), ("sort", disputes.SORTS))
    return render(
        request,
        "disagreements.html",
        project=project,
        wanted=wanted,
        part=part,
        found=found,
        choices=choices,
        waiting=waiting,
    )


@router.get("/p/{project_id}/adjudicate")
def next_page(request: Request, project_id: str, without: Short = "") -> Response:
    """Straight to the most disputed item that is not decided."""
    who = actor(request)
    policy.may_adjudicate(who)
    database = around(request).database
    with database.read() as rows:
        project = get_project(rows, project_id)
        require_kind(project, ("comparison",))
    found = adjudication.next_case(database, who, project_id, without=without)
    if found is not None:
        return see(f"/p/{project_id}/items/{found}")
    with database.read() as rows:
        waiting = waiting_of(rows, project_id, who.person_id)
    return render(request, "decided.html", project=project, waiting=waiting)


@router.get("/p/{project_id}/items/{item_id}")
def item_page(request: Request, project_id: str, item_id: str) -> Response:
    """One item with its votes, nobody named."""
    who = actor(request)
    policy.may_adjudicate(who)
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        require_kind(project, ("comparison",))
        case = adjudication.read_case(rows, who, project_id, item_id)
    return render(request, "dispute.html", project=project, case=case, key=new_key())


@router.post("/p/{project_id}/items/{item_id}/decision")
def decide(request: Request, project_id: str, item_id: str, form: Posted) -> Response:
    """Record a decision and go on to the next item."""
    check_csrf(request, text_of(form, "csrf"))
    who = actor(request)
    policy.may_adjudicate(who)
    adjudication.decide(around(request).database, who, project_id, item_id, _ruling(form))
    return see(f"/p/{project_id}/adjudicate?without={item_id}")


def _ruling(form: FormData) -> adjudication.Ruling:
    """The same fields as a vote has, with a reason in place of the rationale."""
    sent = read_submission(form)
    return adjudication.Ruling(key=sent.key, choice=sent.choice, reason=text_of(form, "reason"), guideline_version=sent.guideline_version,
                               ranking=sent.ranking, criteria=sent.criteria)  # fmt: skip


@router.post("/p/{project_id}/items/{item_id}/revoke")
def revoke(request: Request, project_id: str, item_id: str, key: Text, csrf: Text = "") -> Response:
    """Take a decision back."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_adjudicate(who)
    adjudication.revoke(around(request).database, who, project_id, item_id, key=key)
    return see(f"/p/{project_id}/items/{item_id}")


@router.post("/p/{project_id}/items/{item_id}/anchor")
def make_anchor(request: Request, project_id: str, item_id: str, csrf: Text = "") -> Response:
    """Serve a decided pair as a hidden anchor."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    adjudication.make_anchor(around(request).database, who, project_id, item_id)
    return see(f"/p/{project_id}/steering")


@router.post("/p/{project_id}/items/{item_id}/votes")
def ask_more_votes(
    request: Request,
    project_id: str,
    item_id: str,
    extra: Annotated[int, Form()],
    reason: Text,
    key: Text,
    csrf: Text = "",
) -> Response:
    """Ask more raters for this pair than the project does."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    drift.ask_more_votes(
        around(request).database, project_id, [item_id], extra=extra, by=who.person_id, reason=reason, key=key
    )
    return see(f"/p/{project_id}/items/{item_id}")


@router.get("/p/{project_id}/discussion")
def discussion_page(request: Request, project_id: str) -> Response:
    """The disagreements of the calibration round, after it."""
    who = actor(request)
    policy.may_discuss(who)
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        require_kind(project, ("comparison",))
        opened = is_open(rows, project_id)
        cases = read_discussion(rows, who, project_id)
    return render(request, "discussion.html", project=project, cases=cases, is_open=opened)


@router.post("/p/{project_id}/discussion")
def set_open(request: Request, project_id: str, state: Text, csrf: Text = "") -> Response:
    """Open or close the discussion to raters."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    set_discussion(around(request).database, project_id, is_open=state == "open", by=who.person_id)
    return see(f"/p/{project_id}/discussion")
