"""A million verdicts: how long each of the lead's pages takes, and what the server, a rebuild and an export need of memory.

    python -m benchmarks.annotation.million --make          # fill million.db in benchmarks/.work/annotation or --place; kept for later runs
    python -m benchmarks.annotation.million                 # measure on it; writes benchmarks/results/annotation.json
    python -m benchmarks.annotation.million --db postgresql://user@host/empty --make       # in a database of one's own; then without --make

200 raters, five votes an item. Events go in as rows; all else is derived from them by `rebuild`, as after any migration. Raters differ in how often
they see the better reply, so that the figures look like those of people.
"""

import argparse
import asyncio
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.annotation import results
from benchmarks.annotation.raters import PASSWORD
from benchmarks.annotation.serving import PLACE, ROOT, WORDS, add_raters, free_port, serve
from benchmarks.annotation.wire import Answer, Connection
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database, Rows, open_database
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Project, Table, Verdict
from fairlead.store.annotation.totals import Reading
from fairlead.web import exporting, importing, people, projects, verdicts
from fairlead.web.audit import read_audit
from fairlead.web.dashboard.keeping import MAX_AGE_S
from fairlead.web.importing import NewItem
from fairlead.web.status import all_statuses
from fairlead.web.steering import rater_of
from fairlead.web.steering_status import steering_statuses
from fairlead.web.tokens import make_token

FILE = "million.db"
NUM_VERDICTS, VOTES, NUM_RATERS = 1_000_000, 5, 200
DAYS = 60
CHUNK = 20_000
PAGES = {
    "overview": "/p/{}", "agreement": "/p/{}/agreement", "raters": "/p/{}/raters", "calibration": "/p/{}/calibration",
    "disagreements": "/p/{}/disagreements", "disagreements, no majority": "/p/{}/disagreements?kind=no_majority&sort=votes",
    "disagreements, left against right": "/p/{}/disagreements?kind=sides&sort=newest&page=900",
    "disagreements, all of a slice": "/p/{}/disagreements?state=all&use=production&sort=oldest&part=source%09hh",
    "disagreements, flagged": "/p/{}/disagreements?flagged=true", "labels": "/p/{}/labels", "costs": "/p/{}/costs",
    "history": "/p/{}/guideline/history", "assignment": "/p/{}/steering", "skills": "/p/{}/skills", "people": "/people",
    "agreement over the API": "/api/v1/projects/{}/agreement", "raters over the API": "/api/v1/projects/{}/raters",
    "labels over the API": "/api/v1/projects/{}/labels", "costs over the API": "/api/v1/projects/{}/costs",
    "disagreements over the API": "/api/v1/projects/{}/disagreements", "watched over the API": "/api/v1/projects/{}/watched",
}  # fmt: skip
"""Every page and figure of the lead, by what it reads; `{}` is the project."""
PARTS = ("pages", "status", "rebuild", "export")
LIMIT_MS = 1_000.0
SETTING = "{:,} verdicts on {:,} items by 200 raters, {}, 2 cores"
LOOKS = 5


