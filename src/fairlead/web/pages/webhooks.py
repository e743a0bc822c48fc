"""The lead's page of webhooks."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from fairlead.web import policy, webhooks
from fairlead.web.errors import Refused
from fairlead.web.outbox import EVENTS
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.projects import get_project
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/p/{project_id}/webhooks")
def webhooks_page(request: Request, project_id: str) -> Response:
    """Those of a project."""
    policy.may_use_webhooks(actor(request))
    return _page(request, project_id)


def _page(request: Request, project_id: str, *, secret: str = "", error: str = "", url: str = "", status: int = 200) -> Response:  # fmt: skip
    database = around(request).database
    found = webhooks.list_webhooks(database, project_id)
    with database.read() as rows:
        project = get_project(rows, project_id)
    return render(
        request,
        "webhooks.html",
        status=status,
        project=project,
        webhooks=found,
        events=EVENTS,
        secret=secret,
        error=error,
        url=url,
        key=new_key(),
    )


@router.post("/p/{project_id}/webhooks")
def make(
    request: Request, project_id: str, url: Text, key: Text, csrf: Text = "", events: Annotated[list[str], Form()] = []  # noqa: B006 - FastAPI copies it
) -> Response:  # fmt: skip
    """Make one and show its secret once."""
    check_csrf(request, csrf)
    who, here = actor(request), around(request)
    policy.may_use_webhooks(who)
    try:
        made = webhooks.make_webhook(here.database, who, project_id, url=url, events=events, allow_local=here.allow_local_webhooks,
                                     key=key)  # fmt: skip
    except Refused as error:
        if error.status != 422:
            raise
        return _page(request, project_id, error=error.message, url=url, status=422)
    return _page(request, project_id, secret=webhooks.secret_of(here.secret, made.id))


@router.post("/p/{project_id}/webhooks/{webhook_id}/remove")
def remove(request: Request, project_id: str, webhook_id: str, csrf: Text = "") -> Response:
    """Remove one."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_use_webhooks(who)
    webhooks.remove_webhook(around(request).database, who, project_id, webhook_id)
    return see(f"/p/{project_id}/webhooks")
