"""Erase a person: name, password, sessions, tokens and free text go, in place; votes stay under the pseudonym.

The one exception to "events are only ever added to" (decision 14), itself an event. What was written for the data set (edited replies,
demonstrations) stays as votes do; rationales, notes and reasons go, also those that came under the same name in files of other tools.
Copies made before still hold everything: erase in them too, or destroy them.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.outside import Token
from fairlead.store.annotation.schema import Assignment, Draft, Event, Failure, Flag, Person, Session, Verdict
from fairlead.store.annotation.totals import Reading
from fairlead.store.annotation.written import Demonstration, WritingTask
from fairlead.web.errors import missing
from fairlead.web.events import record
from fairlead.web.outside import erase_named

_FREE_TEXT = frozenset({"rationale", "note", "reason", "comment"})
"""Keys under which people write what they like, wherever in an event they stand."""
_BLANK = "[erased]"
"""In place of a note: an empty one means that a flag was taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was blanked."""

    pseudonym: str
    num_texts: int
    num_votes_kept: int


def erase_person(database: Database, person_id: str, *, by: str | None) -> Erased:
    """Erase, in one transaction; on SQLite the freed bytes are overwritten as well.

    Raises:
        Refused: the person is not there, or erased already.
    """
    with database.write() as rows:
        if database.is_sqlite:
            rows.execute(sa.text("PRAGMA secure_delete=ON"))
        person = rows.get(Person, person_id)
        if person is None or person.state == "erased":
            raise missing("This person")
        rows.execute(sa.delete(Failure).where(Failure.subject == f"account:{person.name.lower()}"))
        num_texts = erase_named(rows, person.name, blanked=_blanked) + _blank_events(rows, person_id)
        person.name, person.password_hash, person.state = _free_name(rows, person), "", "erased"
        _blank_derived(rows, person_id)
        rows.execute(sa.delete(Session).where(Session.person_id == person_id))
        rows.execute(sa.delete(Token).where(Token.person_id == person_id))
        rows.execute(sa.delete(Reading))
        own = sa.select(Assignment.id).where(Assignment.person_id == person_id)
        rows.execute(sa.delete(Draft).where(Draft.assignment_id.in_(own)))
        num_votes = rows.scalar(sa.select(sa.func.count()).select_from(Verdict).where(Verdict.person_id == person_id))
        record(rows, "person.erased", person_id=by, content={"person": person_id, "num_texts": num_texts})
        pseudonym = person.pseudonym
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return Erased(pseudonym=pseudonym, num_texts=num_texts, num_votes_kept=num_votes or 0)


def _free_name(rows: Rows, person: Person) -> str:
    name = f"erased {person.pseudonym}"
    is_taken = rows.scalar(sa.select(Person.id).where(sa.func.lower(Person.name) == name)) is not None
    return f"{name} {person.id}" if is_taken else name


def _blank_events(rows: Rows, person_id: str) -> int:
    num = 0
    for event in rows.scalars(sa.select(Event).where(Event.person_id == person_id)).all():
        content, num_here = _blanked(event.content)
        if num_here:
            event.content = content
            num += num_here
    return num


def _blanked(value: Any) -> tuple[Any, int]:
    """The same value without free text, and how many texts that were."""
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        num = 0
        for key, inner in value.items():
            if key in _FREE_TEXT and isinstance(inner, str):
                made[key] = (_BLANK if key == "note" else "") if inner else inner
                num += bool(inner)
            else:
                made[key], more = _blanked(inner)
                num += more
        return made, num
    if isinstance(value, list):
        parts = [_blanked(inner) for inner in value]
        return [part for part, _ in parts], sum(num for _, num in parts)
    return value, 0


def _blank_derived(rows: Rows, person_id: str) -> None:
    """The same in the tables that are derived from the events, so that a replay gives what is there."""
    rows.execute(sa.update(Decision).where(Decision.person_id == person_id).values(reason=""))
    rows.execute(sa.update(Verdict).where(Verdict.person_id == person_id).values(rationale=""))
    for verdict in rows.scalars(sa.select(Verdict).where(Verdict.person_id == person_id)):
        verdict.spans = _blanked(verdict.spans)[0]
    own = sa.select(Assignment.id).where(Assignment.person_id == person_id)
    rows.execute(sa.update(Flag).where(Flag.assignment_id.in_(own)).values(note=_BLANK))
    rows.execute(sa.update(Demonstration).where(Demonstration.reviewer_id == person_id).values(reason=""))
    rows.execute(sa.update(WritingTask).where(WritingTask.person_id == person_id).values(text=None))
