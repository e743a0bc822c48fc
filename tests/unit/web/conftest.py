"""Databases, people and items for tests of the rating application."""

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("sqlalchemy", reason="the extra web is not installed")

from starlette.testclient import TestClient
from web_browser import PLACE, Browser
from web_example import pairs

from fairlead.store.annotation.database import Database, open_database
from fairlead.store.annotation.schema import Project
from fairlead.web import importing, people, projects, tokens
from fairlead.web.app import make_app
from fairlead.web.policy import Actor


@pytest.fixture
def database(db: str) -> Iterator[Database]:
    """A new database, on SQLite and on PostgreSQL."""
    with open_database(db, is_durable=False) as opened:
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
    importing.add_items(database, made.id, pairs(12))
    return made


@pytest.fixture
def app(database):
    return make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)


@pytest.fixture
def browser(app, join) -> Iterator:
    """Make and log in people of a role."""

    def made(name="ann", role="rater"):
        join(name, role)
        return Browser(app).log_in(name)

    return made


@pytest.fixture
def program(app, database):
    """A client with a token of an actor."""

    def made(actor=None, scope="lead"):
        client = TestClient(app, base_url=f"{PLACE.url}/api/v1/", follow_redirects=False)
        if actor is not None:
            secret = tokens.make_token(database, actor, name="test", scope=scope, num_days=1).secret
            client.headers["authorization"] = f"Bearer {secret}"
        return client

    return made
