"""One micro run a session, shared by every test that only looks at it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's client is imported: tests have no network

import micro as micro_run
import pytest
import torch


@dataclass(frozen=True, slots=True)
class MicroRun:
    """A finished micro run. Tests that change its home take a copy."""

    home: Path
    recipe: Path
    outcome: micro_run.Outcome
    first_states: dict[str, str]
    """Stage -> made, as the first run left it (later commands on the same home reuse)."""


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> MicroRun:
    """Prompts to release, once."""
    folder = tmp_path_factory.mktemp("micro")
    recipe = micro_run.write_recipe(folder / "project")
    home = folder / "home"
    outcome = micro_run.fairlead("run", recipe, home=home)
    return MicroRun(home, recipe, outcome, micro_run.states(home) if outcome.code == 0 else {})


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small models are faster on one thread, and sums then have one order; before the fixtures of a module run anything."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
