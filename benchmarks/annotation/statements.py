"""How many statements a vote and its next item take: each costs the processor of a crowded server, and PostgreSQL an exchange of messages.

    python -m benchmarks.annotation.statements        # 2,000 pairs on SQLite, of which ten raters have voted on some; takes some seconds

Counted is what the database is given, each BEGIN among it, for the two requests that a page sends for an item: the verdict, and the item after
the next one, for the browser to keep ready. Who asks is looked up in both. A commit is no statement of its own.
"""

import argparse
import contextlib
import re
import secrets
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from starlette.testclient import TestClient

from benchmarks.annotation.results import keep, row
from benchmarks.annotation.serving import add_raters, made_pairs
from fairlead.store.annotation.database import Database, open_database
from fairlead.store.annotation.schema import Assignment
from fairlead.web import importing, people, projects, verdicts
from fairlead.web.answers import Submission
from fairlead.web.app import make_app
from fairlead.web.place import Place
from fairlead.web.policy import Actor
from fairlead.web.queue import next_assignment

NUM_PAIRS, NUM_RATERS, NUM_BEFORE = 2_000, 10, 40
NUM_WARM_UP = 3
"""Votes after which texts and statements are as in a server that runs for long."""
PLACE = Place.of(host="127.0.0.1", port=8643, url=None)


@contextlib.contextmanager
def told(database: Database) -> Iterator[list[str]]:
    """Statements of a block, as the database gets them."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)


def fill(database: Database, *, num_pairs: int, num_before: int) -> str:
    """A project with the votes of some raters; return its id."""
    project = projects.create_project(database, "statements", votes_per_item=3, calibration_items=0)
    importing.add_items(database, project.id, made_pairs(num_pairs))
    for person_id in add_raters(database, NUM_RATERS):
        actor = Actor(person_id=person_id, name="", role="rater")
        for number in range(num_before):
            given = next_assignment(database, actor, project.id)
            assert isinstance(given, Assignment), f"nothing to rate after {number} votes: {given}"
            sent = Submission(
                key=secrets.token_hex(16), choice="left" if number % 3 else "right", strength=1, guideline_version=1
            )
            verdicts.submit(database, actor, given.id, sent)
    return project.id


class Page:
    """What a rater's page sends: it has an item on the screen and the next one ready."""

    def __init__(self, database: Database, project_id: str) -> None:
        invite = people.make_invite(database, role="rater")
        session = people.accept_invite(database, invite, name="who is counted", password=secrets.token_hex(16))
        app = make_app(database, place=PLACE, secret=secrets.token_bytes(32), rate_per_s=1e6, burst=10**6)
        self._client = TestClient(app, base_url=PLACE.url, cookies={"fairlead": session}, headers={"origin": PLACE.url})
        self._project_id = project_id
        page = self._client.get(f"/p/{project_id}/rate").text
        self._csrf = _found(r'name="csrf" content="([^"]+)"', page)
        self._shown = _found(r'data-assignment="([^"]+)"', page)
        self._ready = self.fetch()

    def fetch(self) -> str:
        """The next item beside those that the page has."""
        answer = self._client.get(f"/p/{self._project_id}/next", params={"without": self._shown})
        return _found(r'data-assignment="([^"]+)"', answer.text)

    def send(self) -> None:
        """A vote on what is on the screen; what was ready takes its place."""
        form = {"csrf": self._csrf, "key": secrets.token_hex(16), "choice": "left2", "guideline_version": "1"}
        answer = self._client.post(f"/a/{self._shown}/verdict", data=form, headers={"accept": "application/json"})
        assert answer.status_code == 200, answer.text
        self._shown = self._ready

    def go_on(self) -> None:
        """Have another item ready."""
        self._ready = self.fetch()


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in {text[:200]}"
    return match[1]


def measure(num: int, *, num_pairs: int = NUM_PAIRS, num_before: int = NUM_BEFORE) -> list[tuple[int, int]]:
    """Statements of each vote and of each next item."""
    found: list[tuple[int, int]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_database(Path(folder) / "votes.db", is_durable=False) as database,
    ):
        page = Page(database, fill(database, num_pairs=num_pairs, num_before=num_before))
        for _ in range(NUM_WARM_UP + num):
            with told(database) as of_vote:
                page.send()
            with told(database) as of_next:
                page.go_on()
            found.append((len(of_vote), len(of_next)))
    return found[NUM_WARM_UP:]


def main() -> None:
    """Count, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=50, help="votes")
    num = parser.parse_args().num
    found = measure(num)
    setting = f"sqlite, {NUM_PAIRS:,} pairs, {NUM_RATERS * NUM_BEFORE:,} votes before; {num} votes of one rater"
    rows = []
    parts = {
        "a vote": [vote for vote, _ in found],
        "the next item": [after for _, after in found],
        "both": [sum(each) for each in found],
    }
    for name, counts in parts.items():
        median = statistics.median(counts)
        print(f"{name}: {median:g} statements ({min(counts)} to {max(counts)})")
        made = row(f"annotation: statements of {name}", setting, "statements", median, limit=None)
        rows.append({**made, "ours": {"median": median, "min": min(counts), "max": max(counts)}})
    keep(rows)


if __name__ == "__main__":
    main()
