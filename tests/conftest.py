"""Shapes are checked at run time in tests, Hypothesis runs without deadlines, and a PostgreSQL server is there for who asks."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("fairlead.algos", "beartype.beartype")
settings.register_profile("fairlead", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("fairlead")

TOOLS = Path(__file__).parents[1] / "tools"
MakeDatabase = Callable[..., str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[MakeDatabase]:
    """Makes a database on a PostgreSQL server that this session started, removed when the session ends; returns its URL.

    Call it with `is_empty=True` for one without tables.
    """
    pytest.importorskip("pg8000", reason="the extra web is not installed")
    sys.path.insert(0, str(TOOLS))
    import postgres as programs

    if programs.programs() is None:
        message = "no PostgreSQL (apt-get install postgresql)"
        if "postgresql" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    from fairlead.store.annotation.database import open_database

    numbers = itertools.count()
    with programs.started(is_durable=False) as server:
        open_database(server.create("migrated")).close()

        def make(*, is_empty: bool = False) -> str:
            return server.create(f"test_{next(numbers)}", template="template0" if is_empty else "migrated")

        yield make


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database as `--db` names it: a file that is not there yet, then a PostgreSQL database."""
    return str(tmp_path / "votes.db") if request.param == "sqlite" else request.getfixturevalue("postgres")()
