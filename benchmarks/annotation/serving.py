"""A database with people and items, and `fairlead annotate serve` on it, in a process of its own, on SQLite or PostgreSQL."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from benchmarks.annotation.raters import PASSWORD
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database, open_database
from fairlead.store.annotation.schema import Person
from fairlead.web import importing, people, projects
from fairlead.web.importing import NewItem

ROOT = Path(__file__).parents[2]
PLACE = Path(__file__).parents[1] / ".work" / "annotation"
sys.path.insert(0, str(ROOT / "tools"))
import postgres  # noqa: E402

DATABASES = ("sqlite", "postgresql")
WORDS = tuple(
    f"{start}{middle}{end}"
    for middle in ("a", "o", "er", "ar")
    for start in "bcdfgklmnprst"
    for end in ("n", "t", "ble", "st", "ver", "ding", "l", "se")
)
SHARES = tuple(1 / (1 + rank) for rank in range(len(WORDS)))  # as words are used


def made_text(draw: random.Random, *, median_words: int) -> str:
    """Markdown of a length as replies have it: paragraphs, now and then a list or code."""
    parts: list[str] = []
    left = max(5, int(draw.lognormvariate(0, 0.6) * median_words))
    while left > 0:
        size = min(left, draw.randrange(10, 60))
        text = " ".join(draw.choices(WORDS, SHARES, k=size))
        kind = draw.random()
        if kind < 0.15:
            text = "\n".join(f"- {line}" for line in (text[i : i + 60] for i in range(0, len(text), 60)))
        elif kind < 0.25:
            text = f"```python\nfor item in range({size}):\n    print(item)  # {text[:40]}\n```"
        elif kind < 0.35:
            text = f"**{text[:20]}** {text} $x^2 + {size}$"
        parts.append(text)
        left -= size
    return "\n\n".join(parts)


def made_pairs(num: int, *, seed: int = 0) -> list[NewItem]:
    """Prompts of some thirty words with two replies of some hundred and fifty."""
    draw = random.Random(seed)
    made: list[NewItem] = []
    for number in range(num):
        prompt = Prompt(messages=(Message(role="user", content=f"{number}: {made_text(draw, median_words=30)}"),))
        replies = [
            Completion(prompt_id=prompt.id, text=f"{made_text(draw, median_words=150)} {i}", model="made")
            for i in range(2)
        ]
        made.append(NewItem.of(prompt, replies))
    return made


@contextlib.contextmanager
def database_url(kind: str, folder: Path) -> Iterator[tuple[str, "postgres.Server | None"]]:
    """A new, empty database that syncs every commit."""
    if kind == "sqlite":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield str(folder / "votes.db"), None
        return
    with postgres.started(is_durable=True) as server:
        yield server.create("votes"), server


def prepare(url: str, *, num_items: int, num_raters: int, votes_per_item: int = 3) -> str:
    """Put people and items in; return the id of the project."""
    with open_database(url) as database:
        project = projects.create_project(database, "load", votes_per_item=votes_per_item, calibration_items=0)
        importing.add_items(database, project.id, made_pairs(num_items))
        add_raters(database, num_raters)
        return project.id


def add_raters(database: Database, num: int) -> list[str]:
    """People who can log in; the password is hashed once for all of them."""
    first = people.accept_invite(database, people.make_invite(database, role="admin"), name="lead", password=PASSWORD)
    actor = people.actor_of(database, first)
    assert actor is not None
    with database.write() as rows:
        lead = rows.get(Person, actor.person_id)
        assert lead is not None
        found = [
            {"id": people.new_id(), "name": f"rater {i}", "pseudonym": f"rater-{i + 2:03d}", "password_hash": lead.password_hash,
             "role": "rater", "state": "active", "created_at": people.now_ms()}
            for i in range(num)
        ]  # fmt: skip
        rows.execute(sa.insert(Person), found)
    return [row["id"] for row in found]


@dataclass(slots=True)
class Serving:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> int:
        """Resident at most, so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    def end(self, number: int = signal.SIGTERM) -> None:
        """Stop or kill it."""
        self.process.send_signal(number)
        self.process.wait()


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(db: str, *, port: int, home: Path, prefix: tuple[str, ...] = ()) -> Serving:
    """Start the command and wait until it answers."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "FAIRLEAD_HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    command = [*prefix, sys.executable, "-m", "fairlead.cli.main", "annotate", "serve", "--db", db, "--port", str(port)]
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    serving = Serving(f"http://127.0.0.1:{port}", process)
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{serving.url}/login", timeout=5).close()
            return serving
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start:\n{(home / 'server.log').read_text()[-2000:]}") from None
            time.sleep(0.02)
