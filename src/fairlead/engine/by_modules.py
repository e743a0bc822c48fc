"""Runs any model that a plan of ours can serve, through its own transformers modules: on a GPU, and on a CPU where the kernel cannot.

Slots come in whole blocks: matrix kernels take other code for fewer than 12 rows or for a rest of rows, and round otherwise.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.engine.cache import (
    PREFILL_TOKENS,
    DecodeAttention,
    PrefillAttention,
    SlotCache,
    decode_mask,
    kept_sizes,
    prefill_mask,
    round_up,
)
from fairlead.engine.runner import Ints
from fairlead.engine.sampler import draw
from fairlead.models.load import CausalModel
from fairlead.models.logprobs import chunk_logits

_SLOT_BLOCK = 16
_REFILL = 8
"""A forward over a few short prompts costs as much as a step of decoding."""


class ModuleRunner:
    """Implements Runner. The cache is kept from one `begin` to the next where it is large enough.

    Args:
        why: why it is this one, in words.
    """

    def __init__(self, model: CausalModel, why: str) -> None:
        self._model = model
        self._cache = SlotCache(0, 0)
        self.about = f"the model's own modules ({why})"
        self.refill = 1

    def begin(self, num_slots: int, capacity: int) -> None:
        """See Runner."""
        num_slots = round_up(num_slots, _SLOT_BLOCK)
        if not self._cache.serves(num_slots, capacity):
            self._cache = SlotCache(num_slots, capacity)
        self.refill = max(1, num_slots // _REFILL)

    def serves(self, num_slots: int, capacity: int) -> bool:
        """See Runner."""
        return self._cache.serves(round_up(num_slots, _SLOT_BLOCK), capacity)

    def slot_bytes(self, capacity: int) -> int:
        """See Runner."""
        layers, heads, size = kept_sizes(self._model.config, hidden_size=self._model.hidden_size)
        return 2 * layers * heads * size * capacity * self._model.output_head().weight.element_size()

    @property
    def held_bytes(self) -> int:
        """See Runner."""
        return self._cache.num_bytes

    def release(self) -> None:
        """See Runner."""
        self._cache = SlotCache(0, 0)

    def rebind(self) -> None:
        """See Runner; modules always have their weights."""

    def prefill(self, prompts: Sequence[Ints], slots: Sequence[int]) -> Tensor:
        """See Runner. Prompts are padded on the right."""
        lengths = torch.tensor([len(p) for p in prompts])
        longest = round_up(int(lengths.max()), PREFILL_TOKENS)
        token_ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            token_ids[row, : len(prompt)] = torch.from_numpy(prompt)
        # Padding repeats position 0: a model with learned positions has none beyond its context.
        position_ids = torch.arange(longest)[None] * (torch.arange(longest)[None] < lengths[:, None])
        device = self._model.device
        plan = PrefillAttention(
            self._cache, torch.tensor(slots, device=device), prefill_mask(lengths.to(device), longest)
        )
        hidden = self._model.run(token_ids, position_ids, plan)
        return self._logits(hidden[torch.arange(len(prompts)), lengths - 1])

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """See Runner."""
        self._cache.copy(source, targets, length)

    def move(self, source: int, target: int, length: int) -> None:
        """See Runner."""
        self._cache.copy(source, [target], length)

    def decode(self, tokens: Ints, lengths: Ints) -> Tensor:
        """See Runner. The rest of a block decodes token 0 into slots that are free."""
        count = len(tokens)
        rows = np.zeros((2, round_up(count, _SLOT_BLOCK)), dtype=np.int64)
        rows[0, :count], rows[1, :count] = tokens, lengths
        token_ids, positions = torch.from_numpy(rows).to(self._model.device)
        plan = DecodeAttention(self._cache, positions, decode_mask(positions, int(lengths.max()) + 1))
        return self._logits(self._model.run(token_ids[:, None], positions[:, None], plan)[:, 0])[:count]

    def draw(
        self, logits: Tensor, temperature: float, uniforms: npt.NDArray[np.float64] | None
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See Runner."""
        at = None if uniforms is None else torch.from_numpy(uniforms).to(logits.device)
        tokens, logprobs = draw(logits / temperature if at is not None and temperature != 1.0 else logits, at)
        return tokens.cpu().numpy(), logprobs.float().cpu().numpy()

    def _logits(self, hidden: Tensor) -> Tensor:
        head = self._model.output_head()
        return chunk_logits(hidden, head, head.scale)
