"""Where files are, what a changed file does to fingerprints, and faults of libraries as one sentence."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from fairlead.core.errors import ConfigError, DataError, EngineError, StoreError
from fairlead.pipeline.faults import readable_faults
from fairlead.pipeline.files import FileFinder, check_context, file_hash, folder_hash
from fairlead.pipeline.gates import all_gates, check_names


def test_recipe_folder_comes_before_data_and_bundled_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, data = tmp_path / "mine", tmp_path / "data"
    for folder in (mine, data):
        (folder / "quickstart").mkdir(parents=True)
    monkeypatch.setenv("FAIRLEAD_DATA", str(data))
    name = "quickstart/lexicon.json"
    finder = FileFinder(mine)
    assert finder.find(name).parent.parent.name == "bundled"
    (data / name).write_text("{}", encoding="utf-8")
    assert finder.find(name) == data / name
    (mine / name).write_text("{}", encoding="utf-8")
    assert finder.find(name) == mine / name
    assert finder.find(str(data / name)) == data / name


def test_missing_file_names_key_places_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLEAD_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"sft\.data\.0\.path=gone\.jsonl is not found.*FAIRLEAD_DATA") as caught:
        FileFinder(tmp_path).find("gone.jsonl", key="sft.data.0.path")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        FileFinder(tmp_path).find(str(tmp_path / "gone.jsonl"))


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        FileFinder(tmp_path).find("rows.jsonl")


def test_configs_by_content_follow_named_files_and_not_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("1\n", encoding="utf-8")
    finder = FileFinder(tmp_path)
    config: dict[str, Any] = {"data": [{"path": "a.jsonl", "take": None}], "note": "see b for more", "rate": 0.1}
    before = finder.by_content(config)
    named = f"a.jsonl@{file_hash(tmp_path / 'a.jsonl')}"
    assert before == {"data": [{"path": named, "take": None}], "note": "see b for more", "rate": 0.1}
    moved = {**config, "data": [{"path": str(tmp_path / "a.jsonl"), "take": None}]}
    assert FileFinder(tmp_path / "elsewhere").by_content(moved) == before
    (tmp_path / "b.jsonl").write_text("2\n", encoding="utf-8")
    assert finder.by_content(config) == before
    (tmp_path / "a.jsonl").write_text("2\n", encoding="utf-8")
    assert finder.by_content(config) != before


def test_folder_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1", encoding="utf-8")
    first = folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_hash(tmp_path)
    (tmp_path / "b").write_text("2", encoding="utf-8")
    assert len({first, second, folder_hash(tmp_path)}) == 3


def test_first_model_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "config.json").write_text("{}", encoding="utf-8")
    finder = FileFinder(tmp_path)
    assert finder.find_model(("first", "second", "third")) == str(tmp_path / "second")
    assert finder.find_model(("org/first", "org/third")) == "org/third"


@pytest.mark.parametrize("key", ["max_position_embeddings", "n_positions"])
def test_texts_longer_than_the_context_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: 256}), encoding="utf-8")
    check_context(tmp_path, 256)
    with pytest.raises(ConfigError, match=r"text\.max_length=257 .*expected <= 256"):
        check_context(tmp_path, 257)
    check_context(tmp_path / "nothing", 257)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            StoreError,
            "disk is full",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), StoreError, "disk is full"),
        (Exception("File too large (os error 27)"), StoreError, "disk is full"),
        (MemoryError(), EngineError, "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), EngineError, "max_tokens_per_microbatch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), EngineError, "ran out"),
    ],
)
def test_faults_of_libraries_become_one_sentence(
    tmp_path: Path, error: Exception, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words), readable_faults(tmp_path / "draft"):
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), DataError("a row: No space left on device"), KeyboardInterrupt()]
)
def test_other_faults_pass_as_they_are(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, readable_faults(tmp_path / "draft"):
        raise error
    assert caught.value is error


def test_gate_names() -> None:
    check_names([gate.name for gate in all_gates()], where="allow")
    with pytest.raises(ConfigError, match=r"allow=rl\.kI is not a gate \(did you mean rl\.kl\?\)"):
        check_names(["rl.kI"], where="allow")
