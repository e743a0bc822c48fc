"""Whose turn it is: one reader makes steps, other threads pause it, and both see the same samples in flight.

    reader: begin -> await_turn -> a step under `step` -> told -> ... -> end
    others: pause (keep, wait, abort) ........................ resume

Example:
    turns = Turns()
    work = turns.begin(lambda: Schedule(...))
"""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import PauseMode


class InFlight(Protocol):
    """The samples of one `generate`."""

    @property
    def num_active(self) -> int:
        """Being written."""
        ...

    @property
    def num_waiting(self) -> int:
        """Not begun."""
        ...


Work = TypeVar("Work", bound=InFlight)


class Turns:
    """Pausing of one engine. `step` is held while tokens are written or weights change; thread-safe."""

    def __init__(self) -> None:
        self.step = threading.RLock()
        self.current: InFlight | None = None
        self.num_aborted = 0
        self.paused: PauseMode | None = None
        self._gate = threading.Condition()
        self._pauser: int | None = None
        self._reader: int | None = None

    @property
    def num_active(self) -> int:
        """Samples being written."""
        current = self.current
        return current.num_active if current else 0

    @property
    def num_waiting(self) -> int:
        """Samples that have not begun."""
        current = self.current
        return current.num_waiting if current else 0

    @property
    def admits(self) -> bool:
        """Whether samples may begin."""
        return self.paused != "wait"

    def pause(self, mode: PauseMode) -> None:
        """See RolloutEngine. The thread that reads the samples may pause too, but must `resume` before it asks for the next one."""
        with self._gate:
            self.paused, self._pauser = mode, threading.get_ident()
        with self.step:  # a step that is being made ends first
            if mode == "abort" and self.current is not None:
                self.num_aborted += self.num_active + self.num_waiting
                self.current = None
        self._notify()
        if mode == "wait" and self._reader != threading.get_ident():
            with self._gate:
                self._gate.wait_for(lambda: self.num_active == 0)

    def resume(self) -> None:
        """See RolloutEngine."""
        with self._gate:
            self.paused = self._pauser = None
            self._gate.notify_all()

    def begin(self, make: Callable[[], Work]) -> Work:
        """Put new samples in flight once the engine runs.

        Raises:
            EngineError: those of another `generate` are.
        """
        self.await_turn(None)
        with self.step:
            if self.current is not None:
                raise EngineError(explain("engine", "sampling", "is being read by another generate", expected="one at a time",
                                          remedy="Read the samples to the end or close the iterator first"))  # fmt: skip
            work = make()
            self.current = work
        return work

    def end(self, work: InFlight) -> None:
        """Nothing of it is in flight any more."""
        if self.current is work:
            self.current = None
        self._notify()

    def told(self) -> None:
        """After each step: let a `wait` see what is left."""
        if self.paused:
            self._notify()

    def await_turn(self, work: InFlight | None) -> None:
        """Wait while the engine is paused.

        Raises:
            EngineError: the thread that paused it is the one that would wait.
        """
        self._reader = threading.get_ident()
        with self._gate:
            while self.paused and not self._goes_on(work):
                if self._pauser == self._reader:
                    raise EngineError(explain("engine", "paused", "cannot take requests", expected="a running engine",
                                              remedy="Call resume()"))  # fmt: skip
                self._gate.wait()

    def _goes_on(self, work: InFlight | None) -> bool:
        """Whether a `generate` takes another step although the engine is paused: to finish what has begun, or to see that it is over."""
        if work is None:
            return False
        return self.current is not work or (self.paused == "wait" and work.num_active > 0)

    def _notify(self) -> None:
        with self._gate:
            self._gate.notify_all()
