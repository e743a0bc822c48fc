"""Training on rollouts of several turns from a recipe: every kind of method, off equals one turn, faults, and a run that was killed."""

import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from micro import MicroRun, artifacts, fairlead, finish, folder_of, start, write_recipe
from safetensors.numpy import load_file

from fairlead.telemetry.sinks import read_metrics

HERE = Path(__file__).parent
ANSWERING = {"kind": "custom", "build": "answering:make"}
TOOLS: dict[str, Any] = {
    "environments": [ANSWERING],
    "max_turns": 3,
    "max_observation_tokens": 16,
    "error_penalty": 0.1,
}
SMALL: dict[str, Any] = {
    "num_iterations": 2, "batch_size": 8, "group_size": 4, "minibatch_size": 8, "num_epochs": 1, "max_new_tokens": 24,
    "training": {"learning_rate": 2e-4, "max_tokens_per_microbatch": 2048},
}  # fmt: skip
UNCALLED = {"environments": [{"kind": "calculator"}], "max_turns": 4, "max_observation_tokens": 8}
POLICIES: dict[str, Any] = {
    **{name: {"algorithm": name, **SMALL, "tools": TOOLS} for name in ("ppo", "grpo", "remax", "reinforce_pp", "online_dpo", "best_of_n")},
    "failing": {"algorithm": "grpo", **SMALL, "tools": {**TOOLS, "environments": [{**ANSWERING, "options": {"fails_every": 5}}]}},
    "grpo_off": {"algorithm": "grpo", **SMALL},
    "grpo_uncalled": {"algorithm": "grpo", **SMALL, "tools": UNCALLED},
    "grpo_one_turn": {"algorithm": "grpo", **SMALL, "tools": {**UNCALLED, "max_turns": 1}},
    "ppo_off": {"algorithm": "ppo", **SMALL},
    "ppo_uncalled": {"algorithm": "ppo", **SMALL, "tools": UNCALLED},
}  # fmt: skip
TOLD = (
    "turns",
    "tool_calls",
    "tool_errors",
    "tool_failed",
    "turn_limit_share",
    "observation_tokens",
    "observations_cut",
    "turn_reward",
)


@pytest.fixture(scope="module")
def home(micro: MicroRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All policies in one run on the micro run's reward model."""
    recipe = write_recipe(micro.home.parent / "tools", {"policies": {**POLICIES, "dpo": None}, "evals": None,
                                                        "releases": None})  # fmt: skip
    home = Path(shutil.copytree(micro.home, tmp_path_factory.mktemp("tools") / "home"))
    outcome = fairlead("train", recipe, home=home)
    assert outcome.code == 0, outcome.err
    return home


def metrics_of(home: Path, policy: str) -> dict[str, list[float]]:
    rows = read_metrics(folder_of(home, artifacts(home)[f"policies.{policy}"]) / "metrics.jsonl")
    return {name: [value for _, value in found] for name, found in rows.items()}


@pytest.mark.parametrize("name", ["ppo", "grpo", "remax", "reinforce_pp", "online_dpo", "best_of_n"])
def test_a_method_trains_on_several_turns(home: Path, name: str) -> None:
    found = metrics_of(home, name)
    assert all(math.isfinite(value) for rows in found.values() for value in rows)
    assert found["rl/turns"][0] > 1 and found["rl/observation_tokens"][0] > 0
    assert found["rl/length_tokens"][0] <= 24, "observations do not count"
    assert abs(found["rl/kl_k1"][0]) < 1e-4, "policy and reference are one at the start, on the policy's own tokens"
    assert found["rl/sampling_gap"][0] < 2e-4
    assert 0 < found["rl/tool_errors"][0] < 1 and found["rl/turn_reward"][0] > 0
    assert found["grad_norm"][1] > 0
    if "rl/first_ratio_gap" in found:
        assert found["rl/first_ratio_gap"][0] < 1e-3
    assert found["rl/tool_failed"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "off"), [("grpo_uncalled", "grpo_off"), ("grpo_one_turn", "grpo_off"), ("ppo_uncalled", "ppo_off")]
)
def test_tools_that_nobody_calls_change_no_bit(home: Path, name: str, off: str) -> None:
    with_tools, without = metrics_of(home, name), metrics_of(home, off)
    assert {key: rows for key, rows in with_tools.items() if key.removeprefix("rl/") not in TOLD} == without
    assert with_tools["rl/turns"] == [1.0, 1.0] and with_tools["rl/tool_calls"] == [0.0, 0.0]
    one, other = (
        load_file(folder_of(home, artifacts(home)[f"policies.{p}"]) / "model.safetensors") for p in (name, off)
    )
    assert one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


