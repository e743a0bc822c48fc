"""What runs the model for the scheduler: prompts into slots of the cache, then one token a slot and call.

Two of them: `by_modules` runs the transformers model itself under attention plans and takes any that a plan can serve; `by_kernel` runs
Llama-like models on a CPU in one C++ call a step. Both keep the cache of `cache.SlotCache` and give the same logits up to rounding (tested).

Legend: S slots in use, P prompts, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ints = npt.NDArray[np.int64]


@runtime_checkable
class Runner(Protocol):
    """Runs a model over a cache of slots. One at a time, under `torch.inference_mode`."""

    about: str
    """How it computes, for people."""
    refill: int
    """Free slots that it waits for before it reads new prompts; fewer are not worth an interruption."""

    def begin(self, num_slots: int, capacity: int) -> None:
        """Make room for so many slots of so many tokens, and take note of weights that were replaced. The cache is then empty."""
        ...

    def serves(self, num_slots: int, capacity: int) -> bool:
        """Whether the cache of before is large enough for that, so that no new one would be made."""
        ...

    def slot_bytes(self, capacity: int) -> int:
        """Keys and values of a slot of so many tokens."""
        ...

    @property
    def held_bytes(self) -> int:
        """Keys and values of the cache that is held."""
        ...

    def release(self) -> None:
        """Forget the cache; `begin` makes a new one."""
        ...

    def rebind(self) -> None:
        """Take note of weights that were replaced; the cache stays."""
        ...

    def prefill(self, prompts: Sequence[Ints], slots: Sequence[int]) -> Tensor:
        """[P, V] logits after the last token of each prompt, whose keys and values go to its slot."""
        ...

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """The first tokens of a slot to others."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """A slot takes another's place; the source is free afterwards."""
        ...

    def decode(self, tokens: Ints, lengths: Ints) -> Tensor:
        """[S, V] logits after one more token in each of the first S slots, which hold `lengths` tokens before it."""
        ...

    def draw(
        self, logits: Tensor, temperature: float, uniforms: npt.NDArray[np.float64] | None
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """[S] tokens and their logprobs from [S, V] logits, at uniforms [S], or the most likely ones; temperature is divided by first."""
        ...
