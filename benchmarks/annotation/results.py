"""Rows of benchmarks/results/annotation.json. There is no peer: the other column is the limit that the figure must keep."""

import datetime
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.annotation.serving import ROOT
from fairlead.core.io import read_json, write_json

RESULTS = Path(__file__).parents[1] / "results" / "annotation.json"


def loop_ms() -> float:
    """Milliseconds of a million turns of a plain loop, median of five: how fast this machine runs Python, to compare rows of several."""
    found: list[float] = []
    for _ in range(5):
        began, total = time.perf_counter(), 0
        for number in range(1_000_000):
            total += number
        found.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(found), 1)


def row(work: str, setting: str, unit: str, value: float, *, limit: float | None) -> dict[str, Any]:
    """One figure; `ratio` is value over limit."""
    spread = {"median": value, "min": value, "max": value}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "work": work, "setting": setting, "unit": unit, "ours": spread, "peer": None, "peer_version": None, "limit": limit,
        "ratio": None if not limit else round(value / limit, 3), "commit": commit, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def keep(rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of earlier ones of the same work and setting."""
    known = read_json(RESULTS) if RESULTS.exists() else []
    new = {(found["work"], found["setting"]): found for found in rows}
    kept = [new.pop((found["work"], found["setting"]), found) for found in known]
    write_json(RESULTS, [*kept, *new.values()])
