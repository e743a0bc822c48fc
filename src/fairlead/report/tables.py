"""Tables as the page shows them: numbers aligned and sortable by their exact value, text left alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.core.gates import figure
from fairlead.core.summary import Chart, Table

MINUS = "\N{MINUS SIGN}"
MAX_CHART_ROWS = 100  # a table that a person reads; longer curves are in the artifact's metrics file


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell."""

    text: str
    """As shown; three significant digits for numbers that are not whole."""
    value: str
    """As sorted and copied: the exact number, or the text."""
    is_number: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """One table."""

    title: str
    columns: tuple[str, ...]
    number_columns: tuple[bool, ...]
    """True where every filled cell is a number: aligned to the right."""
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    empty: str
    """What would stand here; shown instead of rows when there are none."""


def view_table(table: Table) -> TableView:
    """Prepare a table; short rows are filled with empty cells."""
    rows = tuple(
        tuple(_cell(row[i] if i < len(row) else None) for i in range(max(len(table.columns), len(row))))
        for row in table.rows
    )
    width = max([len(table.columns), *map(len, rows)])
    columns = table.columns + ("",) * (width - len(table.columns))
    rows = tuple(row + (_cell(None),) * (width - len(row)) for row in rows)
    return TableView(title=table.title, columns=columns, number_columns=tuple(_is_number_column(rows, i) for i in range(width)),
                     rows=rows, caption=table.caption, empty=table.empty or "No rows: this stage found nothing to list here.")  # fmt: skip


def chart_table(chart: Chart) -> TableView:
    """The numbers of a chart: one row an x, a column a series, two more for its band; thresholds in the caption."""
    columns, lookups = [chart.x_label], []
    for series in chart.series:
        columns.append(series.label)
        lookups.append(dict(series.points))
        if series.band:
            columns += [f"{series.label}, low", f"{series.label}, high"]
            lookups += [{x: low for x, low, _ in series.band}, {x: high for x, _, high in series.band}]
    xs = sorted({x for lookup in lookups for x in lookup if math.isfinite(x)})
    shown = _evenly(xs, max_num=MAX_CHART_ROWS)
    notes = [f"{t.label}: {figure(t.value)}." for t in chart.thresholds]
    if len(shown) < len(xs):
        notes.append(f"{len(shown)} of {len(xs)} rows, evenly spaced; all are in the artifact.")
    rows = tuple((x, *(lookup.get(x) for lookup in lookups)) for x in shown)
    return view_table(Table(title=chart.question, columns=tuple(columns), rows=rows, caption=" ".join(notes)))


def _cell(value: str | float | int | None) -> Cell:
    if value is None:
        return Cell(text="–", value="", is_number=False)
    if isinstance(value, str):
        return Cell(text=value, value=value, is_number=False)
    if not math.isfinite(value):
        return Cell(text="not finite", value="", is_number=False)
    if isinstance(value, float) and not value.is_integer():
        return Cell(text=figure(value).replace("-", MINUS), value=repr(value), is_number=True)
    return Cell(text=f"{int(value):,}".replace("-", MINUS), value=str(int(value)), is_number=True)


def _is_number_column(rows: Sequence[Sequence[Cell]], i: int) -> bool:
    filled = [row[i] for row in rows if row[i].value]
    return bool(filled) and all(cell.is_number for cell in filled)


def _evenly(xs: Sequence[float], *, max_num: int) -> list[float]:
    """First and last, and evenly spaced ones between."""
    if len(xs) <= max_num:
        return list(xs)
    return [xs[round(i * (len(xs) - 1) / (max_num - 1))] for i in range(max_num)]
