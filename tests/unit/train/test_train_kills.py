"""Killed with SIGKILL again and again, also while a checkpoint is being written, a run ends as one that nobody disturbed, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_runs import NUM_STEPS

from fairlead.train.checkpoints import read_tensors
from fairlead.train.shelf import Shelf

HERE = Path(__file__).parent


def last(folder):
    entry = Shelf(folder / "work" / "checkpoints").entries()[-1]
    return read_tensors(entry.path), entry.verify()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
def test_a_run_that_is_killed_many_times_ends_with_the_same_bits(method, tmp_path):
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), *sys.path])
    done = subprocess.run([sys.executable, HERE / "killed_runs.py", method, tmp_path, "0"], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, timeout=170)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= 4 and told["in_a_write"] >= 2, told
    assert len({step for step in told["resumed"] if 0 < step < NUM_STEPS}) >= 2, (
        told
    )  # it went on somewhere in the middle, more than once

    (whole, whole_state), (killed, killed_state) = last(tmp_path / "whole"), last(tmp_path / "killed")
    assert whole.keys() == killed.keys() and any(name.startswith("optimizer/") for name in whole)
    different = [n for n in whole if not torch.equal(whole[n], killed[n]) and not n.startswith("rng/")]
    assert different == []
    assert whole_state["learner"] == killed_state["learner"] and whole_state["extra"] == killed_state["extra"]
    assert whole_state["best"].split(".")[0] == killed_state["best"].split(".")[0]
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1] and len(metrics[0].splitlines()) == NUM_STEPS
