"""The engine for models whose sequences cannot share a row (state-space, hybrids, an attention of their own): transformers' `generate`.

Only the model's forward and its own cache are transformers'; tokens are drawn here, by the sampler and the uniform numbers of the local engine,
so a sample belongs to its name here too. Prompts of one length go together, for a state has no place for padding. Slots are not filled again.

Example:
    engine = open_engine(model)                        # this one or LocalEngine, as the model needs
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import Decode, EngineHealth, GenerateRequest, PauseMode, Sample, Sampling, WeightSource
from fairlead.engine.local import LocalEngine
from fairlead.engine.requests import check_requests
from fairlead.engine.room import can_shrink, halved_words
from fairlead.engine.sampler import draw, process_logits, sample_uniforms
from fairlead.engine.scheduler import require_finite
from fairlead.engine.stops import StopTexts
from fairlead.models.arithmetic import Precision
from fairlead.models.load import CausalModel
from fairlead.models.out_of_memory import free_memory
from fairlead.text.packing import Branch, Tree, pack_trees

_LARGEST_GAP = 0.05
"""Nats; 16 bits on a GPU stay below it."""


def open_engine(
    model: CausalModel,
    *,
    max_slots: int = 128,
    decode: Decode | None = None,
    on_token: Callable[[int], None] | None = None,
    precision: Precision = "fp32",
    say: Callable[[str], None] = lambda _line: None,
) -> "LocalEngine | FallbackEngine":
    """The engine that samples from a model in this process.

    Raises:
        EngineError: it is not sampled in this precision here.
    """
    if model.why_padded is None:
        return LocalEngine(model, max_slots=max_slots, decode=decode, on_token=on_token, precision=precision, say=say)
    if precision != "fp32":
        raise EngineError(explain("engine.precision", precision, f"is not sampled in by a model that {model.why_padded}", expected="fp32",
                                  remedy="Leave it out"))  # fmt: skip
    return FallbackEngine(model, max_slots=max_slots, decode=decode, on_token=on_token, say=say)


class FallbackEngine:
    """Implements RolloutEngine. Not thread-safe; weights may be updated between two samples, and count from the next batch on.

    Args:
        max_slots: samples decoded together.
        decode, on_token, say: see LocalEngine.
    """

    def __init__(
        self, model: CausalModel, *, max_slots: int = 128, decode: Decode | None = None, on_token: Callable[[int], None] | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:  # fmt: skip
        self.model = model
        self.max_slots = max_slots
        self.policy_version = 0
        self._decode_text, self._on_token, self._say = decode, on_token, say
        self._num_tokens = self._num_aborted = self._num_waiting = self._num_out_of_memory = 0
        self._paused: PauseMode | None = None

    @property
    def about(self) -> str:
        """How it computes, for people."""
        return f"transformers' generate, several times slower (the model {self.model.why_padded})"

    def pause(self, mode: PauseMode = "keep") -> None:
        """See RolloutEngine; between two samples nothing is in flight, so `keep` and `wait` are one."""
        self._paused = mode

    def resume(self) -> None:
        """See RolloutEngine."""
        self._paused = None

    def update_weights(self, source: WeightSource | None, version: int) -> None:
        """Take note of a new policy version; the parameters are the trainer's own."""
        self.policy_version = version

    def health(self) -> EngineHealth:
        """See RolloutEngine."""
        return EngineHealth(state="paused" if self._paused else "ready", policy_version=self.policy_version, num_tokens=self._num_tokens,
                            num_waiting=self._num_waiting, num_aborted=self._num_aborted,
                            num_out_of_memory=self._num_out_of_memory)  # fmt: skip

    def close(self) -> None:
        """Nothing to free."""

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Sample batch by batch, the longest prompts first. Raises EngineError as LocalEngine."""
        check_requests(
            requests, sampling, max_positions=self.model.max_positions, has_decoder=self._decode_text is not None
        )
        ordered = sorted(requests, key=lambda r: (-len(r.token_ids), -r.limit(sampling), r.key))
        batches = deque(
            batch
            for _, group in itertools.groupby(ordered, key=lambda r: len(r.token_ids))
            for batch in _pieces([(r, i) for r in group for i in range(r.num_samples)], self.max_slots)
        )
        self._num_waiting = sum(map(len, batches))
        while batches:
            if self._paused == "abort":
                self._num_aborted, self._num_waiting = self._num_aborted + self._num_waiting, 0
                return
            if self._paused:
                raise EngineError(
                    explain(
                        "engine", "paused", "cannot take requests", expected="a running engine", remedy="Call resume()"
                    )
                )
            found = self._run_if_it_fits(batches[0], sampling)
            if found is None:
                batches = deque(piece for batch in batches for piece in _pieces(batch, self.max_slots))
                continue
            self._num_waiting -= len(batches.popleft())
            yield from found

    def _run_if_it_fits(self, batch: list[tuple[GenerateRequest, int]], sampling: Sampling) -> list[Sample] | None:
        """The samples of a batch; None when memory ran out and fewer at a time have to do."""
        try:
            return self._run(batch, sampling)
        except Exception as error:
            if not can_shrink(error, len(batch)):
                raise
        free_memory()
        self._num_out_of_memory += 1
        self.max_slots = len(batch) // 2
        self._say(halved_words(len(batch), "they begin again"))
        return None

    def _run(self, batch: Sequence[tuple[GenerateRequest, int]], sampling: Sampling) -> list[Sample]:
        module, version = self.model.causal_lm, self.policy_version
        texts = StopTexts(sampling.stop, self._decode_text) if sampling.stop and self._decode_text else None
        steps = _Steps(batch, sampling, texts, self._count)
        prompts = torch.tensor([request.token_ids for request, _ in batch], device=self.model.device)
        with _own_config(module), torch.inference_mode():
            module.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=int(steps.limits.max()), do_sample=False,
                            logits_processor=LogitsProcessorList([steps]), stopping_criteria=StoppingCriteriaList([_Ended(steps)]))  # fmt: skip
        samples = [
            Sample(
                key=request.key, sample_index=index, token_ids=steps.tokens[row, :length].copy(),
                sampling_logprobs=steps.logprobs[row, :length].copy(), finish_reason="stop" if steps.is_stop[row] else "length",
                policy_versions=((version, 0, int(length)),),
            )
            for row, ((request, index), length) in enumerate(zip(batch, steps.counts, strict=True))
        ]  # fmt: skip
        if not sampling.is_cut and sampling.repetition_penalty == 1.0:
            _check(self.model, batch[0][0], samples[0], sampling.temperature or 1.0)
        return samples

    def _count(self, num_tokens: int) -> None:
        self._num_tokens += num_tokens
        if self._on_token:
            self._on_token(num_tokens)


@contextmanager
def _own_config(module: Any) -> Iterator[None]:
    """Without the settings that came with the model: penalties and cuts are the sampling's alone."""
    before, module.generation_config = module.generation_config, GenerationConfig(pad_token_id=0, use_cache=True)
    try:
        yield
    finally:
        module.generation_config = before


