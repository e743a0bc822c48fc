"""Allocators for long runs on Linux, and the peak of memory by stage.

Freed memory is kept instead of given back to the kernel: glibc returns every block above 32 MiB when it is freed, and the next one
faults all its pages in again; on machines with expensive page faults that costs more than the arithmetic. Large tensors come from a heap of
our own besides (native/heap.cpp), for kept memory that malloc cannot use again grows to several times what is held.
"""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

from fairlead.models.native import heap

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell malloc to serve large blocks from its heap and never to shrink it, and give tensors one of their own; False without glibc."""
    heap.use_heap()
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)


def keep_imports() -> None:
    """Tell the garbage collector that what was imported so far stays: collections, one a stage, then do not walk it (half a second each)."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Give what was freed back to the kernel (0.1 s a GB); where there is no glibc it counts as used."""
    gc.collect()
    heap.give_back()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """Peak resident memory of the stages that one process runs, MB of 2^20 bytes.

    Of each stage by itself where the kernel can forget a peak (Linux); else of the process so far. Not thread-safe.
    """

    def __init__(self) -> None:
        self._highest = 0.0
        self.is_of_stage = False

    def start_stage(self) -> None:
        """Give back what earlier stages freed (0.1 s a GB) and forget their peak."""
        self._highest = self.of_run
        give_back()
        if sys.platform != "linux":
            return
        with contextlib.suppress(OSError):  # some containers do not allow it
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.is_of_stage = True

    @property
    def of_stage(self) -> float:
        """Since `start_stage`, or since the process began."""
        return _peak_mb()

    @property
    def of_run(self) -> float:
        """Of the process so far."""
        return max(self._highest, self.of_stage)


def _peak_mb() -> float:
    """Of this process. Not by getrusage where the kernel tells more: its peak begins with that of the program that started this one."""
    status = Path("/proc/self/status")
    if sys.platform == "linux" and status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
