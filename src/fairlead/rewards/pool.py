"""Checks, and answers of environments, in worker processes: one that is slow, eats memory or crashes costs its own completion, never the run.

    PooledScorer -- misses of the cache --> WorkerPool.run -- JSON lines --> worker 1 (rewards/worker.py)
         ^                                       |          <-- start, score -- worker 2 ...
         +---- Outcome a completion <------------+   past its deadline: killed, started anew, the check tried again

Each worker has at most one check at a time. Its deadline is wall time from the moment that the worker has built the verifier. A check that
was ended or whose worker died is tried `retries` more times, then its outcome is a failure with NaN as score; one that raised an error
would raise it again and is not repeated. Outcomes come back in the order of the jobs, whatever finished first.
"""

import math
import selectors
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import EngineError, explain
from fairlead.core.records import Completion, Prompt, content_hash, to_dict
from fairlead.rewards.score_cache import ScoreCache
from fairlead.rewards.worker_process import WorkerProcess

Failure = Literal["", "timeout", "crashed", "error"]
_MAX_FAILED_STARTS = 3
_LONGEST_WAIT_S = 60.0
__all__ = ["Failure", "Job", "Outcome", "PooledScorer", "ScoreCache", "WorkerPool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One check of a completion by a verifier, or one answer of an environment to a turn."""

    kind: Literal["check", "answer"] = "check"
    spec: Mapping[str, Any]
    """Section of the verifier or environment as JSON."""
    prompt: Mapping[str, Any]
    given: Mapping[str, Any]
    """The completion; of a turn its text and the messages before it."""
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a job."""

    score: float
    """Of a check; NaN when it does not apply or failed."""
    answer: Mapping[str, Any] | None = None
    """Of an environment: the fields of its observation; None when it has nothing to say or failed."""
    failure: Failure = ""
    """Empty for a job that was done."""
    detail: str = ""
    """In words, for a failure."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: WorkerProcess
    deadline: float
    index: int | None = None
    """The job that it works on."""
    is_ready: bool = False


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class WorkerPool:
    """Worker processes, started when they are needed and kept. A context manager; calls from several threads queue up."""

    num_workers: int = 2
    retries: int = 1
    """Further attempts at a check that was ended or whose worker died."""
    max_memory_bytes: int = 4 << 30
    """Address space of a worker; libraries reserve far more of it than they use."""
    start_s: float = 60.0
    """Longest time for a worker to start, and to build a verifier."""
    _workers: list[_Worker] = field(default_factory=list[_Worker], init=False, repr=False)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)
    _failed_starts: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, _kill_all, self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers; the pool may be used again."""
        for worker in list(self._workers):
            self._drop(worker)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Make all checks; the outcomes in the order of the jobs.

        Raises:
            EngineError: workers do not start.
        """
        with self._lock:
            try:
                return _Round(self, jobs).run()
            except BaseException:
                self.close()  # a worker in the middle of a check would answer the next round
                raise

    def _start(self) -> _Worker:
        worker = _Worker(
            process=WorkerProcess(max_memory_bytes=self.max_memory_bytes), deadline=time.monotonic() + self.start_s
        )
        self._workers.append(worker)
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, (worker, "out"))
        self._selector.register(worker.process.stderr, selectors.EVENT_READ, (worker, "err"))
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        for pipe in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
        worker.process.kill()

    def _count_start(self, *, failed: str) -> None:
        """Workers that die before they are ready several times in a row are a fault of the installation."""
        self._failed_starts = self._failed_starts + 1 if failed else 0
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise EngineError(explain("rewards worker", failed, f"did not start {_MAX_FAILED_STARTS} times in a row",
                                      expected="python -m fairlead.rewards.worker to run", remedy="Look at what it says"))  # fmt: skip


def _kill_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()


