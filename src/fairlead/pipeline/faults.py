"""Faults of libraries below the stages, as one sentence: a full disk is reported in many ways, and memory that ran out is no bug."""

import contextlib
import re
from collections.abc import Generator
from pathlib import Path

from fairlead.core.errors import EngineError, FairleadError, StoreError, explain

_FULL = re.compile(
    r"no space left on device|os error 28\b|disk quota exceeded|file too large|os error 27\b", re.IGNORECASE
)
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Unable to allocate", re.IGNORECASE)


@contextlib.contextmanager
def readable_faults(folder: Path) -> Generator[None]:
    """Translate what safetensors, tokenizers, torch and numpy raise; other faults pass as they are."""
    try:
        yield
    except (FairleadError, KeyboardInterrupt):
        raise
    except Exception as error:
        if _FULL.search(str(error)):
            raise StoreError(explain(folder.parent, None, "cannot be written: the disk is full", expected="free space",
                                     remedy="Make room and run the same command again; nothing half-written was left")) from error  # fmt: skip
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            raise EngineError(explain("memory", None, f"ran out ({type(error).__name__})", expected="models and one forward that fit",
                                      remedy="Lower max_tokens_per_microbatch or max_slots, or take a smaller model")) from error  # fmt: skip
        raise
