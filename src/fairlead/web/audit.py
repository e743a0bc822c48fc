"""Who did what: the events, newest first, with the texts left out that only the person and the lead of a project should read."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import IS_NO_VOTE, SUBMITTED, Event, Person, Project
from fairlead.web.errors import invalid

MAX_ROWS = 500
_SHOWN = frozenset({"role", "person", "by", "token", "prefix", "scope", "version", "name", "items", "num", "num_right", "event", "webhook", "url",
                    "source", "votes", "format", "num_events", "state",
                    "round", "kind", "position", "since", "extra", "alarm", "answer", "votes_per_item"})  # fmt: skip
"""Keys of an event's content that the log shows: facts, no free text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event."""

    number: int
    at: int
    """Milliseconds since 1970."""
    kind: str
    who: str
    """Name, or empty for the command line."""
    project: str
    facts: dict[str, Any]


def read_audit(database: Database, *, before: int | None = None, kind: str = "", num_rows: int = 100) -> list[Entry]:
    """Entries, newest first.

    Args:
        before: only those with a smaller number, for the next page.
        kind: what the kind begins with, e.g. `token.`; all when empty.
    """
    if not 1 <= num_rows <= MAX_ROWS:
        raise invalid(f"limit is {num_rows}. Ask for 1 to {MAX_ROWS} rows.")
    found = (
        sa.select(Event, Person.name, Project.name).outerjoin(Person, Person.id == Event.person_id)
        .outerjoin(Project, Project.id == Event.project_id).order_by(Event.number.desc()).limit(num_rows)
    )  # fmt: skip
    if before is not None:
        found = found.where(Event.number < before)
    if kind:
        found = found.where(Event.kind.startswith(kind, autoescape=True))
        if not SUBMITTED.startswith(kind):
            found = found.where(IS_NO_VOTE)
    with database.read() as rows:
        return [
            Entry(number=event.number, at=event.at, kind=event.kind, who=who or "", project=project or "",
                  facts={key: value for key, value in event.content.items() if key in _SHOWN})
            for event, who, project in rows.execute(found)
        ]  # fmt: skip
