"""Checkpoints: whole or not there, verified, of this run or refused, kept by rule, written while training goes on."""

import dataclasses
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_examples import METHODS, make_learner, make_trees

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.core.errors import Interrupted, ModelError, StoreError
from fairlead.core.sections import deciding
from fairlead.core.services import Services
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.snapshot import Snapshot
from fairlead.policies.sft import _EarlyStop, mean_loss
from fairlead.text.examples import Encoded
from fairlead.train import identity
from fairlead.train.checkpoints import CheckpointRule, Checkpoints, load_weights, read_tensors
from fairlead.train.forward import Models
from fairlead.train.hooks import Session
from fairlead.train.loop import Learner, run_loop
from fairlead.train.optim import OptimizerSettings
from fairlead.train.shelf import Shelf, retire
from fairlead.train.state import named_parameters

OWNER = {
    "format": 2, "fairlead": "0.1.0", "algorithm": "sft", "parameters": {"w": [8]}, "start": "a", "settings": {"beta": "0.1"}, "data": "d",
}  # fmt: skip


def checkpoints(folder, *, keep=2, owner=OWNER):
    return Checkpoints(Shelf(folder / "checkpoints"), CheckpointRule(keep=keep), owner)


def save(made, step, *, is_best=False):
    made.save({"w": torch.full((8,), float(step))}, {"step": step, "metrics": {"loss": 1 / step}}, is_best=is_best)
    made.join()


def names(folder):
    return [e.name.removeprefix("step-").lstrip("0") for e in Shelf(folder / "checkpoints").entries()]


def dropped(folder):
    return [json.loads(line) for line in (folder / "checkpoints.jsonl").read_text().splitlines()]


# The file


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_a_snapshot_is_a_safetensors_file_with_the_values_of_its_moment(dtype, tmp_path):
    tensors = {
        "a": torch.arange(7).to(dtype),
        "b": torch.ones(2, 3).T,
        "scalar": torch.tensor(5.0),
        "none": torch.zeros(0, 4),
    }
    expected = {name: t.clone() for name, t in tensors.items()}
    snapshot = Snapshot()
    snapshot.take(tensors)
    tensors["b"].zero_()
    digest = snapshot.write(tmp_path / "t.safetensors")
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in expected.items())
    assert digest == hashlib.sha256((tmp_path / "t.safetensors").read_bytes()).hexdigest()


def test_a_snapshot_uses_its_memory_again(tmp_path):
    snapshot = Snapshot()
    snapshot.take({"w": torch.ones(1000), "v": torch.ones(10)})
    place = snapshot._memory.data_ptr()
    snapshot.take({"w": torch.full((1000,), 2.0)})  # smaller: what was there besides is not written
    assert snapshot._memory.data_ptr() == place
    snapshot.write(tmp_path / "t.safetensors")
    assert load_file(tmp_path / "t.safetensors").keys() == {"w"}


# Rotation


def test_the_last_two_and_the_best_stay_and_the_rest_leaves_a_line(tmp_path):
    made = checkpoints(tmp_path)
    for step in range(1, 7):
        save(made, step, is_best=step in (1, 3))
    assert names(tmp_path) == ["3", "5", "6"]
    rows = dropped(tmp_path)
    assert [r["step"] for r in rows] == [1, 2, 4]
    assert rows[0]["metrics"] == {"loss": 1.0} and rows[0]["is_best"] and rows[0]["reason"] == "rotated"
    assert len(rows[1]["sha256"]) == 64 and rows[1]["written"] and rows[1]["dropped"]


@pytest.mark.parametrize(("keep", "expected"), [(1, ["5"]), (3, ["3", "4", "5"]), ("all", ["1", "2", "3", "4", "5"])])
def test_how_many_stay_is_the_users_choice(keep, expected, tmp_path):
    made = checkpoints(tmp_path, keep=keep)
    for step in range(1, 6):
        save(made, step)
    assert names(tmp_path) == expected


