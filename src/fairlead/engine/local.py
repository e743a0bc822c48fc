"""The in-process rollout engine: the trainer's own parameters, slots in a preallocated cache, batch-invariant sampling.

    requests --(sorted by length)--> waves of at most `max_slots` samples
    wave: prefill each prompt once -> copy its cache to its samples -> decode one token a slot -> finished slots leave, the rest close up

Weights are the trainer's, so a weight update is a version bump.

Example:
    engine = LocalEngine(model, max_slots=128)
    for sample in engine.generate([GenerateRequest(key="p1", token_ids=(1, 5, 7), num_samples=4)], Sampling(max_new_tokens=32)):
        ...
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import GenerateRequest, Sample, Sampling, WeightSource
from fairlead.engine.cache import DecodeAttention, PrefillAttention, SlotCache, decode_mask, prefill_mask
from fairlead.engine.sampler import draw, process_logits, sample_uniforms
from fairlead.models.load import CausalModel
from fairlead.models.logprobs import chunk_logits


@dataclass(slots=True, eq=False)
class _Wave:
    """Samples that are decoded together; row i of every tensor belongs to `rows[i]`."""

    requests: list[tuple[GenerateRequest, int]]
    """(request, sample index) of each sample of the wave."""
    uniforms: Tensor | None
    """[samples, max_new_tokens]"""
    tokens: Tensor
    """[samples, max_new_tokens]"""
    logprobs: Tensor


class LocalEngine:
    """Implements RolloutEngine on a CausalModel in this process. Not thread-safe; `generate` may not be nested.

    Args:
        max_slots: samples decoded together; more is faster per token and takes more memory.
    """

    def __init__(
        self, model: CausalModel, *, max_slots: int = 128, on_token: Callable[[int], None] | None = None
    ) -> None:
        self.model = model
        self.max_slots = max_slots
        self.policy_version = 0
        self._is_paused = False
        self._num_tokens = 0
        self._on_token = on_token

    def pause(self) -> None:
        """Refuse new requests until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Accept requests again."""
        self._is_paused = False

    def update_weights(self, source: WeightSource, version: int) -> None:
        """Take note of a new policy version; the parameters are the trainer's own."""
        self.policy_version = version

    def health(self) -> Mapping[str, Any]:
        """State, version, tokens so far."""
        return {
            "state": "paused" if self._is_paused else "ready",
            "policy_version": self.policy_version,
            "num_tokens": self._num_tokens,
        }

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Sample; yields wave by wave. Raises EngineError for an empty prompt or one that leaves no room."""
        if self._is_paused:
            raise EngineError(
                explain("engine", "paused", "cannot take requests", expected="a running engine", remedy="Call resume()")
            )
        for request in requests:
            self._check(request, sampling)
        samples = [
            (r, i) for r in sorted(requests, key=lambda r: (len(r.token_ids), r.key)) for i in range(r.num_samples)
        ]
        for start in range(0, len(samples), self.max_slots):
            with torch.inference_mode():
                wave = self._decode(samples[start : start + self.max_slots], sampling)
            yield from wave

    def _check(self, request: GenerateRequest, sampling: Sampling) -> None:
        room = self.model.max_positions - len(request.token_ids)
        if not request.token_ids:
            raise EngineError(
                explain(
                    f"prompt {request.key}",
                    None,
                    "has no tokens",
                    expected="at least one",
                    remedy="Use a tokenizer with BOS",
                )
            )
        if room < sampling.max_new_tokens:
            raise EngineError(explain(f"prompt {request.key}: num_tokens", len(request.token_ids), f"leaves room for {max(0, room)} new tokens",
                                      expected=f"<= {self.model.max_positions - sampling.max_new_tokens} (context {self.model.max_positions} "
                                      f"less max_new_tokens {sampling.max_new_tokens})",
                                      remedy="Shorten the prompt or lower max_new_tokens"))  # fmt: skip

    def _decode(self, samples: list[tuple[GenerateRequest, int]], sampling: Sampling) -> list[Sample]:
        device, limit = self.model.device, sampling.max_new_tokens
        uniforms = None
        if sampling.temperature > 0:
            rows = [sample_uniforms(sampling.seed, r.key, i, limit) for r, i in samples]
            uniforms = torch.from_numpy(np.stack(rows)).to(device)
        wave = _Wave(samples, uniforms, torch.zeros(len(samples), limit, dtype=torch.long, device=device),
                     torch.zeros(len(samples), limit, device=device))  # fmt: skip
        head = self.model.output_head()
        stops = torch.tensor(sampling.stop_token_ids, dtype=torch.long, device=device)
        cache, hidden = self._prefill(samples, limit)
        rows = torch.arange(len(samples), device=device)
        done: list[Sample] = []
        for step in range(limit):
            logits = chunk_logits(hidden, head.weight, head.bias, head.softcap, head.scale)
            tokens, logprobs = draw(
                process_logits(logits, sampling), None if wave.uniforms is None else wave.uniforms[rows, step]
            )
            wave.tokens[rows, step], wave.logprobs[rows, step] = tokens, logprobs
            self._num_tokens += len(rows)
            if self._on_token:
                self._on_token(len(rows))
            is_stop = torch.isin(tokens, stops)
            if bool(is_stop.any()) or step == limit - 1:
                done += [self._finish(wave, int(row), step + 1, bool(stop)) for row, stop in zip(rows, is_stop, strict=True)
                         if stop or step == limit - 1]  # fmt: skip
                keep = torch.nonzero(~is_stop)[:, 0]
                if step == limit - 1 or not len(keep):
                    break
                rows, tokens, cache = rows[keep], tokens[keep], cache.select(keep)
            hidden = self.model.run(
                tokens[:, None], cache.lengths[:, None], DecodeAttention(cache, decode_mask(cache.lengths))
            )[:, 0]
            cache.lengths += 1
        return done

    def _prefill(self, samples: list[tuple[GenerateRequest, int]], limit: int) -> tuple[SlotCache, Tensor]:
        """Run each distinct prompt once; return the cache and last hidden state of every sample."""
        keys: dict[str, int] = {}
        for request, _ in samples:
            keys.setdefault(request.key, len(keys))
        prompts = [request.token_ids for request, _ in {r.key: (r, i) for r, i in samples}.values()]
        lengths = torch.tensor([len(p) for p in prompts], device=self.model.device)
        longest = int(lengths.max())
        token_ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            token_ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = SlotCache(capacity=longest + limit, lengths=lengths)
        position_ids = torch.arange(longest)[None].expand(len(prompts), -1)
        hidden = self.model.run(token_ids, position_ids, PrefillAttention(cache, prefill_mask(lengths, longest)))
        slots = torch.tensor([keys[request.key] for request, _ in samples], device=self.model.device)
        last = hidden[torch.arange(len(prompts), device=hidden.device), lengths - 1]
        return cache.select(slots), last[slots]

    def _finish(self, wave: _Wave, row: int, length: int, is_stop: bool) -> Sample:
        request, sample_index = wave.requests[row]
        return Sample(
            key=request.key,
            sample_index=sample_index,
            token_ids=wave.tokens[row, :length].cpu().numpy(),
            sampling_logprobs=wave.logprobs[row, :length].cpu().numpy(),
            finish_reason="stop" if is_stop else "length",
            policy_versions=((self.policy_version, 0, length),),
        )