def main() -> None:
    """Fill, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--verdicts", type=int, default=NUM_VERDICTS)
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of million.db and of what the server keeps")
    parser.add_argument("--db", help="URL of a PostgreSQL database, in place of million.db")
    parser.add_argument("--no-results", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    parser.add_argument("--step", choices=PARTS[1:], help="one of the steps, in a process of its own")
    args = parser.parse_args()
    place = args.place.absolute()
    db = args.db or str(place / FILE)
    if args.step:
        print(json.dumps(step(args.step, db)))
        return
    if args.make:
        place.mkdir(parents=True, exist_ok=True)
        for ending in ("", "-wal", "-shm") if not args.db else ():
            place.joinpath(FILE + ending).unlink(missing_ok=True)
        print(json.dumps(fill(db, args.verdicts)))
        return
    setting = setting_of(db)
    for part in args.parts:
        found = starts(db, place) if part == "pages" else measured(part, db)
        print(part, json.dumps(found), flush=True)
        if not args.no_results:
            results.keep(rows_of_pages(found, setting) if part == "pages" else [row_of_step(part, found, setting)])


def setting_of(db: str) -> str:
    """What was measured on."""
    with open_database(db) as database, database.read() as rows:
        sizes = (rows.scalar(sa.select(sa.func.count()).select_from(table)) for table in (Verdict, Item))
        return SETTING.format(*sizes, database.engine.dialect.name)


def size_mb(db: str) -> int:
    """Of the database, on disk."""
    with open_database(db) as database, database.read() as rows:
        if database.is_sqlite:
            return Path(db).stat().st_size // 2**20
        return (rows.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0) // 2**20


def fill(db: str, num_verdicts: int) -> dict[str, float]:
    """Make the database; return the seconds of each part."""
    draw, took, start = random.Random(0), {}, time.monotonic()
    with open_database(db) as database:
        project = projects.create_project(database, "million", votes_per_item=VOTES, calibration_items=0)
        raters = add_raters(database, NUM_RATERS)
        for first in range(0, num_verdicts // VOTES, CHUNK):
            importing.add_items(
                database, project.id, made_pairs(first, min(CHUNK, num_verdicts // VOTES - first), draw)
            )
        took["items_s"] = time.monotonic() - start
        with database.read() as rows:
            items = list(rows.execute(sa.select(Item.id).order_by(Item.rank)).scalars())
        put_votes(database, project, items, raters, draw)
        took["events_s"] = time.monotonic() - start - took["items_s"]
        verdicts.rebuild(database)
        took["rebuild_s"] = time.monotonic() - start - took["items_s"] - took["events_s"]
    return {name: round(seconds, 1) for name, seconds in took.items()}


def made_pairs(first: int, num: int, draw: random.Random) -> list[NewItem]:
    """Short texts of three sources."""
    made: list[NewItem] = []
    for number in range(first, first + num):
        asked = (Message(role="user", content=f"{number}: {' '.join(draw.choices(WORDS, k=12))}"),)
        prompt = Prompt(messages=asked, source=("hh", "web", "own")[number % 3])
        texts = (f"{' '.join(draw.choices(WORDS, k=draw.randrange(10, 60)))} {i}" for i in range(2))
        replies = [Completion(prompt_id=prompt.id, text=text, model="made") for text in texts]
        made.append(NewItem.of(prompt, replies))
    return made


def put_votes(database: Database, project: Project, items: Sequence[str], raters: Sequence[str], draw: random.Random) -> None:  # fmt: skip
    """Assignments and events, in the order of their times."""
    begin, gap = people.now_ms() - DAYS * 86_400_000, DAYS * 86_400_000 / (len(items) * VOTES)
    positions, skill = dict.fromkeys(raters, 0), {rater: draw.uniform(0.6, 0.9) for rater in raters}

    def votes() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        number = 0
        for item in items:
            a_is_better, is_clear = draw.random() < 0.5, draw.random()
            for rater in draw.sample(raters, VOTES):
                own, shown = people.new_id(), draw.choice(("01", "10"))
                is_right = draw.random() < 0.5 + (skill[rater] - 0.5) * 2 * is_clear
                is_left = (a_is_better == is_right) == (shown == "01")
                kind = draw.random()
                choice = "skip" if kind < 0.01 else "left" if is_left else "right"
                at = int(begin + number * gap)
                yield (
                    {"id": own, "project_id": project.id, "item_id": item, "person_id": rater, "shown": shown, "position": positions[rater],
                     "state": "open", "leased_until": at},
                    {"at": at, "kind": "verdict.submitted", "person_id": rater, "project_id": project.id, "assignment_id": own,
                     "key": f"{rater}:{number:016d}", "content": content_of(choice, draw)},
                )  # fmt: skip
                positions[rater] += 1
                number += 1

    pending: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for vote in votes():
        pending.append(vote)
        if len(pending) == CHUNK:
            put(database, pending)
            pending = []
    put(database, pending)
    with database.write() as rows:
        for rater in raters:
            row = rater_of(rows, project.id, rater)
            row.num_given = row.num_production = row.items_since = positions[rater]


def content_of(choice: str, draw: random.Random) -> dict[str, Any]:
    """As a submission is stored."""
    is_skip = choice == "skip"
    return {
        "choice": choice, "guideline_version": 1, "strength": 0 if is_skip else draw.randrange(1, 4), "rationale": "",
        "skip_reason": "unclear" if is_skip else "", "active_ms": int(draw.lognormvariate(10.3, 0.6)), "first_key_ms": None,
    }  # fmt: skip


def put(database: Database, votes: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """One transaction."""
    if votes:
        with database.write() as rows:
            insert(rows, Assignment, [assignment for assignment, _ in votes])
            insert(rows, Event, [event for _, event in votes])


def insert(rows: Rows, table: type[Table], values: list[dict[str, Any]]) -> None:
    """Without asking for the numbers that the database gives."""
    rows.connection().execute(sa.insert(table.__table__), values)  # pyright: ignore[reportArgumentType] - a Table, as its base says


def measured(name: str, db: str) -> dict[str, float]:
    """A step in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.annotation.million", "--step", name, "--db", db]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout)


