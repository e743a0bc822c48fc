"""A killed or interrupted run goes on where it was and ends with the weights of a run that nobody disturbed, bit for bit."""

import functools
import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from micro import MicroRun, Outcome, artifacts, fairlead, finish, folder_of, leftovers, start, write_recipe

LONG_SFT = {
    "sft": {"training": {"learning_rate": 3e-3, "num_epochs": 8, "batch_size": 4}, "patience": 3, "data": [
        {"path": "quickstart/demonstrations.jsonl", "take": 48}]}}  # fmt: skip
KILL_AT = 26
EVERY_STEP = {"FAIRLEAD_CHECKPOINT_S": "0"}


def _wait_for_step(home: Path, step: int, *, process: "object", stage: str = "") -> int:
    """Wait until a checkpoint of at least `step` lies in a work folder; returns its step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for state in home.glob("work/*/checkpoints/step-*/state.json"):
            try:
                found = json.loads(state.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # it was being replaced
                continue
            if found["step"] >= step and (not stage or stage in found["extra"]):
                return int(found["step"])
        assert process.poll() is None, "the run ended before it could be disturbed"  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.005)
    raise AssertionError("no checkpoint appeared")


def _disturb(
    recipe: Path, home: Path, how: signal.Signals, *, step: int, command: tuple[str, ...], marker: str = ""
) -> Outcome:
    process = start(*command, recipe, home=home, env=EVERY_STEP)
    try:
        _wait_for_step(home, step, process=process, stage=marker)
        os.kill(process.pid, how)
        return finish(process)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def sft_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A longer SFT run that stops early: at this rate held-out loss soon rises again."""
    return write_recipe(tmp_path_factory.mktemp("sft"), LONG_SFT, keep=("sft",))


@pytest.fixture(scope="module")
def undisturbed(sft_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of the policy of a run in one piece."""
    home = tmp_path_factory.mktemp("undisturbed")
    assert fairlead("run", sft_recipe, home=home).code == 0
    found = artifacts(home)["sft"]
    chart = json.loads((folder_of(home, found) / "summary.json").read_text(encoding="utf-8"))["charts"][0]
    points = chart["series"][0]["points"]
    best = min(points, key=lambda point: point[1])[0]
    assert 0 < best < KILL_AT < points[-1][0], "the best weights must come from before the kill, the stop after it"
    return found


def test_killed_sft_goes_on_and_ends_with_the_same_weights(sft_recipe: Path, undisturbed: str, tmp_path: Path) -> None:
    killed = _disturb(sft_recipe, tmp_path, signal.SIGKILL, step=KILL_AT, command=("run",))
    assert killed.code == -signal.SIGKILL
    again = fairlead("run", sft_recipe, home=tmp_path)
    assert again.code == 0, again.err
    assert "sft: going on at step" in again.out
    assert artifacts(tmp_path)["sft"] == undisturbed


@pytest.mark.slow
def test_sft_that_is_killed_twice_ends_with_the_same_weights(
    sft_recipe: Path, undisturbed: str, tmp_path: Path
) -> None:
    for step in (8, KILL_AT):
        _disturb(sft_recipe, tmp_path, signal.SIGKILL, step=step, command=("run",))
    assert fairlead("run", sft_recipe, home=tmp_path).code == 0
    assert artifacts(tmp_path)["sft"] == undisturbed


def test_ctrl_c_saves_says_how_to_go_on_and_leaves_nothing_half_written(
    sft_recipe: Path, undisturbed: str, tmp_path: Path
) -> None:
    stopped = _disturb(sft_recipe, tmp_path, signal.SIGINT, step=KILL_AT, command=("run",))
    assert stopped.code == 130
    lines = stopped.err.strip().splitlines()
    assert lines[0].startswith("Stopping at the next safe point")
    assert len(lines) == 2
    assert "interrupted at step" in lines[1]
    assert "same command" in lines[1]
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "artifacts").exists()
    assert fairlead("run", sft_recipe, home=tmp_path).code == 0
    assert artifacts(tmp_path)["sft"] == undisturbed


def test_ctrl_c_between_stages_keeps_what_is_finished(micro: MicroRun, tmp_path: Path) -> None:
    process = start("run", micro.recipe, home=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("artifacts/policy/*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGINT)
        stopped = finish(process)
    finally:
        process.kill()
    assert stopped.code == 130
    assert leftovers(tmp_path) == []
    assert fairlead("run", micro.recipe, home=tmp_path).code == 0
    assert artifacts(tmp_path) == artifacts(micro.home)


ROUNDS = 12  # enough of them that the kill comes before the last
GROUPS = ("batch_size=8", "group_size=4", "minibatch_size=4", "max_new_tokens=16", "training.learning_rate=2e-4")
METHODS = {
    "ppo": ((), 1),
    "ppo, in the middle of rounds that wait": (("max_staleness=2", "num_epochs=2", "minibatch_size=4"), 4),
    "ppo, with its values on its own trunk": (("value_model=shared", "num_epochs=2", "minibatch_size=4"), 4),
    "grpo": ((*GROUPS, "num_epochs=2"), 4),
    "dapo, which samples again": (GROUPS, 2),
}


def _command(name: str) -> tuple[str, ...]:
    method = name.partition(",")[0]
    sets = (f"algorithm={method}", f"num_iterations={ROUNDS}", *METHODS[name][0])
    return ("train", "--policy", method, *(x for item in sets for x in ("--set", f"policies.{method}.{item}")))


@pytest.fixture(scope="module")
def whole(micro: MicroRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The policy of a method's run that nobody disturbed, made once for all tests."""

    @functools.cache
    def policy(name: str) -> str:
        home = Path(shutil.copytree(micro.home, tmp_path_factory.mktemp("whole") / "home"))
        assert fairlead(*_command(name), micro.recipe, home=home).code == 0
        return artifacts(home)[f"policies.{name.partition(',')[0]}"]

    return policy


@pytest.mark.parametrize("name", METHODS)
def test_killed_on_policy_training_goes_on_at_the_saved_step(
    micro: MicroRun, whole: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    steps_a_round, method, command = METHODS[name][1], name.partition(",")[0], _command(name)
    home = Path(shutil.copytree(micro.home, tmp_path / "killed"))
    killed = _disturb(micro.recipe, home, signal.SIGKILL, step=steps_a_round + 1, marker="kl_coef", command=command)
    assert killed.code == -signal.SIGKILL
    again = fairlead(*command, micro.recipe, home=home)
    assert again.code == 0, again.err
    going_on = re.search(rf"{method}: going on at step (\d+) of {ROUNDS * steps_a_round}", again.out)
    assert going_on and 1 <= int(going_on[1]) < ROUNDS * steps_a_round
    assert artifacts(home)[f"policies.{method}"] == whole(name)


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_disk_that_fills_while_a_policy_trains_is_one_line_and_what_was_saved_goes_on(
    micro: MicroRun, whole: Callable[[str], str], tmp_path: Path, method: str
) -> None:
    """No file may grow beyond 64 KB from a moment on, as on a disk that is full: the checkpoint before stays whole, and with room again the
    same command ends with the weights of a run that always had it."""
    command = _command(method)
    home = Path(shutil.copytree(micro.home, tmp_path / "filled"))
    process = start(*command, micro.recipe, home=home, env=EVERY_STEP)
    try:
        _wait_for_step(home, 2, process=process, stage="kl_coef")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2**16, 2**16))
        filled = finish(process)
    finally:
        process.kill()
    assert filled.code == 8, filled.err
    assert "cannot be written" in filled.error and "same command again" in filled.error
    assert leftovers(home) == []
    listed = json.loads(fairlead("checkpoints", "--json", home=home).out)
    assert listed and all(row["step"] >= 1 for row in listed)
    again = fairlead(*command, micro.recipe, home=home)
    assert again.code == 0, again.err
    going_on = re.search(rf"{method}: going on at step (\d+) of", again.out)
    assert going_on and int(going_on[1]) == max(row["step"] for row in listed) >= 2
    assert "damaged" not in again.out
    assert artifacts(home)[f"policies.{method}"] == whole(method)


