"""How much memory this process can still take, on a GPU or on Linux."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

_SECOND = ("memory.max", "memory.current", "inactive_file")
_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Limit, use, and what of it is file cache, in the two versions of control groups."""


def free_bytes(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Memory that this process can still take; None where that is not known (neither Linux nor CUDA).

    On a GPU what torch holds and does not use counts as free. On Linux: what the kernel calls available, and what the control groups
    of the process (both versions, all levels) have left, their file caches counted as free.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if sys.platform != "linux":
        return None
    found = [left for left in (_available(root), *_left_in_groups(root)) if left is not None]
    return max(0, min(found)) if found else None


def _available(root: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _left_in_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            top, names = root / "sys/fs/cgroup", _SECOND
        elif "memory" in controllers.split(","):
            top, names = root / "sys/fs/cgroup/memory", _FIRST
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for folder in {top / own, *(top / parent for parent in own.parents)}:  # a container may see the path outside it
            with contextlib.suppress(OSError, ValueError, KeyError):  # no such group, no limit ("max"), no counter
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in names[:2])
                yield limit - used + int(stat[names[2]])
