"""Memory of large CPU tensors from a heap in which freed blocks are used again; see heap.cpp.

Process-wide: once it is there, it stays. Where it cannot be there (no compiler, not Linux), torch goes on with malloc, and a training step
takes up to three and a half times what it holds.
"""

import ctypes
import functools
import sys
from pathlib import Path

import torch

from fairlead.models.native.build import HERE, load_sources


@functools.cache
def use_heap() -> ctypes.CDLL | str:
    """Let torch take large blocks from our heap from now on; its library, or why it does not."""
    if sys.platform != "linux":
        return "it is for Linux"
    folder = Path(torch.__file__).parent
    found = load_sources(
        "heap", [HERE / "heap.cpp"], libraries=(f"-L{folder / 'lib'}", "-lc10"),
        flags=("-std=c++20", f"-I{folder / 'include'}", f'-DFAIRLEAD_TORCH="{torch.__version__}"',
               f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"),
    )  # fmt: skip
    if isinstance(found, str):
        return found
    for name in ("fairlead_heap_give_back", "fairlead_heap_top"):
        getattr(found, name).restype = ctypes.c_int64
    return found if found.fairlead_heap_use() else "the system has no addresses for it"


def has_heap() -> bool:
    """Whether `use_heap` was called, and did it."""
    return use_heap.cache_info().currsize > 0 and not isinstance(use_heap(), str)


def give_back() -> None:
    """Give what was freed back to the kernel, where the heap is there."""
    if has_heap():
        found = use_heap()
        assert not isinstance(found, str)
        found.fairlead_heap_give_back()
