"""Work folders: alone, gone when empty, and found again by no version but their own."""

import pytest
from store_example import add

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.work import stale_work, work_alone


def killed(home, key, *, code="1+old"):
    """A work folder as a killed run leaves it."""
    work = home / "work" / key
    with work_alone(work, stage="sft", code=code):
        (work / "metrics.jsonl").write_bytes(b"12345")
    return work


def names(store, code="1+new"):
    return [folder.path.name for folder in stale_work(store, code=code)]


def test_a_folder_in_which_nothing_is_left_is_removed(tmp_path):
    with work_alone(tmp_path / "work" / "a", stage="sft", code="1"):
        assert (tmp_path / "work" / "a").is_dir()
        with (
            pytest.raises(StoreError, match="sft is being run by another process"),
            work_alone(tmp_path / "work" / "a", stage="sft", code="1"),
        ):
            pass
    assert list((tmp_path / "work").iterdir()) == []


def test_folders_of_other_versions_are_found_and_told(tmp_path):
    store = ArtifactStore(tmp_path)
    killed(tmp_path, "old")
    killed(tmp_path, "new", code="1+new")
    (tmp_path / "work" / "before-they-said").mkdir()
    found = {folder.path.name: folder for folder in stale_work(store, code="1+new")}
    assert found.keys() == {"old", "before-they-said"}
    assert (found["old"].stage, found["old"].code_version) == ("sft", "1+old") and found["old"].num_bytes > 5
    assert found["before-they-said"].code_version == "unknown"
    assert all(folder.remove() for folder in found.values())
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["new"] and names(store) == []


def test_one_in_use_is_neither_found_nor_removed(tmp_path):
    store = ArtifactStore(tmp_path)
    work = killed(tmp_path, "old")
    (folder,) = stale_work(store, code="1+new")
    with work_alone(work, stage="sft", code="1+old"):
        assert names(store) == []
        assert not folder.remove() and (work / "metrics.jsonl").is_file()
    assert names(store) == ["old"] and folder.remove() and not work.exists()


def test_checkpoints_that_were_to_stay_stay_with_their_artifact(tmp_path):
    store = ArtifactStore(tmp_path)
    artifact = add(store, "policy", "kept", cache_key="kept")
    killed(tmp_path, "kept")
    assert names(store) == []
    (artifact.path / "manifest.json").unlink()
    assert names(store) == ["kept"]