class _Round:
    """One call of `WorkerPool.run`. Single-use."""

    def __init__(self, pool: WorkerPool, jobs: Sequence[Job]) -> None:
        self.pool, self.jobs = pool, jobs
        self.waiting = deque(range(len(jobs)))
        self.attempts: Counter[int] = Counter()
        self.outcomes: dict[int, Outcome] = {}

    def run(self) -> list[Outcome]:
        while len(self.outcomes) < len(self.jobs):
            self._assign()
            now = time.monotonic()
            busy = [w for w in self.pool._workers if w.index is not None or not w.is_ready]
            wait = min((w.deadline for w in busy), default=now + _LONGEST_WAIT_S) - now
            for key, _ in self.pool._selector.select(max(0.0, min(wait, _LONGEST_WAIT_S))):
                self._serve(*key.data)
            self._end_late()
        return [self.outcomes[i] for i in range(len(self.jobs))]

    def _assign(self) -> None:
        """Give waiting jobs to idle workers, and start workers for the rest."""
        workers = self.pool._workers
        for worker in workers:
            if self.waiting and worker.is_ready and worker.index is None:
                self._give(worker, self.waiting.popleft())
        num_coming = sum(not w.is_ready for w in workers)
        for _ in range(min(len(self.waiting) - num_coming, self.pool.num_workers - len(workers))):
            self.pool._start()

    def _give(self, worker: _Worker, index: int) -> None:
        job = self.jobs[index]
        worker.index, worker.deadline = index, time.monotonic() + self.pool.start_s
        self.attempts[index] += 1
        worker.process.send(
            {"kind": job.kind, "spec": job.spec, "prompt": job.prompt, "given": job.given, "timeout_s": job.timeout_s}
        )
        if worker.process.has_unsent:
            self.pool._selector.register(worker.process.stdin, selectors.EVENT_WRITE, (worker, "in"))

    def _serve(self, worker: _Worker, pipe: str) -> None:
        if worker not in self.pool._workers:  # dropped while this round of events was served
            return
        if pipe == "in":
            worker.process.flush()
            if not worker.process.has_unsent:
                self.pool._selector.unregister(worker.process.stdin)
        elif pipe == "err":
            if not worker.process.hear():
                self.pool._selector.unregister(worker.process.stderr)
        else:
            for message in worker.process.read():
                self._take(worker, message)

    def _take(self, worker: _Worker, message: Mapping[str, Any] | None) -> None:
        if message is None:
            self._fail(worker, "crashed")
        elif message.get("event") == "ready":
            worker.is_ready = True
            self.pool._count_start(failed="")
        elif worker.index is not None and message.get("event") == "start":
            worker.deadline = time.monotonic() + self.jobs[worker.index].timeout_s
        elif worker.index is not None:
            index, worker.index = worker.index, None
            self.outcomes[index] = _outcome(message)

    def _fail(self, worker: _Worker, failure: Literal["timeout", "crashed"]) -> None:
        """Drop a worker; its job is tried again or given up."""
        worker.process.hear()
        self.pool._drop(worker)
        if not worker.is_ready:
            self.pool._count_start(failed=worker.process.last_words())
        index = worker.index
        if index is None:
            return
        if self.attempts[index] <= self.pool.retries:
            self.waiting.append(index)
            return
        detail = (
            f"longer than {self.jobs[index].timeout_s:g} s" if failure == "timeout" else worker.process.last_words()
        )
        self.outcomes[index] = Outcome(score=math.nan, failure=failure, detail=detail)

    def _end_late(self) -> None:
        now = time.monotonic()
        for worker in list(self.pool._workers):
            if (worker.index is not None or not worker.is_ready) and now >= worker.deadline:
                self._fail(worker, "timeout")


def _outcome(message: Mapping[str, Any]) -> Outcome:
    if "error" in message:
        return Outcome(score=math.nan, failure="error", detail=message["error"])
    if "answer" in message:
        return Outcome(score=math.nan, answer=message["answer"])
    score = message["score"]
    return Outcome(score=math.nan if score is None else float(score))


@dataclass(slots=True, kw_only=True, eq=False)
class PooledScorer:
    """A verifier in the pool as a core Scorer. Equal checks are made once, and their results kept. Not thread-safe."""

    name: str
    spec: Mapping[str, Any]
    """Section of the verifier as JSON."""
    version: str
    timeout_s: float
    pool: WorkerPool
    cache: ScoreCache
    counts: Counter[str] = field(default_factory=Counter[str])
    """Completions so far by what came of them: checked, cached, not_applicable, timeout, crashed, error."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """Return [B] scores; NaN where it does not apply or the check failed (`outcomes` tells which)."""
        return np.array([o.score for o in self.outcomes(prompts, completions)], dtype=np.float64)

    def outcomes(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Outcome]:
        """Return B outcomes. Failures are not kept: another run tries again."""
        keys = [self._key(p, c) for p, c in zip(prompts, completions, strict=True)]
        found = {key: Outcome(score=score) for key in keys if (score := self.cache.get(key)) is not None}
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in found}
        missing = sorted(first, key=first.__getitem__)
        made = self.pool.run([self._job(prompts[first[key]], completions[first[key]]) for key in missing])
        found.update(zip(missing, made, strict=True))
        self.cache.put({key: found[key].score for key in missing if not found[key].failure})
        result = [found[key] for key in keys]
        for i, (key, outcome) in enumerate(zip(keys, result, strict=True)):
            self.counts[outcome.failure or ("checked" if first.get(key) == i else "cached")] += 1
            if not outcome.failure and math.isnan(outcome.score):
                self.counts["not_applicable"] += 1
        return result

    def _key(self, prompt: Prompt, completion: Completion) -> str:
        """Hash of all that a score depends on: kind, settings and version of the verifier; prompt with its meta; the reply."""
        spec = {key: value for key, value in self.spec.items() if key != "timeout_s"}
        asked = {"messages": [[m.role, m.content] for m in prompt.messages], "meta": to_dict(prompt)["meta"]}
        return content_hash([spec, self.version, asked, completion.text, completion.finish_reason], num_chars=32)

    def _job(self, prompt: Prompt, completion: Completion) -> Job:
        said = {
            "prompt_id": prompt.id,
            "text": completion.text,
            "model": "policy",
            "finish_reason": completion.finish_reason,
        }
        return Job(spec=self.spec, prompt=to_dict(prompt), given=said, timeout_s=self.timeout_s)
