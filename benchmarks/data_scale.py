"""From a file of pairs to batches: time and memory, beside the `datasets` library doing the same, and write benchmarks/results/data_scale.json.

    python -m benchmarks.data_scale [--pairs 100000] [--repeats 1] [--no-peer]

Makes synthetic preferences (seeded words), and measures in a process each: the first reading (records checked, rendered, tokenised, put on
disk), the second (found again), and an epoch of shuffled batches of 32 trees. The peer renders with the same template and tokenises with
the same tokenizer in `datasets.map` (batched, one process: both sides use the tokenizer's threads), then takes shuffled batches by index;
its second reading finds its own cache. Memory is the peak of anonymous resident pages (RssAnon: file-backed pages, which the system
takes back when it needs them, are not counted) above what the process held before it read, sampled every 20 ms.
Cells are kept as they finish (benchmarks/.work/data_scale): a run that is stopped goes on where it was.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PLACE = HERE / ".work" / "data_scale"
RESULTS = HERE / "results" / "data_scale.json"
BATCH = 32
MAX_LENGTH = 512
VISITS = ("first reading", "second reading")


def main() -> None:
    """Run the cells and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-peer", action="store_true", help="the peer takes several times as long")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")
    parser.add_argument("--cell", choices=["ours", "peer"], help="inside a process of its own")
    args = parser.parse_args()
    folder = PLACE / str(args.pairs)
    if args.cell:
        print(json.dumps({"ours": ours, "peer": peer}[args.cell](folder)))
        return
    make_pairs(folder, args.pairs)
    cells: dict[tuple[str, str], list[dict]] = {}
    sides = ["ours"] if args.no_peer else ["ours", "peer"]
    kept = folder / "cells.jsonl"
    if args.fresh:
        kept.unlink(missing_ok=True)
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for repeat in range(args.repeats):
        for visit in VISITS:
            for side in sides:
                key = {"side": side, "visit": visit, "repeat": repeat}
                cell = next((c for c in done if key.items() <= c.items()), None)
                if cell is None:
                    if visit == VISITS[0]:
                        shutil.rmtree(folder / f"{side}-cache", ignore_errors=True)
                    cell = {**key, **run_cell(side, args.pairs)}
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(cell) + "\n")
                cells.setdefault((side, visit), []).append(cell)
    rows = summarise(cells, args)
    from fairlead.core.io import read_json, write_json

    mine = {(row["work"], row["setting"]) for row in rows}
    others = [r for r in (read_json(RESULTS) if RESULTS.exists() else []) if (r["work"], r["setting"]) not in mine]
    write_json(RESULTS, [*others, *rows])
    for row in rows:
        print(row["work"], row["setting"], row["ours"], row["peer"], row["ratio"], row["memory_mb"])


def make_pairs(folder: Path, num: int) -> None:
    """preferences.jsonl of seeded words from the vocabulary: prompts of 8 to 24 words, replies of 4 to 24."""
    from fairlead.core.io import write_jsonl
    from fairlead.core.records import Message, Preference
    from fairlead.models.load import load_tokenizer
    from fairlead.models.locate import bundled_model

    path = folder / "preferences.jsonl"
    if path.exists():
        return
    rng = np.random.default_rng(0)
    vocabulary = load_tokenizer(str(bundled_model())).get_vocab()
    words = sorted(
        {
            word
            for token in vocabulary
            if (word := token.lstrip("\u0120\u2581")).isascii() and word.isalpha() and len(word) > 2
        }
    )

    def text(low: int, high: int) -> str:
        return " ".join(words[i] for i in rng.integers(0, len(words), int(rng.integers(low, high + 1))))

    write_jsonl(path, (
        Preference(prompt=(Message(role="user", content=f"{i} {text(8, 24)}"),), chosen=text(4, 24), rejected=text(4, 24), p_chosen=0.9)
        for i in range(num)
    ))  # fmt: skip


def run_cell(side: str, num: int) -> dict:
    """One process; its last line."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-m", "benchmarks.data_scale", "--pairs", str(num), "--cell", side]
    print("running", side, num, flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Anonymous:
    """The peak of this process's anonymous memory while it is entered, MB above the start."""

    def __enter__(self) -> "Anonymous":
        self.start = self.peak = self.now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.peak = max(self.peak, self.now()) - self.start

    def watch(self) -> None:
        """Look every 20 ms."""
        while not self.done.wait(0.02):
            self.peak = max(self.peak, self.now())

    @staticmethod
    def now() -> float:
        """RssAnon."""
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def ours(folder: Path) -> dict:
    """The pairs as the DPO stage reads them, then one epoch of batches."""
    from fairlead.core.services import Services
    from fairlead.models.load import load_tokenizer
    from fairlead.models.locate import bundled_model
    from fairlead.policies.rows import read_pairs
    from fairlead.text import ChatText
    from fairlead.train.batches import EpochBatches

    chat = ChatText(load_tokenizer(str(bundled_model())), template="chatml")
    services = Services(work=folder, extras={"tree_cache": folder / "ours-cache"})
    with Anonymous() as memory:
        started = time.perf_counter()
        parts, _ = read_pairs(folder, chat, max_length=MAX_LENGTH, services=services, title="pairs")
        read = time.perf_counter()
        tokens = sum(
            t.num_tokens
            for batch in EpochBatches(parts["train"].trees, batch_size=BATCH, num_epochs=1, seed=0)
            for t in batch
        )
        ended = time.perf_counter()
    return {
        "read_s": read - started,
        "epoch_s": ended - read,
        "tokens": tokens,
        "memory_mb": memory.peak,
        "disk_mb": disk(folder / "ours-cache"),
    }