def test_two_of_the_same_step_stand_beside_each_other_and_the_later_one_is_newer(tmp_path):
    made = checkpoints(tmp_path)
    for _ in range(3):
        save(made, 4)
    assert names(tmp_path) == ["4.1", "4.2"]
    found = checkpoints(tmp_path).resume()
    assert found is not None and found.entry.name == "step-00000004.2"


def test_a_run_can_be_set_back(tmp_path):
    made = checkpoints(tmp_path, keep="all")
    for step in (1, 2, 3):
        save(made, step)
    with pytest.raises(ModelError, match="step-00000001, step-00000002, step-00000003"):
        made.shelf.rewind("step-9")
    assert [e.step for e in made.shelf.rewind("step-00000001")] == [2, 3]
    assert names(tmp_path) == ["1"] and {r["reason"] for r in dropped(tmp_path)} == {
        "the run was set back to step-00000001"
    }


# Damage


def damage(entry, what):
    path = entry.path / what
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["tensors.safetensors", "state.json"])
def test_one_flipped_bit_is_noticed_and_the_one_before_is_taken(what, tmp_path):
    made = checkpoints(tmp_path)
    save(made, 1)
    save(made, 2)
    damage(made.shelf.entries()[-1], what)
    found = checkpoints(tmp_path).resume()
    assert found is not None and found.entry.step == 1 and found.tensors()["w"].tolist() == [1.0] * 8
    assert len(found.damaged) == 1 and "is damaged" in found.damaged[0] and names(tmp_path) == ["1"]
    assert dropped(tmp_path)[-1]["reason"] == "damaged"


def test_a_missing_file_is_damage_and_all_damaged_is_an_error(tmp_path):
    made = checkpoints(tmp_path)
    save(made, 1)
    (made.shelf.entries()[0].path / "tensors.safetensors").unlink()
    with pytest.raises(ModelError, match=r"is damaged: tensors.safetensors cannot be read") as info:
        checkpoints(tmp_path).resume()
    assert "\n" not in str(info.value) and names(tmp_path) == ["1"]


@pytest.mark.parametrize(("keep", "left"), [("all", ["1", "3", "4", "5"]), (2, ["4", "5"])])
def test_a_damaged_best_one_costs_no_other(keep, left, tmp_path):
    """All others are whole: the run goes on from the newest, without a best one."""
    made = checkpoints(tmp_path, keep=keep)
    for step in (1, 2, 3, 4, 5):
        save(made, step, is_best=step == 2)
    damage(next(e for e in made.shelf.entries() if e.step == 2), "tensors.safetensors")
    for lost in (
        "tensors.safetensors is not what was written",
        "state.json cannot be read",
    ):  # the second time it is gone
        again = checkpoints(tmp_path, keep=keep)
        found = again.resume()
        assert found is not None and found.entry.step == 5 and found.damaged == () and lost in found.lost_best
        assert again.best is None and again.read_best("w") == {} and names(tmp_path) == left
    assert dropped(tmp_path)[-1]["step"] == 2 and dropped(tmp_path)[-1]["reason"] == "damaged"
    save(again, 6)
    found = checkpoints(tmp_path, keep=keep).resume()
    assert found is not None and found.entry.step == 6 and found.lost_best == "", "it is said until a checkpoint knows"


def test_a_damaged_one_of_another_run_is_not_passed_over_and_nothing_is_dropped(tmp_path):
    made = checkpoints(tmp_path)
    save(made, 1)
    save(made, 2)
    damage(made.shelf.entries()[-1], "state.json")
    with pytest.raises(ModelError, match="is the checkpoint of another run"):
        checkpoints(tmp_path, owner={**OWNER, "data": "other"}).resume()
    assert names(tmp_path) == ["1", "2"]


