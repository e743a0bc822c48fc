"""Lets the policy answer, outside any request and transaction.

    database: what waits ->  talker thread: up to eight at once  ->  policy thread: samples them together
                  ^                                                             |
                  +------------ each answer is stored as soon as it is there <--+

What comes while eight are answered waits for the next round, in its order. A server that is killed while a reply is written finds the turn
still waiting when it starts again. One process may do this.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence

from fairlead.core.protocols import Reply, ReplyRequest, ReplySampler
from fairlead.core.records import Completion
from fairlead.store.annotation.database import Database
from fairlead.web.chats.asks import Ask, Source
from fairlead.web.chats.turns import Turns
from fairlead.web.demonstrations.drafts import Drafts

TIMEOUT_S = 120.0
MAX_TOGETHER = 8
"""Asks that the policy answers at once."""
MAX_DRAWS = 4
"""Seeds tried for replies that differ and are not empty."""
_IDLE_S = 5.0
_HEED_S = 0.5
"""How soon a round ends when the server stops."""
_LOG = logging.getLogger(__name__)


class Talker:
    """Start with `wake`, end with `stop`. Thread-safe."""

    def __init__(
        self, database: Database, sampler: ReplySampler, *, timeout_s: float = TIMEOUT_S, gives_drafts: bool = False
    ) -> None:
        self.gives_drafts = gives_drafts
        """May people who write ask for a draft?"""
        self._sampler, self._timeout_s = sampler, timeout_s
        self._sources: tuple[Source, ...] = (Turns(database), Drafts(database))
        self._news, self._is_over, self._lock = threading.Event(), False, threading.Lock()
        self._thread: threading.Thread | None = None
        self._sampling: threading.Thread | None = None
        self._draws: dict[str, int] = {}
        """Draws that gave nothing usable, by the name of the ask."""

    def wake(self) -> None:
        """There is something to answer; returns at once."""
        with self._lock:
            if self._thread is None and not self._is_over:
                self._thread = threading.Thread(target=self._run, daemon=True, name="talker")
                self._thread.start()
        self._news.set()

    def stop(self) -> None:
        """Take no more asks; those in hand are finished or left waiting."""
        self._is_over = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=self._timeout_s)

    def _run(self) -> None:
        while not self._is_over:
            self._news.clear()
            try:
                while not self._is_over and self.answer_next():
                    pass
            except Exception:  # the database is away: the turn waits, and is taken up again
                _LOG.exception("a reply could not be stored; trying again in %s s", _IDLE_S)
            self._news.wait(_IDLE_S)

    def answer_next(self) -> bool:
        """Answer those that wait longest, up to eight at once; False when none waits, or an earlier round still holds the policy."""
        if self._sampling is not None:
            self._sampling.join(timeout=_IDLE_S)
            if self._sampling.is_alive():  # given up as too slow, and not at its end yet
                return False
        waiting = [(ask, source) for source in self._sources for ask in source.waiting(limit=MAX_TOGETHER)]
        asks = sorted(waiting, key=lambda each: each[0].event_number)[:MAX_TOGETHER]
        if asks:
            self._answer({self._key(ask): (ask, source) for ask, source in asks})
        return bool(asks)

    def _key(self, ask: Ask) -> str:
        return f"{ask.name}:{self._draws.get(ask.name, 0)}"

    def _answer(self, asks: dict[str, tuple[Ask, Source]]) -> None:
        requests = [
            ReplyRequest(key=key, prompt=ask.prompt, num_samples=ask.num_samples, seed=ask.seed)
            for key, (ask, _) in asks.items()
        ]
        answers: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        is_late = threading.Event()
        self._sampling = threading.Thread(
            target=self._sample, args=(requests, answers, is_late), daemon=True, name="policy"
        )
        self._sampling.start()
        end = time.monotonic() + self._timeout_s
        while asks and not self._is_over:
            try:
                found = answers.get(timeout=max(0.0, min(_HEED_S, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() < end:
                    continue
                is_late.set()
                for ask, source in asks.values():
                    self._fail(
                        ask, source, f"No reply came within {self._timeout_s:g} seconds. {source.hint}", "timeout"
                    )
                return
            if isinstance(
                found, Exception
            ):  # whatever it fails by: the rater is told, and the cause is kept for the lead
                for ask, source in asks.values():
                    self._fail(ask, source, f"The policy could not answer. {source.hint}", repr(found))
                return
            if found.key in asks:
                self._settle(*asks.pop(found.key), found)
        is_late.set()  # the server stops: what is left waits for the next one

    def _sample(
        self,
        requests: Sequence[ReplyRequest],
        answers: "queue.SimpleQueue[Reply | Exception]",
        is_late: threading.Event,
    ) -> None:
        try:
            for reply in self._sampler.reply(requests):
                answers.put(reply)
                if is_late.is_set():
                    return
            answers.put(LookupError("the policy left a request unanswered"))
        except Exception as error:
            _LOG.exception("the policy could not answer")
            answers.put(error)

    def _settle(self, ask: Ask, source: Source, reply: Reply) -> None:
        if reply.fault:
            self._fail(ask, source, f"The policy could not answer. {source.hint}", reply.fault)
        elif _is_usable(reply.completions, ask.num_samples):
            self._draws.pop(ask.name, None)
            source.store(ask, reply.completions, policy=self._sampler.name)
        elif self._draws.get(ask.name, 0) + 1 < MAX_DRAWS:
            self._draws[ask.name] = self._draws.get(ask.name, 0) + 1  # it waits on, and the next round draws again
        else:
            words = "no two different replies" if ask.num_samples > 1 else "no reply"
            self._fail(ask, source, f"The policy gave {words}. {source.hint}", "equal replies")

    def _fail(self, ask: Ask, source: Source, failure: str, cause: str) -> None:
        self._draws.pop(ask.name, None)
        source.fail(ask, failure, cause)


def _is_usable(completions: Sequence[Completion], num: int) -> bool:
    texts = {completion.text.strip() for completion in completions}
    return len(texts) == num and "" not in texts and not any("\0" in text for text in texts)
