# ruff: noqa: E402 - what is imported is on the path first
"""A server with people and items on a free port, and the system's Chromium."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "unit" / "web")]

import argon2
import screenshots
import uvicorn
from served import Served

from fairlead.store.annotation.database import open_database
from fairlead.web import people
from fairlead.web.app import make_app
from fairlead.web.place import Place


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A browser for the tests of one file."""
    missing = [str(path) for path in (screenshots.CHROMIUM, screenshots.DRIVER) if not path.exists()]
    if missing:
        message = f"no browser: {', '.join(missing)} missing (apt-get install chromium chromium-driver)"
        if "browser" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    with screenshots.browser() as started:
        started.set_script_timeout(20)
        yield started


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A running application with a new database."""
    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_database(tmp_path / "votes.db") as database:
        place = Place.of(host="127.0.0.1", port=port, url=None)
        app = make_app(database, place=place, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield Served(database=database, url=place.url)
        server.should_exit = True
        thread.join()