def test_a_session_that_lost_its_best_weights_says_so_once(tmp_path):
    running = trained(tmp_path, make_learner("sft"), best_at=1, num=3)
    damage(next(e for e in running._checkpoints.shelf.entries() if e.step == 1), "tensors.safetensors")
    said, learner = [], make_learner("sft")
    again = trained(tmp_path, learner, num=0, say=said.append)
    assert again.resumed_from == 3 and again.has_lost_best and sum("the best weights" in line for line in said) == 1
    before = [p.detach().clone() for p in learner.parameters]
    again.restore_best()
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))


def test_sft_that_lost_its_best_weights_takes_where_it_stands_for_the_best(tmp_path):
    """A loss of 0 was the best, so no later one could be: the weights of the resumed step are the best again, and are kept."""
    running = trained(
        tmp_path,
        make_learner("sft"),
        best_at=1,
        num=2,
        extra={"history": [[0.0, 9.0], [1.0, 0.0]], "best": 0.0, "num_worse": 3},
    )
    damage(next(e for e in running._checkpoints.shelf.entries() if e.step == 1), "tensors.safetensors")
    learner = make_learner("sft")
    again = Session(
        learner,
        services=Services(work=tmp_path / "work"),
        title="t",
        metric="sft/loss",
        metrics_path=tmp_path / "m.jsonl",
        data="d",
    )
    trees = make_trees("sft", seed=9)
    with again:
        stopper = _EarlyStop(again, learner.models.policy, Encoded(trees=trees), every=1, patience=2)
    assert stopper.best == mean_loss(learner.models.policy, trees, max_tokens=learner.max_tokens, heed=lambda: None)
    assert not stopper.is_done and stopper.history == [(0.0, 9.0), (1.0, 0.0)]
    newest = again._checkpoints.shelf.entries()[-1]
    assert newest.name.startswith("step-00000002.") and newest.read()["best"] == newest.name


def test_the_best_of_the_one_before_outlives_a_better_one(tmp_path):
    """1 is the best that 3 knows of: were it gone when 4 became the best, a damaged 4 would leave nothing to go back to."""
    made = checkpoints(tmp_path)
    for step in (1, 2, 3, 4):
        save(made, step, is_best=step in (1, 4))
    assert names(tmp_path) == ["1", "3", "4"]
    damage(made.shelf.entries()[-1], "state.json")
    found = checkpoints(tmp_path).resume()
    assert found is not None and found.entry.step == 3


# Of another run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"algorithm": "dpo"}, "its algorithm is sft, that of this run is dpo"),
        ({"fairlead": "9.9"}, "its version of fairlead is 0.1.0, that of this run is 9.9"),
        ({"format": 3}, "its format is 2"),
        ({"data": "other"}, "it was trained on other data"),
        ({"start": "b"}, "a model with other weights"),
        ({"settings": {"beta": "0.2"}}, "it was made with beta=0.1, this run has beta=0.2"),
        ({"settings": {}}, "it was made with beta=0.1, this run has beta=absent"),
        ({"parameters": {"w": [9]}}, r"its parameter w has shape \[8\], that of this run \[9\]"),
        ({"parameters": {"v": [8]}}, "1 of its parameters differ: w trains here no more"),
        ({"parameters": {"w": [8], "v": [1]}}, "1 of its parameters differ: v trains here and not there"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_with_what_differs(change, told, tmp_path):
    save(checkpoints(tmp_path), 1)
    with pytest.raises(ModelError, match=told) as info:
        checkpoints(tmp_path, owner={**OWNER, **change}).resume()
    assert "\n" not in str(info.value) and "delete" in str(info.value)
    assert names(tmp_path) == ["1"]


def trained(folder, learner, *, data="d", num=2, every_s=0.0, best_at=None, extra=None, **options):
    services = Services(work=folder / "work", checkpoint_every_s=every_s, **options)
    running = Session(
        learner, services=services, title="t", metric="sft/loss", metrics_path=folder / "m.jsonl", data=data
    )

    running.extra = extra or {}

    def measure(learner, _metrics):
        if learner.step_number == best_at:
            running.mark_best()

    with running:
        run_loop(learner, [make_trees("sft", seed=i) for i in range(num)], [measure, running.after_step])
        running.save()
    return running


def change_start(learner):
    with torch.no_grad():
        learner.parameters[-1].add_(1.0)


def freeze_one(learner):
    learner.trainable.popitem()[1].requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: make_learner("sft", learning_rate=2e-3), "learning_rate=0.001, this run has learning_rate=0.002"),
        (lambda: make_learner("sft", num_steps=11), "num_steps=10, this run has num_steps=11"),
        (lambda: make_learner("dpo"), "its algorithm is sft"),
    ],
)
def test_a_session_refuses_what_another_one_left_and_changes_nothing(make, told, tmp_path):
    trained(tmp_path, make_learner("sft"))
    learner = make()
    before = [p.detach().clone() for p in learner.parameters]
    with pytest.raises(ModelError, match=told):
        trained(tmp_path, learner)
    assert learner.step_number == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))


