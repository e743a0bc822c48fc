"""Start a PostgreSQL server of one's own: for the tests, and for the benchmarks of the rating application.

Needs the programs of the system (Debian: `apt-get install postgresql`). The server lives in a folder of its own below the system's temporary
folder, listens on a socket in it and on no port, and is gone with the block. PostgreSQL refuses to run as root, so root starts it as
`postgres` or `nobody`.

Example:
    with started(is_durable=False) as server:
        open_database(server.create("votes"))
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pg8000.native

USER = "fairlead"
PORT = 5432  # names the socket only
START_S = 30.0
FOLDERS = "/usr/lib/postgresql"  # where Debian keeps a folder a version


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`: the newest of Debian's, or the one on the path."""
    found = sorted(Path(FOLDERS).glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _identity() -> dict[str, Any]:
    """Arguments of Popen: somebody other than root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            person = pwd.getpwnam(name)
            return {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
    raise SystemExit("PostgreSQL does not run as root, and there is no user postgres or nobody")


@dataclass(slots=True, kw_only=True)
class Server:
    """A server that can be stopped, killed and started again on the same data."""

    folder: Path
    bin: Path
    settings: tuple[str, ...]
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def socket(self) -> str:
        """Where it listens."""
        return str(self.folder / f".s.PGSQL.{PORT}")

    def url(self, name: str) -> str:
        """A database of it, as `--db` takes it."""
        return f"postgresql://{USER}@/{name}?unix_sock={self.socket}"

    def run(self, sql: str) -> list[Any]:
        """One statement outside of a transaction, beside all databases."""
        connection = pg8000.native.Connection(USER, unix_sock=self.socket, database="postgres")
        try:
            return connection.run(sql)
        finally:
            connection.close()

    def create(self, name: str, *, template: str = "template0") -> str:
        """Make a database; return its URL."""
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database with all connections to it."""
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        """Run it; returns when it answers."""
        settings = [word for setting in self.settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.folder / "data", "-k", self.folder, "-p", str(PORT), "-c", "listen_addresses=", *settings],
                cwd=self.folder, stdout=log, stderr=log, **_identity(),
            )  # fmt: skip
        self.process = process
        end = time.monotonic() + START_S
        while True:
            try:
                self.run("SELECT 1")
                return
            except (pg8000.native.InterfaceError, pg8000.native.DatabaseError):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(
                        f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}"
                    ) from None
                time.sleep(0.05)

    def end(self, number: int) -> None:
        """SIGINT stops it, SIGQUIT at once; after SIGKILL its processes end by themselves."""
        assert self.process is not None, "it is not running"
        self.process.send_signal(number)
        self.process.wait()


@contextlib.contextmanager
def started(*, is_durable: bool, settings: tuple[str, ...] = ()) -> Iterator[Server]:
    """A new server.

    Args:
        is_durable: commits are on disk, as everywhere but in tests.
        settings: of postgresql.conf, as `name=value`.
    """
    found = programs()
    if found is None:
        raise SystemExit("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-postgres-"))
    who = _identity()
    try:
        if who:
            os.chown(folder, who["user"], who["group"])
        command = [
            found / "initdb",
            "-D",
            folder / "data",
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **who)
        if done.returncode:
            raise SystemExit(f"initdb failed:\n{done.stderr[-2000:]}")
        risky = () if is_durable else ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        server = Server(folder=folder, bin=found, settings=(*risky, "max_connections=100", *settings))
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.end(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
