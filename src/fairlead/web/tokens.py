"""Tokens: what a program shows in place of a password. Made on a page or the command line, shown once, kept as hashes.

scope       what a program may do with it
read        whatever its owner may look at; changes nothing
rate        rate and write as its owner
adjudicate  decide disagreements as well
lead        what its owner may do as a lead; an admin's powers are never in a token

Example:
    made = make_token(database, actor, name="nightly export", scope="read", num_days=90)
    access = access_of(database, made.secret)      # None once it is revoked or expired, or its owner disabled
"""

import secrets
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.outside import Token
from fairlead.store.annotation.schema import Person
from fairlead.web import policy
from fairlead.web.errors import invalid, missing
from fairlead.web.events import record
from fairlead.web.people import hashed, new_id, now_ms
from fairlead.web.policy import ROLES, Actor, Role, Scope

MARK = "fairlead_"
"""Every token begins with it, so that scanners of repositories and logs find one that leaked."""
PREFIX_LENGTH = len(MARK) + 6
MAX_DAYS = 366
MAX_TOKENS = 50
"""Of one person that are good at the same time."""
_DAY_MS, _HOUR_MS = 24 * 3600 * 1000, 3600 * 1000
_HIGHEST: dict[str, Role] = {"read": "lead", "rate": "rater", "adjudicate": "adjudicator", "lead": "lead"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks through a token, and how far."""

    actor: Actor
    scope: Scope
    token_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new token: the only time that its secret is seen."""

    token: Token
    secret: str


def make_token(database: Database, actor: Actor, *, name: str, scope: str, num_days: int) -> Made:
    """Make one for the actor.

    Raises:
        Refused: a scope beyond the role, no name, too long, or too many.
    """
    policy.may_make_token(actor, scope)
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise invalid("The name of the token is empty or too long. Say in 1 to 80 characters what it is for.")
    if not 1 <= num_days <= MAX_DAYS:
        raise invalid(f"A token is good for 1 to {MAX_DAYS} days. Choose a number between.")
    secret, now = MARK + secrets.token_urlsafe(32), now_ms()
    with database.write() as rows:
        is_good = (Token.person_id == actor.person_id, Token.revoked_at.is_(None), Token.expires_at > now)
        if (rows.scalar(sa.select(sa.func.count()).select_from(Token).where(*is_good)) or 0) >= MAX_TOKENS:
            raise invalid(f"You have {MAX_TOKENS} tokens. Revoke one first.")
        token = Token(id=new_id(), person_id=actor.person_id, name=name, prefix=secret[:PREFIX_LENGTH], secret_hash=hashed(secret), scope=scope,
                      created_at=now, expires_at=now + num_days * _DAY_MS, revoked_at=None, used_at=None)  # fmt: skip
        rows.add(token)
        record(rows, "token.made", person_id=actor.person_id, content={"token": token.id, "prefix": token.prefix, "scope": scope})  # fmt: skip
    return Made(token=token, secret=secret)


def revoke_token(database: Database, token_id: str, *, by: Actor | None) -> None:
    """End a token of one's own; an admin and the command line (None) end anybody's.

    Raises:
        Refused: it is not there, or somebody else's.
    """
    with database.write() as rows:
        token = rows.get(Token, token_id)
        is_others = token is not None and by is not None and token.person_id != by.person_id and by.role != "admin"
        if token is None or is_others:
            raise missing("This token")
        if token.revoked_at is None:
            token.revoked_at = now_ms()
            who = None if by is None else by.person_id
            record(rows, "token.revoked", person_id=who, content={"token": token.id, "prefix": token.prefix})


def list_tokens(database: Database, actor: Actor | None) -> list[tuple[Token, str]]:
    """Tokens with their owners' names, newest first; of one person, or of all."""
    with database.read() as rows:
        found = sa.select(Token, Person.name).join(Person, Person.id == Token.person_id).order_by(Token.created_at.desc(), Token.id)  # fmt: skip
        return [
            (row[0], row[1])
            for row in rows.execute(found if actor is None else found.where(Token.person_id == actor.person_id))
        ]


def access_of(database: Database, secret: str) -> Access | None:
    """Who a token stands for now: its owner, no higher than scope and role allow."""
    if not secret.startswith(MARK):
        return None
    now = now_ms()
    with database.read() as rows:
        found = rows.execute(
            sa.select(Token, Person).join(Person, Person.id == Token.person_id)
            .where(Token.secret_hash == hashed(secret), Token.revoked_at.is_(None), Token.expires_at > now, Person.state == "active")
        ).one_or_none()  # fmt: skip
    if found is None:
        return None
    token, person = found
    if token.used_at is None or now - token.used_at > _HOUR_MS:
        with database.write() as rows:
            rows.execute(sa.update(Token).where(Token.id == token.id).values(used_at=now))
    role = cast(Role, min(person.role, _HIGHEST[token.scope], key=[*ROLES].index))
    return Access(actor=Actor(person_id=person.id, name=person.name, role=role), scope=cast(Scope, token.scope), token_id=token.id)  # fmt: skip
