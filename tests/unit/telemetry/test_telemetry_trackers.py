"""Trackers: what was logged is read back by their own readers, nothing is imported or sent unasked, and a broken one costs no run."""

import contextlib
import math
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.core.errors import ConfigError
from fairlead.telemetry.trackers import TRACKERS, Place, Trackers, check_installed, open_tracker, open_trackers

ROWS = [(step, {"rl/kl_k1": 0.01 * step, "rl/score": 0.5 + step}) for step in range(1, 6)]


def place(folder: Path, **options) -> Place:
    return Place(folder=folder, run="demo/sft", config={"seed": 3}, **options)


def log(name, folder, rows):
    with contextlib.closing(open_tracker(name, place(folder))) as sink:
        for step, metrics in rows:
            sink.log(step, metrics)


def test_tensorboard_reads_what_was_logged_and_a_resumed_run_takes_the_place_of_later_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", tmp_path, ROWS)
    log("tensorboard", tmp_path, [(4, {"rl/kl_k1": 4.0}), (5, {"rl/kl_k1": 5.0})])
    reader = EventAccumulator(str(tmp_path / "tensorboard" / "demo" / "sft"))
    reader.Reload()
    assert set(reader.Tags()["scalars"]) == {"rl/kl_k1", "rl/score"}
    found = [(event.step, event.value) for event in reader.Scalars("rl/kl_k1")]
    assert found == [
        (step, pytest.approx(value)) for step, value in [(1, 0.01), (2, 0.02), (3, 0.03), (4, 4.0), (5, 5.0)]
    ]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_logged_and_a_resumed_stage_is_the_same_run(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from mlflow.tracking import MlflowClient

    log("mlflow", tmp_path, ROWS[:3])
    log("mlflow", tmp_path, ROWS[3:])
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("fairlead")
    (run,) = client.search_runs([experiment.experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "rl/score")] == [
        (s, m["rl/score"]) for s, m in ROWS
    ]
    assert run.data.params == {"seed": "3"} and run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline_runs_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    with contextlib.closing(open_tracker("wandb", place(tmp_path))) as sink:
        for step, metrics in ROWS:
            sink.log(step, metrics)
        assert sink._run.offline and sink._run.step == 5
        assert sink._run.summary["rl/score"] == ROWS[-2][1]["rl/score"]  # the last row is closed at the end
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    assert file.stat().st_size > 0


def test_no_tracker_is_imported_before_it_is_asked_for():
    program = (
        "import sys, fairlead.telemetry, fairlead.telemetry.trackers, fairlead.train.hooks, fairlead.pipeline.run\n"
        "print(sorted(set(sys.modules) & {'tensorboard', 'wandb', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def forget(monkeypatch, name):
    """As if nothing of a tracker had been imported."""
    for module in [
        m for m in sys.modules if m == name or m.startswith((f"{name}.", f"fairlead.telemetry.{name}_sink"))
    ]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_not_there_is_said_before_anything_is_computed(monkeypatch, name):
    forget(monkeypatch, name)
    monkeypatch.setitem(sys.modules, name, None)  # the import system's mark of a module that cannot be had
    with pytest.raises(
        ConfigError, match=rf'telemetry.sinks={name} needs a package .* pip install "fairlead\[{name}\]"'
    ):
        check_installed([name])


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_lacks_one_of_its_own_names_that(monkeypatch, tmp_path, name):
    forget(monkeypatch, name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("import a_part_that_is_absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    for call in (lambda: check_installed([name]), lambda: open_tracker(name, place(tmp_path))):
        with pytest.raises(
            ConfigError, match=rf"{name} needs a_part_that_is_absent, which is not installed; .*a complete {name}"
        ):
            call()


class Broken:
    """Fails from the second row on."""

    def __init__(self):
        self.rows = []

    def log(self, step, metrics):
        if self.rows:
            raise ConnectionError("no route\nto host")
        self.rows.append((step, metrics))

    def close(self):
        raise AssertionError("was left out")


class Whole(Broken):
    """Works."""

    def log(self, step, metrics):
        self.rows.append((step, metrics))

    def close(self):
        self.rows.append("closed")


def test_a_tracker_that_fails_is_told_once_and_the_others_go_on():
    said, whole = [], Whole()
    trackers = Trackers({"wandb": Broken(), "mlflow": whole}, said.append)
    for step in range(3):
        trackers.log(step, {"loss": 1.0, "bad": math.nan})
    trackers.close()
    assert said == ["wandb failed and is left out from here on: ConnectionError: no route to host"]
    assert whole.rows == [(0, {"loss": 1.0}), (1, {"loss": 1.0}), (2, {"loss": 1.0}), "closed"]


def test_no_tracker_is_a_sink_too(tmp_path):
    trackers = open_trackers((), place(tmp_path), print)
    trackers.log(1, {"loss": 1.0})
    trackers.close()
    assert list(tmp_path.iterdir()) == []
