"""Sampling from any OpenAI-compatible server: by token ids where it takes and gives them (vLLM), by messages everywhere else.

    requests -> one job a sample -> num_parallel threads, each with its retries -> samples as they come

A server that fails for good ends the sampling after everything that came was handed over. Standard library alone, no torch.

Example:
    engine = RemoteEngine(RemoteSettings(url="http://localhost:8000/v1", model="qwen"))
    for reply in engine.ask([Question(key="p1", messages=({"role": "user", "content": "Hi"},))], Sampling(max_new_tokens=32)):
        ...
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import EngineHealth, GenerateRequest, Sample, Sampling
from fairlead.core.records import FinishReason
from fairlead.engine.http import JsonClient, RefusedError
from fairlead.engine.requests import check_requests, refuse_choices, sample_seed

_HEED_S = 0.5
_SEEDS = 1 << 31  # some servers hold seeds in 32 bits
_TOKEN_PREFIX = "token_id:"  # noqa: S105  (how vLLM writes ids in place of texts)
_ASK_VLLM = "Use a server that gives ids (vLLM), or engine.api: chat"
_REASONS: dict[Any, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """Which server, and how patiently it is asked."""

    url: str
    """Such as http://localhost:8000/v1."""
    model: str
    """The server's name for it."""
    key_env: str | None = None
    """Environment variable that holds the key; None sends none."""
    timeout_s: float = 120.0
    """Of one answer."""
    max_tries: int = 6
    """Of one answer; waits double from half a second up to a minute, or are what the server asks for."""
    num_parallel: int = 8
    """Answers asked for at a time."""
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Added to what is sent; a value of None takes a key out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A conversation of which `num_samples` replies are wanted."""

    key: str
    messages: Sequence[Mapping[str, str]]
    """role and content, as the servers take them."""
    num_samples: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply as text."""

    key: str
    sample_index: int
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    body: Mapping[str, Any]
    read: Callable[[dict[str, Any]], Any]


class _OddError(Exception):
    """An answer that lacks what was asked for."""


