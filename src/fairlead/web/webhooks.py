"""Webhooks: addresses that are told what happens, signed, over and over until it arrives.

    what happens -> outbox (same transaction) -> Courier (a thread of the server) -> check address -> POST -> done, or again later

A request carries `Fairlead-Id` (the same in a repeat), `Fairlead-Event`, and `Fairlead-Signature: t=SECONDS,v1=HEX`, where HEX is
HMAC-SHA256 of `SECONDS.BODY` under the secret that was shown when the webhook was made. `client.verify_webhook` checks it. Deliveries may come
twice and in another order.
"""

import hmac
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.outside import Delivery, Webhook
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import record, repeated
from fairlead.web.outbox import EVENTS, PING, put_delivery
from fairlead.web.outgoing import Answer, Target, check_target, post
from fairlead.web.people import new_id, now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project

MAX_WEBHOOKS = 20
"""Of one project."""
MAX_ATTEMPTS = 10
"""Over about 27 hours."""
FIRST_DELAY_MS, GROWTH, MAX_DELAY_MS = 10_000, 4, 6 * 3600 * 1000
_CLAIM_MS = 60_000
"""How long one attempt keeps a delivery from other processes."""
_KEPT_MS = 30 * 24 * 3600 * 1000
_BATCH = 20
_LOG = logging.getLogger(__name__)
MADE = "webhook.made"
Send = Callable[[Target, bytes, dict[str, str]], Answer]


def secret_of(server_secret: bytes, webhook_id: str) -> str:
    """The key of one webhook's signatures, from the server's."""
    return "fairlead_hook_" + hmac.new(server_secret, f"webhook:{webhook_id}".encode(), "sha256").hexdigest()


def sign(secret: str, body: bytes, *, at_s: int) -> str:
    """The signature header."""
    made = hmac.new(secret.encode(), f"{at_s}.".encode() + body, "sha256").hexdigest()
    return f"t={at_s},v1={made}"


def make_webhook(
    database: Database, actor: Actor, project_id: str, *, url: str, events: list[str], allow_local: bool, key: str | None = None
) -> Webhook:  # fmt: skip
    """Make one, and send it a ping. The same key again is the same webhook.

    Raises:
        Refused: the address must not be called, an event is not known, or there are too many.
    """
    check_target(url, allow_local=allow_local)
    unknown = [name for name in events if name not in EVENTS]
    if unknown or not events:
        raise invalid(f"{unknown[0][:40] if unknown else 'Nothing'} is no event. Choose of {', '.join(EVENTS)}.")
    now = now_ms()
    with database.write() as rows:
        get_project(rows, project_id)
        said = {"url": url, "events": sorted(set(events))}
        before = (
            None if key is None else repeated(rows, actor.person_id, key, kind=MADE, project_id=project_id, said=said)
        )
        if before is not None:
            known = rows.get(Webhook, before.content["webhook"])
            if known is None:
                raise missing("This webhook, which was removed since,")
            return known
        num = rows.scalar(sa.select(sa.func.count()).select_from(Webhook).where(Webhook.project_id == project_id)) or 0
        if num >= MAX_WEBHOOKS:
            raise invalid(f"The project has {MAX_WEBHOOKS} webhooks. Remove one first.")
        webhook = Webhook(
            id=new_id(),
            project_id=project_id,
            url=url,
            events=sorted(set(events)),
            created_by=actor.person_id,
            created_at=now,
        )
        rows.add(webhook)
        rows.flush()
        record(
            rows,
            MADE,
            person_id=actor.person_id,
            project_id=project_id,
            key=key,
            content={"webhook": webhook.id, **said},
        )
        put_delivery(rows, webhook, name=PING, subject=webhook.id, at=now, facts={})
    return webhook


