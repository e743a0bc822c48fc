"""Results of checks, kept by the hash of everything that they depend on: in memory, and in a file when it is given a place.

The file holds one JSON line a result and is only appended to, so processes may share it; a line that a killed run left half written is
passed over. Anybody may delete it at any time.

Example:
    cache = ScoreCache(folder / "math.jsonl")
    cache.put({"9f86...": 1.0})
    cache.get("9f86...")        # 1.0; None when it is not known; NaN for "does not apply"
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from fairlead.core.io import atomic_path

MAX_ENTRIES = 1_000_000
"""About 60 MB on disk."""


class ScoreCache:
    """Key -> score. The oldest results go first. Not thread-safe."""

    def __init__(self, path: Path | None = None, *, max_entries: int = MAX_ENTRIES) -> None:
        self.path, self.max_entries = path, max_entries
        self._scores: dict[str, float] = {}
        if path is not None and path.is_file():
            self._load(path)

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: str) -> float | None:
        """The score that is kept, or None."""
        return self._scores.get(key)

    def put(self, scores: Mapping[str, float]) -> None:
        """Keep results; on disk in one write."""
        self._remember(scores)
        if self.path is not None and scores:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, "".join(_line(key, score) for key, score in scores.items()))

    def _remember(self, scores: Mapping[str, float]) -> None:
        self._scores.update(scores)
        while len(self._scores) > self.max_entries:
            del self._scores[next(iter(self._scores))]

    def _load(self, path: Path) -> None:
        """Read the file; one that has grown far beyond its use is written anew."""
        num_lines = 0
        with path.open("rb") as file:
            for raw in file:
                num_lines += 1
                found = _read(raw)
                if found is not None:
                    self._remember(dict((found,)))
        if num_lines > 2 * self.max_entries:
            with atomic_path(path) as draft:
                draft.write_text("".join(_line(key, score) for key, score in self._scores.items()), encoding="utf-8")


def _line(key: str, score: float) -> str:
    return json.dumps([key, None if math.isnan(score) else score]) + "\n"


def _read(raw: bytes) -> tuple[str, float] | None:
    """A result, or None for a line that is damaged."""
    try:
        key, score = json.loads(raw)
    except (ValueError, TypeError):
        return None
    if not isinstance(key, str) or not (score is None or isinstance(score, (int, float))):
        return None
    return key, math.nan if score is None else float(score)


def _append(path: Path, text: str) -> None:
    """Add lines after the last one; half a line that was left there is closed first."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if is_torn else b"") + text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
