"""Compare the training core with TRL on the fixed work, side by side on this machine, and write benchmarks/results/offline.json.

    python -m benchmarks.offline.run [--methods sft reward dpo long rank8] [--sizes S M] [--repeats 3] [--peer-python FILE]

Builds the work and an environment for TRL (benchmarks/peers/trl.txt) under benchmarks/.work unless they are there. Both sides get
the same token ids, the same weights, two threads and the same malloc setting, each in fp32 and in bf16; they alternate, one process a cell. Cells are
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
SIDES = (("ours", "bf16"), ("trl", "best_bf16"), ("ours", "fp32"), ("trl", "best"), ("trl", "default"))
SHORT = SIDES[:2]
"""What is compared on the long work: both sides at their fastest."""
NAMES = {
    "default": "default fp32",
    "best": "grouped by length, reference beforehand, fp32",
    "best_bf16": "grouped by length, reference beforehand, bf16",
}
AGREE_STEPS = 20
AGREE_TOLERANCE = 1e-4
REFERENCE_SHARE = "a pair's training step and its share of the reference pass"


def main() -> None:
    """Run what is missing, then aggregate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["sft", "reward", "dpo", "long", "rank8"])
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
    for size, method in [(size, method) for size in args.sizes for method in args.methods]:
        make(PLACE / size, SHAPES[size])
        is_short = size == "S" and method in ("sft", "reward", "dpo")
        if is_short and not find({"size": size, "method": method, "kind": "agreement"}):
            keep(
                {
                    "size": size,
                    "method": method,
                    "kind": "agreement",
                    "differences": check_agreement(size, method, peer),
                }
            )
        for repeat in range(args.repeats):
            for side, setting in SIDES if is_short else SHORT:
                key = {"size": size, "method": method, "side": side, "setting": setting, "repeat": repeat}
                if not find(key):
                    num_rows = 2 if (side, method) == ("ours", "rank8") else 8  # two prompts are eight pairs
                    more = ["--seconds", str(args.seconds), "--seed", str(repeat), "--batch-size", str(num_rows)]
                    keep({**key, **run_cell(side, peer, size, method, setting, more)})
    rows = [row for size in args.sizes for method in args.methods for row in summarise(size, method, peer)]
    keep_results(RESULTS, rows)
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


def check_agreement(size: str, method: str, peer: Path) -> dict:
    """The same fp32 losses from the same weights and rows, or the comparison is of different work; and how far bf16 takes either side.

    Returns:
        The largest relative differences of the losses of AGREE_STEPS steps.
    """
    key = {"size": size, "method": method, "agree": AGREE_STEPS}
    sides = {
        "ours": ("ours", "fp32"),
        "trl": ("trl", "default"),
        "ours_bf16": ("ours", "bf16"),
        "trl_bf16": ("trl", "best_bf16"),
    }
    losses = {}
    for name, (side, setting) in sides.items():
        if not (found := find({**key, "name": name})):
            found = [
                {**key, "name": name, **run_cell(side, peer, size, method, setting, ["--agree", str(AGREE_STEPS)])}
            ]
            keep(found[0])
        losses[name] = found[0]["losses"]
    pairs = {"fp32": ("ours", "trl"), "ours_bf16": ("ours_bf16", "ours"), "peer_bf16": ("trl_bf16", "trl")}
    worst = {
        name: max(abs(x - y) / abs(y) for x, y in zip(losses[a], losses[b], strict=True))
        for name, (a, b) in pairs.items()
    }
    print(f"{method} {size}: losses of {AGREE_STEPS} steps differ by at most {worst['fp32']:.1e} between the two, by "
          f"{worst['ours_bf16']:.1e} (ours) and {worst['peer_bf16']:.1e} (TRL) between bf16 and fp32", flush=True)  # fmt: skip
    if worst["fp32"] > AGREE_TOLERANCE:
        sys.exit(f"the losses of {method} disagree (relative {worst['fp32']:.1e} > {AGREE_TOLERANCE}): {losses}")
    return {name: float(f"{value:.2g}") for name, value in worst.items()}


def find(key: dict, *, place: Path = PLACE) -> list[dict]:
    """Cells of that key that have been run."""
    path = place / "cells.jsonl"
    return [
        cell for cell in (read_rows(path) if path.exists() else []) if all(cell.get(k) == v for k, v in key.items())
    ]


