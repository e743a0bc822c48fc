"""Run the application in this process until ctrl-C."""

import gc
import os
import secrets
import sys
from pathlib import Path

import uvicorn

from fairlead.core.errors import StoreError, explain
from fairlead.core.protocols import ReplySampler
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.log_copy import log_copied
from fairlead.store.annotation.row_counts import counts_kept
from fairlead.web.app import make_app
from fairlead.web.chats.talker import Talker
from fairlead.web.dashboard import copies
from fairlead.web.dashboard.preparing import prepare_beside
from fairlead.web.place import Place
from fairlead.web.webhooks import Courier

KEEP_ALIVE_S = 75
"""A rater reads longer than the five seconds after which uvicorn would hang up; browsers and proxies keep a minute."""

SWITCH_S = 0.0001
"""How long a thread may go on while others wait. A vote gives the interpreter up at each of its twenty statements; with Python's 5 ms it would
wait so long each time while a page is made."""
GC_EVERY = (50_000, 20, 100)
"""Allocations before a collection, and collections before one of the older generations; by default the oldest, all of the libraries, are
walked through every few seconds, which takes some 50 ms."""


def run_server(
    database: Database,
    *,
    place: Place,
    secret_file: Path,
    allow_local_webhooks: bool = False,
    sampler: ReplySampler | None = None,
    gives_drafts: bool = False,
) -> None:
    """Serve, deliver to webhooks, and let the policy answer; requests that are running when it stops are finished.

    Args:
        sampler: the policy of live conversations.
        gives_drafts: people who write demonstrations may ask it for a draft.
    """
    secret = read_secret(secret_file)
    talker = Talker(database, sampler, gives_drafts=gives_drafts) if sampler else None
    app = make_app(database, place=place, secret=secret, allow_local_webhooks=allow_local_webhooks, talker=talker)
    courier = Courier(database, server_secret=secret, allow_local=allow_local_webhooks)
    with log_copied(database), counts_kept(database):
        courier.start()
        if talker:
            talker.wake()  # what was waiting when the server stopped
        copies.keep_in(database, secret_file.parent / "sheets")
        prepare_beside(database)
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_EVERY)
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
