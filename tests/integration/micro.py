"""The whole loop at the smallest size that still has every stage, and the command line as a function.

Example:
    outcome = fairlead("run", recipe, home=home)
    outcome.code, outcome.out, outcome.err
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from fairlead.cli.main import main

HERE = Path(__file__).parent
BUNDLED = Path(__file__).parents[2] / "src" / "fairlead" / "bundled"
GATES = (
    "completions.readiness", "preferences.agreement", "preferences.alpha", "rewards.accuracy", "dpo.accuracy", "rl.kl", "sft.perplexity",
    "evals.criteria", "evals.guard", "evals.capability", "releases.ready",
)  # fmt: skip

MICRO: dict[str, Any] = {
    "name": "micro",
    "scope": "toy",
    "model": "bundled",
    "device": "cpu",
    "text": {"max_length": 96},
    "gold": {"type": "lexicon", "path": "quickstart/lexicon.json"},
    "prompts": {
        "sources": [{"path": "quickstart/prompts.jsonl", "take": 24, "slice_field": "slice"}],
        "heldout_sources": [{"path": "quickstart/heldout_prompts.jsonl", "take": 8, "slice_field": "slice"}],
        "dedupe": "exact",
    },
    "sft": {
        "data": [{"path": "quickstart/demonstrations.jsonl", "take": 64}],
        "training": {"learning_rate": 1e-3, "num_epochs": 1, "batch_size": 8},
        "patience": 0,
    },
    "completions": {"num_samples": 4, "max_new_tokens": 16},
    "feedback": {"num_raters": 10, "votes_per_pair": 3},
    "preferences": {"heldout": 0.25, "num_resamples": 100},
    "rewards": {"training": {"learning_rate": 5e-4, "num_epochs": 1, "batch_size": 8}},
    "policies": {
        "ppo": {
            "algorithm": "ppo", "num_iterations": 2, "batch_size": 8, "minibatch_size": 8, "num_epochs": 1, "max_new_tokens": 16,
            "training": {"learning_rate": 2e-4},
        },
        "dpo": {"algorithm": "dpo", "training": {"learning_rate": 2e-4, "num_epochs": 1, "batch_size": 8}},
    },
    "evals": {
        "prompts": "quickstart/eval_prompts.jsonl", "max_prompts": 12, "num_samples": 2, "max_new_tokens": 16,
        "minimal_pairs": "quickstart/minimal_pairs.jsonl", "max_minimal_pairs": 10, "heldout_text": "quickstart/heldout_text.jsonl",
        "criteria": {"behaviours": [
            {"id": "kindness", "direction": "up", "metric": "score", "min_effect": 0.2},
            {"id": "length", "direction": "flat", "metric": "words", "min_effect": 0.25, "is_relative": True, "guard": True},
        ]},
    },
    "releases": {"policy": "best"},
    "allow": dict.fromkeys(GATES, "micro run"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that it failed with."""
        assert self.code != 0, self.out
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, f"not one line:\n{self.err}\n{self.out}"
        assert "Traceback" not in self.err + self.out
        return lines[0]


@dataclass(frozen=True, slots=True)
class MicroRun:
    """A finished micro run. Tests that change its home take a copy."""

    home: Path
    recipe: Path
    outcome: Outcome
    first_states: dict[str, str]
    """Stage -> made, as the first run left it (later commands on the same home reuse)."""


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested update; a change of None removes the key, `Exactly(...)` replaces a section."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def write_recipe(folder: Path, changes: Mapping[str, Any] | None = None, *, keep: tuple[str, ...] = ()) -> Path:
    """The micro recipe with changes; `keep` names the stages that stay (all when empty)."""
    recipe = merge(MICRO, changes or {})
    if keep:
        always = {"name", "scope", "model", "device", "text", "seed", "allow", *(changes or {}), *keep}
        recipe = {key: value for key, value in recipe.items() if key in always}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def fairlead(*args: object, home: Path, env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command in this process, through the same entry point as the console script."""
    out, err = io.StringIO(), io.StringIO()
    old_args, old_env = sys.argv, dict(os.environ)
    sys.argv = ["fairlead", *map(str, args)]
    os.environ.update({"FAIRLEAD_HOME": str(home), **(env or {})})
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    finally:
        sys.argv = old_args
        os.environ.clear()
        os.environ.update(old_env)
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*args: object, home: Path, env: Mapping[str, str] | None = None, **options: Any) -> "subprocess.Popen[str]":
    """Start a command in a process of its own (to be killed, or to have its limits set), with as many threads as this one: they decide bits."""
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "FAIRLEAD_HOME": str(home), "OMP_NUM_THREADS": threads, **(env or {})}
    return subprocess.Popen([sys.executable, "-m", "fairlead.cli.main", *map(str, args)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # fmt: skip


def finish(process: "subprocess.Popen[str]", *, timeout: float = 240) -> Outcome:
    """Wait for a started command."""
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err)


def record(home: Path, name: str = "micro") -> dict[str, Any]:
    """The record of a run."""
    return json.loads((home / name / "run.json").read_text(encoding="utf-8"))


def artifacts(home: Path, name: str = "micro") -> dict[str, str]:
    """Stage -> artifact id of a run's record."""
    return {stage: row["artifact"] for stage, row in record(home, name)["stages"].items()}


def states(home: Path, name: str = "micro") -> dict[str, str]:
    """Stage -> reused, made or stopped."""
    rows = record(home, name)["stages"]
    return {s: "stopped" if r["artifact"] is None else "reused" if r["cached"] else "made" for s, r in rows.items()}


def folder_of(home: Path, artifact_id: str) -> Path:
    """Folder of an artifact."""
    return home / "artifacts" / artifact_id.rpartition("-")[0] / artifact_id


def leftovers(home: Path) -> list[str]:
    """Drafts and temporary files that a failed run left."""
    drafts = home / "drafts"
    found = [p.name for p in drafts.iterdir()] if drafts.is_dir() else []
    return found + [str(p) for p in home.rglob(".*.tmp")]
