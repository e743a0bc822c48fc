"""Atomic, streaming reading and writing of JSON, JSONL, CSV and Parquet, with located errors and row-level rejects.

Writers put a complete file in place or leave the old one: write to a temporary neighbour, flush, fsync, rename. Readers
name the file and line of the first fault. `.gz` is understood everywhere but for Parquet. Besides `arrow.py` only this file imports pyarrow.

Example:
    with Rejects(out.with_suffix(".rejects.jsonl")) as rejects:
        write_jsonl(out, (convert(row) for row in read_rows(source)))
"""

import contextlib
import csv
import errno
import gzip
import io
import itertools
import json
import math
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from fairlead.core.errors import DataError, explain, shorten
from fairlead.core.records import AnyRecord, Record, from_dict, to_dict
from fairlead.core.untrusted import ARCHIVES, MAX_JSON_CHARS, BoundedGzip, safe_cell

MAX_LINE_BYTES = 64 * 2**20  # a single row above this is a damaged or hostile file, not data


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file with the place it came from."""

    where: str
    """`file:line` (or `file[row]`) for messages."""
    number: int
    values: dict[str, Any]


def read_rows(path: Path | str) -> Iterator[Row]:
    """Stream the rows of a .jsonl, .json (list of objects), .csv or .parquet file; text formats may end in .gz.

    Raises:
        DataError: missing, unreadable, truncated or damaged file, a row that is not an object, or no rows at all.
    """
    path = Path(path)
    suffixes = [s for s in path.suffixes if s != ".gz"]
    kind = suffixes[-1].lower() if suffixes else ""
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }  # fmt: skip
    if path.suffix.lower() in ARCHIVES:
        raise DataError(explain(path, None, "is an archive", expected=", ".join(readers) + " (text types may end in .gz)",
                                remedy="Unpack it and name the file inside"))  # fmt: skip
    if kind not in readers:
        raise DataError(explain(path, None, "has an unknown file type", expected=", ".join(readers) + " (text types may end in .gz)",
                                remedy="Convert or rename the file"))  # fmt: skip
    require_file(path)
    num_rows = 0
    for row in readers[kind](path):
        num_rows += 1
        yield row
    if num_rows == 0:
        raise DataError(
            explain(path, None, "is empty", expected="at least one row", remedy="Check the export that wrote it")
        )


def read_records(path: Path | str, cls: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Stream records of one type from a file of ours."""
    for row in read_rows(path):
        yield from_dict(cls, row.values, where=row.where)


def count_lines(path: Path | str) -> int:
    """How many lines a plain text file has, at the speed of the disk: what a progress line needs to know beforehand."""
    with Path(path).open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 16), b""))


def require_file(path: Path) -> None:
    """Raise DataError unless `path` is a file that can be opened."""
    if path.is_dir():
        raise DataError(explain(path, None, "is a folder", expected="a file", remedy="Name the file inside it"))
    if not path.exists():
        near = _nearest_file(path)
        raise DataError(
            explain(path, None, f"does not exist{near}", expected="a readable file", remedy="Check the path")
        )
    if not os.access(path, os.R_OK):
        raise DataError(
            explain(path, None, "cannot be read (permission)", expected="a readable file", remedy="Check its mode")
        )


def _nearest_file(path: Path) -> str:
    import difflib

    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    match = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {match[0]}?)" if match else ""


