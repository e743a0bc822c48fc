"""The one way to add an event."""

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.schema import Event, copy_of, table_of
from fairlead.web.errors import Refused, invalid
from fairlead.web.outbox import put_event

_ADD = sa.insert(table_of(Event))
_KEYED = sa.select(table_of(Event)).where(table_of(Event).c.key == sa.bindparam("key"))


def check_key(key: str) -> None:
    """Refuse what is no key of a submission."""
    if not 8 <= len(key) <= 64 or not key.isascii() or not key.replace("-", "").isalnum():
        raise invalid("The submission has no proper key. Load the page again and send it once more.")


def full_key(person_id: str | None, key: str) -> str:
    """As events keep it: two people may have the same."""
    return f"{person_id}:{key}"


def find_keyed(rows: Rows, person_id: str, key: str) -> Event | None:
    """The event of a submission of this person, if it was made before."""
    found = run(rows, _KEYED, {"key": full_key(person_id, key)}).one_or_none()
    return None if found is None else copy_of(Event, found)


def repeated(
    rows: Rows, person_id: str, key: str, *, kind: str, project_id: str | None = None, said: Mapping[str, Any]
) -> Event | None:
    """The event that this submission made before; None for the first time.

    Args:
        said: what the submission says of the event's content; the rest was drawn when it was made.
    Raises:
        Refused: the key is none, or was used for something else.
    """
    check_key(key)
    found = find_keyed(rows, person_id, key)
    if found is None:
        return None
    is_same = (found.kind, found.project_id) == (kind, project_id) and all(
        found.content.get(name) == value for name, value in said.items()
    )
    if not is_same:
        raise Refused(409, "key_used", "This key was used for another submission. Load the page again.")
    return found


def record(
    rows: Rows, kind: str, *, person_id: str | None, content: dict[str, Any], project_id: str | None = None,
    assignment_id: str | None = None, key: str | None = None,
) -> Event:  # fmt: skip
    """Add an event in the running transaction and number it.

    Args:
        key: of the submission, unique for the person; a second event with it fails.
    """
    values = {
        "at": time.time_ns() // 1_000_000, "kind": kind, "person_id": person_id, "project_id": project_id, "assignment_id": assignment_id,
        "key": None if key is None else full_key(person_id, key), "content": content,
    }  # fmt: skip
    rows.flush()  # what the event names
    made = run(rows, _ADD, values).inserted_primary_key
    assert made is not None, "the database numbers events"
    event = Event(number=made[0], **values)
    put_event(rows, event)
    return event
