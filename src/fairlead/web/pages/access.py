"""Pages around access: tokens of programs, and the log of who did what."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from fairlead.store.annotation.schema import Project
from fairlead.web import policy
from fairlead.web.audit import read_audit
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.people import now_ms
from fairlead.web.tokens import list_tokens, make_token, revoke_token

router = APIRouter()
Text = Annotated[str, Form()]
_NUM_ENTRIES = 100


@router.get("/tokens")
def tokens_page(request: Request) -> Response:
    """One's own tokens; an admin sees everybody's."""
    policy.may_make_token(actor(request), "read")
    return _tokens(request, secret="")


def _tokens(request: Request, *, secret: str) -> Response:
    who = actor(request)
    found = list_tokens(around(request).database, None if who.role == "admin" else who)
    scopes = policy.scopes_of(who.role)
    with around(request).database.read() as rows:
        projects = list(rows.scalars(sa.select(Project).order_by(Project.name))) if "lead" in scopes else []
    return render(request, "tokens.html", tokens=found, scopes=scopes, secret=secret, now=now_ms(), projects=projects)


@router.post("/tokens")
def make(
    request: Request, name: Text, scope: Text, csrf: Text = "", num_days: Annotated[int, Form(ge=1, le=366)] = 90
) -> Response:
    """Make a token and show it once."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_make_token(who, scope)
    made = make_token(around(request).database, who, name=name, scope=scope, num_days=num_days)
    return _tokens(request, secret=made.secret)


@router.post("/tokens/{token_id}/revoke")
def revoke(request: Request, token_id: str, csrf: Text = "") -> Response:
    """End a token."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_make_token(who, "read")
    revoke_token(around(request).database, token_id, by=who)
    return see("/tokens")


@router.get("/log")
def log_page(
    request: Request, before: Annotated[int | None, Query(ge=1)] = None, kind: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """Who did what, newest first."""
    policy.may_see_audit(actor(request))
    found = read_audit(around(request).database, before=before, kind=kind, num_rows=_NUM_ENTRIES)
    return render(
        request, "log.html", entries=found, kind=kind, older=found[-1].number if len(found) == _NUM_ENTRIES else None
    )