@contextlib.contextmanager
def _open_text(path: Path) -> Generator[IO[str]]:
    """Open text or gzip; turn decoding and decompression faults into DataErrors."""
    try:
        with (
            io.TextIOWrapper(io.BufferedReader(BoundedGzip(path), 2**20), encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="") as file
        ):
            yield file
    except EOFError as error:
        raise DataError(
            explain(path, None, "is a truncated gzip file", expected="a complete file", remedy="Copy it again")
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(explain(path, None, f"is not a valid gzip file ({error})", expected="gzip data",
                                remedy="Copy it again or drop the .gz ending")) from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError(
            explain(_undecodable_line(path), None, "is not UTF-8", expected="UTF-8 text", remedy="Convert it")
        ) from error


def _undecodable_line(path: Path) -> str:
    """`file:line` of the first line that is not UTF-8 (the decoder's own position counts from its last buffer)."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"{path}:{number}"
    return str(path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with _open_text(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) >= MAX_LINE_BYTES:
                raise DataError(explain(f"{path}:{number}", None, f"is longer than {MAX_LINE_BYTES} characters",
                                        expected="one JSON object a line", remedy="Split the row"))  # fmt: skip
            if line.strip():
                yield Row(
                    f"{path}:{number}", number, _as_object(parse_json(line, f"{path}:{number}"), f"{path}:{number}")
                )


def parse_json(text: str, where: str) -> Any:
    """Parse JSON that a user gave; NaN, Infinity, half surrogates and absurd nesting are refused with the place named."""
    try:
        value = _DECODER.decode(text)
        if _HALF_SURROGATE.search(text):
            dump_json(value).encode()
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        if isinstance(error, UnicodeEncodeError):
            reason = "half of a surrogate pair is not a character"
        raise DataError(explain(where, shorten(text), f"is not JSON ({reason})", expected="one valid JSON value",
                                remedy="Fix the line or remove it")) from error  # fmt: skip
    return value


_HALF_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # may be half of a pair; whole pairs are fine


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys
)  # made once: files have many lines


def _as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            explain(where, value, "is not an object", expected="an object with named fields", remedy="Fix the row")
        )
    return cast(dict[str, Any], value)


def _read_json(path: Path) -> Iterator[Row]:
    with _open_text(path) as file:
        text = file.read(MAX_JSON_CHARS + 1)
    if len(text) > MAX_JSON_CHARS:
        raise DataError(explain(path, None, f"is one JSON value of more than {MAX_JSON_CHARS} characters", expected="at most that",
                                remedy="Write one object a line (.jsonl), which is read row by row"))  # fmt: skip
    if _is_json_lines(text):
        yield from _read_jsonl(path)
        return
    value = parse_json(text, str(path))
    if not isinstance(value, list):
        raise DataError(
            explain(path, value, "is not a list", expected="a JSON list of objects", remedy="Wrap the rows in [ ]")
        )
    for i, row in enumerate(cast(list[Any], value)):
        yield Row(f"{path}[{i}]", i + 1, _as_object(row, f"{path}[{i}]"))


def _is_json_lines(text: str) -> bool:
    """Does a `.json` file hold one object a line? Many data sets are published so."""
    first, _, rest = text.strip().partition("\n")
    if not first.startswith("{") or not rest:
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _read_csv(path: Path) -> Iterator[Row]:
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    csv.field_size_limit(MAX_LINE_BYTES)  # the default of 131072 refuses long completions
    with _open_text(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            if reader.fieldnames and len(set(reader.fieldnames)) != len(reader.fieldnames):
                raise DataError(explain(f"{path}:1", ",".join(reader.fieldnames), "names a column twice", expected="unique column names",
                                        remedy="Rename one"))  # fmt: skip
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(explain(where, None, "has a different number of cells than the header",
                                            expected=f"{len(reader.fieldnames or [])} cells", remedy="Fix or quote the row"))  # fmt: skip
                yield Row(where, reader.line_num, dict(row))
        except csv.Error as error:
            raise DataError(explain(f"{path}:{reader.reader.line_num}", None, f"is not CSV ({error})", expected="comma-separated values",
                                    remedy="Fix the quoting")) from error  # fmt: skip


def _read_parquet(path: Path) -> Iterator[Row]:
    pyarrow, parquet = _import_parquet()
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}[{number - 1}]", number, row)
    except (pyarrow.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged pages
        raise DataError(
            explain(
                path, None, f"is not a readable Parquet file ({error})", expected="Parquet", remedy="Write it again"
            )
        ) from error


def _import_parquet() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet: imported late because they are slow to load, untyped because they have no stubs."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow, pyarrow.parquet


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Generator[Path]:
    """Yield a temporary neighbour of `path`; on success it is fsynced and renamed into place, on failure removed.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o644)
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: OSError) -> DataError:
    """One sentence for a fault of the file system while `path` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(explain(path, None, "cannot be written: the disk is full", expected="free space",
                                 remedy="Free some space and run the same command again; nothing half-written was left"))  # fmt: skip
    if error.errno == errno.EFBIG:
        return DataError(explain(path, None, "cannot be written: it is larger than a file may be", expected="a limit above its size",
                                 remedy="Raise it (ulimit -f) and run the same command again; nothing half-written was left"))  # fmt: skip
    return DataError(
        explain(
            path, None, f"cannot be written ({error.strerror})", expected="a writable folder", remedy="Check the path"
        )
    )


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any] | Record]) -> int:
    """Write rows or records, one JSON object a line (gzip when the name ends in .gz); return how many."""
    path, num_rows = Path(path), 0
    with atomic_path(path) as temporary, open_write(temporary, is_gzip=path.suffix == ".gz") as file:
        for row in rows:
            file.write(dump_json(to_dict(row) if isinstance(row, Record) else row) + "\n")
            num_rows += 1
    return num_rows


@contextlib.contextmanager
def open_write(path: Path, *, is_gzip: bool) -> Generator[IO[str]]:
    """Open a text file to write, with lines that end alike on every system."""
    if not is_gzip:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    # No name and no time in the header: equal rows must give equal bytes, for artifacts are named by their content.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        yield file


def dump_json(value: object, *, indent: int | None = None) -> str:
    """Serialise to JSON; numbers that are not finite are refused, for they are not JSON."""
    if indent is None:
        return _ENCODER.encode(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def write_json(path: Path | str, value: object) -> None:
    """Write one JSON value, indented."""
    with atomic_path(path) as temporary:
        temporary.write_text(dump_json(value, indent=2) + "\n", encoding="utf-8", newline="\n")


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path | str) -> Any:
    """Read one JSON value."""
    path = Path(path)
    require_file(path)
    with _open_text(path) as file:
        return parse_json(file.read(), str(path))


def write_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], *, columns: Iterable[str]) -> int:
    """Write rows as CSV; text that a spreadsheet would run gets a leading apostrophe (`untrusted.safe_cell`). Return how many."""
    names, num_rows = list(columns), 0
    with atomic_path(path) as temporary, open_write(temporary, is_gzip=Path(path).suffix == ".gz") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # also what makes it quote a bare carriage return
        writer.writerow(map(safe_cell, names))
        for row in rows:
            writer.writerow([safe_cell(row.get(name)) for name in names])
            num_rows += 1
    return num_rows


_ROWS_A_PIECE = 10_000
"""Rows of a Parquet file that are in memory at a time."""


def write_parquet(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as Parquet; return how many. Columns are those of all rows, with types that fit all of them."""
    pyarrow, parquet = _import_parquet()
    path, num_rows, rest = Path(path), 0, iter(rows)
    with (
        atomic_path(path) as temporary,
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
    ):
        pieces: list[Path] = []
        schemas: list[Any] = []
        while (found := list(itertools.islice(rest, _ROWS_A_PIECE))) or not pieces:
            names = list(
                dict.fromkeys(name for row in found for name in row)
            )  # pyarrow alone takes those of the first row
            table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in found])
            pieces.append(Path(folder) / str(len(pieces)))
            schemas.append(table.schema)
            with pyarrow.OSFile(str(pieces[-1]), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as piece:
                piece.write_table(table)
            num_rows += len(found)
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
        with parquet.ParquetWriter(temporary, schema) as out:
            for place in pieces:
                with pyarrow.OSFile(str(place), "rb") as file:
                    table = pyarrow.ipc.open_file(file).read_all()
                same = table.schema.equals(schema)
                out.write_table(table if same else pyarrow.Table.from_pylist(table.to_pylist(), schema=schema))
    return num_rows


def _jsonable(value: Any) -> Any:
    """Make any cell writable: Parquet holds bytes, dates and NaN, and a reject must not fail for its own fault."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in cast(list[Any], value)]
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


class Rejects:
    """Collects rows that could not be used, writes them beside the output, and counts them by reason.

    Lifecycle: one per output file, used as a context manager; the file appears only when a row was rejected. Not thread-safe.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Row, reason: str) -> None:
        """Keep one rejected row with a short reason (the same words for the same fault)."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self._rows.append({"where": row.where, "reason": reason, "row": _jsonable(row.values)})

    @property
    def total(self) -> int:
        """Number of rejected rows."""
        return sum(self.counts.values())

    def first(self, num: int) -> list[tuple[str, str]]:
        """Place and reason of the first few."""
        return [(str(row["where"]), str(row["reason"])) for row in self._rows[:num]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows:
            write_jsonl(self.path, self._rows)
        elif kind is None:
            self.path.unlink(missing_ok=True)  # of an earlier run