def step(name: str, db: str) -> dict[str, float]:
    """What `annotate status` and `annotate audit --kind token.` read, a rebuild, or an export; seconds and the largest memory."""
    start = time.monotonic()
    with open_database(db) as database:
        if name == "rebuild":
            verdicts.rebuild(database)
        elif name == "status":
            all_statuses(database)
            steering_statuses(database)
            read_audit(database, kind="token.")
        else:
            with database.read() as rows:
                project_id = rows.scalars(sa.select(Project.id)).one()
            with tempfile.TemporaryFile() as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                exporting.write_archive(archive, database, project_id)
    return {
        "s": round(time.monotonic() - start, 2),
        "cpu_s": round(time.process_time(), 2),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def starts(db: str, place: Path) -> dict[str, Any]:
    """Pages after the first start on this database, which reads all votes, and after the next one, which reads what changed since."""
    for copies in list(place.rglob("sheets")):  # beside the file, or of PostgreSQL beside the server's key
        shutil.rmtree(copies)
    with open_database(db) as database, database.write() as rows:
        rows.execute(sa.delete(Reading))
    first = asyncio.run(look(db, place))
    time.sleep(MAX_AGE_S)  # figures that are younger are not made anew
    return {"first_start": first, **asyncio.run(look(db, place))}


async def look(db: str, place: Path) -> dict[str, Any]:
    """Start the server, and look at each page: at once, and when its figures are there."""
    loop_ms = results.loop_ms()
    port, started = free_port(), time.monotonic()
    serving = serve(db, port=port, home=place / "million-home")
    try:
        with open_database(db, migrate=False) as database, database.read() as rows:
            project_id = rows.scalars(sa.select(Project.id)).one()
            assert rows.scalar(sa.select(sa.func.count()).select_from(Person)) == NUM_RATERS + 1
            person = rows.scalars(sa.select(Person).where(Person.role == "admin")).one()
        with open_database(db, migrate=False) as database:
            who = people.Actor(person_id=person.id, name=person.name, role="admin")
            secret = make_token(database, who, name=f"pages {people.new_id()}", scope="lead", num_days=1).secret
        lead = Lead(port, secret)
        await lead.log_in()
        first = {name: await lead.time(path.format(project_id)) for name, path in PAGES.items()}
        while not await lead.sees_new(project_id, started):
            await asyncio.sleep(1.0)
        ready_s, cpu_s = time.monotonic() - started, serving.cpu_s()
        looks = [{name: await lead.time(path.format(project_id)) for name, path in PAGES.items()} for _ in range(LOOKS)]
        return {
            "first": {name: {"status": status, "ms": round(1000 * seconds)} for name, (status, seconds) in first.items()},
            "ready_s": round(ready_s, 1), "ms": {name: sorted(round(1000 * found[name][1]) for found in looks) for name in PAGES},
            "server_mb": serving.memory_mb(), "server_cpu_s": round(cpu_s, 1), "loop_ms": loop_ms, "file_mb": size_mb(db),
        }  # fmt: skip
    finally:
        serving.end()


class Lead:
    """Somebody who may see everything."""

    def __init__(self, port: int, token: str) -> None:
        self._token = token
        self._wire = Connection("127.0.0.1", port, source="127.0.0.1")
        self._cookies: dict[str, str] = {}

    async def log_in(self) -> None:
        """Through the form."""
        page = await self._get("/login")
        token = re.search(r'name="csrf" content="([^"]+)"', page.text)
        assert token is not None, f"no login page: {page.status}"
        form = {"csrf": token[1], "name": "lead", "password": PASSWORD}
        answer = await self._wire.request("POST", "/login", cookies=self._cookies, form=form)
        assert answer.status == 303, f"login: {answer.status}"
        self._cookies |= {name: value for name, value in answer.cookies.items() if value}

    async def _get(self, path: str) -> Answer:
        is_api = path.startswith("/api/")
        headers = {"authorization": f"Bearer {self._token}"} if is_api else None
        answer = await self._wire.request("GET", path, cookies={} if is_api else self._cookies, headers=headers)
        self._cookies |= {name: value for name, value in answer.cookies.items() if value}
        return answer

    async def sees_new(self, project_id: str, since: float) -> bool:
        """Are there figures everywhere that were made since a time?"""
        if any([(await self._get(PAGES[name].format(project_id))).status != 200 for name in PAGES]):
            return False
        found = [
            json.loads((await self._get(PAGES[f"{name} over the API"].format(project_id))).text)
            for name in ("agreement", "raters", "labels")
        ]
        return all(each["age_s"] < time.monotonic() - since for each in found)

    async def time(self, path: str) -> tuple[int, float]:
        """Status and seconds of a page."""
        began = time.monotonic()
        answer = await self._get(path)
        return answer.status, time.monotonic() - began


def rows_of_pages(found: dict[str, Any], setting: str) -> list[dict[str, Any]]:
    """A row a page, held against the limit by its slowest look, and how long after a start all figures are new."""
    rows: list[dict[str, Any]] = []
    for name, looks in found["ms"].items():
        first = [found["first_start"]["first"][name], found["first"][name]]
        slowest = max(*looks, *(look["ms"] for look in first))
        row = results.row(f"annotation: page of a million verdicts, {name}", setting, "ms", slowest, limit=LIMIT_MS)
        spread = {"median": looks[len(looks) // 2], "min": looks[0], "max": slowest}
        rows.append({**row, "ours": spread, "looks": looks, "first_looks": first, "loop_ms": found["loop_ms"]})
    for name, run in (("the first start", found["first_start"]), ("a later start", found)):
        memory = {
            "memory_mb": {"ours": run["server_mb"], "peer": None},
            "file_mb": run["file_mb"],
            "loop_ms": run["loop_ms"],
        }
        row = results.row(
            f"annotation: all figures of a million verdicts made anew after {name}",
            setting,
            "s",
            run["ready_s"],
            limit=None,
        )
        rows.append({**row, **memory, "server_cpu_s": run["server_cpu_s"]})
    return rows


def row_of_step(name: str, found: dict[str, Any], setting: str) -> dict[str, Any]:
    """Seconds and memory."""
    row = results.row(f"annotation: {name} of a million verdicts", setting, "s", found["s"], limit=None)
    return {
        **row,
        "memory_mb": {"ours": found["memory_mb"], "peer": None},
        "cpu_s": found["cpu_s"],
        "loop_ms": results.loop_ms(),
    }


if __name__ == "__main__":
    main()
