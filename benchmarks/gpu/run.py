"""Measure the training core on a GPU, against TRL where an interpreter of it is given, and write benchmarks/results/gpu.json.

    python -m benchmarks.gpu.run [--only '0.5B/*' '7B/sft/ours'] [--peer-python FILE]

Random models in the shapes of Qwen2.5-0.5B and -7B (benchmarks/gpu/work.py says what is trained, and what fits): SFT on rows of 4,096
tokens, DPO and a reward model on pairs of lognormal length. Ours: packed rows, shared prompts, bf16 products. TRL: its defaults, on the
same token ids and weights, with the rows of a forward halved until memory suffices. One process a cell; cells are written as they finish
(benchmarks/.work/gpu/cells.jsonl), none begins after --minutes, and the same command goes on where it was. Needs torch,
transformers, safetensors, numpy and jaxtyping; for `--way low_8bit` torchao, for `--way lora` peft.
"""

import argparse
import fnmatch
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu import work
from benchmarks.gpu.work import WAYS, choose_way, flops_per_token, sizes_of
from benchmarks.offline.cell_plan import find, keep, provenance
from benchmarks.offline.summary import keep_results, seconds_per_token, spread
from benchmarks.offline.work import read_rows

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = HERE.parent / ".work" / "gpu"
RESULTS = HERE.parent / "results" / "gpu.json"
METHODS = ("sft", "dpo", "reward")
CARD_TFLOPS = ((r"H200(?! NVL)", 989.0), (r"H100 80GB HBM3", 989.0), (r"A100", 312.0))
"""Dense bf16, by the vendor's data sheets (H100: SXM); any other card is measured by its own product alone."""
PEER_ROWS = 8
"""TRL's default of a forward."""
NUM_REFERENCE = 128


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then aggregate."""
    args = parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; --tiny --device cpu tries the same code on a CPU")
    if args.fresh:
        (args.place / "cells.jsonl").unlink(missing_ok=True)
    args.place.mkdir(parents=True, exist_ok=True)
    started, is_whole = time.monotonic(), True
    for key in planned(args):
        if find(key, place=args.place):
            continue
        if time.monotonic() - started > 60 * args.minutes:
            is_whole = False
            break
        keep({**key, **run_cell(args, key)}, place=args.place)
    rows = [row for size in args.sizes for method in METHODS for row in summarise(args, size, method)]
    if rows:
        keep_results(args.results, rows)
    for row in rows:
        print(told(row))
    if not is_whole:
        print(f"{args.minutes:g} minutes are over; the same command runs the cells that are left")


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--sizes", nargs="+", choices=("0.5B", "7B"), default=["0.5B", "7B"])
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="size/method/side, with wildcards; a side is ours or trl"
    )
    parser.add_argument(
        "--way", choices=WAYS, help="what is trained, for both sides; the first that fits when left out"
    )
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment made from benchmarks/peers/trl.txt"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured in a cell")
    parser.add_argument("--max-tokens", type=int, default=8192, help="of our forward")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no cell begins")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of a few weights, to try the code")
    parser.add_argument("--place", type=Path, default=PLACE, help="for models, rows and cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.tiny:
        parser.error("--device cpu is for --tiny")
    if args.peer_python and args.way and args.way.startswith(("lora", "low_8bit")):
        parser.error(f"--way {args.way} is for our side alone")
    if args.tiny:
        args.sizes = ["tiny"]
    return args


def card(device: str) -> str:
    """Its name."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def way_of(args: argparse.Namespace, size: str) -> str:
    """What is trained."""
    memory = torch.cuda.get_device_properties(0).total_memory if args.device == "cuda" else 1 << 33
    return args.way or choose_way(size, max_tokens=args.max_tokens, memory=memory)


def planned(args: argparse.Namespace) -> list[dict]:
    """Keys of the cells, both sides of a repeat one after the other."""
    sides = ("ours", "trl") if args.peer_python else ("ours",)
    return [
        {"card": card(args.device), "size": size, "method": method, "side": side, "way": way_of(args, size), "repeat": repeat}
        for size in args.sizes for method in METHODS for repeat in range(args.repeats) for side in sides
        if any(fnmatch.fnmatch(f"{size}/{method}/{side}", pattern) for pattern in args.only)
    ]  # fmt: skip


