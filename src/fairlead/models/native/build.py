"""Build C and C++ sources with the machine's own compiler, keep the library, and load it. Never required: callers have a torch path.

The library lies in the user's cache folder under a name made of sources, flags, compiler and processor, so that no other machine's is
ever loaded. PyTorch's own OpenMP threads run it: its library is loaded already, under the name that ours asks for. FAIRLEAD_NATIVE=0
switches everything off.

Example:
    found = load_sources("rows", [HERE / "rows.c", HERE / "numbers.h"])       # a ctypes.CDLL, or why there is none, in words
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from fairlead.core.errors import DataError
from fairlead.core.io import atomic_path

HERE = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-fopenmp")
_COMPILERS = {".c": ("CC", ("cc", "gcc", "clang")), ".cpp": ("CXX", ("c++", "g++", "clang++"))}
_TIMEOUT_S = 120.0


def load_sources(
    name: str, sources: Sequence[Path], *, flags: Sequence[str] = (), libraries: Sequence[str] = ()
) -> ctypes.CDLL | str:
    """The library made of the sources, built if need be; or why there is none.

    Args:
        sources: one language, by the suffix of the first; headers (.h) decide the name and are found beside them.
        libraries: linker options, which stand behind the sources.
    """
    if os.environ.get("FAIRLEAD_NATIVE", "1") == "0":
        return "FAIRLEAD_NATIVE=0 switches them off"
    variable, names = _COMPILERS[sources[0].suffix]
    compiler = os.environ.get(variable) or next((found for x in names if (found := shutil.which(x))), None)
    if compiler is None:
        return "there is no C compiler (install gcc and g++)"
    try:
        return ctypes.CDLL(str(_library(name, compiler, sources, (*_FLAGS, *flags), libraries)))
    except (OSError, DataError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"they cannot be built ({detail[-1][:160] if detail else type(error).__name__})"


def _library(name: str, compiler: str, sources: Sequence[Path], flags: Sequence[str], libraries: Sequence[str]) -> Path:
    """Path of the library; compiles it when it is not there."""
    parts = [path.read_text(encoding="utf-8") for path in sources]
    parts += [
        *flags,
        *libraries,
        compiler,
        _run([compiler, "--version"]),
        str(sorted(torch.cpu.get_capabilities().items())),
    ]
    fingerprint = hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:20]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fairlead" / "kernels"
    path = folder / f"{name}-{fingerprint}.so"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path) as temporary:
            units = [str(source) for source in sources if source.suffix != ".h"]
            _run([compiler, *flags, *units, "-o", str(temporary), "-lm", *libraries])
    return path


def _run(command: list[str]) -> str:
    """What it prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout  # noqa: S603


@functools.cache
def training_kernels() -> ctypes.CDLL | str:
    """Those of attention.c and rows.c, or why they are not used."""
    if not torch.cpu.get_capabilities().get("avx512_bf16", False):
        return "this processor has no AVX512-BF16"
    return load_sources("training", [HERE / "attention.c", HERE / "rows.c", HERE / "numbers.h"])


def library() -> ctypes.CDLL | None:
    """The training kernels, built on first use; None where there are none."""
    found = training_kernels()
    return None if isinstance(found, str) else found
