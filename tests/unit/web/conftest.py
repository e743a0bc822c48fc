"""Databases, people and items for tests of the rating application."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra web is not installed")

from web_example import pairs

from fairlead.store.annotation.database import Database, open_database
from fairlead.store.annotation.schema import Assignment, Project
from fairlead.web import importing, people, projects, queue
from fairlead.web.policy import Actor
from fairlead.web.verdicts import Submission


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new database; on PostgreSQL where FAIRLEAD_TEST_POSTGRES names a server, else SQLite."""
    with open_database(os.environ.get("FAIRLEAD_TEST_POSTGRES") or tmp_path / "votes.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _fast_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2 at its lowest cost: hundreds of accounts are made in tests."""
    import argon2

    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


Join = Callable[..., Actor]


@pytest.fixture
def join(database: Database) -> Join:
    """Let a person in."""

    def joined(name: str, role: str = "rater") -> Actor:
        secret = people.accept_invite(
            database, people.make_invite(database, role=role), name=name, password="a long password"
        )
        actor = people.actor_of(database, secret)
        assert actor is not None
        return actor

    return joined


@pytest.fixture
def project(database: Database) -> Project:
    """Twelve pairs, two votes each, no calibration, ties and both bad allowed."""
    rules = projects.Rules(ties="allowed", both_bad=True)
    made = projects.create_project(database, "test", votes_per_item=2, calibration_items=0, rules=rules)
    importing.add_pairs(database, made.id, pairs(12))
    return made


def take(database: Database, actor: Actor, project: Project) -> Assignment:
    """The next item of a rater."""
    found = queue.next_assignment(database, actor, project.id)
    assert isinstance(found, Assignment), found
    return found


def vote(choice: str = "left", **changes) -> Submission:
    """A submission with a key of its own."""
    strength = 2 if choice in ("left", "right") else 0
    reason = "unclear" if choice == "skip" else ""
    values = {
        "key": secrets.token_hex(16),
        "choice": choice,
        "strength": strength,
        "skip_reason": reason,
        "guideline_version": 1,
    }
    return Submission(**{**values, **changes})
