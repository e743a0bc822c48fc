"""How the command line speaks: one progress line, quiet when it is not a terminal, errors on one line, ctrl-C that saves.

Not a terminal: one line every 30 seconds. A terminal: a live line with stage, done of total, rate, time left and one metric.
"""

import contextlib
import signal
import sys
import textwrap
import time
import types
from collections.abc import Iterator
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fairlead.core.services import ProgressBar

_QUIET_EVERY_S = 30.0
_FILE_WIDTH = 1000  # columns; a table is only as wide as its cells
_GLUED = "\N{NO-BREAK SPACE}%"  # a number and its per cent sign stay on one line
_BAR_FROM = 100  # columns; a narrower terminal needs the room for figures

console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str, *, hang: int | None = None) -> None:
    """One plain line (no markup: texts may hold brackets). A terminal gets it broken between words; a file, and data, as it is.

    Args:
        hang: columns that broken lines are set in; None is as far as the line itself, and two for a line that is not.
    """
    own = len(text) - len(text.lstrip())
    console.print(_fitted(text, console, hang=own or 2 if hang is None else hang), markup=False)


def _fitted(text: str, place: Console, *, hang: int) -> str:
    """A line as `place` shows it: on a terminal broken between words."""
    if not place.is_terminal or "\n" in text or len(text) <= place.width:
        return text
    found = textwrap.fill(text.replace(" %", _GLUED), width=place.width, subsequent_indent=" " * hang,
                          break_long_words=False, break_on_hyphens=False, drop_whitespace=True)  # fmt: skip
    return found.replace(_GLUED, " %")


def note(text: str) -> None:
    """One plain line beside the result, where standard output holds data."""
    errors.print(_fitted(text, errors, hang=2), markup=False)


def show_table(table: Table) -> None:
    """A table: never cut; cells are wrapped between words where the terminal is wide enough for their longest words."""
    for column in table.columns:
        words = (word for cell in (column.header, *column.cells) for word in str(cell).split())
        column.min_width = max(map(cell_len, words), default=0)
    least = Measurement.get(console, console.options.update(width=_FILE_WIDTH), table).minimum
    fits = console.is_terminal and least <= console.width
    wide = console if fits else Console(width=_FILE_WIDTH, highlight=False, emoji=False)
    wide.print(table, soft_wrap=False)


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, num: int = 1, *, note: str = "") -> None:
        """Move on."""
        if note:
            self._progress.update(self._task, advance=num, note=f", {note}")
        else:
            self._progress.advance(self._task, num)


class _QuietBar:
    """One line every 30 seconds. The rate counts from the first advance, which holds what a run that goes on had done already."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._last = time.monotonic()
        self._start: tuple[float, int] | None = None

    def advance(self, num: int = 1, *, note: str = "") -> None:
        """Move on; now and then say so."""
        self._done += num
        now = time.monotonic()
        if self._start is None:
            self._start = (now, self._done)
        elif now - self._last >= _QUIET_EVERY_S:
            self._last = now
            started, done = self._start
            rate = (self._done - done) / (now - started)
            left = (self._total - self._done) / rate if rate else float("inf")
            say(
                f"{self._title} {self._done}/{self._total}, {rate:.3g}/s, {left:.0f} s left{', ' + note if note else ''}"
            )


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[ProgressBar]:
    """A progress line for one piece of work."""
    if not console.is_terminal:
        yield _QuietBar(title, total)
        return
    bar: tuple[ProgressColumn, ...] = (BarColumn(bar_width=24),) if console.width >= _BAR_FROM else ()
    columns = (TextColumn("{task.description}"), *bar, MofNCompleteColumn(), TimeRemainingColumn(compact=True),
               TextColumn("left{task.fields[note]}", markup=False))  # fmt: skip
    with Progress(*columns, console=console, transient=True) as live:
        yield _LiveBar(live, live.add_task(title, total=total, note=""))


class Interruption:
    """First ctrl-C: finish the step, save, stop. Second: stop at once."""

    def __init__(self) -> None:
        self.is_wanted = False

    def __call__(self) -> bool:
        """True once ctrl-C was pressed."""
        return self.is_wanted

    @contextlib.contextmanager
    def watching(self) -> Iterator["Interruption"]:
        """Handle SIGINT and SIGTERM inside the block."""
        old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        if self.is_wanted:
            raise KeyboardInterrupt
        self.is_wanted = True
        errors.print("Stopping at the next safe point; press ctrl-C again to stop at once.", markup=False)


def fail(message: str, code: int) -> NoReturn:
    """Print an error on one line (a terminal gets it broken between words) and leave."""
    text = f"fairlead: {' '.join(message.split())}"
    errors.print(_fitted(text, errors, hang=2), markup=False, style="red" if errors.is_terminal else None)
    sys.exit(code)
