"""The in-process rollout engine: the trainer's own parameters, slots in a preallocated cache, batch-invariant sampling.

    requests --(sorted by length)--> waves of at most `max_slots` samples
    wave: prefill each prompt once -> copy its cache to its samples -> decode one token a slot -> finished slots leave, the rest close up

Weights are the trainer's, so a weight update is a version bump.

Example:
    engine = LocalEngine(model, max_slots=128)
    for sample in engine.generate([GenerateRequest(key="p1", token_ids=(1, 5, 7), num_samples=4)], Sampling(max_new_tokens=32)):
        ...
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import (
    Decode,
    EngineHealth,
    GenerateRequest,
    PauseMode,
    Sample,
    Sampling,
    WeightSource,
)
from fairlead.engine.cache import (
    KEY_TOKENS,
    PREFILL_TOKENS,
    DecodeAttention,
    PrefillAttention,
    SlotCache,
    decode_mask,
    prefill_mask,
    round_up,
)
from fairlead.engine.sampler import draw, process_logits, sample_uniforms
from fairlead.engine.stops import StopTexts
from fairlead.models.load import CausalModel
from fairlead.models.logprobs import chunk_logits

# Slots come in whole blocks: matrix kernels take other code for fewer than 12 rows or for a rest of rows, and round otherwise.
_SLOT_BLOCK = 16


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
    """[samples, max_new_tokens]"""
    stops: Tensor
    """Tokens that end a sample."""
    limits: Tensor
    """[samples] tokens that each may have."""
    seen: Tensor | None
    """[samples, V] tokens of prompt and completion, when they are penalised."""
    texts: StopTexts | None


def _whole_blocks(slots: Tensor) -> Tensor:
    """The slots, with the first repeated up to whole blocks."""
    return torch.cat([slots, slots[:1].expand(round_up(len(slots), _SLOT_BLOCK) - len(slots))])


class LocalEngine:
    """Implements RolloutEngine on a CausalModel in this process. Not thread-safe; `generate` may not be nested.

    Args:
        max_slots: samples decoded together; more is faster per token and takes more memory.
        decode: text of a completion; needed for stop texts.
        on_token: called with the number of tokens of each step; may raise to stop.
    Raises:
        EngineError: the model's sequences cannot share a row (the slots of the cache are one), or it computes in bf16 on a CPU.
    """

    def __init__(
        self, model: CausalModel, *, max_slots: int = 128, decode: Decode | None = None, on_token: Callable[[int], None] | None = None
    ) -> None:  # fmt: skip
        if model.why_padded is not None:
            raise EngineError(explain("model", model.name, f"cannot write completions here: it {model.why_padded}",
                                      expected="a model whose sequences can share a row",
                                      remedy="SFT, reward models, DPO and KTO train it; bring completions written elsewhere"))  # fmt: skip
        if model.device.type == "cpu" and model.arithmetic.precision != "fp32":
            raise EngineError(explain("model.arithmetic.precision", model.arithmetic.precision, "cannot write completions on a CPU",
                                      expected="fp32", remedy='Call model.set_precision("fp32") first'))  # fmt: skip
        self.model = model
        self.max_slots = max_slots
        self.policy_version = 0
        self._is_paused = False
        self._num_tokens = 0
        self._on_token = on_token
        self._decode_text = decode

    def pause(self, mode: PauseMode = "keep") -> None:
        """Refuse new requests until `resume`; a wave never stops halfway, so all modes are one."""
        self._is_paused = True

    def resume(self) -> None:
        """Accept requests again."""
        self._is_paused = False

    def update_weights(self, source: WeightSource | None, version: int) -> None:
        """Take note of a new policy version; the parameters are the trainer's own."""
        self.policy_version = version

    def health(self) -> EngineHealth:
        """State, version, tokens so far."""
        state = "paused" if self._is_paused else "ready"
        return EngineHealth(state=state, policy_version=self.policy_version, num_tokens=self._num_tokens)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Sample; yields wave by wave. Raises EngineError for an empty prompt or one that leaves no room."""
        if self._is_paused:
            raise EngineError(
                explain("engine", "paused", "cannot take requests", expected="a running engine", remedy="Call resume()")
            )
        if sampling.stop and self._decode_text is None:
            raise EngineError(explain("sampling.stop", sampling.stop, "cannot be found without a decoder", expected="an engine with one",
                                      remedy="Make the engine with decode=, or stop by token ids"))  # fmt: skip
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
        if room < (limit := request.limit(sampling)):
            raise EngineError(explain(f"prompt {request.key}: num_tokens", len(request.token_ids), f"leaves room for {max(0, room)} new tokens",
                                      expected=f"<= {self.model.max_positions - limit} (context {self.model.max_positions} "
                                      f"less max_new_tokens {limit})",
                                      remedy="Shorten the prompt or lower max_new_tokens"))  # fmt: skip

    def _decode(self, samples: list[tuple[GenerateRequest, int]], sampling: Sampling) -> list[Sample]:
        """Decode a wave. Slots beyond `rows` repeat the first one; they leave in blocks of `_SLOT_BLOCK`."""
        head, wave = self.model.output_head(), self._new_wave(samples, sampling)
        limit = int(wave.limits.max())
        cache, hidden = self._prefill(samples, limit)
        rows = torch.arange(len(samples), device=self.model.device)
        done: list[Sample] = []
        for step in range(limit):
            logits = chunk_logits(hidden, head, head.scale)[: len(rows)]
            uniforms = None if wave.uniforms is None else wave.uniforms[rows, step]
            seen = None if wave.seen is None else wave.seen[rows]
            tokens, logprobs = draw(process_logits(logits, sampling, seen), uniforms)
            wave.tokens[rows, step], wave.logprobs[rows, step] = tokens, logprobs
            self._num_tokens += len(rows)
            if self._on_token:
                self._on_token(len(rows))
            if wave.seen is not None:
                wave.seen[rows, tokens] = True
            is_stop = torch.isin(tokens, wave.stops) | self._reached(wave, rows, tokens, step)
            is_done = is_stop | (step + 1 >= wave.limits[rows])
            if bool(is_done.any()):
                ended = zip(rows[is_done].tolist(), is_stop[is_done].tolist(), strict=True)
                done += [self._finish(wave, row, step + 1, stop) for row, stop in ended]
                keep = torch.nonzero(~is_done)[:, 0]
                if not len(keep):
                    break
                rows, tokens, cache = rows[keep], tokens[keep], cache.select(_whole_blocks(keep))
            hidden = self._advance(cache, tokens)
        return done

    def _advance(self, cache: SlotCache, tokens: Tensor) -> Tensor:
        """[S, H] hidden states after one more token a slot."""
        token_ids = torch.cat([tokens, tokens[:1].expand(len(cache.lengths) - len(tokens))])
        plan = DecodeAttention(cache, decode_mask(cache.lengths))
        hidden = self.model.run(token_ids[:, None], cache.lengths[:, None], plan)[:, 0]
        cache.lengths += 1
        return hidden

    def _new_wave(self, samples: list[tuple[GenerateRequest, int]], sampling: Sampling) -> _Wave:
        device, limits = self.model.device, [request.limit(sampling) for request, _ in samples]
        limit, seen = max(limits), None
        if sampling.repetition_penalty != 1.0:
            seen = torch.zeros(len(samples), len(self.model.output_head().weight), dtype=torch.bool, device=device)
            for row, (request, _) in enumerate(samples):
                seen[row, list(request.token_ids)] = True
        uniforms = None
        if sampling.temperature > 0:
            rows = [sample_uniforms(sampling.seed, r.key, i, limit) for r, i in samples]
            uniforms = torch.from_numpy(np.stack(rows)).to(device)
        return _Wave(requests=samples, uniforms=uniforms, tokens=torch.zeros(len(samples), limit, dtype=torch.long, device=device),
                     logprobs=torch.zeros(len(samples), limit, device=device),
                     stops=torch.tensor(sampling.stop_token_ids, dtype=torch.long, device=device),
                     limits=torch.tensor(limits, device=device), seen=seen,
                     texts=StopTexts(sampling.stop, self._decode_text) if sampling.stop and self._decode_text else None)  # fmt: skip

    def _reached(self, wave: _Wave, rows: Tensor, tokens: Tensor, step: int) -> Tensor:
        """[rows] whether a stop text is there with this token."""
        found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        if wave.texts is not None:
            for i in np.flatnonzero(wave.texts.may_end(tokens.cpu().numpy())):
                found[i] = wave.texts.is_reached(wave.tokens[rows[i], : step + 1].cpu().numpy())
        return found

    def _prefill(self, samples: list[tuple[GenerateRequest, int]], limit: int) -> tuple[SlotCache, Tensor]:
        """Run each distinct prompt once; return the cache and last hidden state of every sample, padded to whole blocks."""
        prompts = {request.key: request.token_ids for request, _ in samples}
        order = {key: row for row, key in enumerate(prompts)}
        device = self.model.device
        lengths = torch.tensor([len(p) for p in prompts.values()], device=device)
        longest = round_up(int(lengths.max()), PREFILL_TOKENS)
        token_ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts.values()):
            token_ids[row, : len(prompt)] = torch.tensor(prompt)
        # Padding repeats position 0: a model with learned positions has none beyond its context.
        position_ids = torch.arange(longest)[None] * (torch.arange(longest)[None] < lengths.cpu()[:, None])
        cache = SlotCache(capacity=round_up(longest + limit, KEY_TOKENS), lengths=lengths)
        hidden = self.model.run(token_ids, position_ids, PrefillAttention(cache, prefill_mask(lengths, longest)))
        last = hidden[torch.arange(len(prompts), device=device), lengths - 1]
        slots = _whole_blocks(torch.tensor([order[request.key] for request, _ in samples], device=device))
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
