"""Kill training at random moments, run the same command again, and compare with the run that nobody disturbed, bit for bit.

    OMP_NUM_THREADS=1 python -m benchmarks.kills                       # 20 kills of each of SFT, reward model, DPO, PPO and GRPO, or what is left
    OMP_NUM_THREADS=1 python -m benchmarks.kills --max-kills 5         # some of it; exit status 75 while more are left
    OMP_NUM_THREADS=1 python -m benchmarks.kills --methods ppo --kills 100

On the micro run of the tests (tests/integration/micro.py) with a longer stage. A kill is SIGKILL to the process of `fairlead run` at a moment
drawn evenly from the time that the stage took undisturbed, while checkpoints are written as fast as the disk takes them. What is compared are
the artifact's id, which is the hash of its content, and its files by SHA-256: weights, metrics, tokenizer; not the two that hold seconds and
megabytes. Each kill is kept as a line of benchmarks/.work/kills/cells.jsonl; a run that is stopped goes on where it was. Rows go to
benchmarks/results/kills.json. It measures no time.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.offline.cell_plan import ROOT, find, keep, provenance
from benchmarks.offline.summary import keep_results
from fairlead.core.io import read_json
from fairlead.store.code_version import code_version

sys.path.insert(0, str(ROOT / "tests" / "integration"))
from micro import Outcome, artifacts, finish, folder_of, leftovers, start, write_recipe

PLACE = Path(__file__).parent / ".work" / "kills"
RESULTS = Path(__file__).parent / "results" / "kills.json"
MORE_LEFT = 75
EVERY_STEP = {"FAIRLEAD_CHECKPOINT_S": "0"}
LONGEST_S = 1800.0
WITH_CLOCK = ("manifest.json", "summary.json")
GROUPS = {"batch_size": 8, "group_size": 4, "minibatch_size": 4, "max_new_tokens": 16}
BEFORE = ("prompts", "gold", "sft", "completions", "feedback", "preferences")


@dataclass(frozen=True, slots=True)
class Case:
    """What is killed: a stage, how it is made longer, and what comes before it."""

    stage: str
    changes: dict[str, Any]
    before: tuple[str, ...]


def policy(name: str, **settings: Any) -> Case:
    """One policy alone, after the reward model."""
    section = {"algorithm": name, **settings}
    others = dict.fromkeys({"ppo", "dpo"} - {name})
    return Case(f"policies.{name}", {"policies": {**others, name: section}}, (*BEFORE, "rewards", "policies"))


CASES = {
    "sft": Case("sft", {"sft": {"training": {"learning_rate": 3e-3, "num_epochs": 3, "batch_size": 4}, "patience": 3}}, ("sft",)),
    "reward": Case("rewards", {"rewards": {"training": {"learning_rate": 5e-4, "num_epochs": 4, "batch_size": 4}}}, (*BEFORE, "rewards")),
    "dpo": policy("dpo", training={"learning_rate": 2e-4, "num_epochs": 4, "batch_size": 4}),
    "ppo": policy("ppo", num_iterations=8, batch_size=8, minibatch_size=4, num_epochs=2, max_new_tokens=16, max_staleness=1,
                  training={"learning_rate": 2e-4}),
    "grpo": policy("grpo", num_iterations=8, num_epochs=2, training={"learning_rate": 2e-4}, **GROUPS),
}  # fmt: skip


def main() -> None:
    """Kill what is left, then aggregate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kills", type=int, default=20, help="of each")
    parser.add_argument("--max-kills", type=int, help="so many now at most")
    parser.add_argument("--summarise", action="store_true", help="write what there is so far; kill nothing")
    parser.add_argument("--fresh", action="store_true", help="forget the kills that are there")
    parser.add_argument("--place", type=Path, default=PLACE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.fresh:
        shutil.rmtree(args.place, ignore_errors=True)
    args.place.mkdir(parents=True, exist_ok=True)
    left = [] if args.summarise else what_is_left(args)
    for method, number in left[: args.max_kills]:
        row = kill(method, number, whole_run(method, args.place), args.place)
        keep(row, place=args.place)
        print(told(row), flush=True)
    rows = [row for method in CASES if (row := summarise(method, args.place))]
    if rows:
        keep_results(args.results, rows)
    for row in rows:
        print(
            f"{row['work']}: {row['identical']} of {row['kills']} identical, {row['resumed']} went on at a saved step"
        )
    if any(row["identical"] != row["kills"] for row in rows):
        sys.exit(1)
    if args.max_kills is not None and len(left) > args.max_kills:
        sys.exit(MORE_LEFT)


def what_is_left(args: argparse.Namespace) -> list[tuple[str, int]]:
    """Kills that are not there yet, the methods by turns."""
    return [
        (m, n) for n in range(args.kills) for m in args.methods if not find({"method": m, "kill": n}, place=args.place)
    ]


def whole_run(method: str, place: Path) -> dict[str, Any]:
    """What the undisturbed run made, and how long its stage took; made once, and again for other code, which is part of an id."""
    kept = place / f"{method}.json"
    if kept.exists() and (found := read_json(kept))["code"] == code_version():
        return found
    case, folder = CASES[method], place / method
    shutil.rmtree(folder, ignore_errors=True)
    recipe = write_recipe(folder / "project", case.changes, keep=case.before)
    base, whole = folder / "base", folder / "whole"
    base.mkdir()
    if case.before[-1] not in ("sft",):  # what comes before is made once, and copied for every kill
        earlier = [name for name in case.before if name != case.before[-1]]
        must(run(write_recipe(folder / "before", keep=tuple(earlier)), base))
    shutil.copytree(base, whole)
    process, began = begin(recipe, whole, case.stage)
    must(finish(process, timeout=LONGEST_S))
    found = {"seconds": time.monotonic() - began, "files": files_of(whole, case.stage), "code": code_version()}
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def kill(method: str, number: int, whole: dict[str, Any], place: Path) -> dict[str, Any]:
    """One kill at a moment of its own, the run after it, and the comparison."""
    case, folder = CASES[method], place / method
    draw, home, tries = random.Random(f"{method} {number}"), folder / "killed", 0
    while True:
        tries += 1
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(folder / "base", home)
        process, began = begin(folder / "project" / "recipe.yaml", home, case.stage)
        delay = draw.uniform(0, whole["seconds"])
        try:
            process.wait(timeout=max(0.0, began + delay - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        if finish(process).code == -signal.SIGKILL:
            break  # else it was faster than the undisturbed run, and is killed at another moment
    again = run(folder / "project" / "recipe.yaml", home)
    at = re.search(r"going on at step (\d+) of (\d+)", again.out)
    found = files_of(home, case.stage) if again.code == 0 else {}
    differ = sorted(name for name in {*found, *whole["files"]} if found.get(name) != whole["files"].get(name))
    left = leftovers(home)
    shutil.rmtree(home, ignore_errors=True)
    return {
        "method": method, "kill": number, "after_s": round(delay, 2), "tries": tries, "code": again.code,
        "said": again.err[-300:] if again.code else "", "resumed_at": int(at[1]) if at else None, "num_steps": int(at[2]) if at else None,
        "identical": again.code == 0 and not differ and not left, "differ": differ, "left": left, **provenance("benchmarks/kills.py"),
    }  # fmt: skip


def begin(recipe: Path, home: Path, stage: str) -> tuple["subprocess.Popen[str]", float]:
    """Start a run; returns when its stage has begun, with the clock of that moment."""
    process = start("run", recipe, home=home, env=EVERY_STEP)
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None and time.monotonic() < deadline:
        for live in home.glob("work/*/live.json"):
            with contextlib.suppress(OSError, ValueError):  # it is being written
                if json.loads(live.read_text(encoding="utf-8"))["run"].endswith(f"/{stage}"):
                    return process, time.monotonic()
        time.sleep(0.005)
    raise SystemExit(f"{stage} did not begin:\n{finish(process).err}")


def run(recipe: Path, home: Path) -> Outcome:
    """The command in a process of its own, to its end."""
    return finish(start("run", recipe, home=home, env=EVERY_STEP), timeout=LONGEST_S)


def must(outcome: Outcome) -> None:
    """The command worked."""
    if outcome.code:
        raise SystemExit(f"status {outcome.code}:\n{outcome.err}")


def files_of(home: Path, stage: str) -> dict[str, str]:
    """The stage's artifact: SHA-256 by file, and its id."""
    found = artifacts(home)[stage]
    files = [p for p in sorted(folder_of(home, found).rglob("*")) if p.is_file() and p.name not in WITH_CLOCK]
    return {"id": found, **{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}}


def told(row: dict[str, Any]) -> str:
    """A kill in words."""
    where = "from the beginning" if row["resumed_at"] is None else f"at step {row['resumed_at']} of {row['num_steps']}"
    return f"{row['method']} {row['kill'] + 1}: killed after {row['after_s']} s, went on {where}: " + (
        "identical" if row["identical"] else f"DIFFERENT: {row['differ']} {row['said']}"
    )


def summarise(method: str, place: Path) -> dict[str, Any] | None:
    """The row of a method."""
    rows = find({"method": method}, place=place)
    if not rows:
        return None
    steps = [row["resumed_at"] for row in rows if row["resumed_at"] is not None]
    return {
        "work": f"kills {method}", "kills": len(rows), "identical": sum(row["identical"] for row in rows), "resumed": len(steps),
        "resumed_at": {"min": min(steps), "median": statistics.median(steps), "max": max(steps)} if steps else None,
        "num_steps": max((row["num_steps"] for row in rows if row["num_steps"]), default=None),
        "compared": "the artifact's id and its files by SHA-256", "command": "OMP_NUM_THREADS=1 python -m benchmarks.kills",
        "commit": ", ".join(sorted({row["commit"] for row in rows})), "date": max(row["date"] for row in rows), "device": rows[-1]["device"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