def remove_webhook(database: Database, actor: Actor, project_id: str, webhook_id: str) -> None:
    """Remove one and what waits for it."""
    with database.write() as rows:
        webhook = rows.get(Webhook, webhook_id)
        if webhook is None or webhook.project_id != project_id:
            raise missing("This webhook")
        rows.execute(sa.delete(Delivery).where(Delivery.webhook_id == webhook_id))
        rows.delete(webhook)
        record(
            rows,
            "webhook.removed",
            person_id=actor.person_id,
            project_id=project_id,
            content={"webhook": webhook_id, "url": webhook.url},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A webhook and how its deliveries go."""

    webhook: Webhook
    num_waiting: int
    num_done: int
    num_given_up: int
    last_outcome: str


def list_webhooks(database: Database, project_id: str) -> list[Standing]:
    """Those of a project, oldest first."""
    with database.read() as rows:
        get_project(rows, project_id)
        found = rows.scalars(sa.select(Webhook).where(Webhook.project_id == project_id).order_by(Webhook.created_at)).all()  # fmt: skip
        return [_standing(rows, webhook) for webhook in found]


def _standing(rows: Rows, webhook: Webhook) -> Standing:
    own = Delivery.webhook_id == webhook.id
    counts = {
        row[0]: row[1]
        for row in rows.execute(sa.select(Delivery.state, sa.func.count()).where(own).group_by(Delivery.state))
    }
    last = rows.scalar(sa.select(Delivery.outcome).where(own, Delivery.num_attempts > 0).order_by(Delivery.created_at.desc()).limit(1))  # fmt: skip
    return Standing(webhook=webhook, num_waiting=counts.get("waiting", 0), num_done=counts.get("done", 0),
                    num_given_up=counts.get("given_up", 0), last_outcome=last or "")  # fmt: skip


def deliver_due(
    database: Database, *, server_secret: bytes, allow_local: bool, send: Send = post, check: Callable[..., Target] = check_target
) -> int:  # fmt: skip
    """Try what is due, a batch of it; return how many arrived."""
    now = now_ms()
    with database.write() as rows:
        due = rows.execute(
            sa.select(Delivery, Webhook.url).join(Webhook, Webhook.id == Delivery.webhook_id)
            .where(Delivery.state == "waiting", Delivery.next_at <= now).order_by(Delivery.next_at).limit(_BATCH)
        ).all()  # fmt: skip
        for delivery, _ in due:
            delivery.num_attempts += 1
            delivery.next_at = now + _CLAIM_MS
        if due:
            rows.execute(sa.delete(Delivery).where(Delivery.state != "waiting", Delivery.created_at < now - _KEPT_MS))
    num_arrived = 0
    for delivery, url in due:
        secret = secret_of(server_secret, delivery.webhook_id)
        outcome = _attempt(delivery, url, secret=secret, allow_local=allow_local, send=send, check=check)
        num_arrived += outcome == ""
        _settle(database, delivery, outcome)
    return num_arrived


def _attempt(
    delivery: Delivery, url: str, *, secret: str, allow_local: bool, send: Send, check: Callable[..., Target]
) -> str:
    """Send once; return what went wrong, or nothing. The address is looked up and checked anew every time."""
    body = delivery.body.encode()
    headers = {
        "Content-Type": "application/json", "User-Agent": "Fairlead", "Fairlead-Id": delivery.id, "Fairlead-Event": delivery.event,
        "Fairlead-Signature": sign(secret, body, at_s=int(time.time())),
    }  # fmt: skip
    try:
        answer = send(check(url, allow_local=allow_local), body, headers)
    except Refused as error:
        return error.message
    except OSError as error:
        return f"no answer ({type(error).__name__})"
    if 300 <= answer.status < 400:
        return f"answered {answer.status}; redirects are not followed"
    return "" if 200 <= answer.status < 300 else f"answered {answer.status}"


def _settle(database: Database, delivery: Delivery, outcome: str) -> None:
    with database.write() as rows:
        found = rows.get(Delivery, delivery.id)
        if found is None:  # the webhook was removed meanwhile
            return
        found.outcome = (outcome or "arrived")[:200]
        if not outcome:
            found.state = "done"
        elif found.num_attempts >= MAX_ATTEMPTS:
            found.state = "given_up"
            webhook = rows.get_one(Webhook, found.webhook_id)
            record(
                rows,
                "webhook.given_up",
                person_id=None,
                project_id=webhook.project_id,
                content={"webhook": webhook.id, "event": found.event},
            )
        else:
            delay = min(MAX_DELAY_MS, FIRST_DELAY_MS * GROWTH ** (found.num_attempts - 1))
            found.next_at = now_ms() + int(delay * random.uniform(0.8, 1.2))


class Courier:
    """The thread that delivers. Lifecycle: `start`, then `stop` once; what is under way is finished."""

    def __init__(self, database: Database, *, server_secret: bytes, allow_local: bool, every_s: float = 2.0) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._database, self._every_s = database, every_s
        self._server_secret, self._allow_local = server_secret, allow_local

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the delivery that is under way."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                deliver_due(self._database, server_secret=self._server_secret, allow_local=self._allow_local)
            except SQLAlchemyError as error:  # a busy or full database: the outbox keeps what waits
                _LOG.warning("Webhooks wait: %s", type(error).__name__)