@pytest.mark.parametrize(("change", "told"), [(change_start, "other weights"), (freeze_one, "trains here no more")])
def test_another_start_or_another_set_of_trained_parameters_is_noticed(change, told, tmp_path):
    trained(tmp_path, make_learner("sft"))
    learner = make_learner("sft")
    change(learner)
    with pytest.raises(ModelError, match=told):
        trained(tmp_path, learner)


def test_the_fingerprint_of_data_knows_every_part_that_is_learned():
    trees = make_trees("dpo", seed=0)
    found = identity.data_fingerprint(trees)
    assert found == identity.data_fingerprint(make_trees("dpo", seed=0))
    tree, branch = trees[2], trees[2].branches[1]
    others = (
        {"prompt_ids": tree.prompt_ids[::-1]}, {"ranks": (1, 0)}, {"numbers": {**tree.numbers, "p_chosen": 0.8}}, {"targets": ((1.0,), (2.0,))},
        {"branches": (tree.branches[0], dataclasses.replace(branch, weight=2.0))},
        {"branches": (tree.branches[0], dataclasses.replace(branch, token_ids=branch.token_ids + 1))},
        {"branches": (tree.branches[0], dataclasses.replace(branch, kept=np.arange(len(branch.token_ids)) > 0))},
    )  # fmt: skip
    for change in others:
        assert identity.data_fingerprint([*trees[:2], dataclasses.replace(tree, **change), *trees[3:]]) != found, change
    assert identity.data_fingerprint(trees[:-1]) != found


def test_parameters_are_stored_by_the_names_of_their_modules(tmp_path):
    learner = make_learner("reward")
    running = trained_reward(tmp_path, learner)
    stored = read_tensors(running._checkpoints.shelf.entries()[-1].path)
    weight = named_parameters(learner.models)["reward.head.weight"]
    assert torch.equal(stored["parameter/reward.head.weight"], weight)
    assert stored["optimizer/reward.head.weight/exp_avg"].shape == weight.shape
    assert {n for n in stored if n.startswith("parameter/")} == {f"parameter/{n}" for n in learner.trainable}


def test_a_checkpoint_of_an_adapter_holds_the_adapter_alone(tmp_path):
    """Of a model with a tied head, which torch's own state dict without frozen parameters would hold as well."""
    model = add_lora(tiny_models.load("qwen2"), LoraSettings(rank=2), seed=0)
    sft = get_algorithm("sft")
    learner = Learner(
        models=Models(policy=model),
        algo=sft,
        algo_config=sft.config(),
        optim=OptimizerSettings(learning_rate=1e-3),
        num_steps=1,
    )
    running = Session(
        learner, services=Services(work=tmp_path / "work"), title="t", metric="x", metrics_path=tmp_path / "m.jsonl"
    )
    with running:
        run_loop(learner, [make_trees("sft")], [running.after_step])
        running.save()
    stored = read_tensors(running._checkpoints.shelf.entries()[-1].path)
    of_model = [name for name in stored if name.startswith(("parameter/", "optimizer/"))]
    assert of_model and all("lora_" in name for name in of_model)


