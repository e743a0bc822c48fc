"""Runs Llama-like models on a CPU: one call of the C++ kernel a step, in fp32 on the trainer's own weights, in bf16 on a packed copy.

Each row's arithmetic depends on that row alone (see decode.cpp), so a sample has the same bits whatever shares its batch, in however many
slots, on however many threads.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.engine import kernel
from fairlead.engine.cache import SlotCache, kept_sizes, round_up
from fairlead.engine.layers import Decoder, OtherShapeError, bind, hear_scoring
from fairlead.engine.runner import Ints
from fairlead.models.arithmetic import Precision, exact_products
from fairlead.models.load import CausalModel, computing_in
from fairlead.models.logprobs import chunk_logits
from fairlead.models.probe import make_probe

_ROWS = 512
"""Tokens of prompts in one call; more only takes more memory."""
_BLOCK_TOKENS = 16
"""Of keys in bf16, see low.h; the capacity of a cache is a multiple."""
_NEAR = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest relative difference of the probe's logits between the kernel and the model's own modules in fp32."""


class KernelRunner:
    """Implements Runner. The cache is kept from one `begin` to the next where it is large enough.

    Args:
        precision: of its products, keys and values; whatever the model's own is.
    Raises:
        OtherShapeError: the model is not one that the kernel computes, or not in this precision.
    """

    refill = 1

    def __init__(self, model: CausalModel, library: ctypes.CDLL, *, precision: Precision = "fp32") -> None:
        if model.device.type != "cpu":
            raise OtherShapeError("is not on a CPU")
        self._model, self._library = model, library
        self._cache: SlotCache | None = None
        self._decoder: Decoder
        self._place = np.zeros(0, dtype=np.int64)
        self._scratch = self._logits = torch.zeros(0)
        self._packed = torch.zeros(0, dtype=torch.int32)
        with computing_in(model, "fp32"):
            self._scoring = hear_scoring(model)
            self._precision: Precision = "fp32"
            self._check()
            if precision != "fp32":
                self._precision, self._cache = precision, None
                if not library.fairlead_can_low(ctypes.byref(self._decoder.model)):
                    raise OtherShapeError(
                        f"is not computed in bf16, with heads of {self._decoder.model.head} on this processor"
                    )
                self._check()
        self.about = f"the C++ kernel{' in bf16' if precision == 'bf16' else ''}, {torch.get_num_threads()} threads"

    @torch.inference_mode()
    def _check(self) -> None:
        """The probe's tokens through both ways."""
        probe = make_probe(self._model.config.get_text_config().vocab_size)
        hidden = self._model.hidden(probe.layout)
        head = self._model.output_head()
        expected = chunk_logits(hidden[[3, 5]], head, head.scale)
        self.begin(2, 32)
        found = self.prefill([row.numpy() for row in probe.rows], [0, 1])
        if not bool((found - expected).abs().max() <= _NEAR[self._precision] * expected.abs().max()):
            raise OtherShapeError("computes something else than the kernel")

    def begin(self, num_slots: int, capacity: int) -> None:
        """See Runner."""
        if not self.serves(num_slots, capacity):
            self._cache = None  # the old one goes before the new one comes
            cache = SlotCache(num_slots, capacity)
            _, heads, size = kept_sizes(self._model.config, hidden_size=self._model.hidden_size)
            like = torch.empty(1, heads, 1, size, dtype=self._kept_dtype)
            for layer in range(len(self._scoring)):
                cache.allocate(layer, like, like)
            self._cache = cache
        assert self._cache is not None
        self._place = np.arange(self._cache.num_slots, dtype=np.int64)
        self.rebind()

    def serves(self, num_slots: int, capacity: int) -> bool:
        """See Runner."""
        return self._cache is not None and self._cache.serves(num_slots, capacity)

    def slot_bytes(self, capacity: int) -> int:
        """See Runner."""
        _, heads, size = kept_sizes(self._model.config, hidden_size=self._model.hidden_size)
        return 2 * len(self._scoring) * heads * size * capacity * self._kept_dtype.itemsize

    @property
    def held_bytes(self) -> int:
        """See Runner."""
        return 0 if self._cache is None else self._cache.num_bytes

    def release(self) -> None:
        """See Runner."""
        self._cache = None

    @property
    def _kept_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self._precision == "bf16" else torch.float32

    def rebind(self) -> None:
        """See Runner. Costs microseconds, with an adapter a product a layer, and in bf16 a pass over the weights."""
        cache = self._cache
        assert cache is not None
        keys, values = ([x[i] for i in sorted(x)] for x in (cache.keys, cache.values))
        with exact_products(self._model.arithmetic):
            self._decoder = bind(self._model, self._scoring, capacity=cache.capacity, keys=keys, values=values)
        if self._precision == "bf16":
            model = ctypes.byref(self._decoder.model)
            size = self._library.fairlead_packed_size(model)
            if self._packed.numel() != size:
                self._packed = torch.empty(size, dtype=torch.int32)
            self._library.fairlead_pack(model, self._packed.data_ptr(), torch.get_num_threads())

    def prefill(self, prompts: Sequence[Ints], slots: Sequence[int]) -> Tensor:
        """See Runner. Long prompts go in pieces, short ones together."""
        vocabulary = self._decoder.model.vocabulary
        logits = torch.empty(len(prompts), vocabulary)
        tokens = np.concatenate(prompts)
        lengths = np.array([len(p) for p in prompts])
        ends = np.cumsum(lengths)
        positions = np.arange(len(tokens)) - np.repeat(ends - lengths, lengths)
        places = np.repeat(self._place[np.asarray(slots)], lengths)
        for start in range(0, len(tokens), _ROWS):
            rows = slice(start, min(start + _ROWS, len(tokens)))
            wanted = np.flatnonzero((ends - 1 >= rows.start) & (ends - 1 < rows.stop))
            out = logits[wanted[0] : wanted[-1] + 1] if len(wanted) else logits[:0]
            self._forward(tokens[rows], places[rows], positions[rows], ends[wanted] - 1 - rows.start, out)
        return logits

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """See Runner. Whole blocks of tokens, as the layout in bf16 has them."""
        assert self._cache is not None
        self._cache.copy(
            int(self._place[source]), [int(self._place[t]) for t in targets], round_up(length, _BLOCK_TOKENS)
        )

    def move(self, source: int, target: int, length: int) -> None:
        """See Runner; nothing is copied."""
        self._place[[source, target]] = self._place[[target, source]]

    def decode(self, tokens: Ints, lengths: Ints) -> Tensor:
        """See Runner. The logits are overwritten by the next call."""
        count, vocabulary = len(tokens), int(self._decoder.model.vocabulary)
        if self._logits.numel() < count * vocabulary:
            self._logits = torch.empty(count * vocabulary)
        out = self._logits[: count * vocabulary].view(count, vocabulary)
        self._forward(tokens, self._place[:count], lengths, np.arange(count), out)
        return out

    def draw(
        self, logits: Tensor, temperature: float, uniforms: npt.NDArray[np.float64] | None
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See Runner."""
        count, vocabulary = logits.shape
        logits = logits.contiguous()
        tokens, logprobs = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
        at = None if uniforms is None else np.ascontiguousarray(uniforms)
        self._library.fairlead_draw(logits.data_ptr(), count, vocabulary, temperature, _pointer(at), _pointer(tokens), _pointer(logprobs),
                                    torch.get_num_threads())  # fmt: skip
        return tokens, logprobs

    def _forward(self, tokens: Ints, places: Ints, positions: Ints, logit_rows: Ints, logits: Tensor) -> None:
        arrays = [np.ascontiguousarray(x, dtype=np.int64) for x in (tokens, places, positions, logit_rows)]
        threads, model = torch.get_num_threads(), ctypes.byref(self._decoder.model)
        size = self._library.fairlead_scratch_size(model, len(tokens), threads)
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size)
        batch = kernel.Batch(rows=len(tokens), tokens=_pointer(arrays[0]), slots=_pointer(arrays[1]), positions=_pointer(arrays[2]),
                             num_logits=len(logit_rows), logit_rows=_pointer(arrays[3]), logits=logits.data_ptr(),
                             scratch=self._scratch.data_ptr(), threads=threads)  # fmt: skip
        self._library.fairlead_forward(model, ctypes.byref(batch))


def _pointer(array: npt.NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data
