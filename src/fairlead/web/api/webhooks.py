"""Webhooks of a project."""

from fastapi import APIRouter, Request

from fairlead.web import policy, webhooks
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import WebhookMade, WebhookSent, WebhookShown

router = APIRouter(tags=["webhooks"])


@router.get("/projects/{project_id}/webhooks")
def list_webhooks(who: Who, data: Data, project_id: str) -> list[WebhookShown]:
    """Those of a project, oldest first."""
    policy.may_use_webhooks(who)
    return [
        WebhookShown(id=each.webhook.id, url=each.webhook.url, events=each.webhook.events, num_waiting=each.num_waiting, num_done=each.num_done,
                     num_given_up=each.num_given_up, last_outcome=each.last_outcome)
        for each in webhooks.list_webhooks(data, project_id)
    ]  # fmt: skip


@router.post("/projects/{project_id}/webhooks", status_code=201)
def make_webhook(request: Request, who: Who, data: Data, project_id: str, sent: WebhookSent) -> WebhookMade:
    """Tell an address what happens; it gets a ping first. The secret of the signatures is in this answer only, and in that
    of the same key."""
    policy.may_use_webhooks(who)
    here = request.app.state.around
    made = webhooks.make_webhook(data, who, project_id, url=sent.url, events=sent.events, allow_local=here.allow_local_webhooks,
                                 key=sent.key)  # fmt: skip
    return WebhookMade(id=made.id, secret=webhooks.secret_of(here.secret, made.id))


@router.delete("/projects/{project_id}/webhooks/{webhook_id}", status_code=204)
def remove_webhook(who: Who, data: Data, project_id: str, webhook_id: str) -> None:
    """Remove one, with what waits for it."""
    policy.may_use_webhooks(who)
    webhooks.remove_webhook(data, who, project_id, webhook_id)