def test_an_environment_that_fails_costs_samples_and_not_the_run(home: Path) -> None:
    found = metrics_of(home, "failing")
    assert any(share > 0 for share in found["rl/tool_failed"])
    for failed, dropped in zip(found["rl/tool_failed"], found["rl/dropped_share"], strict=True):
        assert failed <= dropped < 1
    assert found["rl/empty_share"] == [0.0, 0.0]


def test_the_fixed_prompts_are_answered_with_tools_too(home: Path) -> None:
    summary = json.loads(
        (folder_of(home, artifacts(home)["policies.grpo"]) / "summary.json").read_text(encoding="utf-8")
    )
    texts = [pair["after"] for pair in summary["samples"]]
    assert any("and then?" in text or "error: odd" in text for text in texts)


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(micro: MicroRun, tmp_path: Path, method: str) -> None:
    rounds = 8
    policy = {
        "algorithm": method,
        **SMALL,
        "num_iterations": rounds,
        "num_epochs": 2,
        "minibatch_size": 4,
        "max_staleness": 1,
        "tools": TOOLS,
    }
    recipe = write_recipe(tmp_path / "project", {"policies": {method: policy, "dpo": None} | ({"ppo": policy} if method == "ppo" else {"ppo": None}),
                                                 "evals": None, "releases": None})  # fmt: skip
    homes = [Path(shutil.copytree(micro.home, tmp_path / name)) for name in ("whole", "killed")]
    assert fairlead("train", recipe, home=homes[0]).code == 0
    environment = {
        "FAIRLEAD_CHECKPOINT_S": "0",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    process = start("train", recipe, home=homes[1], env=environment)
    try:
        deadline = time.monotonic() + 120
        while _saved_step(homes[1]) < 5:
            assert process.poll() is None, finish(process).err
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
    finally:
        process.kill()
    again = fairlead("train", recipe, home=homes[1])
    assert again.code == 0, again.err
    going_on = re.search(rf"{method}: going on at step (\d+) of", again.out)
    assert going_on and int(going_on[1]) >= 5
    assert artifacts(homes[1])[f"policies.{method}"] == artifacts(homes[0])[f"policies.{method}"]


def _saved_step(home: Path) -> int:
    """The last step of on-policy training that a checkpoint holds; 0 when there is none."""
    steps = [0]
    for path in home.glob("work/*/checkpoints/step-*/state.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it was being replaced
            continue
        steps += [int(found["step"])] if "kl_coef" in found["extra"] else []
    return max(steps)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"max_observation_tokens": 2}, "tools.max_observation_tokens=2"),
     ({"environments": [{"kind": "custom", "build": "absent:make"}]}, "absent:make"),
     ({"max_turn": 3}, "max_turns"), ({"environments": []}, "environments")],
)  # fmt: skip
def test_a_wrong_section_is_one_line_that_says_what_to_do(
    micro: MicroRun, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    policies = {"grpo": {"algorithm": "grpo", **SMALL, "tools": {**TOOLS, **changes}}, "ppo": None, "dpo": None}
    recipe = write_recipe(tmp_path / "project", {"policies": policies, "evals": None, "releases": None})
    home = Path(shutil.copytree(micro.home, tmp_path / "home"))
    assert expected in fairlead("train", recipe, home=home).error