class RemoteEngine:
    """Implements Sampler, and `ask` for servers that take messages. Its weights are the server's own: nothing trains on-policy from it.

    Args:
        needs_logprobs: refuse a server that gives none; else samples carry NaN in their place.
        heed: called twice a second while answers are awaited; may raise to stop.
        first_wait_s: see JsonClient.
    Raises:
        EngineError: the address or the key is not one.
    """

    def __init__(
        self, settings: RemoteSettings, *, needs_logprobs: bool = True, heed: Callable[[], None] = lambda: None, first_wait_s: float = 0.5
    ) -> None:  # fmt: skip
        self.settings = settings
        self._needs_logprobs, self._heed = needs_logprobs, heed
        self._client = JsonClient(settings.url, key=_key(settings.key_env), timeout_s=settings.timeout_s, max_tries=settings.max_tries,
                                  first_wait_s=first_wait_s)  # fmt: skip
        self._num_tokens = self._num_waiting = 0
        self._failure: str | None = None

    @property
    def about(self) -> str:
        """How it computes, for people."""
        return f"{self.settings.model} at {self._client.url}"

    def health(self) -> EngineHealth:
        """What is known without asking the server."""
        return EngineHealth(state="failed" if self._failure else "ready", policy_version=0, num_tokens=self._num_tokens,
                            num_waiting=self._num_waiting)  # fmt: skip

    def generate(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, *, skip: Container[tuple[str, int]] = ()
    ) -> Iterator[Sample]:  # fmt: skip
        """Sample by token ids.

        Args:
            skip: (key, sample index) of what is not asked for.
        Raises:
            EngineError: the server gives no ids (or no logprobs, where they are needed), refuses, or fails; after what came was yielded.
        """
        check_requests(requests, sampling, max_positions=1 << 30, has_decoder=True)
        refuse_choices(sampling, engine="a server")
        jobs = [
            _Job("/completions", self._body(sampling, request.key, i, request.limit(sampling)) | {"prompt": list(request.token_ids), **_TOKENS},
                 _read_sample(request, i, needs_logprobs=self._needs_logprobs))
            for request in requests for i in range(request.num_samples) if (request.key, i) not in skip
        ]  # fmt: skip
        for sample in self._run(jobs):
            self._num_tokens += len(sample.token_ids)
            yield sample

    def ask(
        self, questions: Sequence[Question], sampling: Sampling, *, skip: Container[tuple[str, int]] = ()
    ) -> Iterator[Reply]:  # fmt: skip
        """Replies by messages. Raises EngineError as `generate`; stop token ids are the server's own affair."""
        jobs = [
            _Job("/chat/completions", self._body(sampling, one.key, i, sampling.max_new_tokens, is_chat=True) | {"messages": list(one.messages)},
                 _read_reply(one.key, i))
            for one in questions for i in range(one.num_samples) if (one.key, i) not in skip
        ]  # fmt: skip
        yield from self._run(jobs)

    def _body(
        self, sampling: Sampling, key: str, index: int, limit: int, *, is_chat: bool = False
    ) -> dict[str, Any]:  # fmt: skip
        body: dict[str, Any] = {"model": self.settings.model, "max_tokens": limit, "temperature": sampling.temperature,
                                "seed": sample_seed(sampling.seed, key, index) % _SEEDS}  # fmt: skip
        usual = {
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }  # left out: not every server knows them
        body |= {name: getattr(sampling, name) for name, off in usual.items() if getattr(sampling, name) != off}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.stop_token_ids and not is_chat:
            body["stop_token_ids"] = list(sampling.stop_token_ids)
        return body

    def _run(self, jobs: Sequence[_Job]) -> Iterator[Any]:
        """What the jobs give, as it comes; then, if one failed, why."""
        waiting, found = deque(jobs), queue.SimpleQueue[tuple[Any, Exception | None]]()
        self._client.stopped.clear()
        self._num_waiting, num_left, in_a_row = len(jobs), len(jobs), 0
        threads = [
            threading.Thread(target=self._work, args=(waiting, found), daemon=True)  # daemons: none keeps the process from ending
            for _ in range(min(self.settings.num_parallel, len(jobs)))
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        failures: list[Exception] = []
        try:
            while num_left:
                try:
                    value, error = found.get(timeout=_HEED_S)
                except queue.Empty:
                    self._heed()
                    continue
                num_left, self._num_waiting = num_left - 1, num_left - 1
                if error is None:
                    in_a_row = 0
                    yield value
                    continue
                failures.append(error)
                in_a_row += 1
                if isinstance(error, RefusedError) or in_a_row >= self.settings.num_parallel:
                    self._client.stopped.set()  # no more tries; what is under way may still bring something
                    num_left -= _drain(waiting)
        finally:
            waiting.clear()
            self._client.stopped.set()
            self._num_waiting = 0
        if failures:
            self._failure = str(failures[0])
            raise failures[0]

    def _work(self, waiting: deque[_Job], found: "queue.SimpleQueue[tuple[Any, Exception | None]]") -> None:
        while not self._client.stopped.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            try:
                found.put((self._do(job), None))
            except Exception as error:  # the reader raises it
                if isinstance(error, RefusedError):
                    self._client.stopped.set()  # the next would be told the same
                found.put((None, error))

    def _do(self, job: _Job) -> Any:
        body = {name: value for name, value in {**job.body, **self.settings.body}.items() if value is not None}
        why = ""
        for _ in range(self.settings.max_tries):
            answer = self._client.post(job.path, body)
            try:
                return job.read(answer)
            except _OddError as error:
                why = str(error)
        raise EngineError(explain("engine.url", self._client.url, f"answers otherwise than asked ({why})", expected="an answer of the OpenAI API",
                                  remedy="Look at the server, or raise engine.max_tries; what came so far is kept"))  # fmt: skip


_TOKENS = {"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}
"""Asks vLLM for ids; others may refuse it, and say so."""


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(explain("engine.key_env", variable, "is not set", expected="an environment variable that holds the key",
                                  remedy=f"export {variable}=..., or leave engine.key_env out"))  # fmt: skip
    return key


def _drain(waiting: "deque[_Job]") -> int:
    """Take out what nobody has begun, and count it."""
    num = 0
    while True:
        try:
            waiting.popleft()
        except IndexError:
            return num
        num += 1


def _choice(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], FinishReason]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _OddError("no choices")
    reason = choices[0].get("finish_reason")
    if reason not in _REASONS:
        raise _OddError(f"finish_reason {reason!r}")
    return choices[0], _REASONS[reason]


def _read_reply(key: str, index: int) -> Callable[[dict[str, Any]], Reply]:
    def read(answer: dict[str, Any]) -> Reply:
        choice, reason = _choice(answer)
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise _OddError("no message.content")
        return Reply(key=key, sample_index=index, text=text, finish_reason=reason)

    return read


def _read_sample(request: GenerateRequest, index: int, *, needs_logprobs: bool) -> Callable[[dict[str, Any]], Sample]:
    def read(answer: dict[str, Any]) -> Sample:
        choice, reason = _choice(answer)
        sent = choice.get("prompt_token_ids", answer.get("prompt_token_ids"))
        if sent is not None and tuple(sent) != request.token_ids:
            raise RefusedError(explain("engine.url", "the server", "read another prompt than it was sent", expected="the same token ids",
                                       remedy="Serve the model whose tokenizer the recipe uses"))  # fmt: skip
        logprobs = choice.get("logprobs")
        ids = _token_ids(choice, logprobs if isinstance(logprobs, dict) else {})
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        if not isinstance(values, list) or len(values) != len(ids) or any(v is None for v in values):
            if needs_logprobs:
                raise RefusedError(explain("engine.url", "the server", "gives no log-probabilities of the tokens", expected="logprobs with each "
                                           "completion", remedy="Use a server that gives them (vLLM), or engine.kind: local"))  # fmt: skip
            values = [np.nan] * len(ids)
        return Sample(key=request.key, sample_index=index, token_ids=np.asarray(ids, dtype=np.int64), finish_reason=reason,
                      sampling_logprobs=np.asarray(values, dtype=np.float32), policy_versions=((0, 0, len(ids)),))  # fmt: skip

    return read


def _token_ids(choice: Mapping[str, Any], logprobs: Mapping[str, Any]) -> list[int]:
    """Ids by vLLM's own field, or written in place of the tokens' texts."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        return ids
    tokens = logprobs.get("tokens")
    if isinstance(tokens, list) and tokens and all(isinstance(t, str) and t.startswith(_TOKEN_PREFIX) for t in tokens):
        numbers = [t.removeprefix(_TOKEN_PREFIX) for t in tokens]
        if all(n.isdecimal() for n in numbers):
            return [int(n) for n in numbers]
    raise RefusedError(
        explain(
            "engine.url",
            "the server",
            "gives no token ids",
            expected="return_token_ids, as vLLM has it",
            remedy=_ASK_VLLM,
        )
    )
