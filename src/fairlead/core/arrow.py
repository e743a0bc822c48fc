"""Columns of numbers in Arrow files, memory-mapped: what is larger than memory is read where it is touched.

A file is one Arrow record batch, so that any Arrow reader opens it: a row a thing, and nested lists where a thing has several numbers.
Its header names the version of the layout and a checksum; a file of another version and a damaged one are told apart from a sound one.
Besides `io.py` only this file imports pyarrow.

Example:
    write_columns(path, {"size": Column(sizes), "token": Column(tokens, offsets=(starts,))}, version="trees/1", facts={"num_dropped": 3})
    columns, facts = map_columns(path, version="trees/1")
    columns["token"].values        # a read-only array on the file
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, explain
from fairlead.core.io import atomic_path

_VERSION, _FACTS, _CHECKSUM = b"fairlead.version", b"fairlead.facts", b"fairlead.checksum"


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Numbers of a column, flat, with where the lists begin and end."""

    values: npt.NDArray[Any]
    """[n] of any numeric type but bool."""
    offsets: tuple[npt.NDArray[np.int64], ...] = ()
    """A level of lists each, the outermost first: list i holds the entries offsets[i] to offsets[i + 1] of the next level."""

    def __len__(self) -> int:
        return len(self.offsets[0]) - 1 if self.offsets else len(self.values)


def write_columns(path: Path, columns: Mapping[str, Column], *, version: str, facts: Mapping[str, int]) -> None:
    """Write columns of equally many rows, with some numbers about them all, whole or not at all.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    pyarrow = _import_pyarrow()
    names = sorted(columns)
    arrays = [_to_arrow(pyarrow, columns[name]) for name in names]
    told = json.dumps(dict(facts), sort_keys=True).encode()
    header = {_VERSION: version.encode(), _FACTS: told, _CHECKSUM: str(_checksum(columns, told)).encode()}
    batch = pyarrow.record_batch(arrays, names=names).replace_schema_metadata(header)
    with atomic_path(path) as temporary, pyarrow.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def map_columns(path: Path, *, version: str) -> tuple[dict[str, Column], dict[str, int]]:
    """Columns on the file and the numbers about them; nothing is held in memory, and the file may be deleted meanwhile.

    Raises:
        FileNotFoundError: it is not there.
        DataError: it is damaged, or was written by another version.
    """
    pyarrow = _import_pyarrow()
    path.stat()  # pyarrow's own error for a missing file is a plain OSError in some versions
    try:
        with pyarrow.memory_map(str(path)) as source:
            reader = pyarrow.ipc.open_file(source)
            header: dict[bytes, bytes] = dict(reader.schema.metadata or {})
            found = header.get(_VERSION, b"?").decode(errors="replace")
            if found != version:
                raise DataError(explain(path, found, "was written by another version", expected=version, remedy="Delete it"))  # fmt: skip
            batch = reader.get_batch(0)
            columns = {name: _from_arrow(pyarrow, batch.column(name)) for name in batch.schema.names}
            told = header.get(_FACTS, b"")
            is_sound = str(_checksum(columns, told)).encode() == header.get(_CHECKSUM)
    except (pyarrow.ArrowException, OSError, ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise _damaged(path, str(error)) from error
    if not is_sound:
        raise _damaged(path, "its checksum is another")
    return columns, json.loads(told)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(explain(path, None, f"is damaged ({reason})", expected="an Arrow file", remedy="Delete it"))


def _to_arrow(pyarrow: Any, column: Column) -> Any:
    found = pyarrow.array(column.values)
    for offsets in reversed(column.offsets):
        found = pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets.astype(np.int64)), found)
    return found


def _from_arrow(pyarrow: Any, array: Any) -> Column:
    offsets: list[npt.NDArray[np.int64]] = []
    while pyarrow.types.is_large_list(array.type):
        offsets.append(array.offsets.to_numpy())
        array = array.values
    return Column(array.to_numpy(), tuple(offsets))


def _checksum(columns: Mapping[str, Column], told: bytes) -> int:
    found = zlib.crc32(told)
    for name in sorted(columns):
        for part in (columns[name].values, *columns[name].offsets):
            found = zlib.crc32(np.ascontiguousarray(part).view(np.uint8).data, found)
    return found


def _import_pyarrow() -> Any:
    """pyarrow, imported late because it is slow to load, untyped because it has no stubs."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.ipc  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport] - makes pyarrow.ipc known

    return pyarrow
