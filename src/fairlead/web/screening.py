"""Lines of a JSONL file that are damaged: listed and left out, so that the rest can go in.

Reading stops at damage, since what trains a model should not be guessed at. What raters look at may lack a line, when it is said which.
"""

import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, Row, parse_json, require_file
from fairlead.core.untrusted import BoundedGzip

NUM_FAULTS = 20
"""Faulty rows that a message lists; the rejects file has all."""
MAX_LINE = 16 * 2**20
"""Bytes of a line; a longer one holds more than anybody reads on a screen."""
_CHUNK = 2**20


class Placed(Rejects):
    """Rejects of a copy, under the name of the original."""

    def __init__(self, path: Path, *, original: Path) -> None:
        super().__init__(path)
        self.copy = self.original = original

    def add(self, row: Row, reason: str) -> None:
        """Keep a row."""
        super().add(replace(row, where=row.where.replace(str(self.copy), str(self.original))), reason)

    def listed(self, num: int) -> list[str]:
        """The first rows, as `line 7: empty chosen`."""
        return [f"{_place(where, self.original)}: {reason}" for where, reason in self.first(num)]


def _place(where: str, path: Path) -> str:
    """`line 7` of `file.jsonl:7`."""
    place = where.removeprefix(str(path)).removeprefix(":")
    return f"line {place}" if place.isdigit() else place


@contextlib.contextmanager
def screened(path: Path, leave_out: Callable[[str], None], rejects: Placed) -> Generator[Path]:
    """The file; where lines of it are damaged, a copy without them, and they are counted."""
    require_file(path)
    faults = screen(path) if path.name.endswith((".jsonl", ".jsonl.gz")) else []
    if not faults:
        yield path
        return
    for number, fault in faults:
        rejects.add(Row(values={}, number=number, where=f"{path}:{number}"), fault)
        leave_out(f"rows: {fault}")
    with tempfile.TemporaryDirectory(prefix="fairlead-import-") as folder:
        rejects.copy = Path(folder) / path.name
        copy_without(path, {number for number, _ in faults}, rejects.copy)
        try:
            yield rejects.copy
        except DataError as error:
            raise DataError(str(error).replace(str(rejects.copy), str(path))) from error


def screen(path: Path) -> list[tuple[int, str]]:
    """Number and fault of each damaged line; blank ones are fine."""
    with _open(path) as source:
        found = ((number, _fault(line, is_first=number == 1)) for number, line in enumerate(_lines(source), start=1))
        return [(number, fault) for number, fault in found if fault]


def copy_without(path: Path, numbers: set[int], out: Path) -> None:
    """Copy a file with some of its lines left empty, so that the others keep their numbers."""
    with _open(path) as source, gzip.open(out, "wb") if out.suffix == ".gz" else out.open("wb") as kept:
        for number, line in enumerate(_lines(source), start=1):
            kept.write(b"\n" if number in numbers or line is None else line + b"\n")


@contextlib.contextmanager
def _open(path: Path) -> Generator[IO[bytes] | BoundedGzip]:
    try:
        with BoundedGzip(path) if path.suffix == ".gz" else path.open("rb") as source:
            yield source
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(explain(path, None, f"is not a whole gzip file ({error})", expected="gzip data",
                                remedy="Copy it again or drop the .gz ending")) from error  # fmt: skip


def _lines(source: IO[bytes] | BoundedGzip) -> Iterator[bytes | None]:
    """Lines without their ends; None for one that is too long, of which no more than the limit is ever in memory."""
    held, is_long = b"", False
    while chunk := source.read(_CHUNK):
        parts = (held + chunk).split(b"\n")
        for part in parts[:-1]:
            yield None if is_long or len(part) > MAX_LINE else part
            is_long = False
        held = parts[-1]
        if len(held) > MAX_LINE:
            held, is_long = b"", True
    if held or is_long:
        yield None if is_long else held


def _fault(line: bytes | None, *, is_first: bool) -> str:
    """What is wrong with a line, or nothing; the first may begin with a mark of its encoding."""
    if line is None:
        return "longer than 16 MB"
    try:
        text = line.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    if not text.strip():
        return ""
    try:
        found = parse_json(text, "line")
    except DataError:
        return "not JSON, or with a key twice, a number that is none, or nested too deep"
    return "" if isinstance(found, dict) else "not an object"
