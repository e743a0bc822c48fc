"""The one way to add an event."""

import time
from typing import Any

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Event
from fairlead.web.outbox import put_event


def record(
    rows: Rows, kind: str, *, person_id: str | None, content: dict[str, Any], project_id: str | None = None,
    assignment_id: str | None = None, key: str | None = None,
) -> Event:  # fmt: skip
    """Add an event in the running transaction and number it.

    Args:
        key: of the submission, unique for the person; a second event with it fails.
    """
    event = Event(
        at=time.time_ns() // 1_000_000, kind=kind, person_id=person_id, project_id=project_id, assignment_id=assignment_id,
        key=None if key is None else f"{person_id}:{key}", content=content,
    )  # fmt: skip
    rows.add(event)
    rows.flush()
    put_event(rows, event)
    return event