def run_cell(args: argparse.Namespace, key: dict) -> dict:
    """One cell; of TRL the one with the most rows a forward that memory allows."""
    folder = args.place / key["size"]
    if not (folder / work.DONE).exists():
        call(
            [sys.executable, "-m", "benchmarks.gpu.work", str(folder), "--size", key["size"], "--device", args.device],
            path=ROOT,
        )
    sizes = sizes_of(key["size"])
    batch = sizes.batch_sft if key["method"] == "sft" else sizes.batch_pairs
    more = ["--work", str(folder), "--method", key["method"], "--device", args.device, "--seconds", str(args.seconds),
            "--dtype", "float32" if key["way"].startswith("full") else "bfloat16", "--seed", str(key["repeat"]),
            "--batch-size", str(batch), "--max-tokens", str(args.max_tokens), "--max-length", "4096", "--num-reference", str(NUM_REFERENCE),
            "--warmup", "3", "--min-steps", "1",
            "--threads", str(min(8, os.cpu_count() or 1))]  # fmt: skip
    if key["side"] == "ours":
        return last_line(call([sys.executable, "-m", "benchmarks.gpu.ours", "--setting", key["way"], *more], path=ROOT))
    theirs, rows = HERE.parent / "offline" / "theirs.py", min(PEER_ROWS, batch)
    while True:
        cell = last_line(
            call([str(args.peer_python), str(theirs), *more, "--per-device", str(rows)], path=theirs.parent)
        )
        if "failed" not in cell or rows == 1:
            return {**cell, "rows": rows}
        rows //= 2


def call(command: list[str], *, path: Path) -> str:
    """What a process prints; its failure ends the run. The second argument is the folder that it imports from."""
    print("running", *command[1:], flush=True)
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])] if path == ROOT else [str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
                   "TRL_EXPERIMENTAL_SILENCE": "1"}  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def last_line(text: str) -> dict:
    """The cell that a process printed."""
    return json.loads(text.strip().splitlines()[-1])


def summarise(args: argparse.Namespace, size: str, method: str) -> list[dict]:
    """One row of results, or none where our side has no cell that ended well."""
    key = {"card": card(args.device), "size": size, "method": method, "way": way_of(args, size)}
    cells = {side: find({**key, "side": side}, place=args.place) for side in ("ours", "trl")}
    good = {side: [c for c in found if "failed" not in c] for side, found in cells.items()}
    if not good["ours"]:
        return []
    rows = read_rows(args.place / size / ("sft.jsonl" if method == "sft" else "pairs.jsonl"))
    sides = {"ours": good["ours"], **({"peer": good["trl"]} if good["trl"] else {})}
    rates = {side: [1 / seconds_per_token(c) for c in found] for side, found in sides.items()}
    precision = "bf16" if args.device == "cuda" else "fp32"
    measured = max(c["peak_gflops"][precision] for found in sides.values() for c in found) * 1e9
    made = {name: value for name, value in provenance().items() if name in ("commit", "date")}
    if good["trl"]:
        made["peer_version"] = f"trl {good['trl'][0]['versions']['trl']}"
    of_card = next((tflops * 1e12 for name, tflops in CARD_TFLOPS if re.search(name, key["card"])), measured)
    flops = {side: statistics.median(found) * flops_per_token(size, rows, method=method, way=key["way"], is_shared=side == "ours")
             for side, found in rates.items()}  # fmt: skip
    theirs = "not run" if not cells["trl"] else "TRL default, memory ran out at one row a forward" if not good["trl"] else \
        f"TRL default, {good['trl'][0]['rows']} rows a forward"  # fmt: skip
    return [{
        "work": f"gpu {method} {size}", "setting": f"{key['card']}; {key['way']}; ours {good['ours'][0]['max_tokens']} tokens a forward; {theirs}",
        "unit": "useful tokens/s", **{side: spread(found) for side, found in rates.items()},
        **({"ratio": spread([a / b for a, b in zip(rates["ours"], rates["peer"], strict=False)])} if "peer" in rates else {}),
        "memory_mb": {side: round(max(c["memory_mb"] for c in found)) for side, found in sides.items()},
        "mfu": {side: round(x / measured, 3) for side, x in flops.items()},
        "mfu_of_card": {side: round(x / of_card, 3) for side, x in flops.items()},
        "peak_gflops": {"measured": round(measured / 1e9), "card": round(of_card / 1e9)}, "repeats": min(map(len, sides.values())),
        "command": "python -m benchmarks.gpu.run", **made,
    }]  # fmt: skip


def told(row: dict) -> str:
    """A row in a line."""
    peer = f"; {row['ratio']['median']:.2f} x TRL, which takes {row['memory_mb']['peer']} MB" if "ratio" in row else ""
    return (f"{row['work']} ({row['setting']}): {row['ours']['median']:.0f} tokens/s, {row['mfu']['ours']:.1%} of the measured peak, "
            f"{row['mfu_of_card']['ours']:.1%} of the card's, {row['memory_mb']['ours']} MB{peer}")  # fmt: skip


if __name__ == "__main__":
    main()
