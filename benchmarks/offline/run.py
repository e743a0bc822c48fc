"""Compare the training core with TRL on the fixed work, side by side on this machine, and write benchmarks/results/offline.json.

    python -m benchmarks.offline.run [--methods sft reward dpo] [--sizes S] [--repeats 3] [--peer-python FILE]

Builds the work and an environment for TRL (benchmarks/peers/trl.txt) under benchmarks/.work unless they are there. Both sides get
the same token ids, the same weights, fp32, two threads and the same malloc setting; they alternate, one process a cell. Cells are
written as they finish (benchmarks/.work/offline/cells.jsonl): a run that is stopped goes on where it was. Nothing else should run.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.offline.work import SHAPES, make, read_rows
from fairlead.core.io import read_json, write_json

HERE = Path(__file__).parent
PLACE = HERE.parent / ".work" / "offline"
RESULTS = HERE.parent / "results" / "offline.json"
MALLOC = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1"
SIDES = (("ours", "shared"), ("trl", "default"), ("trl", "best"))
AGREE_STEPS = 20
AGREE_TOLERANCE = 1e-4
REFERENCE_SHARE = "a pair's training step and its share of the reference pass"


def main() -> None:
    """Run what is missing, then aggregate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["sft", "reward", "dpo"])
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=["S"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in a cell")
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment made from benchmarks/peers/trl.txt"
    )
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")
    args = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        (PLACE / "cells.jsonl").unlink(missing_ok=True)
    peer = args.peer_python or peer_environment()
    for size in args.sizes:
        make(PLACE / size, SHAPES[size])
        for method in args.methods:
            check_agreement(size, method, peer)
            for repeat in range(args.repeats):
                for side, setting in SIDES:
                    key = {"size": size, "method": method, "side": side, "setting": setting, "repeat": repeat}
                    if not find(key):
                        keep(
                            {
                                **key,
                                **run_cell(
                                    side,
                                    peer,
                                    size,
                                    method,
                                    setting,
                                    ["--seconds", str(args.seconds), "--seed", str(repeat)],
                                ),
                            }
                        )
    rows = [row for size in args.sizes for method in args.methods for row in summarise(size, method, peer)]
    others = [
        r for r in (read_json(RESULTS) if RESULTS.exists() else []) if r["work"] not in {row["work"] for row in rows}
    ]
    write_json(RESULTS, [*others, *rows])
    for row in rows:
        print(f"{row['work']}, {row['setting']}: {row['ratio']['median']:.2f} x ({row['ratio']['min']:.2f} to {row['ratio']['max']:.2f}) "
              f"{row['unit']}; memory {row['memory_mb']['ours']} MB against {row['memory_mb']['peer']} MB")  # fmt: skip


def peer_environment() -> Path:
    """TRL's interpreter; the environment is built when it is not there."""
    folder = HERE.parent / ".work" / "trl"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE.parent / "peers" / "trl.txt"], check=True)
    return python


def run_cell(side: str, peer: Path, size: str, method: str, setting: str, more: list[str]) -> dict:
    """One process; its last line."""
    if side == "ours":
        command, path = [sys.executable, "-m", "benchmarks.offline.ours"], os.environ.get("PYTHONPATH", "")
        path = f"{HERE.parents[1]}{os.pathsep}{path}" if path else str(HERE.parents[1])
    else:
        command, path = [str(peer), str(HERE / "theirs.py")], str(HERE)
    environment = {**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
                   "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    command += ["--work", str(PLACE / size), "--method", method, "--setting", setting, *more]
    print("running", side, size, method, setting, *more, flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def check_agreement(size: str, method: str, peer: Path) -> None:
    """The same losses from the same weights and rows, or the comparison is of different work."""
    key = {"size": size, "method": method, "agree": AGREE_STEPS}
    if found := find(key):
        losses = found[0]["losses"]
    else:
        more = ["--agree", str(AGREE_STEPS)]
        losses = [
            run_cell(*side, more)["losses"]
            for side in (("ours", peer, size, method, "shared"), ("trl", peer, size, method, "default"))
        ]
    worst = max(abs(a - b) / abs(b) for a, b in zip(*losses, strict=True))
    if not found:
        keep({**key, "losses": losses, "worst": worst})
    print(f"{method} {size}: losses of {AGREE_STEPS} steps differ by at most {worst:.1e}", flush=True)
    if worst > AGREE_TOLERANCE:
        sys.exit(f"the losses of {method} disagree (relative {worst:.1e} > {AGREE_TOLERANCE}): {losses}")


def cells_now() -> list[dict]:
    """Cells that have been run."""
    path = PLACE / "cells.jsonl"
    return read_rows(path) if path.exists() else []


def find(key: dict) -> list[dict]:
    """Cells of that key."""
    return [cell for cell in cells_now() if all(cell.get(k) == v for k, v in key.items())]


def keep(cell: dict) -> None:
    """Append one cell."""
    with (PLACE / "cells.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def summarise(size: str, method: str, peer: Path) -> list[dict]:
    """Rows of ours against each setting of the peer: ratios of seconds a row, repeat by repeat."""
    version = subprocess.run(
        [peer, "-c", "import trl; print(trl.__version__)"], capture_output=True, text=True, check=True
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    ours = find({"size": size, "method": method, "side": "ours"})
    rows = []
    for setting in ("default", "best"):
        theirs = find({"size": size, "method": method, "side": "trl", "setting": setting})
        ratios = [seconds_per_token(b) / seconds_per_token(a) for a, b in zip(ours, theirs, strict=True)]
        rows.append({
            "work": f"offline {method} {size}", "setting": f"TRL {setting}, fp32, batch of 8, {os.cpu_count()} cores", "unit": "useful tokens/s",
            "ours": spread([1 / seconds_per_token(c) for c in ours]), "peer": spread([1 / seconds_per_token(c) for c in theirs]),
            "peer_version": f"trl {version.stdout.strip()}", "ratio": spread(ratios),
            "memory_mb": {"ours": round(max(c["memory_mb"] for c in ours)), "peer": round(max(c["memory_mb"] for c in theirs))},
            "mfu": {"ours": round(statistics.median(utilisation(c, size, method) for c in ours), 3),
                    "peer": round(statistics.median(utilisation(c, size, method) for c in theirs), 3)},
            "command": "python -m benchmarks.offline.run", "commit": commit, "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        })  # fmt: skip
    return rows


def seconds_per_token(cell: dict) -> float:
    """Of training, with a row's share of the reference pass (one epoch)."""
    tokens_per_row = cell["tokens_per_s"] / cell["rows_per_s"]
    return 1 / cell["tokens_per_s"] + cell["prepare_s_per_row"] / tokens_per_row


def utilisation(cell: dict, size: str, method: str) -> float:
    """Share of the machine's GEMM speed (the fastest product timed in the cell) that useful arithmetic reaches.

    Six FLOPs a trunk weight and token; the head's (sft, dpo) on the tokens that are learned, about half of a row.
    """
    shape = SHAPES[size]
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    attention = hidden * hidden * (2 + 2 * shape["num_key_value_heads"] / heads)
    trunk = shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"])
    head = 0 if method == "reward" else 0.5 * hidden * shape["vocab_size"]
    return 6 * (trunk + head) * cell["tokens_per_s"] / (cell["gemm_gflops_max"] * 1e9)


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


if __name__ == "__main__":
    main()
