"""Files: every reader locates its fault, every writer leaves a whole file or the old one."""

import gzip
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.core.io import (
    Rejects,
    Row,
    atomic_path,
    dump_json,
    parse_json,
    read_json,
    read_rows,
    require_file,
    write_json,
    write_jsonl,
    write_parquet,
    write_text,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
ROWS = st.lists(st.dictionaries(TEXT, JSON, max_size=3), min_size=1, max_size=4)


def fault(path):
    """The message of reading a file; it must be one line."""
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@given(rows=ROWS)
def test_jsonl_round_trip(tmp_path_factory, name, rows):
    path = tmp_path_factory.mktemp("io") / name
    assert write_jsonl(path, rows) == len(rows)
    assert [row.values for row in read_rows(path)] == rows


@given(JSON)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("io") / "x.json"
    write_json(path, value)
    assert read_json(path) == value


@given(
    st.lists(
        st.fixed_dictionaries({"text": TEXT, "n": st.integers(-9, 9), "ids": st.lists(st.integers(0, 9))}), min_size=1
    )
)
def test_parquet_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("io") / "x.parquet"
    assert write_parquet(path, rows) == len(rows)
    assert [row.values for row in read_rows(path)] == rows


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_csv_round_trip(tmp_path_factory, cells):
    """Written by the csv module of the standard library, quotes and line breaks included."""
    import csv

    folder = tmp_path_factory.mktemp("io")
    for name, delimiter in (("x.csv", ","), ("x.TSV", "\t")):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([("a", "b"), *cells])
        assert [(r.values["a"], r.values["b"]) for r in read_rows(folder / name)] == cells


def test_json_list_csv_and_bom_are_read_with_places(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": 1}, {"a": 2}]')
    assert [r.where for r in read_rows(tmp_path / "x.json")] == [f"{tmp_path}/x.json[0]", f"{tmp_path}/x.json[1]"]
    (tmp_path / "x.csv").write_bytes('\ufeffa,b\r\n1,"two\r\nlines"\r\n3,4\r\n'.encode())
    assert [(r.number, r.values) for r in read_rows(tmp_path / "x.csv")] == [
        (3, {"a": "1", "b": "two\r\nlines"}),
        (4, {"a": "3", "b": "4"}),
    ]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress('\ufeff{"a": 1}\n\n{"a": 2}\n'.encode(), mtime=0))
    assert [(r.number, r.values) for r in read_rows(tmp_path / "x.jsonl.gz")] == [(1, {"a": 1}), (3, {"a": 2})]


def test_csv_cells_longer_than_the_default_limit_are_read(tmp_path):
    (tmp_path / "x.csv").write_text("a\n" + "x" * 200_000 + "\n")
    assert len(next(read_rows(tmp_path / "x.csv")).values["a"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', ["x.jsonl:2", "is not JSON"]),
        ("x.jsonl", b'{"a": NaN}\n', ["x.jsonl:1", "NaN is not JSON"]),
        ("x.jsonl", b'{"a": -Infinity}\n', ["x.jsonl:1", "-Infinity is not JSON"]),
        ("x.jsonl", b'{"a": 1e999}\n', ["x.jsonl:1", "1e999 is too large"]),
        ("x.jsonl", b'{"a": "\\ud83d"}\n', ["x.jsonl:1", "surrogate"]),
        ("x.jsonl", b'{"a": 1}\n' + b"[" * 100_000 + b"\n", ["x.jsonl:2", "is not JSON"]),
        ("x.jsonl", b'{"a": 1}\n[1]\n', ["x.jsonl:2=[1]", "is not an object"]),
        ("x.jsonl", b'{"a": "b"}\n' * 20_000 + b'{"a": "\xff"}\n', ["x.jsonl:20001", "not UTF-8"]),
        ("x.jsonl", b"", ["x.jsonl", "is empty"]),
        ("x.jsonl", b"\n \n", ["x.jsonl", "is empty"]),
        ("x.jsonl.gz", gzip.compress(b'{"a": "%s"}\n' % os.urandom(5000).hex().encode())[:-900], ["x.jsonl.gz", "truncated gzip"]),
        ("x.jsonl.gz", b'{"a": 1}\n', ["x.jsonl.gz", "not a valid gzip"]),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n\xff\n', mtime=0), ["x.jsonl.gz:2", "not UTF-8"]),
        ("x.json", b'{"a": 1}', ["x.json", "is not a list"]),
        ("x.json", b'[{"a": 1}, 5]', ["x.json[1]=5", "is not an object"]),
        ("x.csv", b"a,b\n1,2\n3\n", ["x.csv:3", "different number of cells"]),
        ("x.csv", b"a,b\n1,2,3\n", ["x.csv:2", "different number of cells"]),
        ("x.csv", b"a,a\n1,2\n", ["x.csv:1=a,a", "names a column twice"]),
        ("x.csv", b'a,b\n1,"2\n', ["x.csv:2", "is not CSV"]),
        ("x.csv", b"a,b\n", ["is empty"]),
        ("x.parquet", b"PAR1 nothing PAR1", ["x.parquet", "not a readable Parquet"]),
        ("x.txt", b"hello", ["x.txt", "unknown file type", ".jsonl"]),
    ],
)  # fmt: skip
def test_faults_of_files_are_located(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    message = fault(path)
    assert all(word in message for word in words), message


def test_damaged_parquet_page_is_a_located_error(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"a": [os.urandom(50).hex() for _ in range(2000)]}), path, compression="snappy"
    )
    data = bytearray(path.read_bytes())
    data[4:4000] = b"\xff" * 3996
    path.write_bytes(bytes(data))
    assert "not a readable Parquet" in fault(path)


