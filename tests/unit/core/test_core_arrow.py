"""Columns in Arrow files: they come back as they were, any Arrow reader opens them, and what is wrong with a file is told."""

import os

import numpy as np
import pyarrow as pa
import pytest

from fairlead.core import cache
from fairlead.core.arrow import Column, map_columns, write_columns
from fairlead.core.errors import DataError

WORDS = Column(np.array([5, 6, 7, 8, 9], dtype=np.int32), (np.array([0, 2, 2, 3]), np.array([0, 1, 4, 5])))
COLUMNS = {
    "size": Column(np.array([1.5, np.nan, 2.0])),
    "word": WORDS,
    "none": Column(np.zeros(0), (np.zeros(4, dtype=np.int64),)),
}


def write(path, version="things/1", **facts):
    write_columns(path, COLUMNS, version=version, facts=facts)


def test_columns_and_facts_come_back_from_the_file(tmp_path):
    write(tmp_path / "a.arrow", num_dropped=3)
    columns, facts = map_columns(tmp_path / "a.arrow", version="things/1")
    assert facts == {"num_dropped": 3} and columns.keys() == COLUMNS.keys()
    for name, column in COLUMNS.items():
        found = columns[name]
        assert len(found) == len(column) == 3 and found.values.dtype == column.values.dtype
        np.testing.assert_array_equal(found.values, column.values)
        for a, b in zip(found.offsets, column.offsets, strict=True):
            np.testing.assert_array_equal(a, b)
    (tmp_path / "a.arrow").unlink()
    assert columns["word"].values.tolist() == [5, 6, 7, 8, 9], "a deleted file stays readable to who reads it"
    assert not columns["word"].values.flags.writeable


def test_any_arrow_reader_sees_a_row_a_thing(tmp_path):
    write(tmp_path / "a.arrow")
    with pa.OSFile(str(tmp_path / "a.arrow")) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    assert [row["word"] for row in rows] == [[[5], [6, 7, 8]], [], [[9]]]


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "text"])
def test_a_damaged_file_is_told_apart(tmp_path, damage):
    path = tmp_path / "a.arrow"
    write(path)
    data = bytearray(path.read_bytes())
    if damage == "bit":
        place = data.index(np.array([5, 6, 7, 8, 9], dtype=np.int32).tobytes())
        data[place] ^= 1
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "bit": data, "text": b"x" * 1000}[damage])
    with pytest.raises(DataError, match="damaged"):
        map_columns(path, version="things/1")


def test_another_version_and_a_missing_file_are_told_apart(tmp_path):
    write(tmp_path / "a.arrow", version="things/0")
    with pytest.raises(DataError, match="things/0 was written by another version; expected things/1"):
        map_columns(tmp_path / "a.arrow", version="things/1")
    with pytest.raises(FileNotFoundError):
        map_columns(tmp_path / "b.arrow", version="things/1")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    uneven = {"a": Column(np.zeros(2)), "b": Column(np.zeros(3))}
    with pytest.raises(ValueError, match="same length"):
        write_columns(tmp_path / "a.arrow", uneven, version="things/1", facts={})
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_files_go_first_and_kept_ones_stay(tmp_path):
    for place, name in enumerate("abcd"):
        (tmp_path / f"{name}.arrow").write_bytes(b"x" * 10)
        os.utime(tmp_path / f"{name}.arrow", (place, place))
    (tmp_path / "other.txt").write_bytes(b"x" * 1000)
    cache.mark_used(tmp_path / "a.arrow")
    cache.mark_used(tmp_path / "gone.arrow")
    cache.trim_folder(tmp_path, "*.arrow", keep=[tmp_path / "b.arrow"], max_bytes=25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.arrow", "b.arrow", "other.txt"]


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path):
    old, new = tmp_path / ".a.arrow.x.tmp", tmp_path / ".b.arrow.y.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    cache.trim_folder(tmp_path, "*.arrow")
    assert not old.exists() and new.exists()
