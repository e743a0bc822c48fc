"""Run the application in this process until ctrl-C."""

import os
import secrets
from pathlib import Path

import uvicorn

from fairlead.core.errors import StoreError, explain
from fairlead.core.protocols import ReplySampler
from fairlead.store.annotation.database import Database
from fairlead.web.app import make_app
from fairlead.web.chats.talker import Talker
from fairlead.web.place import Place
from fairlead.web.webhooks import Courier

KEEP_ALIVE_S = 75
"""A rater reads longer than the five seconds after which uvicorn would hang up; browsers and proxies keep a minute."""


def run_server(
    database: Database,
    *,
    place: Place,
    secret_file: Path,
    allow_local_webhooks: bool = False,
    sampler: ReplySampler | None = None,
) -> None:
    """Serve, deliver to webhooks, and let the policy answer; requests that are running when it stops are finished.

    Args:
        sampler: the policy of live conversations.
    """
    secret = read_secret(secret_file)
    talker = Talker(database, sampler) if sampler else None
    app = make_app(database, place=place, secret=secret, allow_local_webhooks=allow_local_webhooks, talker=talker)
    courier = Courier(database, server_secret=secret, allow_local=allow_local_webhooks)
    courier.start()
    if talker:
        talker.wake()  # what was waiting when the server stopped
    uvicorn.run(app, host=place.host, port=place.port, log_level="warning", server_header=False, date_header=False,
                proxy_headers=place.is_secure, timeout_graceful_shutdown=10, timeout_keep_alive=KEEP_ALIVE_S)  # fmt: skip
    courier.stop()
    if talker:
        talker.stop()


def read_secret(path: Path) -> bytes:
    """The key behind CSRF tokens: random, made at the first start, readable by its owner only.

    Raises:
        StoreError: the file is too short, or others may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    if path.stat().st_mode & 0o077:
        raise StoreError(
            explain(
                path,
                oct(path.stat().st_mode & 0o777),
                "may be read by others",
                expected="mode 0600",
                remedy=f"chmod 600 {path}",
            )
        )
    found = path.read_bytes()
    if len(found) < 32:
        raise StoreError(
            explain(
                path, None, "is too short for a key", expected="32 random bytes", remedy="Delete it; a new one is made"
            )
        )
    return found
