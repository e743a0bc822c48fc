"""Sessions: a run that was interrupted or killed goes on bit for bit as if nothing had happened."""

import contextlib
import json
import re

import pytest
import torch
from training_examples import METHODS, make_learner, make_trees, weights

from fairlead.core.errors import Interrupted
from fairlead.core.services import Services
from fairlead.telemetry import read_metrics
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop


def source(method):
    return [make_trees(method, seed=step) for step in range(6)]


def session(learner, folder, *, muted=(), **options):
    services = Services(work=folder / "work", **options)
    return Session(
        learner, services=services, title="test", metric="sft/loss", metrics_path=folder / "metrics.jsonl", muted=muted
    )


@pytest.mark.parametrize("method", METHODS)
def test_three_steps_resumed_and_three_more_are_six_steps(method, tmp_path):
    whole = make_learner(method, num_steps=6)
    with session(whole, tmp_path / "a") as running:
        run_loop(whole, source(method), [running.after_step])

    first = make_learner(method, num_steps=6)
    with (
        contextlib.suppress(Interrupted),
        session(first, tmp_path / "b", should_stop=lambda: first.step_number == 3) as running,
    ):
        run_loop(first, source(method), [running.after_step])
    assert first.step_number == 3 and not (tmp_path / "b" / "metrics.jsonl").exists()

    second = make_learner(method, num_steps=6)
    with session(second, tmp_path / "b") as running:
        assert running.resumed_from == 3 == second.step_number
        run_loop(second, source(method), [running.after_step])
    assert second.step_number == 6
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    kept = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert kept[0] == kept[1] and len(kept[0].splitlines()) == 6


def test_rows_after_the_checkpoint_are_written_once(tmp_path):
    """Killed two steps after a checkpoint: the metrics of these steps are there already, and are replaced."""
    learner = make_learner("sft", num_steps=6)
    with pytest.raises(KeyboardInterrupt), session(learner, tmp_path) as running:
        for batch in source("sft")[:4]:
            running.log(learner.step(batch))
            if learner.step_number == 2:
                running.save()
        raise KeyboardInterrupt
    again = make_learner("sft", num_steps=6)
    with session(again, tmp_path) as running:
        assert running.resumed_from == 2
        run_loop(again, source("sft"), [running.after_step])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


class Bar:
    """A progress line that keeps what it was told."""

    def __init__(self):
        self.notes = []

    def advance(self, num=1, *, note=""):
        self.notes.append((num, note))


def test_the_progress_line_tells_the_pace_and_the_artifact_does_not(tmp_path):
    bar, learner = Bar(), make_learner("sft", num_steps=2)
    with session(learner, tmp_path, progress=lambda _title, _total: contextlib.nullcontext(bar)) as running:
        run_loop(learner, source("sft")[:2], [running.after_step])
    assert [num for num, _ in bar.notes] == [1, 1]
    assert all(re.fullmatch(r"loss \d\.\d{3}, [\d.,]+ tokens/s, [\d.]+ s/step", note) for _, note in bar.notes)
    kept = read_metrics(tmp_path / "metrics.jsonl")
    live = read_metrics(tmp_path / "work" / "metrics.jsonl")
    assert set(live) - set(kept) == {"tokens_per_s", "train/step_s"}
    assert [step for step, _ in live["train/step_s"]] == [1, 2]


def test_nothing_is_said_about_what_the_config_means(tmp_path):
    said, learner = [], make_learner("sft", num_steps=4)
    with session(learner, tmp_path, say=said.append, muted=("rl/kl_k1",)) as running:
        for _ in range(3):
            learner.step_number += 1
            running.log({"rl/kl_k1": 0.75})
    assert said == []


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    learner = make_learner("sft", num_steps=6)
    with (
        pytest.raises(Interrupted, match="interrupted at step 1 and saved"),
        session(learner, tmp_path, should_stop=lambda: True) as running,
    ):
        run_loop(learner, source("sft"), [running.after_step])


def test_extras_come_back(tmp_path):
    learner = make_learner("sft")
    with session(learner, tmp_path) as running:
        running.extra["kl_coef"], running.extra_tensors["best"] = 0.125, torch.tensor([1.0, 2.0])
        running.save()
    with session(make_learner("sft"), tmp_path) as running:
        assert running.extra == {"kl_coef": 0.125}
        assert running.extra_tensors["best"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("seconds", "is_saved"), [(0.0, True), (1e9, False)])
def test_checkpoints_are_written_when_due(seconds, is_saved, tmp_path):
    learner = make_learner("sft")
    with session(learner, tmp_path, checkpoint_every_s=seconds) as running:
        run_loop(learner, source("sft")[:1], [running.after_step])
    assert (tmp_path / "work" / "checkpoints").exists() == is_saved


@pytest.mark.parametrize("num_more", [0, 1])
def test_going_on_with_another_number_of_threads_is_said_once(tmp_path, num_more):
    before, said = torch.get_num_threads(), []
    learner = make_learner("sft", num_steps=6)
    with contextlib.suppress(Interrupted), session(learner, tmp_path, should_stop=lambda: True) as running:
        run_loop(learner, source("sft"), [running.after_step])
    torch.set_num_threads(before + num_more)
    try:
        with session(make_learner("sft", num_steps=6), tmp_path, say=said.append):
            pass
    finally:
        torch.set_num_threads(before)
    told = [line for line in said if "threads" in line]
    assert len(told) == num_more
    assert all(f"going on with {before + 1} threads after {before}" in line for line in told)
