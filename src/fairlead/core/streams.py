"""Files that are written row by row while the rows are read: any number of rows in the memory of one; complete, or not there at all.

Example:
    with JsonLines(out / "votes.jsonl") as votes, JsonLines(out / "items.jsonl") as items:
        for item in found:
            items.write(item)
            for vote in item.votes:
                votes.write(vote)
"""

import contextlib
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fairlead.core.io import atomic_path, dump_json, open_write
from fairlead.core.records import Record, to_dict


class JsonLines:
    """A JSONL file (gzip when the name ends in .gz). It appears when the block ends without an error. Single use, not thread-safe.

    Args:
        path: of the file.
        is_optional: without a row there is no file; an empty one otherwise.
    """

    def __init__(self, path: Path | str, *, is_optional: bool = False) -> None:
        self.path = Path(path)
        self.num_rows = 0
        self._is_optional = is_optional
        self._stack = contextlib.ExitStack()
        self._file: IO[str] | None = None

    def write(self, row: Mapping[str, Any] | Record) -> None:
        """Add a row or a record."""
        if self._file is None:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._file = self._stack.enter_context(open_write(temporary, is_gzip=self.path.suffix == ".gz"))
        self._file.write(_line(row))
        self.num_rows += 1

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._file is None and not self._is_optional:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._stack.enter_context(open_write(temporary, is_gzip=self.path.suffix == ".gz"))
        self._stack.__exit__(kind, error, trace)


class MemberLines:
    """The same as a member of a zip archive that is being written; no other member can be until the block ends. Without a row there is none.

    Args:
        archive: open for writing, also to what cannot be sought in.
        name: of the member.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.num_rows = 0
        self._archive, self._name = archive, name
        self._digest = hashlib.sha256()
        self._member: IO[bytes] | None = None

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, row: Mapping[str, Any] | Record) -> None:
        """Add a row or a record."""
        if self._member is None:
            self._member = self._archive.open(self._name, "w", force_zip64=True)  # how large it becomes is not known
        line = _line(row).encode()
        self._digest.update(line)
        self._member.write(line)
        self.num_rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._member is not None:
            self._member.close()


def _line(row: Mapping[str, Any] | Record) -> str:
    return dump_json(to_dict(row) if isinstance(row, Record) else row) + "\n"


def write_json_list(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a JSON list of rows, indented, as `io.write_json` writes it; return how many."""
    num_rows = 0
    with atomic_path(path) as temporary, open_write(temporary, is_gzip=False) as file:
        for row in rows:
            file.write(",\n  " if num_rows else "[\n  ")
            file.write(dump_json(row, indent=2).replace("\n", "\n  "))  # newlines within texts are escaped
            num_rows += 1
        file.write("\n]\n" if num_rows else "[]\n")
    return num_rows