def trained_reward(folder, learner):
    running = Session(
        learner, services=Services(work=folder / "work"), title="t", metric="x", metrics_path=folder / "m.jsonl"
    )
    with running:
        run_loop(learner, [make_trees("reward")], [running.after_step])
        running.save()
    return running


# In the background


class SlowShelf(Shelf):
    """A shelf whose writer waits until it is told to go on."""

    gate = threading.Event()

    def draft(self):
        assert self.gate.wait(20)
        return super().draft()


@pytest.fixture
def gate():
    SlowShelf.gate.clear()
    yield SlowShelf.gate
    SlowShelf.gate.set()


def slow_session(folder, learner, *, every_s=0.0, rule=None):
    services = Services(work=folder / "work", checkpoint_every_s=every_s)
    running = Session(
        learner,
        services=services,
        title="t",
        metric="sft/loss",
        metrics_path=folder / "m.jsonl",
        rule=rule or CheckpointRule(),
    )
    running._checkpoints.shelf = SlowShelf(running._checkpoints.shelf.folder)
    return running


def test_training_goes_on_while_a_checkpoint_is_written_and_the_copy_is_of_one_moment(gate, tmp_path):
    learner = make_learner("sft")
    with slow_session(tmp_path, learner) as running:
        run_loop(learner, [make_trees("sft", seed=0)], [running.after_step])
        first = {n: t.clone() for n, t in learner.state()[0].items()}
        run_loop(learner, [make_trees("sft", seed=i) for i in range(4)], [running.after_step])
        assert (
            learner.step_number == 4 and not running._checkpoints.shelf.entries()
        )  # put off while one is being written
        gate.set()
    entries = running._checkpoints.shelf.entries()
    assert [e.step for e in entries] == [1]
    stored, state = read_tensors(entries[0].path), entries[0].verify()
    assert all(torch.equal(stored[n], t) for n, t in first.items())
    assert state["learner"]["step"] == 1 and state["metrics"].keys() >= {"loss", "grad_norm"}


def test_a_new_best_one_and_one_of_every_n_steps_wait_for_the_writer(tmp_path):
    learner = make_learner("sft")
    services = Services(work=tmp_path / "work", checkpoint_every_s=1e9)
    running = Session(learner, services=services, title="t", metric="sft/loss", metrics_path=tmp_path / "m.jsonl",
                      rule=CheckpointRule(keep="all", every_steps=3))  # fmt: skip

    def measure(learner, _metrics):
        if learner.step_number in (1, 2, 5):
            running.mark_best()

    with running:
        run_loop(learner, [make_trees("sft", seed=i) for i in range(7)], [measure, running.after_step])
    assert [e.step for e in running._checkpoints.shelf.entries()] == [1, 2, 3, 5, 6]
    assert [e.read()["best"][-1] for e in running._checkpoints.shelf.entries()] == ["1", "2", "2", "5", "5"]


def test_the_best_weights_come_back(tmp_path):
    learner = make_learner("sft")
    running = Session(
        learner,
        services=Services(work=tmp_path / "work"),
        title="t",
        metric="sft/loss",
        metrics_path=tmp_path / "m.jsonl",
    )
    kept = []

    def measure(learner, _metrics):
        if learner.step_number == 2:
            running.mark_best()
            kept.extend(p.detach().clone() for p in learner.parameters)

    with running:
        run_loop(learner, [make_trees("sft", seed=i) for i in range(4)], [measure, running.after_step])
    assert not all(torch.equal(a, b) for a, b in zip(kept, learner.parameters, strict=True))
    running.restore_best()
    assert all(torch.equal(a, b) for a, b in zip(kept, learner.parameters, strict=True))


