"""One micro run a session, shared by every test that only looks at it."""

import dataclasses
import fcntl
import gc
import json
import os
import shutil
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's client is imported: tests have no network

import micro as micro_run
import pytest
import torch
from micro import MicroRun


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> MicroRun:
    """Prompts to release, once: the workers of one `pytest -n` make it together, and each has a copy of its home."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "first-micro"
    shared.mkdir(exist_ok=True)
    recipe = shared / "project" / "recipe.yaml"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "outcome.json").exists():
            made = micro_run.fairlead("run", micro_run.write_recipe(recipe.parent), home=shared / "home")
            (shared / "outcome.json").write_text(json.dumps(dataclasses.asdict(made)), encoding="utf-8")
        outcome = micro_run.Outcome(**json.loads((shared / "outcome.json").read_text(encoding="utf-8")))
        home = shutil.copytree(shared / "home", base / "micro" / "home")
    gc.collect()
    gc.freeze()  # what the run imported stays, too
    return MicroRun(home, recipe, outcome, micro_run.states(home) if outcome.code == 0 else {})


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are faster on one thread, and sums then have one order; before the fixtures of a module run anything."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