def test_two_processes_never_share_a_stage(sft_recipe: Path, tmp_path: Path) -> None:
    process = start(
        "run",
        sft_recipe,
        "--set",
        "sft.training.num_epochs=500",
        "--set",
        "sft.patience=0",
        home=tmp_path,
        env=EVERY_STEP,
    )
    try:
        _wait_for_step(tmp_path, 1, process=process)
        second = fairlead(
            "run", sft_recipe, "--set", "sft.training.num_epochs=500", "--set", "sft.patience=0", home=tmp_path
        )
    finally:
        process.kill()
        finish(process)
    assert second.code == 8
    assert "sft is being run by another process" in second.error


def test_a_run_is_set_back_and_still_ends_with_the_same_weights(
    sft_recipe: Path, undisturbed: str, tmp_path: Path
) -> None:
    _disturb(sft_recipe, tmp_path, signal.SIGKILL, step=KILL_AT, command=("run",))
    keep_two = fairlead("checkpoints", "--json", home=tmp_path)
    rows = json.loads(keep_two.out)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows) and len(rows) >= 2
    assert any(row["is_best"] for row in rows) and {row["run"] for row in rows} == {"micro/sft"}
    listed = fairlead("checkpoints", "micro", home=tmp_path)
    assert rows[0]["checkpoint"] in listed.out
    assert fairlead("checkpoints", "other", home=tmp_path).out.startswith("No checkpoints")

    wrong = fairlead("checkpoints", "--set-back", "step-1", home=tmp_path)
    assert wrong.code == 2 and rows[0]["checkpoint"] in wrong.error
    back = fairlead("checkpoints", "micro", "--set-back", rows[0]["checkpoint"], home=tmp_path)
    assert back.code == 0 and f"{len(rows) - 1} later checkpoints were forgotten" in back.out
    again = fairlead("run", sft_recipe, home=tmp_path)
    assert f"going on at step {rows[0]['step']} of" in again.out
    assert again.code == 0 and leftovers(tmp_path) == [] and list((tmp_path / "work").iterdir()) == []
    kept = [json.loads(line) for line in (tmp_path / "micro" / "checkpoints.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in kept} == {"sft"} and {row["reason"] for row in kept} >= {
        "rotated",
        "the stage is done",
    }
    assert artifacts(tmp_path)["sft"] == undisturbed
    plan = fairlead("run", sft_recipe, "--dry-run", "--set", "sft.training.keep_checkpoints=1", home=tmp_path)
    assert f"done ({undisturbed})" in plan.out  # what decides nothing makes nothing new


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_checkpoint_interval_must_be_seconds(sft_recipe: Path, tmp_path: Path, text: str) -> None:
    outcome = fairlead("run", sft_recipe, home=tmp_path, env={"FAIRLEAD_CHECKPOINT_S": text})
    assert outcome.code == 2
    assert "FAIRLEAD_CHECKPOINT_S" in outcome.error
