"""What every stage is handed besides its config and inputs: progress, a voice, a device, a place for checkpoints.

A stage is `run(config, *, inputs, out, services) -> StageSummary`: it reads the folders in `inputs`, writes its files into `out`
(a draft that the store makes permanent afterwards), and never sees the store itself.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fairlead.core.errors import Interrupted
from fairlead.core.summary import Table


class ProgressBar(Protocol):
    """One progress line: stage, done of total, rate, time left, the one metric that matters."""

    def advance(self, num: int = 1, *, note: str = "") -> None:
        """Move on by `num`; `note` replaces the metric shown at the end of the line."""
        ...


class _SilentBar:
    def advance(self, num: int = 1, *, note: str = "") -> None:
        """Do nothing."""


@contextlib.contextmanager
def silent_progress(_title: str, _total: int) -> Generator[ProgressBar]:
    """Progress for tests and library use."""
    yield _SilentBar()


def _silent_say(_text: str) -> None:
    """Drop a message."""


def _unheard(_table: Table) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Handed to each stage by the pipeline."""

    work: Path
    """Folder for checkpoints of this stage; survives a killed run, removed when the stage is done."""
    seed: int = 0
    """Run seed; everything random derives from (seed, stage, step, id)."""
    device: str = "cpu"
    progress: Callable[[str, int], contextlib.AbstractContextManager[ProgressBar]] = silent_progress
    """(title, total) -> context manager."""
    say: Callable[[str], None] = _silent_say
    """One line for the user, outside the progress bar."""
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints of a training stage; a killed run loses at most this much."""
    should_stop: Callable[[], bool] = _never
    """True once the user pressed ctrl-C: save and raise Interrupted at the next safe point."""
    on_preflight: Callable[[Table], None] = _unheard
    """Told of the checks on the first batch before anything is trained, also when one failed; what it raises ends the stage."""
    extras: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Objects that the pipeline wires in by name: engine factories, scorers, judges."""

    def heed(self, what: str) -> None:
        """Between the parts of a long computation that saves nothing: stop once the user pressed ctrl-C.

        Raises:
            Interrupted: says that `what` starts again.
        """
        if self.should_stop():
            raise Interrupted(
                f"{what} was interrupted and starts again with the same command; finished stages are kept."
            )