def test_missing_folder_and_nearest_name(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{}")
    assert "did you mean prompts.jsonl?" in fault(tmp_path / "prompt.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        require_file(tmp_path)


def test_whole_surrogate_pairs_are_read():
    assert parse_json('"\\ud83d\\ude00"', "x") == "\U0001f600"


def test_numbers_that_are_not_finite_are_never_written(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json"]


def test_equal_rows_give_equal_gzip_bytes_whatever_the_name_and_time(tmp_path):
    write_jsonl(tmp_path / "a.jsonl.gz", [{"a": 1}])
    write_jsonl(tmp_path / "b.jsonl.gz", [{"a": 1}])
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    assert first == (tmp_path / "b.jsonl.gz").read_bytes()
    assert first[4:8] == bytes(4)  # the header's time, RFC 1952 section 2.3


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_failing_source_leaves_the_old_file_and_nothing_else(tmp_path, name):
    path = tmp_path / name
    write_jsonl(path, [{"old": True}])

    def rows():
        yield {"new": True}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert [r.values for r in read_rows(path)] == [{"old": True}]
    assert [p.name for p in tmp_path.iterdir()] == [name]


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from fairlead.core.errors import DataError
    from fairlead.core.io import write_json, write_jsonl, write_parquet, write_text
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    path, big = Path(sys.argv[1]), "x" * 100_000
    import os
    noise = os.urandom(100_000).hex()
    writers = {".json": lambda: write_json(path, big), ".jsonl": lambda: write_jsonl(path, [{"a": big}] * 3),
               ".gz": lambda: write_jsonl(path, [{"a": noise}]), ".txt": lambda: write_text(path, big),
               ".parquet": lambda: write_parquet(path, [{"a": noise}])}
    try:
        writers[path.suffix]()
    except DataError as error:
        print(error)
"""


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.jsonl.gz", "x.txt", "x.parquet"])
def test_no_room_leaves_the_old_file_and_nothing_half_written(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    script = textwrap.dedent(FULL_DISK)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "ulimit -f" in done.stdout and len(done.stdout.splitlines()) == 1, (
        done
    )
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_named(tmp_path):
    device = Path("/dev/full")
    with pytest.raises(DataError, match="the disk is full; expected free space"), atomic_path(tmp_path / "x"):
        device.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_located_error(tmp_path):
    """A file stands where a folder is needed, which stops root too (a read-only mode would not)."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file/x\.json cannot be written"):
        write_json(tmp_path / "file" / "x.json", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_a_located_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "x.txt", "x")
    tmp_path.chmod(0o700)


def test_rejects_appear_only_when_there_are_some_and_hold_any_cell(tmp_path):
    path = tmp_path / "x.rejects.jsonl"
    with Rejects(path) as rejects:
        rejects.add(Row("x:1", 1, {"a": b"\xff", "n": float("nan"), "l": [float("inf"), 1]}), "no prompt")
        rejects.add(Row("x:2", 2, {}), "no prompt")
    assert (rejects.total, rejects.counts) == (2, {"no prompt": 2})
    first = next(read_rows(path)).values
    assert first == {"where": "x:1", "reason": "no prompt", "row": {"a": "b'\\xff'", "n": "nan", "l": ["inf", 1]}}
    with Rejects(path):
        pass
    assert not path.exists()


def test_dump_json_keeps_text_readable():
    assert dump_json({"a": "é"}) == '{"a": "é"}'
    assert json.loads(dump_json([1, 2], indent=2)) == [1, 2]
