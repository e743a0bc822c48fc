"""What tells that memory ran out, and what gives back what the failed attempt held."""

import gc

import torch

_MESSAGES = ("DefaultCPUAllocator", "not enough memory")  # torch tells of a CPU's by a plain RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Did memory run out, on a device or on the host?"""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def free_memory() -> None:
    """Give back what the failed attempt held. Called where no exception holds its frames any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
