"""Runs one method in child processes that are killed with SIGKILL, some at random moments and some while a checkpoint is being written.

    python killed_runs.py METHOD FOLDER SEED      prints {"kills": ..., "in_a_write": ..., "resumed": [...]}

The folder then holds `whole/` (never disturbed) and `killed/`, each with its metrics and checkpoints. Children are forked from a process
that has imported everything and computed nothing, so that a kill costs no import.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training_examples import make_learner, make_trees

from fairlead.core.services import Services
from fairlead.train.checkpoints import CheckpointRule
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop

NUM_STEPS = 30
NUM_KILLS = 8
MOST_S = 60.0


def train(method: str, folder: Path) -> None:
    """The whole run, from wherever its folder says; measures every third step and keeps the best of them."""
    learner = make_learner(method, num_steps=NUM_STEPS)
    session = Session(learner, services=Services(work=folder / "work", checkpoint_every_s=0.0), title=method, metric="loss",
                      metrics_path=folder / "metrics.jsonl", rule=CheckpointRule(keep=2, every_steps=5), data=method)  # fmt: skip

    def measure(_learner: object, metrics: dict[str, float]) -> None:
        if learner.step_number % 3 == 0:
            history = session.extra.setdefault("history", [])
            if metrics["loss"] < min(history, default=float("inf")):
                session.mark_best()
            history.append(metrics["loss"])

    with session:
        with (folder / "resumed").open("a") as log:
            log.write(f"{session.resumed_from}\n")
        run_loop(learner, [make_trees(method, seed=i) for i in range(NUM_STEPS)], [measure, session.after_step])
        session.save()


def child(method: str, folder: Path) -> int:
    """Process id of a child that trains and exits with 0."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        train(method, folder)
        code = 0
    finally:
        os._exit(code)


def is_over(pid: int) -> bool:
    """True once the child has ended, which must have been well."""
    done, status = os.waitpid(pid, os.WNOHANG)
    assert not (done and status), f"a child ended with {status}"
    return bool(done)


def wait_for(pid: int, condition: Callable[[], bool]) -> bool:
    """Wait until `condition()` holds; False when the child ended before."""
    end = time.monotonic() + MOST_S
    while not condition():
        if is_over(pid):
            return False
        assert time.monotonic() < end, "nothing happened"
    return True


def rows(path: Path) -> list[str]:
    """Lines of a file that may not be there yet."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def disturb(method: str, folder: Path, rng: random.Random, *, in_a_write: bool) -> bool:
    """Start the run and kill it after one to four more steps: a random while later, or the next moment a draft lies in the folder."""
    starts = len(rows(folder / "resumed"))
    pid = child(method, folder)
    if not wait_for(pid, lambda: len(rows(folder / "resumed")) > starts):
        return False
    step = int(rows(folder / "resumed")[-1]) + rng.randint(1, 4)
    if not wait_for(pid, lambda: len(rows(folder / "work" / "metrics.jsonl")) >= step):
        return False
    end = time.monotonic() + rng.uniform(0.0, 0.02)
    if not wait_for(pid, lambda: time.monotonic() > end):
        return False
    if in_a_write and not wait_for(pid, lambda: any((folder / "work" / "checkpoints").glob(".draft-*"))):
        return False
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def main() -> None:
    """See the module."""
    method, folder, rng = sys.argv[1], Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    for name in ("whole", "killed"):
        (folder / name).mkdir(parents=True)
    pid = child(method, folder / "whole")
    wait_for(pid, lambda: False)
    kills = [disturb(method, folder / "killed", rng, in_a_write=bool(i % 2)) for i in range(NUM_KILLS)]
    pid = child(method, folder / "killed")
    wait_for(pid, lambda: False)
    resumed = [int(line) for line in (folder / "killed" / "resumed").read_text().split()]
    print(json.dumps({"kills": sum(kills), "in_a_write": sum(kills[1::2]), "resumed": resumed}))


if __name__ == "__main__":
    main()