def peer(folder: Path) -> dict:
    """The same with `datasets`."""
    import datasets

    from fairlead.models.load import load_tokenizer
    from fairlead.models.locate import bundled_model
    from fairlead.text.chat import CHATML

    cache = folder / "peer-cache"
    tokenizer = load_tokenizer(str(bundled_model()))
    template = CHATML.replace("TERMINATOR", repr(tokenizer.eos_token))

    def encode(rows: dict) -> dict:
        texts = [
            tokenizer.apply_chat_template(p, tokenize=False, chat_template=template, add_generation_prompt=True)
            for p in rows["prompt"]
        ]
        ids = {
            name: tokenizer([*part], add_special_tokens=False, return_attention_mask=False)["input_ids"]
            for name, part in (
                ("prompt_ids", texts),
                ("chosen_ids", rows["chosen"]),
                ("rejected_ids", rows["rejected"]),
            )
        }
        start, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        return {
            name: [start + row if name == "prompt_ids" else row + end for row in part] for name, part in ids.items()
        }

    def fits(rows: dict) -> list[bool]:
        sides = zip(rows["prompt_ids"], rows["chosen_ids"], rows["rejected_ids"], strict=True)
        return [len(p) + max(len(c), len(r)) <= MAX_LENGTH for p, c, r in sides]

    datasets.disable_progress_bars()
    with Anonymous() as memory:
        started = time.perf_counter()
        raw = datasets.load_dataset(
            "json", data_files=str(folder / "preferences.jsonl"), split="train", cache_dir=str(cache)
        )
        data = raw.map(encode, batched=True, remove_columns=raw.column_names).filter(fits, batched=True)
        read = time.perf_counter()
        order = np.random.default_rng(0).permutation(len(data))
        tokens = 0
        for start in range(0, len(order), BATCH):
            batch = data[order[start : start + BATCH].tolist()]
            tokens += sum(len(row) for column in batch.values() for row in column)
        ended = time.perf_counter()
    return {
        "read_s": read - started,
        "epoch_s": ended - read,
        "tokens": tokens,
        "memory_mb": memory.peak,
        "disk_mb": disk(cache),
    }


def disk(folder: Path) -> float:
    """MB of a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def summarise(cells: dict, args: argparse.Namespace) -> list[dict]:
    """A row a measurement."""
    has_peer = not args.no_peer
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    size = (PLACE / str(args.pairs) / "preferences.jsonl").stat().st_size / 1e6
    counts = {cell["tokens"] for part in cells.values() for cell in part}
    assert len(counts) == 1, f"the two sides have other tokens: {counts}"
    rows = []
    for visit in VISITS:
        for name, key in ((visit, "read_s"), (f"an epoch of batches after the {visit}", "epoch_s")):
            of = {
                side: [args.pairs / c[key] for c in cells[side, visit]]
                for side in ("ours", *(["peer"] if has_peer else []))
            }
            memory = {side: round(max(c["memory_mb"] for c in cells[side, visit])) for side in of}
            rows.append({
                "work": f"data {args.pairs:,} pairs", "setting": f"{name}, {os.cpu_count()} cores", "unit": "pairs/s",
                "ours": spread(of["ours"]), "peer": spread(of["peer"]) if has_peer else None,
                "peer_version": f"datasets {importlib.metadata.version('datasets')}" if has_peer else "not run: it would take over three minutes",
                "ratio": spread([a / b for a, b in zip(of["ours"], of["peer"], strict=True)], 2) if has_peer else None,
                "memory_mb": {"ours": memory["ours"], "peer": memory.get("peer"), "of": "peak RssAnon above the start, reading and epoch"},
                "data_mb": {"file": round(size), "tokens": next(iter(counts)), "ours_on_disk": round(cells["ours", visit][0]["disk_mb"])},
                "command": f"python -m benchmarks.data_scale --pairs {args.pairs}" + (" --no-peer" if args.no_peer else ""),
                "commit": git, "date": datetime.date.today().isoformat(),
            })  # fmt: skip
    return rows


def spread(values: list[float], digits: int = 0) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


if __name__ == "__main__":
    main()
