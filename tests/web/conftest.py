# ruff: noqa: E402 - what is imported is on the path first
"""A server with people and items on a free port, and the system's Chromium."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "unit" / "web")]

import annotation_pages
import argon2
import screenshots
from served import Served

from fairlead.store.annotation.database import open_database
from fairlead.web import people


def _browser(**options: Any) -> Any:
    missing = [str(path) for path in (screenshots.CHROMIUM, screenshots.DRIVER) if not path.exists()]
    if missing:
        message = f"no browser: {', '.join(missing)} missing (apt-get install chromium chromium-driver)"
        if "browser" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    return screenshots.browser(**options)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A browser for the tests of one file."""
    with _browser() as started:
        started.set_script_timeout(20)
        yield started


@pytest.fixture(scope="module")
def watched() -> Iterator[Any]:
    """A browser that keeps every request, for the tests of one file."""
    with _browser(log_network=True) as started:
        started.set_script_timeout(20)
        yield started


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with a project in the middle of its work: its address and the ids that the paths of the pages name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        with open_database(tmp_path_factory.mktemp("filled") / "votes.db", is_durable=False) as database:
            ids = annotation_pages.fill(database)
            with annotation_pages.serve(database) as url:
                yield url, ids


@pytest.fixture
def served(votes_db: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A running application with a new database."""
    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    with open_database(votes_db, is_durable=False) as database, annotation_pages.serve(database) as url:
        yield Served(database=database, url=url)
