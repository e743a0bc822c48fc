"""Continuous batching: which sample is in which slot, and what a step does. No model here, only a `Runner`.

    waiting samples, longest first --(a slot is free)--> prompt read once, copied to its other samples --> one token a slot and step
    a sample that ends leaves; the last slot takes its place, so slots in use are always 0 to S - 1; free ones are filled again

Nothing here depends on time or chance: the same requests take the same slots at the same steps.

Legend: S slots in use, T tokens of a completion.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import Decode, GenerateRequest, Sample, Sampling
from fairlead.engine.runner import Runner
from fairlead.engine.sampler import possible_tokens, process_logits, sample_uniforms
from fairlead.engine.stops import StopTexts
from fairlead.text.packing import join_choices


@dataclass(frozen=True, slots=True)
class _Job:
    request: GenerateRequest
    sample_index: int
    limit: int
    """Tokens that it may have."""


class Schedule:
    """The samples of one `generate`, from waiting to finished. Single use, not thread-safe.

    Invariant: rows 0 to `num_active` - 1 are samples in flight; row r has `counts[r]` tokens, of which all but the last are in slot r of
    the runner's cache, after the prompt.

    Args:
        decode: needed with stop texts.
        on_token: called with the number of tokens of each step.
    """

    def __init__(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, runner: Runner, *, num_slots: int, vocabulary: int,
        decode: Decode | None, on_token: Callable[[int], None],
    ) -> None:  # fmt: skip
        jobs = [_Job(r, i, r.limit(sampling)) for r in requests for i in range(r.num_samples)]
        self._waiting = _in_order(jobs)
        self._sampling, self._runner, self._on_token = sampling, runner, on_token
        self._longest, self._vocabulary = max((job.limit for job in jobs), default=0), vocabulary
        self._ended: list[Sample] = []
        self._stops = np.array(sampling.stop_token_ids, dtype=np.int64)
        self._texts = StopTexts(sampling.stop, decode) if sampling.stop and decode is not None else None
        self._is_plain = not sampling.is_cut and sampling.repetition_penalty == 1.0
        self._make_rows(num_slots)

    def _make_rows(self, num_slots: int) -> None:
        sampling, longest = self._sampling, self._longest
        self.num_slots = num_slots
        self.num_active = 0
        self._jobs: list[_Job | None] = [None] * num_slots
        self._spans: list[list[tuple[int, int]]] = [[] for _ in range(num_slots)]
        self._counts, self._limits, self._lengths, self._last = (np.zeros(num_slots, dtype=np.int64) for _ in range(4))
        self._tokens = np.zeros((num_slots, longest), dtype=np.int64)
        self._logprobs = np.zeros((num_slots, longest), dtype=np.float32)
        self._uniforms = np.zeros((num_slots, longest)) if sampling.temperature > 0 else None
        self._choices: list[list[npt.NDArray[np.int32]]] | None = None
        if sampling.wants_choices and sampling.is_cut and sampling.temperature > 0:
            self._choices = [[] for _ in range(num_slots)]
        self._seen = (
            np.zeros((num_slots, self._vocabulary), dtype=np.bool_) if sampling.repetition_penalty != 1.0 else None
        )

    @property
    def num_waiting(self) -> int:
        """Samples that have not begun."""
        return len(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether every sample has ended."""
        return not self._waiting and not self.num_active and not self._ended

    def begin_again(self, num_slots: int) -> None:
        """A step failed, and the runner's cache is empty and has so many slots: what was in flight waits again. Samples that ended before are
        handed over by the next step."""
        self._waiting = _in_order([*self._waiting, *(job for job in self._jobs if job is not None)])
        self._make_rows(num_slots)

    def drain(self) -> list[_Job]:
        """Forget the samples that wait."""
        dropped, self._waiting = self._waiting, []
        return dropped

    def step(self, version: int, *, admits: bool = True) -> list[Sample]:
        """One token for every sample in flight, by weights of that version; return those that ended.

        Args:
            admits: whether samples that wait may begin.
        """
        free = self.num_slots - self.num_active
        if admits and self._waiting and free and (free >= self._runner.refill or not self.num_active):
            start = self.num_active
            self._take(self._admit(free), start, version)
        if self.num_active:
            count = self.num_active
            logits = self._runner.decode(self._last[:count], self._lengths[:count])
            self._lengths[:count] += 1
            self._take(logits, 0, version)
        done, self._ended = self._ended, []
        return done

    def _admit(self, free: int) -> Tensor:
        """[new rows, V] logits of first tokens. A prompt is read once; its other samples copy it, also from one that is in flight."""
        places: dict[str, list[int]] = {}
        requests: dict[str, GenerateRequest] = {}
        for _ in range(min(free, len(self._waiting))):
            job, row = self._waiting.pop(), self.num_active
            self.num_active += 1
            places.setdefault(job.request.key, []).append(row)
            requests[job.request.key] = job.request
            self._begin(row, job)
        first = [rows[0] for rows in places.values()]
        read = self._runner.prefill([np.array(r.token_ids, dtype=np.int64) for r in requests.values()], first)
        for key, rows in places.items():
            if len(rows) > 1:
                self._runner.copy(rows[0], rows[1:], len(requests[key].token_ids))
        return read.repeat_interleave(torch.tensor([len(rows) for rows in places.values()], device=read.device), dim=0)

    def _begin(self, row: int, job: _Job) -> None:
        request = job.request
        self._jobs[row], self._spans[row] = job, []
        self._counts[row], self._limits[row], self._lengths[row] = 0, job.limit, len(request.token_ids)
        if self._uniforms is not None:
            self._uniforms[row, : job.limit] = sample_uniforms(
                self._sampling.seed, request.key, job.sample_index, job.limit
            )
        if self._choices is not None:
            self._choices[row] = []
        if self._seen is not None:
            self._seen[row] = False
            self._seen[row, list(request.token_ids)] = True

    def _take(self, logits: Tensor, start: int, version: int) -> None:
        """Draw a token for each row from `start` on; samples that end with it leave."""
        rows = np.arange(start, self.num_active)
        counts = self._counts[start : self.num_active]
        tokens, logprobs = self._draw(logits, rows, counts)
        self._tokens[rows, counts], self._logprobs[rows, counts], self._last[rows] = tokens, logprobs, tokens
        if self._seen is not None:
            self._seen[rows, tokens] = True
        for row, count in zip(rows, counts, strict=True):
            if not self._spans[row] or self._spans[row][-1][0] != version:
                self._spans[row].append((version, int(count)))
        counts += 1
        self._on_token(len(rows))
        is_stop = np.isin(tokens, self._stops)
        if self._texts is not None:
            for i in np.flatnonzero(self._texts.may_end(tokens)):
                is_stop[i] |= self._texts.is_reached(self._tokens[rows[i], : counts[i]])
        ended = np.flatnonzero(is_stop | (counts >= self._limits[start : self.num_active]))
        for i in ended:
            self._ended.append(self._finish(start + int(i), is_stop=bool(is_stop[i])))
        for i in ended[::-1]:
            self._leave(start + int(i))

    def _draw(
        self, logits: Tensor, rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        uniforms = None if self._uniforms is None else self._uniforms[rows, counts]
        temperature = self._sampling.temperature
        if not self._is_plain:
            seen = None if self._seen is None else torch.from_numpy(self._seen[rows]).to(logits.device)
            logits, temperature = process_logits(logits, self._sampling, seen), 1.0
        if self._choices is not None:
            for row, ids in zip(rows, possible_tokens(logits), strict=True):
                self._choices[row].append(ids)
        tokens, logprobs = self._runner.draw(logits, temperature, uniforms)
        require_finite(logprobs)
        return tokens, logprobs

    def _finish(self, row: int, *, is_stop: bool) -> Sample:
        """The sample of a row, whose job is then done."""
        job, count = self._jobs[row], int(self._counts[row])
        assert job is not None
        self._jobs[row] = None
        starts = self._spans[row]
        ends = [start for _, start in starts[1:]] + [count]
        return Sample(
            key=job.request.key, sample_index=job.sample_index, token_ids=self._tokens[row, :count].copy(),
            sampling_logprobs=self._logprobs[row, :count].copy(), finish_reason="stop" if is_stop else "length",
            choices=None if self._choices is None else join_choices([ids[None] for ids in self._choices[row]]),
            policy_versions=tuple((version, start, end) for (version, start), end in zip(starts, ends, strict=True)),
        )  # fmt: skip

    def _leave(self, row: int) -> None:
        """The last row takes the place of one that ended."""
        last = self.num_active - 1
        if row != last:
            self._runner.move(last, row, int(self._lengths[last]))
            self._jobs[row], self._spans[row] = self._jobs[last], self._spans[last]
            if self._choices is not None:
                self._choices[row] = self._choices[last]
            for kept in (
                self._counts,
                self._limits,
                self._lengths,
                self._last,
                self._tokens,
                self._logprobs,
                self._uniforms,
                self._seen,
            ):
                if kept is not None:
                    kept[row] = kept[last]
        self._jobs[last] = None
        self.num_active = last


def _in_order(jobs: Sequence[_Job]) -> list[_Job]:
    """Those that may get longest last, where they are taken from."""
    return sorted(
        jobs, key=lambda job: (-job.limit, -len(job.request.token_ids), job.request.key, job.sample_index), reverse=True
    )


def require_finite(logprobs: npt.NDArray[np.float32]) -> None:
    """Refuse logprobs of a policy that has come apart."""
    if not np.isfinite(logprobs).all():
        raise EngineError(explain("policy", None, "gives logits that are not finite", expected="finite numbers",
                                  remedy="Go back to an earlier checkpoint and lower the learning rate"))  # fmt: skip
