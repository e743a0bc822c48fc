"""Kill the server at random moments while raters vote, start it again, and look: every acknowledged verdict is there, once.

    python -m benchmarks.annotation.kills                                  # 100 kills on SQLite and 100 on PostgreSQL, or what is left of them
    python -m benchmarks.annotation.kills --max-kills 20                   # some of it; exit status 75 while more are left
    python -m benchmarks.annotation.kills --databases postgresql-server    # PostgreSQL itself is killed, all its processes at once

Raters (`raters.py`, think time 0.1 s) go on through every kill: what was not acknowledged is sent again with its key, as the outbox of the page
does. A key is written to a journal the moment its acknowledgement arrives. After each kill the database is opened and every key of the journal
must name exactly one event, every event of a key exactly one verdict, and the verdict must say what the event says. Each kill is a line of
benchmarks/.work/annotation/kills.jsonl; a run that is stopped goes on where it was, on a new database.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.annotation import results
from benchmarks.annotation.serving import PLACE, ROOT, database_url, free_port, postgres, prepare, serve
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.schema import Assignment, Event, Verdict

KILLS = {"sqlite": 100, "postgresql": 100, "postgresql-server": 25}
KEPT = PLACE / "kills.jsonl"
MORE_LEFT = 75
NUM_RATERS, THINK_S = 20, 0.1
LONGEST_S = 4.0  # from the server's first answer to the kill
NUM_ITEMS = 6_000


def main() -> None:
    """Kill what is left, then write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=KILLS, default=["sqlite", "postgresql"])
    parser.add_argument("--max-kills", type=int, help="so many now at most")
    parser.add_argument("--fresh", action="store_true", help="forget the kills that are there")
    parser.add_argument("--no-results", action="store_true")
    args = parser.parse_args()
    if args.fresh:
        KEPT.unlink(missing_ok=True)
    left = args.max_kills if args.max_kills is not None else sum(KILLS.values())
    for kind in args.databases:
        wanted = min(left, KILLS[kind] - len(kept(kind)))
        if wanted > 0:
            left -= wanted
            kill_some(kind, wanted)
        if kept(kind) and not args.no_results:
            results.keep([row_of(kind)])
    is_whole = all(len(kept(kind)) >= KILLS[kind] for kind in args.databases)
    bad = [
        found for kind in args.databases for found in kept(kind) if found["lost"] or found["twice"] or found["wrong"]
    ]
    sys.exit(1 if bad else 0 if is_whole else MORE_LEFT)


def kept(kind: str) -> list[dict[str, Any]]:
    """Kills of a kind so far."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return [found for line in lines if (found := json.loads(line))["database"] == kind]


def kill_some(kind: str, num: int) -> None:
    """One database, one crowd, so many kills."""
    folder = PLACE / "kills"
    with database_url(kind.removesuffix("-server"), folder) as (url, server):
        project = prepare(url, num_items=NUM_ITEMS, num_raters=NUM_RATERS, votes_per_item=NUM_RATERS)
        journal, port = PLACE / "journal", free_port()
        journal.unlink(missing_ok=True)
        serving = serve(url, port=port, home=PLACE / "kills-home")
        command = [sys.executable, "-m", "benchmarks.annotation.raters", "--url", serving.url, "--project", project, "--raters", str(NUM_RATERS),
                   "--think", str(THINK_S), "--seconds", "100000", "--journal", str(journal)]  # fmt: skip
        crowd = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            while not journal.exists() or not journal.stat().st_size:
                time.sleep(0.05)
            for _ in range(num):
                before = len(journal.read_text().split())
                after_s = random.uniform(0.0, LONGEST_S)
                time.sleep(after_s)
                if kind == "postgresql-server":
                    assert server is not None
                    kill_postgres(server)
                    server.start()
                else:
                    serving.end(signal.SIGKILL)
                    serving = serve(url, port=port, home=PLACE / "kills-home")
                found = look(url, journal)
                line = {
                    "database": kind,
                    "after_s": round(after_s, 3),
                    "acknowledged_since": found.pop("acknowledged") - before,
                    **found,
                }
                with KEPT.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)
        finally:
            crowd.kill()
            crowd.wait()
            serving.end(signal.SIGKILL)


def kill_postgres(server: "postgres.Server") -> None:
    """All processes at once, as when the machine stops; what the system had not synced is still in its cache, so this is no power cut."""
    assert server.process is not None
    own = server.process.pid
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _parent(path) == own]
    for process in (own, *found):
        subprocess.run(["kill", "-KILL", str(process)], check=False, stderr=subprocess.DEVNULL)
    server.process.wait()


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:  # it has ended
        return 0


def look(url: str, journal: Path) -> dict[str, int]:
    """Hold the database against the journal, which is read first: what is acknowledged later may be there as well."""
    acknowledged = journal.read_text().split()
    with open_database(url) as database, database.read() as rows:
        submitted = rows.execute(
            sa.select(Event.key, Event.assignment_id, Event.number, Event.content).where(Event.kind == "verdict.submitted").order_by(Event.number)
        ).all()  # fmt: skip
        stored = {row.assignment_id: row for row in rows.scalars(sa.select(Verdict))}
        done = set(rows.scalars(sa.select(Assignment.id).where(Assignment.state == "done")))
    keys = Counter(row.key.split(":")[1] for row in submitted)
    newest = {row.assignment_id: row for row in submitted}
    wrong = sum(
        found is None or found.event_number != event.number or abs(found.strength) != event.content["strength"]
        for event in newest.values()
        for found in [stored.get(event.assignment_id)]
    )
    return {
        "acknowledged": len(acknowledged), "lost": sum(key not in keys for key in acknowledged),
        "twice": sum(num > 1 for num in keys.values()) + len(acknowledged) - len(set(acknowledged)),
        "wrong": wrong + len(done ^ stored.keys()), "stored": len(stored),
    }  # fmt: skip


def row_of(kind: str) -> dict[str, Any]:
    """Lost, duplicated and contradicted verdicts over all kills: the limit is none."""
    found = kept(kind)
    bad = sum(row["lost"] + row["twice"] + row["wrong"] for row in found)
    what = "PostgreSQL itself killed" if kind == "postgresql-server" else f"the server killed, {kind}"
    made = results.row(
        "annotation: acknowledged verdicts lost or stored twice",
        f"{what}; {len(found)} kills under load",
        "verdicts",
        bad,
        limit=0,
    )
    return {**made, "kills": len(found), "acknowledged_between_kills": sum(row["acknowledged_since"] for row in found)}


if __name__ == "__main__":
    main()