@torch.inference_mode()
def _check(model: CausalModel, request: GenerateRequest, sample: Sample, temperature: float) -> None:
    """Refuse a model whose cache loses its state, as RWKV's does in transformers 5.23: what was drawn from is not the trainer's policy."""
    tree = Tree(
        prompt_ids=np.asarray(request.token_ids, dtype=np.int64), branches=(Branch(token_ids=sample.token_ids),)
    )
    expected = model.logprobs(pack_trees([tree]), temperature=temperature).logprobs.float().cpu().numpy()
    gap = float(np.abs(expected - sample.sampling_logprobs).max())
    if gap > _LARGEST_GAP:
        raise EngineError(explain("model", model.name, f"writes completions with other logprobs than its forward has (by {gap:.2g} nats)",
                                  expected=f"<= {_LARGEST_GAP}",
                                  remedy="Train it by SFT, DPO or KTO, and bring completions written elsewhere"))  # fmt: skip


class _Steps(LogitsProcessor):
    """Draws the tokens of a batch; `generate` then takes the only one that is left."""

    def __init__(
        self, batch: Sequence[tuple[GenerateRequest, int]], sampling: Sampling, texts: StopTexts | None, on_token: Callable[[int], None]
    ) -> None:  # fmt: skip
        self._sampling, self._texts, self._on_token, self._step = sampling, texts, on_token, 0
        self.limits = np.array([request.limit(sampling) for request, _ in batch])
        shape = (len(batch), int(self.limits.max()))
        self.tokens, self.logprobs = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        self.counts, self.is_stop = np.zeros(len(batch), dtype=np.int64), np.zeros(len(batch), dtype=np.bool_)
        self._uniforms = None
        if sampling.temperature > 0:
            self._uniforms = np.stack([sample_uniforms(sampling.seed, r.key, i, shape[1]) for r, i in batch])

    @property
    def ended(self) -> Any:
        """[S]"""
        return self.is_stop | (self.counts >= self.limits)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = np.flatnonzero(~self.ended)
        logits = scores.float()
        seen = None
        if self._sampling.repetition_penalty != 1.0:
            seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, input_ids, True)
        uniforms = None if self._uniforms is None else torch.from_numpy(self._uniforms[:, self._step]).to(logits.device)
        tokens, logprobs = draw(process_logits(logits, self._sampling, seen), uniforms)
        require_finite(logprobs.cpu().numpy()[rows])
        self.tokens[rows, self._step], self.logprobs[rows, self._step] = (
            tokens.cpu().numpy()[rows],
            logprobs.cpu().numpy()[rows],
        )
        self._step += 1
        self.counts[rows] = self._step
        self.is_stop[rows] = np.isin(self.tokens[rows, self._step - 1], self._sampling.stop_token_ids)
        if self._texts is not None:
            for i in rows[self._texts.may_end(self.tokens[rows, self._step - 1])]:
                self.is_stop[i] |= self._texts.is_reached(self.tokens[i, : self._step])
        self._on_token(len(rows))
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _Ended(StoppingCriteria):
    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.from_numpy(self._steps.ended).to(input_ids.device)


def _pieces(items: list[tuple[GenerateRequest, int]], size: int) -> Iterator[list[tuple[GenerateRequest, int]]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
