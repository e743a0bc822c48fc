"""When the storage does not take something: told from faults of our own, in words for the person who waits. Nothing was stored then."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from fairlead.core.errors import StoreError

FULL, BUSY, GONE = "the disk is full", "the database is busy", "the database cannot be reached"
_BY_STATE = {"53100": FULL, "55P03": BUSY, "40001": BUSY, "40P01": BUSY, "53300": BUSY}
_BY_WORDS = {"full": FULL, "locked": BUSY, "busy": BUSY, "unable to open": GONE, "disk I/O": GONE, "readonly": GONE}
"""As SQLite says it."""
_GONE_CLASSES = ("08", "53", "57", "58")
"""Of PostgreSQL's SQLSTATE: connection, resources, an operator's intervention, the system."""


class WriterBusy(StoreError):
    """Another write of this process takes longer than anybody should wait."""


def storage_fault(error: Exception) -> str | None:
    """FULL, BUSY or GONE; None where the statement itself was wrong."""
    if isinstance(error, WriterBusy):
        return BUSY
    if not isinstance(error, DBAPIError):
        return None
    details: Any = error.orig.args[0] if error.orig is not None and error.orig.args else ""
    if isinstance(details, Mapping):  # as pg8000 has it
        state = str(cast("Mapping[str, str]", details).get("C", ""))
        return _BY_STATE.get(state) or (GONE if state[:2] in _GONE_CLASSES else None)
    if isinstance(error, InterfaceError) or error.connection_invalidated:
        return GONE
    if not isinstance(error, OperationalError):
        return None
    return next((fault for words, fault in _BY_WORDS.items() if words in str(details)), None)
