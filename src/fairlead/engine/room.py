"""Room for keys and values: planned where memory is handed out late, and fewer slots where it runs out all the same.

    a new cache -> on a CPU: as many slots as fit SHARE of what is free -> begin -> memory runs out? half the slots, again, down to one
    a step runs out of memory -> the cache goes, half the slots -> samples in flight begin again

On Linux a CPU's memory is promised when it is asked for and taken when it is touched, token by token: what was promised too much ends the
process from outside, without an error. So the cache is planned there for its longest sequences; a GPU says by an error that it is full.
A sample belongs to its name (sampler.py), so fewer slots give the same tokens, later.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fairlead.core.gates import figure
from fairlead.engine.runner import Runner
from fairlead.models.free_memory import free_bytes
from fairlead.models.memory import give_back
from fairlead.models.out_of_memory import free_memory, is_out_of_memory

SHARE = 0.5
"""Of the free memory that keys and values may take; the rest is for what is trained and scored beside them."""


@dataclass(slots=True, eq=False, kw_only=True)
class Room:
    """How many slots one engine has. What was lowered stays so. Not thread-safe."""

    runner: Runner
    device: torch.device
    max_slots: int
    say: Callable[[str], None]
    """Told in one line each time that slots become fewer."""
    free: Callable[[torch.device], int | None] = free_bytes
    """Bytes that this process can still take; None where that is not known."""
    num_out_of_memory: int = 0
    _capacity: int = field(default=0, init=False)

    def make(self, num_slots: int, capacity: int) -> int:
        """Begin with room for sequences of `capacity` tokens; how many slots there are, at most `num_slots`.

        Raises:
            Exception: what the runner raised when one slot was too many.
        """
        self._capacity, num_slots = capacity, min(num_slots, self.max_slots)
        if self.device.type == "cpu" and not self.runner.serves(num_slots, capacity):
            num_slots = self._planned(num_slots)
        while True:
            try:
                self.runner.begin(num_slots, capacity)
                return num_slots
            except Exception as error:
                if not can_shrink(error, num_slots):
                    raise
            num_slots = self._halved(num_slots, "they begin")

    def make_less(self, num_slots: int) -> int:
        """Memory ran out in a step over `num_slots` slots: begin with fewer; how many there are."""
        return self.make(self._halved(num_slots, "what was in flight begins again"), self._capacity)

    def _planned(self, num_slots: int) -> int:
        free = self.free(self.device)
        if free is None:
            return num_slots
        each = self.runner.slot_bytes(self._capacity)
        fitting = self._fitting(free, each)
        if fitting < num_slots:
            give_back()  # what was freed and kept for later counts as free
            free = self.free(self.device) or free
            fitting = self._fitting(free, each)
        if fitting < num_slots:
            self.say(f"the engine decodes {fitting} sequences together instead of {num_slots}: keys and values of {self._capacity} tokens take "
                     f"{figure(each / 1e6)} MB each and may fill half of the {figure(free / 1e9)} GB that are free. Samples are the same."
                     )  # fmt: skip
            self.max_slots = fitting
        return min(num_slots, fitting)

    def _fitting(self, free: int, each: int) -> int:
        return max(1, int(SHARE * (free + self.runner.held_bytes)) // each)

    def _halved(self, num_slots: int, then: str) -> int:
        self.runner.release()
        free_memory()
        self.num_out_of_memory += 1
        self.max_slots = num_slots // 2
        self.say(halved_words(num_slots, then))
        return self.max_slots


def halved_words(num_slots: int, then: str) -> str:
    """The line about slots that were halved."""
    return (f"memory ran out in the engine with {num_slots} sequences decoded together; {then} with {num_slots // 2}, and sampling goes on "
            "with that. Samples are the same.")  # fmt: skip


def can_shrink(error: BaseException, num_slots: int) -> bool:
    """Whether fewer slots are an answer to it."""
    return num_slots > 1 and is_out_of_memory(error)
