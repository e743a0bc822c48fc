"""People: invites, accounts, logins, sessions, and the growing delay after failed logins.

Secrets (invite links, session cookies) are random and kept as SHA-256 only; passwords as argon2id.
"""

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from typing import cast

import argon2
import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Failure, Invite, Person, Session
from fairlead.web.abilities import set_abilities_in
from fairlead.web.errors import Refused, invalid
from fairlead.web.events import record, repeated
from fairlead.web.policy import ROLES, Actor, Role

INVITED = "person.invited"
INVITE_MS = 7 * 24 * 3600 * 1000
SESSION_MS = 14 * 24 * 3600 * 1000
MIN_PASSWORD, MAX_PASSWORD = 10, 200  # characters; NIST SP 800-63B asks for at least 8
FREE_FAILURES = 5
"""Failed logins of an account or address before the first delay."""
MAX_DELAY_MS = 15 * 60 * 1000
_HASHER = argon2.PasswordHasher()
_HASHING = threading.BoundedSemaphore(2)
"""A hash takes 64 MiB and a core for some 50 ms: forty logins at once would take 2.5 GB, and the cores from everybody who votes."""
_NO_ONE = _HASHER.hash(secrets.token_hex(16))  # verified for unknown names, so that they take as long as known ones

_WHO = (
    sa.select(Person.id, Person.name, Person.role).join(Session, Session.person_id == Person.id)
    .where(Session.secret_hash == sa.bindparam("secret_hash"), Session.expires_at > sa.bindparam("now"), Person.state == "active")
)  # fmt: skip
"""Asked by every request, so made once."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """An id that says nothing and cannot be guessed."""
    return secrets.token_urlsafe(12)


def hashed(secret: str) -> str:
    """What is kept of a random secret; it has 256 bits, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def has_lead(database: Database) -> bool:
    """Is there anybody who can run a project?"""
    with database.read() as rows:
        return rows.scalar(sa.select(Person.id).where(Person.role.in_(("lead", "admin")), Person.state == "active").limit(1)) is not None  # fmt: skip


def make_invite(
    database: Database, *, role: str, by: str | None = None, abilities: Sequence[str] = (), keyed: tuple[str, bytes] | None = None
) -> str:  # fmt: skip
    """Return the secret of a link that lets one person in within seven days.

    Args:
        abilities: languages and skills that the person then has, as `needs.abilities_from` gives them.
        keyed: key of the submission, and the server's secret, from which that of the link is made: the same key again is the same link,
            though only its hash is stored. None where nothing is sent twice; then the secret is drawn.
    """
    if role not in ROLES:
        raise invalid(f"{role} is not a role. Choose one of {', '.join(ROLES)}.")
    secret = secrets.token_urlsafe(32) if keyed is None else _invite_secret(keyed[1], f"{by}:{keyed[0]}")
    content = {"role": role, "abilities": list(abilities)}
    now = now_ms()
    with database.write() as rows:
        if (
            keyed is not None
            and by is not None
            and repeated(rows, by, keyed[0], kind=INVITED, said=content) is not None
        ):
            return secret
        rows.add(Invite(secret_hash=hashed(secret), role=role, created_by=by, created_at=now, expires_at=now + INVITE_MS, used_at=None,
                        abilities=list(abilities)))  # fmt: skip
        record(rows, INVITED, person_id=by, key=keyed[0] if keyed else None, content=content)
    return secret


def _invite_secret(server_secret: bytes, submission: str) -> str:
    made = hmac.new(server_secret, f"invite:{submission}".encode(), "sha256").digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def find_invite(rows: Rows, secret: str) -> Invite:
    """The invite of a link.

    Raises:
        Refused: unknown, used or expired; the answer is the same.
    """
    invite = rows.get(Invite, hashed(secret))
    if invite is None or invite.used_at is not None or invite.expires_at < now_ms():
        raise Refused(404, "missing", "This invitation is used or has expired. Ask the lead for a new one.")
    return invite


