"""The last figures of large projects in the database: a server that starts again shows them at once, with their age, while newer ones are made.

They hold names of raters, so that erasing a person forgets them all.

Example:
    remember(database, key, AgreementReading, value, began_ms=now_ms())
    recall(database, key, AgreementReading)      # (value, seconds since it was made), or None
"""

import contextlib
import functools
import json
from typing import Any

import numpy as np
import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import DBAPIError

from fairlead.core.errors import StoreError
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import IS_NO_VOTE, Event
from fairlead.store.annotation.totals import Reading
from fairlead.web.people import now_ms

ERASED = "person.erased"


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def remember(database: Database, project_id: str, name: str, kind: Any, value: Any, *, began_ms: int) -> None:
    """Put figures in the place of earlier ones. A database that does not take them costs the next start its time, and nobody else anything.

    Args:
        began_ms: when they were begun; names of who was erased since may stand in them, and then they are not stored.
    """
    body = json.dumps(_adapter(kind).dump_python(value), default=_plain)
    with contextlib.suppress(StoreError, DBAPIError), database.write() as rows:
        if database.is_sqlite:
            rows.execute(sa.text("PRAGMA secure_delete=ON"))  # what is replaced holds names
        erased = sa.select(Event.number).where(IS_NO_VOTE, Event.kind == ERASED, Event.at >= began_ms).limit(1)
        if rows.scalar(erased) is None:
            rows.merge(Reading(project_id=project_id, name=name, at=began_ms, body=body))


def recall(database: Database, project_id: str, name: str, kind: Any) -> tuple[Any, float] | None:
    """Figures and their age in seconds; None where there are none, or another version of Fairlead wrote others."""
    with database.read() as rows:
        found = rows.get(Reading, (project_id, name))
    if found is None:
        return None
    try:
        return _adapter(kind).validate_python(json.loads(found.body)), max(0.0, (now_ms() - found.at) / 1000)
    except ValidationError:
        return None


def _plain(value: Any) -> Any:
    assert isinstance(value, np.generic), f"{type(value).__name__} is no figure"
    return value.item()
