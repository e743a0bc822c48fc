"""Shapes are checked at run time in tests, Hypothesis runs without deadlines, and a PostgreSQL server is there for who asks."""

import gc
import itertools
import os
import random
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("fairlead.algos", "beartype.beartype")
# A slow machine is no fault of a test.
settings.register_profile(
    "fairlead", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fairlead")

SLOW_FOLDERS = ("web", "integration")
"""Their files take longest; with two workers they come first, so that none waits for the other at the end."""
TOOLS = Path(__file__).parents[1] / "tools"
MakeDatabase = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, one of each folder in turn: the worker in a browser does not wait for the first run of all."""
    slow, files = [Path(__file__).parent / name for name in SLOW_FOLDERS], dict[Path, list[Path]]()
    for path in dict.fromkeys(item.path for item in items if item.path.parent in slow):
        files.setdefault(path.parent, []).append(path)
    turn = {path: number for found in files.values() for number, path in enumerate(found)}
    items.sort(key=lambda item: turn.get(item.path, len(items)))


def pytest_collection_finish() -> None:
    """All that is there now stays to the end. A stage begins by collecting garbage, which would go through it every time: 0.7 s."""
    gc.collect()
    gc.freeze()


_DRAWN = random.Random()
random._urandom = _DRAWN.randbytes  # type: ignore[attr-defined]  # what `secrets` and SystemRandom read
"""Ids, orders and sides of the rating application are drawn from the system's generator: in a test, from one that can be begun again."""


def pytest_configure() -> None:
    """Another Python may draw elsewhere: then say so, rather than test with ids that nobody can draw again."""
    drawn = []
    for _ in range(2):
        _DRAWN.seed(0)
        drawn.append((secrets.token_hex(), secrets.choice(range(2**32)), secrets.SystemRandom().random()))
    assert drawn[0] == drawn[1]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The generators that all share begin alike in every test, whatever ran before it in this process.

    FAIRLEAD_TEST_SEED draws other ids, to look for tests that pass with some only.
    """
    random.seed(0)
    _DRAWN.seed(os.environ.get("FAIRLEAD_TEST_SEED", "0") + item.nodeid)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


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
    # The launcher of autovacuum would visit hundreds of databases in turn, one every tenth of a second.
    with programs.started(is_durable=False, settings=("autovacuum=off",)) as server:
        open_database(server.create("migrated")).close()

        def make(*, is_empty: bool = False) -> str:
            return server.create(f"test_{next(numbers)}", template="template0" if is_empty else "migrated")

        yield make


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables and nothing in them, to be copied: making the tables takes longer than most tests."""
    from fairlead.store.annotation.database import open_database

    path = tmp_path_factory.mktemp("migrated") / "votes.db"
    open_database(path).close()
    return path


@pytest.fixture
def votes_db(migrated: Path, tmp_path: Path) -> Path:
    """A new SQLite database."""
    return Path(shutil.copy(migrated, tmp_path / "votes.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest) -> str:
    """A new database as `--db` names it: an SQLite file, then a PostgreSQL database."""
    return str(
        request.getfixturevalue("votes_db") if request.param == "sqlite" else request.getfixturevalue("postgres")()
    )
