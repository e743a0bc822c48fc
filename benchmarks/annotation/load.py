"""200 raters at once on 2 cores, on both databases: how long a submission takes, how soon the next item is there, and where it saturates.

    python -m benchmarks.annotation.load                          # both databases, think time 5 s and 0; writes benchmarks/results/annotation.json
    python -m benchmarks.annotation.load --databases sqlite --thinks 5 --seconds 30 --no-results

Server, raters (`raters.py`) and PostgreSQL share the machine, whose pace a row tells: `loop_ms`, a million turns of a plain Python loop.
A cell takes the time of its window and half a minute for arriving.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.annotation import results
from benchmarks.annotation.serving import DATABASES, PLACE, ROOT, database_url, free_port, prepare, serve

LIMITS = {"submit": 50.0, "ready": 100.0}  # milliseconds, 99th percentile
NUM_ITEMS = 20_000


def main() -> None:
    """Measure the cells that are asked for and keep their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--thinks", nargs="+", type=float, default=[5.0, 0.0], help="mean think times in seconds")
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    parser.add_argument("--no-results", action="store_true")
    args = parser.parse_args()
    for kind in args.databases:
        with database_url(kind, PLACE / "load") as (url, _):
            project = prepare(url, num_items=args.items, num_raters=args.raters)
            for think in args.thinks:
                found = cell(url, project, raters=args.raters, think=think, seconds=args.seconds)
                print(kind, f"think {think} s", json.dumps(found), flush=True)
                if not args.no_results:
                    results.keep(rows_of(kind, think, args.raters, found))


def cell(url: str, project: str, *, raters: int, think: float, seconds: float) -> dict[str, Any]:
    """One server, one crowd."""
    loop_ms = results.loop_ms()
    serving = serve(url, port=free_port(), home=PLACE / "load-home")
    command = [sys.executable, "-m", "benchmarks.annotation.raters", "--url", serving.url, "--project", project,
               "--raters", str(raters), "--think", str(think), "--seconds", str(seconds)]  # fmt: skip
    try:
        began, cpu = time.monotonic(), serving.cpu_s()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        spent = {
            "loop_ms": loop_ms,
            "server_cpu_s": round(serving.cpu_s() - cpu, 1),
            "wall_s": round(time.monotonic() - began, 1),
        }
        return {**json.loads(done.stdout), **spent, "server_mb": serving.memory_mb()}
    finally:
        serving.end()


def rows_of(kind: str, think: float, raters: int, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of results; at think time 0 there is no limit, only a rate."""
    setting = f"{kind}, {raters} raters, mean think time {think:g} s; raters, server and database on 2 cores"
    facts = {
        "n": found["ms"]["submit"]["n"],
        "told": found["told"],
        "server_cpu_s": found["server_cpu_s"],
        "wall_s": found["wall_s"],
        "loop_ms": found["loop_ms"],
    }
    memory = {"memory_mb": {"ours": found["server_mb"], "peer": None}}
    if not think:
        rate = results.row(
            "annotation: verdicts at saturation", setting, "verdicts/s", found["per_s"]["submit"], limit=None
        )
        return [{**rate, **facts, **memory, "ms": found["ms"]}]
    return [
        {**results.row(f"annotation: {name}, 99th percentile", setting, "ms", found["ms"][name]["p99"], limit=limit), **facts,
         **memory, "ms": found["ms"][name]}
        for name, limit in LIMITS.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
