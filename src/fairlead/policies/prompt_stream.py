"""The prompts of a run without end: passes over all of them in a new order each, a pure function of the seed and the position.

Example:
    stream = PromptStream(requests, seed=0)
    stream.take(4, num_samples=8)      # four prompts, eight completions each
    stream.cursor                      # 4; a run that goes on starts from here
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairlead.core.protocols import GenerateRequest


@dataclass(slots=True, eq=False)
class PromptStream:
    """Hands out prompts, the same never twice in one take while there are enough. Its only state is the cursor."""

    requests: Sequence[GenerateRequest]
    seed: int
    cursor: int = 0
    """Prompts handed out so far."""

    def take(self, num_prompts: int, *, num_samples: int = 1) -> list[GenerateRequest]:
        """The next prompts; one that comes twice in a take asks for twice as many samples."""
        picked: dict[int, int] = {}
        for i in self._places(num_prompts):
            picked[i] = picked.get(i, 0) + num_samples
        self.cursor += num_prompts
        return [replace(self.requests[i], num_samples=n) for i, n in picked.items()]

    def _places(self, num: int) -> list[int]:
        total = len(self.requests)
        start, epoch = self.cursor % total, self.cursor // total
        order: list[int] = []
        while len(order) < start + num:
            order += np.random.default_rng((self.seed, epoch)).permutation(total).tolist()
            epoch += 1
        return order[start : start + num]
