"""What happens in a project, for its webhooks: written beside the event, in the same transaction, and sent later by `webhooks`.

It imports nothing that records events, for the recording of events calls it.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.outside import Delivery, Webhook
from fairlead.store.annotation.schema import Event, Item, Progress, Verdict, table_of

ITEM_FINISHED, PING = "item.finished", "webhook.ping"
_BY_KIND = {
    "project.paused": "project.paused",
    "drift.alarm": "alarm",
    "round.passed": "round.passed",
    "calibration.passed": "rater.passed",
}
"""Kinds of event that webhooks hear of, and under which name."""
EVENTS = (ITEM_FINISHED, *_BY_KIND.values())
_ANY = sa.select(table_of(Webhook).c.id).where(table_of(Webhook).c.project_id == sa.bindparam("project")).limit(1)
_FACTS = frozenset({"num", "num_right", "reason", "round", "share", "rule"})
"""Keys of an event's content that are sent; no free text of a person and no name is among them."""


def put_event(rows: Rows, event: Event) -> None:
    """Queue an event for the webhooks of its project that want it."""
    name = _BY_KIND.get(event.kind)
    if name is None or event.project_id is None:
        return
    facts = {key: value for key, value in event.content.items() if key in _FACTS}
    _put(rows, event.project_id, name=name, subject=str(event.number), at=event.at, facts=facts)


def put_finished(rows: Rows, event: Event, progress: Progress) -> None:
    """Queue that an item has all its votes, when it has; each webhook hears of an item once."""
    if progress.use != "production" or progress.num_lacking > 0:
        return
    item_id = progress.item_id
    if run(rows, _ANY, {"project": progress.project_id}).scalar() is None:
        return
    item = rows.get_one(Item, item_id)
    counted = (
        sa.select(Verdict.verdict, sa.func.count())
        .where(Verdict.item_id == item_id, Verdict.verdict != "skip")
        .group_by(Verdict.verdict)
    )
    votes = {row[0]: row[1] for row in rows.execute(counted)}
    _put(
        rows,
        item.project_id,
        name=ITEM_FINISHED,
        subject=item_id,
        at=event.at,
        facts={"item": item_id, "content_id": item.content_id, "votes": votes},
    )


def _put(rows: Rows, project_id: str, *, name: str, subject: str, at: int, facts: Mapping[str, Any]) -> None:
    for webhook in rows.scalars(sa.select(Webhook).where(Webhook.project_id == project_id)).all():
        if name in webhook.events:
            put_delivery(rows, webhook, name=name, subject=subject, at=at, facts=facts)


def put_delivery(rows: Rows, webhook: Webhook, *, name: str, subject: str, at: int, facts: Mapping[str, Any]) -> None:
    """Queue one delivery, unless this webhook has it already."""
    same = (Delivery.webhook_id == webhook.id, Delivery.event == name, Delivery.subject == subject)
    if rows.scalar(sa.select(Delivery.id).where(*same)) is not None:
        return
    delivery_id = secrets.token_urlsafe(12)
    body = {"id": delivery_id, "event": name, "at": at, "project": webhook.project_id, "data": dict(facts)}
    rows.add(Delivery(id=delivery_id, webhook_id=webhook.id, event=name, subject=subject, body=json.dumps(body), state="waiting",
                      num_attempts=0, next_at=at, outcome="", created_at=at))  # fmt: skip