def keep(cell: dict, *, place: Path = PLACE) -> None:
    """Append one cell."""
    with (place / "cells.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def keep_results(path: Path, rows: list[dict]) -> None:
    """Write a file of results; rows of other work stay."""
    others = [r for r in (read_json(path) if path.exists() else []) if r["work"] not in {row["work"] for row in rows}]
    write_json(path, [*others, *rows])


def provenance(peer: Path | None) -> dict[str, str]:
    """The versions of both sides, and the day."""
    found = {"commit": _output(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]),
             "date": datetime.datetime.now(datetime.UTC).date().isoformat()}  # fmt: skip
    if peer is not None:
        found["peer_version"] = "trl " + _output([str(peer), "-c", "import trl; print(trl.__version__)"])
    return found


def _output(command: list[str]) -> str:
    """What it prints, without the last newline; nothing when it fails (a copy without its repository)."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def summarise(size: str, method: str, peer: Path) -> list[dict]:
    """Rows of each of our precisions against settings of the peer, its fastest marked: ratios repeat by repeat."""
    made = provenance(peer)
    found = {pair: find({"size": size, "method": method, "side": pair[0], "setting": pair[1]}) for pair in SIDES}
    theirs = {setting: rows for (side, setting), rows in found.items() if side == "trl" and rows}
    best = min(theirs, key=lambda setting: statistics.median(map(seconds_per_token, theirs[setting])))
    wanted = {("bf16", best), ("bf16", "default"), ("fp32", "best"), ("fp32", "default")}
    differences = [cell["differences"] for cell in find({"size": size, "method": method, "kind": "agreement"})]
    rows = []
    for precision, setting in sorted(wanted):
        ours, others = found[("ours", precision)], theirs.get(setting, [])
        if not ours or not others:
            continue
        ratios = [seconds_per_token(b) / seconds_per_token(a) for a, b in zip(ours, others, strict=False)]
        rows.append({
            "work": f"offline {method} {size}",
            "setting": f"ours {precision}; TRL {NAMES[setting]}{', its fastest' if setting == best else ''}; {os.cpu_count()} cores",
            "unit": "useful tokens/s",
            "ours": spread([1 / seconds_per_token(c) for c in ours]), "peer": spread([1 / seconds_per_token(c) for c in others]),
            "peer_version": made["peer_version"], "ratio": spread(ratios),
            "memory_mb": {"ours": round(max(c["memory_mb"] for c in ours)), "peer": round(max(c["memory_mb"] for c in others))},
            "mfu": {"ours": round(statistics.median(utilisation(c, size, method) for c in ours), 3),
                    "peer": round(statistics.median(utilisation(c, size, method) for c in others), 3)},
            "peak_gflops": {"ours": round(max(c["peak_gflops"] for c in ours)), "peer": round(max(c["peak_gflops"] for c in others))},
            **({"loss_difference": differences[0]} if differences else {}), "repeats": len(ratios),
            "command": "python -m benchmarks.offline.run", "commit": made["commit"], "date": made["date"],
        })  # fmt: skip
    return rows


def seconds_per_token(cell: dict) -> float:
    """Of training, with a row's share of the reference pass (one epoch)."""
    tokens_per_row = cell["tokens_per_s"] / cell["rows_per_s"]
    return 1 / cell["tokens_per_s"] + cell["prepare_s_per_row"] / tokens_per_row


def utilisation(cell: dict, size: str, method: str) -> float:
    """Share of the machine's fastest product, in the cell's precision, that the arithmetic of the tokens really computed reaches.

    Six FLOPs a trunk weight and token, and six a head weight and token that is learned (half of the tokens of sft and dpo); attention's own
    products are left out on both sides.
    """
    shape = SHAPES[size]
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    attention = hidden * hidden * (2 + 2 * shape["num_key_value_heads"] / heads)
    trunk = shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"])
    head = 0 if method in ("reward", "rank8") else 0.5 * hidden * shape["vocab_size"]
    return 6 * (trunk + head) * cell["computed_per_s"] / (cell["peak_gflops"] * 1e9)


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


if __name__ == "__main__":
    main()