class FullDisk(Shelf):
    """A disk that is full."""

    def draft(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def full_session(folder, learner, *, every_s, **options):
    services = Services(work=folder / "work", checkpoint_every_s=every_s, **options)
    running = Session(learner, services=services, title="t", metric="sft/loss", metrics_path=folder / "m.jsonl")
    running._checkpoints.shelf = FullDisk(running._checkpoints.shelf.folder)
    return running


def test_a_full_disk_stops_the_run_in_the_loop_with_one_sentence(tmp_path):
    learner = make_learner("sft", num_steps=1000)
    with pytest.raises(StoreError, match=r"checkpoints cannot be written: the disk is full") as info, \
            full_session(tmp_path, learner, every_s=0.0) as running:  # fmt: skip
        run_loop(learner, [make_trees("sft", seed=i) for i in range(500)], [running.after_step])
    assert "\n" not in str(info.value) and "same command" in str(info.value) and learner.step_number < 500


def test_a_fault_of_the_last_write_is_raised_at_the_end(tmp_path):
    learner = make_learner("sft")
    with (
        pytest.raises(StoreError, match="the disk is full"),
        full_session(tmp_path, learner, every_s=0.0) as running,
    ):
        run_loop(learner, [make_trees("sft")], [running.after_step])


def test_ctrl_c_never_says_saved_when_it_was_not(tmp_path):
    learner = make_learner("sft")
    with pytest.raises(StoreError, match="the disk is full"), \
            full_session(tmp_path, learner, every_s=1e9, should_stop=lambda: True) as running:  # fmt: skip
        run_loop(learner, [make_trees("sft")], [running.after_step])


def test_a_fault_of_the_writer_is_told_beside_another_error(tmp_path):
    said, learner = [], make_learner("sft")
    with (
        pytest.raises(ZeroDivisionError) as info,
        full_session(tmp_path, learner, every_s=0.0, say=said.append) as running,
    ):
        run_loop(learner, [make_trees("sft")], [running.after_step])
        raise ZeroDivisionError
    assert "the disk is full" in info.value.__notes__[0] and "the disk is full" in said[0]


def test_what_was_acknowledged_is_on_disk_when_ctrl_c_returns(gate, tmp_path):
    learner = make_learner("sft")
    gate.set()
    services = Services(work=tmp_path / "work", should_stop=lambda: learner.step_number == 2)
    running = Session(learner, services=services, title="t", metric="sft/loss", metrics_path=tmp_path / "m.jsonl")
    with pytest.raises(Interrupted, match="step 2 and saved"), running:
        run_loop(learner, [make_trees("sft", seed=i) for i in range(4)], [running.after_step])
    assert [e.step for e in running._checkpoints.shelf.entries()] == [2]
    assert not running._checkpoints.is_writing


# Random numbers


_DRAW_NOTHING = """
import random, numpy, torch
from training_examples import METHODS, make_learner, make_trees
from fairlead.train.loop import run_loop
for method in METHODS:
    learner = make_learner(method)
    before = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    run_loop(learner, [make_trees(method, seed=i) for i in range(2)])
    assert random.getstate() == before[0], method
    assert str(numpy.random.get_state()) == str(before[1]), method
    assert torch.equal(torch.get_rng_state(), before[2]), method
print(len(METHODS))
"""


def test_nothing_draws_from_the_global_generators_in_the_loop():
    """In a process without the run-time checks of shapes, which draw from Python's generator themselves."""
    tests = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", _DRAW_NOTHING], capture_output=True, text=True, check=False,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(Path(__file__).parent), *sys.path])})  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == str(len(METHODS))


def test_the_global_generators_come_back_for_models_that_do(tmp_path):
    def draw():
        return random.random(), np.random.rand(), np.random.standard_normal(), torch.rand(3).tolist()

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    np.random.standard_normal()
    trained(tmp_path, make_learner("sft"), num=0)
    expected = draw()
    random.seed(4), np.random.seed(4), torch.manual_seed(4)
    running = trained(tmp_path, make_learner("sft"), num=0)
    assert running.resumed_from == 0 and draw() == expected


# Killed


_SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from fairlead.train.checkpoints import CheckpointRule, Checkpoints
from fairlead.train.shelf import Shelf, retire
made = Checkpoints(Shelf(Path(sys.argv[1])), CheckpointRule(), {})
for step in range(1, 10**6):
    made.save({"w": torch.full((1000,), float(step))}, {"step": step, "metrics": {}}, is_best=step % 3 == 0)
    made.join()
    print(step, flush=True)
"""


def test_a_killed_process_leaves_whole_checkpoints_and_none_that_it_told_of_is_lost(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _SAVE_FOREVER, str(tmp_path / "checkpoints")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(12)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
    shelf = Shelf(tmp_path / "checkpoints")
    entries = shelf.entries()
    assert entries[-1].step >= int(told[-1]) > 3
    for entry in entries:
        entry.verify()
        assert read_tensors(entry.path)["w"].tolist() == [float(entry.step)] * 1000
    shelf.clean()
    assert all(not p.name.startswith(".") for p in shelf.folder.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of open files from /proc")
def test_a_checkpoint_is_on_disk_before_it_shows_and_before_others_go(tmp_path, monkeypatch):
    made, synced, fsync = checkpoints(tmp_path, keep=1), [], os.fsync
    save(made, 1)

    def record(handle):
        synced.append((Path(f"/proc/self/fd/{handle}").resolve().name.split("-")[0], names(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    save(made, 2)
    assert synced[:4] == [
        ("tensors.safetensors", ["1"]),
        ("state.json", ["1"]),
        (".draft", ["1"]),
        ("checkpoints", ["1", "2"]),
    ]
    assert synced[4:] == [("checkpoints.jsonl", ["1", "2"])]


def test_steps_are_not_held_up_by_leftovers_of_a_kill(tmp_path):
    made = checkpoints(tmp_path)
    save(made, 1)
    for name in (".draft-x", ".gone-step-00000000"):
        (made.shelf.folder / name).mkdir()
        (made.shelf.folder / name / "tensors.safetensors").write_bytes(b"half")
    found = checkpoints(tmp_path).resume()
    assert found is not None and found.entry.step == 1
    assert sorted(p.name for p in made.shelf.folder.iterdir()) == ["step-00000001"]


def test_checkpoints_are_not_announced(tmp_path):
    said = []
    trained(tmp_path, make_learner("sft"), say=said.append)
    assert said == [] and names(tmp_path / "work")


def test_the_weights_of_a_checkpoint_can_be_taken_out(tmp_path):
    learner = make_learner("sft")
    running = trained(tmp_path, learner)
    path = running._checkpoints.shelf.entries()[-1].path
    fresh = make_learner("sft")
    load_weights(path, fresh.models)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters, learner.parameters, strict=True))
    with pytest.raises(ModelError, match=r"does not fit this model: policy\..* is not there"):
        load_weights(path, make_learner("reward").models)


@pytest.mark.parametrize("keep_all", [False, True])
def test_a_finished_stage_leaves_the_lines_and_its_checkpoints_only_when_all_are_kept(keep_all, tmp_path):
    work, log = tmp_path / "work", tmp_path / "run" / "checkpoints.jsonl"
    for folder in (work, work / "member-1"):
        made = checkpoints(folder, keep="all" if keep_all else 2)
        for step in (1, 2, 3):
            save(made, step)
    retire(work, log=log, stage="rewards", keep_all=keep_all)
    if keep_all:
        assert names(work) == names(work / "member-1") == ["1", "2", "3"] and not log.exists()
    else:
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(r["step"], r["reason"]) for r in rows] == [
            (1, "rotated"),
            (2, "the stage is done"),
            (3, "the stage is done"),
        ] * 2
        assert (
            {r["stage"] for r in rows} == {"rewards"}
            and all(len(r["sha256"]) == 64 for r in rows)
            and not work.exists()
        )


def test_settings_that_change_only_checkpoints_decide_nothing():
    assert deciding({"training": {"keep_checkpoints": 2, "checkpoint_every_steps": 5, "batch_size": 4}, "data": [{"take": 1}]}) == {
        "training": {"batch_size": 4}, "data": [{"take": 1}]
    }  # fmt: skip
