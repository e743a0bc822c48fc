"""What the commands around access do."""

import dataclasses
import datetime
from typing import Any, cast

import sqlalchemy as sa

from fairlead.cli import terminal
from fairlead.cli.annotating import existing
from fairlead.cli.running import as_data
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import some
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.outside import Token
from fairlead.store.annotation.schema import Person
from fairlead.web import audit, erasing, people, tokens
from fairlead.web.policy import Actor, Role


def print_token(db: str, *, person: str, scope: str, num_days: int, label: str) -> None:
    """Make one; only its secret goes to the output, so that it can be put into a variable."""
    with existing(db) as database:
        made = tokens.make_token(database, actor_named(database, person), name=label, scope=scope, num_days=num_days)
    terminal.say(made.secret)


def actor_named(database: Database, name: str) -> Actor:
    """Somebody who may log in, by name."""
    with database.read() as rows:
        found = rows.scalar(sa.select(Person).where(Person.name == " ".join(name.split()), Person.state == "active"))
    if found is None:
        raise DataError(explain("person", name, "is not there or disabled", expected="the name of an account",
                                remedy="Invite first: fairlead annotate invite"))  # fmt: skip
    return Actor(person_id=found.id, name=found.name, role=cast(Role, found.role))


def show_tokens(db: str, *, as_json: bool) -> None:
    """All, newest first."""
    with existing(db) as database:
        found = tokens.list_tokens(database, None)
    rows: list[dict[str, Any]] = [
        {"token": token.prefix, "owner": owner, "for": token.name, "scope": token.scope, "state": _state(token), "until": _day(token.expires_at)}
        for token, owner in found
    ]  # fmt: skip
    if as_json:
        terminal.say(as_data({"tokens": rows}))
        return
    for row in rows:
        terminal.say(f"{row['token']}...  {row['scope']}  {row['owner']}: {row['for']}, {row['state']}, until {row['until']}")  # fmt: skip
    if not rows:
        terminal.say("No tokens.")
    terminal.say("Next: fairlead annotate revoke TOKEN")


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at < people.now_ms() else "good"


def _day(ms: int) -> str:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).date().isoformat()


def end_token(db: str, prefix: str) -> None:
    """Revoke by its first characters; by all of them too."""
    prefix = prefix.rstrip(".")[: tokens.PREFIX_LENGTH]
    with existing(db) as database:
        found = [token for token, _ in tokens.list_tokens(database, None) if token.prefix == prefix]
        if not found:
            raise DataError(explain("token", prefix, "is not there", expected="the first characters of a token",
                                    remedy="List them: fairlead annotate tokens"))  # fmt: skip
        for token in found:
            tokens.revoke_token(database, token.id, by=None)
    terminal.say(f"Revoked: {prefix}")


def show_audit(db: str, *, kind: str, count: int, as_json: bool) -> None:
    """Newest first."""
    with existing(db) as database:
        found = audit.read_audit(database, kind=kind, num_rows=count)
    if as_json:
        terminal.say(as_data({"events": [dataclasses.asdict(entry) for entry in found]}))
        return
    for entry in found:
        when = datetime.datetime.fromtimestamp(entry.at / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        facts = ", ".join(f"{name} {value}" for name, value in entry.facts.items())
        parts = (str(entry.number), when, entry.who or "command line", entry.kind, entry.project, facts)
        terminal.say("  ".join(part for part in parts if part))


def erase_named(db: str, *, person: str, is_sure: bool) -> None:
    """Erase one person, disabled ones too."""
    with existing(db) as database:
        with database.read() as rows:
            name = " ".join(person.split())
            found = rows.scalar(sa.select(Person).where(Person.name == name, Person.state != "erased"))
        if found is None:
            raise DataError(
                explain(
                    "person",
                    person,
                    "is not there",
                    expected="the name of an account",
                    remedy="Look on the page People",
                )
            )
        if not is_sure:
            terminal.say(f"{found.name} ({found.pseudonym}) would be erased for good: name, password, tokens and free text; votes stay.")  # fmt: skip
            terminal.say(f"Next: fairlead annotate erase '{found.name}' --yes")
            return
        done = erasing.erase_person(database, found.id, by=None)
    terminal.say(
        f"Erased: {done.pseudonym}, {some(done.num_texts, 'text')}; "
        f"{some(done.num_votes_kept, 'vote stays', 'votes stay')}. Backups made before still hold them."
    )
