"""Places that fail: a full disk, a read-only or impossible home, a file without permission, faults that nobody foresaw."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from micro import MicroRun, artifacts, fairlead, finish, leftovers, start, write_recipe

ROOT = os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, less than one policy."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not ROOT
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_one_line_and_leaves_the_store_as_it_was(small_disk: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", keep=("prompts", "sft"))
    home = small_disk / "home"
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 8
    assert "the disk is full" in outcome.error
    assert "same command again" in outcome.error
    assert leftovers(home) == []
    assert not list(home.glob("artifacts/policy/*"))
    assert list(home.glob("artifacts/prompts/*"))
    bigger = shutil.copytree(home, tmp_path / "bigger")
    assert fairlead("run", recipe, home=bigger).code == 0


@pytest.mark.parametrize("filled_mb", [0, 1])
def test_full_disk_at_a_checkpoint(small_disk: Path, tmp_path: Path, filled_mb: int) -> None:
    (small_disk / "ballast").write_bytes(bytes(filled_mb * 2**20))
    recipe = write_recipe(tmp_path / "project", keep=("sft",))
    home = small_disk / "home"
    outcome = fairlead("run", recipe, home=home, env={"FAIRLEAD_CHECKPOINT_S": "0"})
    assert outcome.code in (3, 8)
    assert "the disk is full" in outcome.error
    assert leftovers(home) == []


def test_file_size_limit_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files fails like a full disk, and needs no root."""
    recipe = write_recipe(tmp_path / "project", keep=("sft",))
    command = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); from fairlead.cli.main import main; main()"
    environment = {**os.environ, "FAIRLEAD_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", command, "run", str(recipe)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 8, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be written" in done.stderr
    assert leftovers(tmp_path / "home") == []


def test_read_only_home(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", keep=("prompts",))
    home = tmp_path / "home"
    home.mkdir()
    if ROOT:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(home)], capture_output=True).returncode:
            pytest.skip("root may write everywhere, and mounting is not allowed here")
    else:
        home.chmod(0o555)
    try:
        outcome = fairlead("run", recipe, home=home / "runs")
    finally:
        if ROOT:
            subprocess.run(["umount", str(home)], check=True)
        else:
            home.chmod(0o755)
    assert outcome.code == 1
    assert "Read-only" in outcome.error or "Permission" in outcome.error
    assert str(home) in outcome.error


def test_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    outcome = fairlead("run", write_recipe(tmp_path / "project", keep=("prompts",)), home=tmp_path / "file" / "runs")
    assert outcome.code == 1
    assert "Not a directory" in outcome.error


@pytest.mark.skipif(ROOT, reason="root reads everything")
def test_file_without_permission(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", keep=("prompts",))
    recipe.chmod(0)
    outcome = fairlead("run", recipe, home=tmp_path / "home")
    assert outcome.code == 3
    assert "permission" in outcome.error


def test_unforeseen_fault_is_one_line_and_its_traceback_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that divides by zero stands for all that nobody thought of."""
    home = tmp_path / "home"
    monkeypatch.setattr("fairlead.cli.overview.show_overview", lambda _home: 1 // 0)
    outcome = fairlead(home=home)
    assert outcome.code == 70
    (kept,) = (home / "errors").iterdir()
    assert str(kept) in outcome.error
    text = kept.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "ZeroDivisionError" in text


def test_model_damaged_inside_the_store_is_noticed(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    weights = next((home / "artifacts" / "policy" / artifacts(home)["sft"]).glob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    shown = fairlead("registry", "show", artifacts(home)["sft"], home=home)
    assert shown.code == 8
    assert "model.safetensors was changed" in shown.error


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    process = start(
        "run",
        write_recipe(tmp_path / "project", {"sft": {"training": {"num_epochs": 500}}}, keep=("sft",)),
        home=tmp_path / "home",
    )
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "home").glob("work/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
    finally:
        process.kill()
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert leftovers(tmp_path / "home") == []


def test_a_key_that_is_not_there_is_missed_before_anything_runs(tmp_path: Path) -> None:
    """Of an engine and of a judge, each where the recipe names it; a stage that is not asked for needs none."""
    server = {"url": "http://127.0.0.1:9/v1", "model": "m", "key_env": "NO_SUCH_KEY"}
    judged = {
        "algorithm": "grpo",
        "rewards": {"components": {"won": {"type": "judge", "endpoint": server}}},
        "group_size": 2,
        "max_new_tokens": 16,
    }
    for section, place in (
        ({"completions": {"engine": {"kind": "remote", **server}}}, "completions.engine"),
        ({"policies": {"judged": judged}}, "policies.judged.rewards.components.won.endpoint"),
    ):
        recipe, home = write_recipe(tmp_path / place, section), tmp_path / f"home {place}"
        for options in ((), ("--dry-run",)):
            outcome = fairlead("run", recipe, *options, home=home)
            assert outcome.code != 0 and f"{place}.key_env=NO_SUCH_KEY is not set" in outcome.error, outcome.err
        assert not list(home.glob("artifacts/*/*"))
    assert fairlead("prompts", recipe, home=home).code == 0
