"""Folders of files that save work and that anybody may delete at any time: the least recently used go when they take too much room.

Example:
    path = folder / f"{key}.arrow"
    mark_used(path)                     # found: it stays longer
    trim_folder(folder, "*.arrow")      # after a run has written new ones
"""

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

MAX_BYTES = 2 << 30
"""Of one folder."""
_LEFT_S = 24 * 3600


def mark_used(path: Path) -> None:
    """Make a file the most recently used one; one that was deleted meanwhile stays deleted."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def trim_folder(folder: Path, pattern: str, *, keep: Collection[Path] = (), max_bytes: int | None = None) -> None:
    """Delete the files that were used least recently until the folder is small enough.

    Args:
        keep: files of the running stage, which stay whatever they take.
        max_bytes: None for MAX_BYTES.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    _remove_leftovers(folder)
    kept = set(keep)
    files: list[tuple[float, int, Path]] = []
    for path in folder.glob(pattern):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another run trims too
            continue
        files.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        if path not in kept:
            path.unlink(missing_ok=True)
            total -= size


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of writers that were killed (`core.io.atomic_path`); a writer that lives needs minutes at most."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_S:
                path.unlink()
