"""Run an experiment on real data and write what it measured to benchmarks/results/<name>.json.

    FAIRLEAD_DATA=... python benchmarks/experiments.py recipes/harmless_hh.yaml
    FAIRLEAD_DATA=... python benchmarks/experiments.py recipes/imdb_sentiment.yaml

A gate that stops a stage is a result: its verdict is written with its interval. There is no peer: no other tool runs this loop.
"""

import argparse
import datetime
import os
import subprocess
import sys
from pathlib import Path

from fairlead.core.io import read_json, write_json

RESULTS = Path(__file__).parent / "results"
GATE_STOPPED = 7  # exit status of a run that a gate stopped


def stage_rows(home: Path, name: str, setting: str, commit: str, date: str) -> list[dict]:
    """One row a stage: seconds, its figures with intervals, its verdicts."""
    rows = []
    for stage, record in read_json(home / name / "run.json")["stages"].items():
        figures: list[dict] = []
        memory = None
        if record["artifact"]:
            summary = read_json(next((home / "artifacts").glob(f"*/{record['artifact']}/summary.json")))
            figures, memory = summary["figures"], round(summary["facts"]["peak_memory_mb"])
        spread = {key: round(record["seconds"], 1) for key in ("median", "min", "max")}
        rows.append({
            "work": f"{name}: {stage}", "setting": setting, "unit": "s", "ours": spread, "peer": None, "peer_version": None, "ratio": None,
            "memory_mb": {"ours": memory, "peer": None}, "commit": commit, "date": date, "figures": figures,
            "verdicts": record["verdicts"], "stopped_by": record["stopped_by"],
        })  # fmt: skip
    return rows


def main() -> None:
    """Run one recipe to its end and keep what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, default=Path("runs"))
    args = parser.parse_args()
    command = [sys.executable, "-m", "fairlead.cli.main", "run", str(args.recipe), "--set", f"seed={args.seed}"]
    status = subprocess.run(command, env={**os.environ, "FAIRLEAD_HOME": str(args.home)}, check=False).returncode
    if status not in (0, GATE_STOPPED):
        sys.exit(status)
    name = args.recipe.stem.replace("_", "-")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    setting = f"seed {args.seed}; {os.cpu_count()} cores; status {status}"
    rows = stage_rows(args.home, name, setting, commit, datetime.date.today().isoformat())
    write_json(RESULTS / f"{args.recipe.stem}.json", rows)


if __name__ == "__main__":
    main()
