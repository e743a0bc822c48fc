"""What the C kernels gain in training on a CPU in bf16, with and without them by turns, and write benchmarks/results/kernels.json.

    python -m benchmarks.kernels [--methods sft reward dpo] [--repeats 3] [--seconds 8]

The work, the clock and the order of batches are those of benchmarks.offline; each cell is a process of its own, FAIRLEAD_NATIVE=0 in
every other one. "ours" is with the kernels, "peer" is this package without them. Nothing else should run.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.comparison import MALLOC
from benchmarks.offline.cell_plan import provenance
from benchmarks.offline.run import PLACE
from benchmarks.offline.work import SHAPES, make
from fairlead.core.io import write_json

RESULTS = Path(__file__).parent / "results" / "kernels.json"


def main() -> None:
    """Run the cells by turns, then write their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=("sft", "reward", "dpo"), default=["sft", "reward", "dpo"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in a cell, at least")
    args = parser.parse_args()
    make(PLACE / "S", SHAPES["S"])
    rows = []
    for method in args.methods:
        cells = [(run(method, repeat, args.seconds, kernels=True), run(method, repeat, args.seconds, kernels=False))
                 for repeat in range(args.repeats)]  # fmt: skip
        rows.append(summarise(method, cells))
        print(f"{method}: {rows[-1]['ratio']['median']:.2f} x, memory {rows[-1]['memory_mb']['ours']} MB "
              f"against {rows[-1]['memory_mb']['peer']} MB", flush=True)  # fmt: skip
    write_json(RESULTS, rows)


def run(method: str, repeat: int, seconds: float, *, kernels: bool) -> dict:
    """What one process reports."""
    command = [sys.executable, "-m", "benchmarks.offline.ours", "--work", str(PLACE / "S"), "--method", method, "--setting", "bf16",
               "--seconds", str(seconds), "--seed", str(repeat)]  # fmt: skip
    environment = {**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "2", "FAIRLEAD_NATIVE": str(int(kernels))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def summarise(method: str, cells: list[tuple[dict, dict]]) -> dict:
    """One row: rates are useful tokens a second over the timed steps, medians of the repeats."""
    ratios = [with_them["tokens_per_s"] / without["tokens_per_s"] for with_them, without in cells]
    ours, peer = ({name: statistics.median(pair[side][name] for pair in cells) for name in ("tokens_per_s", "memory_mb")}
                  for side in (0, 1))  # fmt: skip
    return {
        "work": f"S/{method}", "setting": "bf16", "unit": "tokens/s", "ours": round(ours["tokens_per_s"]), "peer": round(peer["tokens_per_s"]),
        "peer_version": "fairlead without its C kernels",
        "ratio": {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)},
        "memory_mb": {"ours": round(ours["memory_mb"]), "peer": round(peer["memory_mb"])}, "repeats": len(cells),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), **provenance(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