def accept_invite(database: Database, secret: str, *, name: str, password: str, before: str | None = None) -> str:
    """Make an account and log it in; return the secret of its session. The session `before` of this browser ends."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise invalid("The name is empty or too long. Choose one of 1 to 80 characters.")
    _check_password(password)
    password_hash = _hash(password)
    with database.write() as rows:
        invite = find_invite(rows, secret)
        if rows.scalar(sa.select(Person.id).where(sa.func.lower(Person.name) == name.lower())) is not None:
            raise invalid("Somebody has this name already. Choose another.")
        number = (rows.scalar(sa.select(sa.func.count()).select_from(Person)) or 0) + 1
        person = Person(id=new_id(), name=name, pseudonym=f"rater-{number:03d}", password_hash=password_hash, role=invite.role,
                        state="active", created_at=now_ms())  # fmt: skip
        rows.add(person)
        rows.flush()
        invite.used_at = now_ms()
        record(rows, "person.joined", person_id=person.id, content={"role": person.role})
        if invite.abilities:
            set_abilities_in(rows, person.id, invite.abilities, by=invite.created_by)
        return _open_session(rows, person.id, before=before)


def _check_password(password: str) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise invalid(f"The password is too short or too long. Choose {MIN_PASSWORD} to {MAX_PASSWORD} characters.")


def log_in(database: Database, *, name: str, password: str, address: str, before: str | None = None) -> str:
    """Check a password; return the secret of a new session.

    Sessions elsewhere go on: a person may rate at two places, and ends them all by logging out everywhere.

    Args:
        before: the session that this browser had, whoever's it is; it ends, so that no secret from before the login is worth anything.
    Raises:
        Refused: wrong name or password (one answer for both), or too many failures lately.
    """
    name = "".join(character for character in name if character.isprintable())
    subjects = (f"account:{' '.join(name.split()).lower()[:80]}", f"address:{address[:60]}")
    with database.read() as rows:
        person = rows.scalar(sa.select(Person).where(sa.func.lower(Person.name) == " ".join(name.split()).lower()))
        until = rows.scalar(sa.select(sa.func.max(Failure.until)).where(Failure.subject.in_(subjects))) or 0
    if until > now_ms():
        wait = (until - now_ms()) // 1000 + 1
        raise Refused(429, "too_many", f"Too many failed logins. Try again in {wait} seconds.")
    is_right = _verify(person.password_hash if person else _NO_ONE, password[:MAX_PASSWORD])
    if person is None or not is_right or person.state != "active":
        with database.write() as rows:
            for subject in subjects:
                _count_failure(rows, subject)
        raise Refused(401, "login", "Name or password is wrong. Try again, or ask the lead for a new invitation.")
    with database.write() as rows:
        rows.execute(sa.delete(Failure).where(Failure.subject == subjects[0]))
        record(rows, "person.logged_in", person_id=person.id, content={})
        return _open_session(rows, person.id, before=before)


def _hash(password: str) -> str:
    with _HASHING:
        return _HASHER.hash(password)


def _verify(password_hash: str, password: str) -> bool:
    try:
        with _HASHING:
            return _HASHER.verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _count_failure(rows: Rows, subject: str) -> None:
    """The delay doubles with each failure beyond the free ones: 1 s, 2 s, 4 s, ... up to 15 minutes."""
    failure = rows.get(Failure, subject)
    if failure is None:
        failure = Failure(subject=subject, count=0, until=0)
        rows.add(failure)
    failure.count += 1
    beyond = failure.count - FREE_FAILURES
    failure.until = now_ms() + min(MAX_DELAY_MS, 1000 * 2 ** min(beyond, 20)) if beyond >= 0 else 0


def _open_session(rows: Rows, person_id: str, *, before: str | None) -> str:
    secret = secrets.token_urlsafe(32)
    now = now_ms()
    rows.execute(sa.delete(Session).where(Session.expires_at < now))
    if before:
        rows.execute(sa.delete(Session).where(Session.secret_hash == hashed(before)))
    rows.add(Session(secret_hash=hashed(secret), person_id=person_id, created_at=now, expires_at=now + SESSION_MS))
    return secret


def actor_of(database: Database, session_secret: str | None) -> Actor | None:
    """Who is logged in with this cookie."""
    if not session_secret:
        return None
    found = database.ask(_WHO, {"secret_hash": hashed(session_secret), "now": now_ms()})
    return Actor(person_id=found[0].id, name=found[0].name, role=cast(Role, found[0].role)) if found else None


def log_out(database: Database, session_secret: str, *, everywhere: bool = False) -> None:
    """End this session, or all of its person."""
    with database.write() as rows:
        session = rows.get(Session, hashed(session_secret))
        if session is not None and everywhere:
            rows.execute(sa.delete(Session).where(Session.person_id == session.person_id))
        elif session is not None:
            rows.delete(session)


def set_state(database: Database, person_id: str, *, state: str, by: str | None) -> None:
    """Disable a person (sessions end at once) or let them in again."""
    with database.write() as rows:
        person = rows.get(Person, person_id)
        if person is None or person.state == "erased" or state not in ("active", "disabled"):
            raise invalid("This person cannot be changed. Choose another.")
        person.state = state
        if state == "disabled":
            rows.execute(sa.delete(Session).where(Session.person_id == person_id))
        record(rows, f"person.{state}", person_id=by, content={"person": person_id})
