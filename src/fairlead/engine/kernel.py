"""The C++ kernel of the engine: built once a machine by the compiler that is there, and called through ctypes.

It is optional. Without a compiler the engine runs the model's own modules, several times slower, and says why. The library lies in the
cache folder under a name made of its source, its flags, the compiler and the processor, so that no other machine's is ever loaded.
"""

import ctypes
import functools
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch

from fairlead.models.native.build import load_sources

SOURCE = Path(__file__).with_name("decode.cpp")
HEADERS = [SOURCE.with_name(f"{name}.h") for name in ("low", "products", "vectors")]

Floats = c_void_p
"""Address of fp32 numbers; null where there are none."""


class Linear(Structure):
    """Weight [out, in], bias [out], and the weight in bf16 as `fairlead_pack` left it."""

    _fields_ = (("weight", Floats), ("bias", Floats), ("packed", c_void_p))


class Layer(Structure):
    """One decoder layer; see decode.cpp for shapes."""

    _fields_ = (
        *((name, Linear) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, Floats) for name in ("norm_in", "norm_attended", "norm_middle", "norm_out", "norm_query", "norm_key")),
        *((name, Floats) for name in ("cosine", "sine", "keys", "values")),
        ("window", c_int64),
    )


class Model(Structure):
    """A decoder; see decode.cpp."""

    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "hidden", "heads", "kv_heads", "head", "rotated", "inner", "vocabulary", "capacity",
                                       "activation")),
        *((name, c_double) for name in ("epsilon", "norm_offset", "score_scale", "score_cap", "embedding_scale", "logit_scale", "logit_cap")),
        ("embedding", Floats), ("norm", Floats), ("output", Linear), ("layers", POINTER(Layer)), ("low", c_int64),
    )  # fmt: skip


class Batch(Structure):
    """Rows of one forward; see decode.cpp."""

    _fields_ = (
        ("rows", c_int64), ("tokens", c_void_p), ("slots", c_void_p), ("positions", c_void_p), ("num_logits", c_int64),
        ("logit_rows", c_void_p), ("logits", Floats), ("scratch", Floats), ("threads", c_int64),
    )  # fmt: skip


@functools.cache
def load_kernel() -> ctypes.CDLL | str:
    """The library, built if need be; or why there is none, in words."""
    found = load_sources("decode", [SOURCE, *HEADERS], flags=("-std=c++17", "-fno-strict-aliasing"))
    return f"its kernel is not used: {found}" if isinstance(found, str) else _declare(found)


def _declare(library: Any) -> ctypes.CDLL:
    library.fairlead_scratch_size.argtypes = (POINTER(Model), c_int64, c_int64)
    library.fairlead_scratch_size.restype = c_int64
    library.fairlead_can_low.argtypes = (POINTER(Model),)
    library.fairlead_can_low.restype = c_int64
    library.fairlead_packed_size.argtypes = (POINTER(Model),)
    library.fairlead_packed_size.restype = c_int64
    library.fairlead_pack.argtypes = (POINTER(Model), c_void_p, c_int64)
    library.fairlead_pack.restype = None
    library.fairlead_forward.argtypes = (POINTER(Model), POINTER(Batch))
    library.fairlead_forward.restype = None
    library.fairlead_draw.argtypes = (c_void_p, c_int64, c_int64, c_double, c_void_p, c_void_p, c_void_p, c_int64)
    library.fairlead_draw.restype = None
    return library


def address(tensor: torch.Tensor | None) -> int | None:
    """Of the first number of a contiguous tensor; None for none."""
    return None if tensor is None else tensor.data_ptr()
