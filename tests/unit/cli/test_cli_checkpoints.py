"""`fairlead checkpoints`: a stage that is done is not set back, and a listing bears a run that goes on meanwhile."""

import hashlib
import json
import shutil

import pytest

from fairlead.cli.checkpoints import show_checkpoints
from fairlead.core.errors import ConfigError
from fairlead.store.artifacts import ArtifactStore
from fairlead.train.shelf import TENSORS, Entry, Shelf

KEY = "0123abcd"


@pytest.fixture
def shelf(tmp_path):
    """Three checkpoints of a stage."""
    shelf = Shelf(tmp_path / "work" / KEY / "checkpoints")
    for step in (1, 2, 3):
        draft = shelf.draft()
        (draft / TENSORS).write_bytes(b"weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        state = {
            "step": step,
            "best": None,
            "metrics": {},
            "run": "micro/sft",
            "title": "sft",
            "written": "",
            "sha256": digest,
        }
        shelf.commit(draft, shelf.place(step), state)
    return shelf


def steps(shelf):
    return [e.step for e in shelf.entries()]


def commit(home):
    with ArtifactStore(home).draft("policy", stage="sft") as draft:
        (draft.path / "weights").write_text("w")
        return draft.commit(
            config={}, inputs={}, summary={}, code_version="c", seconds=0.0, cache_key=KEY, name="micro/sft"
        )


def test_a_stage_that_is_done_is_not_set_back(shelf, tmp_path):
    artifact = commit(tmp_path)
    with pytest.raises(ConfigError, match=r"--set-back=step-00000001 belongs to a stage that is done") as info:
        show_checkpoints(tmp_path, None, set_back="step-00000001", as_json=False)
    assert artifact.id in str(info.value) and "\n" not in str(info.value) and steps(shelf) == [1, 2, 3]


def test_a_stage_whose_artifact_is_gone_is_set_back(shelf, tmp_path):
    shutil.rmtree(commit(tmp_path).path)
    show_checkpoints(tmp_path, None, set_back="step-00000001", as_json=False)
    assert steps(shelf) == [1]


@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_what_rotates_away_meanwhile_is_not_listed(when, shelf, tmp_path, monkeypatch, capsys):
    read = Entry.read

    def read_late(entry):
        if entry.step == 1 and when == "before it is read":
            shutil.rmtree(entry.path)
        state = read(entry)
        if entry.step == 1:
            shutil.rmtree(entry.path)
        return state

    monkeypatch.setattr(Entry, "read", read_late)
    show_checkpoints(tmp_path, "micro", set_back=None, as_json=True)
    assert [row["step"] for row in json.loads(capsys.readouterr().out)] == [2, 3]


def test_a_stage_that_ends_meanwhile_is_not_listed(shelf, tmp_path, monkeypatch, capsys):
    def gone(self):
        raise FileNotFoundError(self.folder)

    monkeypatch.setattr(Shelf, "entries", gone)
    show_checkpoints(tmp_path, None, set_back=None, as_json=True)
    assert json.loads(capsys.readouterr().out) == []
