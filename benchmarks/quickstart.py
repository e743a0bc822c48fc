"""Run the quickstart over seeds and write benchmarks/results/quickstart.json: time, peak memory, and what it achieved.

    python benchmarks/quickstart.py [--seeds 0 1 2]

Nothing else should run on the machine. Each seed runs in a fresh home folder and a fresh process, as a user's would; memory is the
peak of the process tree. There is no peer: no other tool runs this loop.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from fairlead.core.io import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "quickstart.json"


def tree_memory(process: psutil.Process) -> float:
    """Resident memory of a process and its children, MB."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return total


def run_once(home: Path, seed: int) -> dict:
    """One quickstart; returns seconds, peak memory, and the evaluation."""
    command = [sys.executable, "-m", "fairlead.cli.main", "quickstart", "--set", f"seed={seed}"]
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        command, env={**os.environ, "FAIRLEAD_HOME": str(home)}, stdout=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, tree_memory(watched))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    reader.join()
    if process.returncode:
        sys.exit(f"seed {seed} ended with status {process.returncode}:\n{''.join(lines)}")
    record = read_json(home / "quickstart" / "run.json")
    stages = record["stages"]
    evaluation = read_json(home / "artifacts" / "evaluation" / stages["evals"]["artifact"] / "evaluation.json")
    facts = {
        name: read_json(next((home / "artifacts").glob(f"*/{stages[name]['artifact']}/summary.json")))
        for name in ("preferences", "rewards")
    }
    return {"seconds": time.monotonic() - started, "memory_mb": peak, "evaluation": evaluation, "facts": facts,
            "stage_seconds": {name: round(row["seconds"], 1) for name, row in stages.items()}}  # fmt: skip


def rows_of(runs: dict[int, dict], commit: str, date: str) -> list[dict]:
    """Rows in the project's benchmark form; ratios need a peer and stay empty."""

    def row(work: str, setting: str, unit: str, values: list[float], **more: object) -> dict:
        spread = {
            "median": round(statistics.median(values), 4),
            "min": round(min(values), 4),
            "max": round(max(values), 4),
        }
        memory = {"ours": round(max(run["memory_mb"] for run in runs.values())), "peer": None}
        return {"work": work, "setting": setting, "unit": unit, "ours": spread, "peer": None, "peer_version": None, "ratio": None,
                "memory_mb": memory, "commit": commit, "date": date, **more}  # fmt: skip

    seeds = f"seeds {', '.join(map(str, runs))}; {os.cpu_count()} cores"
    found = [
        row(
            "quickstart",
            seeds,
            "s",
            [run["seconds"] for run in runs.values()],
            stages=[run["stage_seconds"] for run in runs.values()],
        )
    ]
    for name in ("single_vote_accuracy", "aggregated_accuracy"):
        values = [run["facts"]["preferences"]["facts"][name] for run in runs.values()]
        found.append(row(f"quickstart: {name.replace('_', ' ')} on gold", seeds, "share", [float(v) for v in values]))
    found.append(
        row(
            "quickstart: reward model held out",
            seeds,
            "share",
            [run["facts"]["rewards"]["facts"]["accuracy"] for run in runs.values()],
        )
    )
    for policy in sorted(r["policy"] for r in next(iter(runs.values()))["evaluation"]["ranking"]):
        picked = [next(r for r in run["evaluation"]["ranking"] if r["policy"] == policy) for run in runs.values()]
        results = [next(e for e in r["results"] if e["behaviour"] == "kindness") for r in picked]
        intervals = [[round(e["low"], 3), round(e["high"], 3)] for e in results]
        found.append(row(f"quickstart: {policy} against SFT, gold rule", seeds, "score", [e["effect"] for e in results], intervals=intervals,
                         headlines=[r["headline"] for r in picked]))  # fmt: skip
        seconds = [run["stage_seconds"][f"policies.{policy}"] for run in runs.values()]
        found.append(row(f"quickstart: training {policy}", seeds, "s", seconds))
    return found


def main() -> None:
    """Run all seeds and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    runs: dict[int, dict] = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs[seed] = run_once(Path(folder), seed)
        print(f"seed {seed}: {runs[seed]['seconds']:.0f} s, {runs[seed]['memory_mb']:.0f} MB", flush=True)
        for ranked in runs[seed]["evaluation"]["ranking"]:
            print(f"  {ranked['policy']}: {ranked['headline']}", flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    rows = rows_of(runs, commit, datetime.date.today().isoformat())
    write_json(args.out, json.loads(json.dumps(rows)))


if __name__ == "__main__":
    main()
