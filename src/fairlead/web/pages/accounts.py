"""Log in, log out, accept an invitation, and the start page that leads to the projects."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from fairlead.store.annotation.schema import Project
from fairlead.web import people
from fairlead.web.errors import Refused
from fairlead.web.pages.context import (
    actor,
    actor_or_none,
    around,
    at_the_door,
    check_csrf,
    logged_in,
    render,
    see,
    session_cookie,
)

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/")
def start(request: Request) -> Response:
    """The projects; straight to the only one."""
    who = actor_or_none(request)
    if who is None:
        return see("/login")
    with around(request).database.read() as rows:
        found = list(rows.scalars(sa.select(Project).order_by(Project.name)))
    if len(found) == 1 and who.role in ("rater", "adjudicator"):
        return see(f"/p/{found[0].id}/rate")
    return render(request, "projects.html", projects=found)


@router.get("/login")
def login_page(request: Request) -> Response:
    """The form."""
    return see("/") if actor_or_none(request) else render(request, "login.html", error="", name="")


@router.post("/login")
async def login(request: Request, name: Text, password: Text, csrf: Text = "") -> Response:
    """Check the password and open a session."""
    return await at_the_door(lambda: _login(request, name, password, csrf))


def _login(request: Request, name: str, password: str, csrf: str) -> Response:
    check_csrf(request, csrf)
    address = request.client.host if request.client else "unknown"
    try:
        session = people.log_in(
            around(request).database, name=name, password=password, address=address, before=_session(request)
        )
    except Refused as error:
        return render(request, "login.html", status=error.status, error=error.message, name=name)
    return logged_in(request, session)


def _session(request: Request) -> str | None:
    return request.cookies.get(session_cookie(around(request).place))


@router.post("/logout")
def logout(request: Request, csrf: Text = "", everywhere: Annotated[bool, Form()] = False) -> Response:
    """End this session, or all of this person."""
    check_csrf(request, csrf)
    actor(request)
    here = around(request)
    people.log_out(here.database, request.cookies[session_cookie(here.place)], everywhere=everywhere)
    response = see("/login")
    response.delete_cookie(session_cookie(here.place), path="/")
    return response


@router.get("/invite/{secret}")
def invite_page(request: Request, secret: str) -> Response:
    """The form of a link that is still good."""
    with around(request).database.read() as rows:
        role = people.find_invite(rows, secret).role
    return render(request, "invite.html", error="", name="", role=role, secret=secret)


@router.post("/invite/{secret}")
async def accept(request: Request, secret: str, name: Text, password: Text, csrf: Text = "") -> Response:
    """Make the account."""
    return await at_the_door(lambda: _accept(request, secret, name, password, csrf))


def _accept(request: Request, secret: str, name: str, password: str, csrf: str) -> Response:
    check_csrf(request, csrf)
    here = around(request)
    with here.database.read() as rows:
        role = people.find_invite(rows, secret).role
    try:
        session = people.accept_invite(here.database, secret, name=name, password=password, before=_session(request))
    except Refused as error:
        return render(
            request, "invite.html", status=error.status, error=error.message, name=name, role=role, secret=secret
        )
    return logged_in(request, session)
