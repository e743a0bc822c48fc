"""`fairlead annotate token`, `tokens`, `revoke` and `audit`: made, listed, ended, and on record."""

import json

import pytest

pytest.importorskip("sqlalchemy", reason="the extra web is not installed")

from typer.testing import CliRunner

from fairlead.cli.main import app
from fairlead.core.errors import DataError
from fairlead.store.annotation.database import open_database
from fairlead.web import people, tokens


def fairlead(*words):
    return CliRunner().invoke(app, ["annotate", *map(str, words)])


@pytest.fixture
def db(tmp_path):
    with open_database(tmp_path / "votes.db") as database:
        people.accept_invite(
            database, people.make_invite(database, role="rater"), name="Ann", password="a long password"
        )
    return tmp_path / "votes.db"


def test_a_token_is_made_listed_revoked_and_on_record(db):
    secret = fairlead("token", "Ann", "--scope", "rate", "--for", "a script", "--db", db).output.strip()
    with open_database(db) as database:
        access = tokens.access_of(database, secret)
        assert access is not None and (access.actor.name, access.scope) == ("Ann", "rate")
    listed = fairlead("tokens", "--db", db, "--json").output
    assert secret not in listed and json.loads(listed)["tokens"][0] | {"until": ""} == {
        "token": secret[: tokens.PREFIX_LENGTH], "owner": "Ann", "for": "a script", "scope": "rate", "state": "good", "until": "",
    }  # fmt: skip
    assert "Revoked" in fairlead("revoke", secret, "--db", db).output
    assert "revoked" in fairlead("tokens", "--db", db).output
    with open_database(db) as database:
        assert tokens.access_of(database, secret) is None
    log = fairlead("audit", "--kind", "token.", "--db", db).output
    assert log.count("token.made") == log.count("token.revoked") == 1 and secret not in log
    kinds = [row["kind"] for row in json.loads(fairlead("audit", "--db", db, "--json").output)["events"]]
    assert kinds == ["token.revoked", "token.made", "person.joined", "person.invited"]


def test_what_is_not_there_is_named(db):
    with pytest.raises(DataError, match="person=Bob is not there"):
        raise fairlead("token", "Bob", "--db", db).exception
    with pytest.raises(DataError, match="List them"):
        raise fairlead("revoke", "fairlead_zzz", "--db", db).exception
