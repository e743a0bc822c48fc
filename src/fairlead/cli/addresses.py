"""Where the server of a database was started last, for links that are printed without it: a line in a file beside the database.

    votes.db.address                            SQLite
    runs/annotate/postgresql-4f1c22d0.address   PostgreSQL, by its URL without user and password

Example:
    with remembered("votes.db", "https://rate.example.org"):
        run_server(...)
    last_address("votes.db")   # https://rate.example.org
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fairlead.core.io import write_text

DEFAULT_PORT = 8643
"""Where a server listens that is told nothing else."""


def last_address(db: str) -> str | None:
    """What raters typed when a server was started here last; None when none was."""
    file = _file_of(db)
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


@contextlib.contextmanager
def remembered(db: str, address: str) -> Iterator[None]:
    """Write it down while a server starts; a server that cannot start (SystemExit: the port is taken) leaves what stood there."""
    before, file = last_address(db), _file_of(db)
    write_text(file, f"{address}\n")
    try:
        yield
    except SystemExit:
        write_text(file, f"{before}\n") if before else file.unlink()
        raise


def _file_of(db: str) -> Path:
    if "://" not in db:
        return Path(f"{db}.address")
    parts = urlsplit(db)
    place = f"{parts.hostname}:{parts.port}{parts.path}"
    return Path(f"runs/annotate/postgresql-{hashlib.sha256(place.encode()).hexdigest()[:8]}.address")
