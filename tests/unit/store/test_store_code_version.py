"""The code version: follows every edit of the source, nothing else."""

import shutil
import time
from pathlib import Path

import fairlead
from fairlead.store.code_version import code_version, hash_source

PACKAGE = Path(fairlead.__file__).parent


def test_version_names_the_package_version_and_the_source():
    version, _, source = code_version().partition("+")
    assert version == fairlead.__version__
    assert source == hash_source(PACKAGE) and len(source) == 12


def test_edits_count_and_compiled_files_and_places_do_not(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "x.py").write_text("1")
        (tmp_path / name / "sub" / "y.py").write_text("2")
    before = hash_source(tmp_path / "a")
    assert hash_source(tmp_path / "b") == before
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"x")
    assert hash_source(tmp_path / "a") == before
    (tmp_path / "a" / "x.py").write_text("11")
    edited = hash_source(tmp_path / "a")
    shutil.move(tmp_path / "b" / "x.py", tmp_path / "b" / "z.py")
    renamed = hash_source(tmp_path / "b")
    assert len({before, edited, renamed}) == 3


def test_text_that_moves_from_one_file_to_the_next_counts(tmp_path):
    for name, texts in {"a": ("xy", "z"), "b": ("x", "yz")}.items():
        (tmp_path / name).mkdir()
        for i, text in enumerate(texts):
            (tmp_path / name / f"{i}.py").write_text(text)
    assert hash_source(tmp_path / "a") != hash_source(tmp_path / "b")


def test_it_is_fast_and_computed_once():
    seconds = min(_seconds() for _ in range(5))
    assert seconds < 0.05
    assert code_version() is code_version()


def _seconds() -> float:
    start = time.thread_time()  # what other processes do does not count
    hash_source(PACKAGE)
    return time.thread_time() - start
