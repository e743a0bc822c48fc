"""`fairlead follow`: what trains now, in the terminal, from the same files as the live report."""

import contextlib
import math
import time
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fairlead.cli import terminal
from fairlead.core.gates import figure
from fairlead.core.summary import Series
from fairlead.report.live import nothing_trains, read_live

_BARS = "▁▂▃▄▅▆▇█"
_EVERY_S = 1.0
_NUM_SAMPLES = 2


def show_live(home: Path) -> None:
    """Draw until ctrl-C; one picture where standard output is no terminal."""
    if not terminal.console.is_terminal:
        terminal.console.print(draw(home))
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=terminal.console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(draw(home), refresh=True)
            time.sleep(_EVERY_S)


def draw(home: Path) -> RenderableType:
    """One picture: the answer, a line a curve with KL first, alerts, samples side by side. Texts of a model are never markup."""
    run = read_live(home)
    if run is None:
        return Text(nothing_trains(home))
    summary = run.stages[0].summary
    curves = Table(box=None, pad_edge=False)
    for name in ("", "first", "now", "", ""):
        curves.add_column(name, justify="right" if name else "left")
    for chart in summary.charts:
        for series in chart.series:
            curves.add_row(
                Text(series.label),
                figure(series.points[0][1]),
                figure(series.points[-1][1]),
                Text(chart.y_label),
                Text(spark(series)),
            )
    alerts = [
        Text(f"{row[1]} step {row[0]} {row[2]}: {row[3]}, {row[4]}; {row[6]}") for row in summary.tables[0].rows[:3]
    ]
    samples = Table(box=None, pad_edge=False)
    for name in ("prompt", "reference", "policy now"):
        samples.add_column(name, ratio=1)
    for sample in summary.samples[:_NUM_SAMPLES]:
        samples.add_row(Text(sample.prompt), Text(sample.before), Text(sample.after))
    return Group(
        Text(run.answer, style="bold"),
        Text(summary.headline),
        *((curves,) if summary.charts else ()),
        *alerts,
        *((samples,) if summary.samples else ()),
    )


def spark(series: Series, *, width: int = 40) -> str:
    """The course of a series in one line of blocks, of its finite values."""
    values = [y for _, y in series.points if math.isfinite(y)]
    if not values:
        return ""
    step = max(1, -(-len(values) // width))
    values = [sum(values[i : i + step]) / len(values[i : i + step]) for i in range(0, len(values), step)]
    low, high = min(values), max(values)
    return "".join(
        _BARS[round((v - low) / (high - low) * (len(_BARS) - 1))] if high > low else _BARS[0] for v in values
    )
