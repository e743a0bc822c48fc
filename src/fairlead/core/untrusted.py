"""Limits for files of others, and cells that a spreadsheet must not run.

A gzip file of a few megabytes can hold a terabyte of zeros, and a cell that begins with `=` is a program to the spreadsheet that opens it.
"""

import gzip
import io
from pathlib import Path

from fairlead.core.errors import DataError, explain

MAX_JSON_CHARS = 2**30
"""Of one JSON value that must be in memory as a whole; larger data belongs in JSONL, which is streamed."""
FREE_BYTES, MAX_EXPANSION = 256 * 2**20, 200
"""A gzip file may grow to the first at any rate, and beyond it by at most the second: text grows three to twentyfold."""
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_QUOTE = "'"


class BoundedGzip(io.RawIOBase):
    """Bytes of a gzip file, refused when they grow out of proportion. Single use; closes the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed with this object
        self._left = max(FREE_BYTES, MAX_EXPANSION * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(explain(self._path, None, f"grows to more than {MAX_EXPANSION} times its size when unpacked",
                                    expected="text, which grows at most twentyfold", remedy="Unpack it yourself if you trust it"))  # fmt: skip
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def safe_cell(value: object) -> str:
    """A CSV cell that no spreadsheet takes for a formula: text that begins like one gets a leading apostrophe. Numbers stay numbers."""
    if value is None:
        return ""
    text = str(value)
    is_marked = text.startswith(_QUOTE) and text[1:2] in (*_FORMULA, _QUOTE)
    return _QUOTE + text if is_marked or (text.startswith(_FORMULA) and not _is_number(text)) else text


def plain_cell(text: str) -> str:
    """The inverse of `safe_cell`."""
    return text[1:] if text.startswith(_QUOTE) and text[1:2] in (*_FORMULA, _QUOTE) else text


def _is_number(text: str) -> bool:
    """Only what is digits: `float` takes spaces and words too."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    return digits.replace(".", "", 1).isascii() and digits.replace(".", "", 1).isdigit()
