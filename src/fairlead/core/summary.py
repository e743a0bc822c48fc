"""What a stage says about itself: figures, verdicts, curves, tables, samples. The report draws it, the terminal prints it.

A stage returns one `StageSummary`; it is stored as `summary.json` in the stage's artifact, so that a report can be drawn from
artifacts alone. Colours follow the role of a series (policy, reference, reward, people, judge), never its position.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from fairlead.core.errors import DataError, explain
from fairlead.core.gates import GateResult, amount, measure

SeriesRole = Literal["policy", "reference", "reward", "people", "judge", "neutral"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with unit, n and interval. `low` and `high` are None when there is none, and `note` says why."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    note: str = ""

    def line(self) -> str:
        """Render as `name value unit [low, high] (n=..)`."""
        ends = [amount(end, self.unit) for end in (self.low, self.high) if end is not None]
        interval = f" [{', '.join(ends)}]" if len(ends) == 2 else ""
        count = f" (n={self.n})" if self.n is not None else ""
        return f"{self.name} {measure(self.value, self.unit)}{interval}{count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under column names; numbers stay numbers so that the page can sort and align them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    caption: str = ""
    empty: str = ""
    """What is said in place of rows when there are none; empty takes a sentence that fits any table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart."""

    label: str
    role: SeriesRole
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...] = ()
    """(x, low, high)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A labelled horizontal line."""

    label: str
    value: float
    kind: Literal["warn", "stop", "target", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One question, answered by lines (or points) over a shared x."""

    question: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    thresholds: tuple[Threshold, ...] = ()
    style: Literal["line", "points"] = "line"
    x_zero: bool = False
    y_zero: bool = False
    """Zero means something on this axis and must be visible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePair:
    """One prompt with the reply before and after."""

    prompt: str
    before: str
    after: str
    before_score: float | None = None
    after_score: float | None = None
    before_tokens: int | None = None
    after_tokens: int | None = None
    after_label: str = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """Everything that a stage reports."""

    stage: str
    headline: str
    """One sentence: what happened and how sure we are."""
    figures: tuple[Figure, ...] = ()
    verdicts: tuple[GateResult, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    samples: tuple[SamplePair, ...] = ()
    notes: tuple[str, ...] = ()
    cost_dollars: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Plain values that later stages read (never shown)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data. A number that is not finite (a gate that measured nothing) becomes None: JSON has no NaN."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def summary_from_dict(data: Mapping[str, Any], *, where: str = "summary") -> StageSummary:
    """Read back what `to_dict` wrote; a required number that was not finite comes back as NaN.

    Raises:
        DataError: a field is missing or unknown, as in a damaged file or one of another version.
    """
    try:
        return StageSummary(
            stage=data["stage"],
            headline=data["headline"],
            figures=tuple(Figure(**_numbers(row, "value")) for row in data["figures"]),
            verdicts=tuple(GateResult(**_numbers(row, "value", "low", "high")) for row in data["verdicts"]),
            charts=tuple(_chart(row) for row in data["charts"]),
            tables=tuple(_table(row) for row in data["tables"]),
            samples=tuple(SamplePair(**row) for row in data["samples"]),
            notes=tuple(data["notes"]),
            cost_dollars=data["cost_dollars"],
            facts=data["facts"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            explain(where, None, f"cannot be read ({error})", expected="a summary of this version of Fairlead",
                    remedy="Run the stage again")
        ) from error  # fmt: skip


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in cast(Sequence[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Fill the required numbers of a row that were not finite when it was written."""
    return row | {name: math.nan for name in names if row[name] is None}


def _chart(row: dict[str, Any]) -> Chart:
    replaced: dict[str, Any] = {
        "series": tuple(_series(s) for s in row["series"]),
        "thresholds": tuple(Threshold(**_numbers(t, "value")) for t in row["thresholds"]),
    }
    return Chart(**row | replaced)


def _series(row: dict[str, Any]) -> Series:
    replaced: dict[str, Any] = {"points": _points(row["points"]), "band": _points(row["band"])}
    return Series(**row | replaced)


def _points(rows: list[list[float | None]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(math.nan if x is None else x for x in row) for row in rows)


def _table(row: dict[str, Any]) -> Table:
    replaced: dict[str, Any] = {"columns": tuple(row["columns"]), "rows": tuple(tuple(cells) for cells in row["rows"])}
    return Table(**row | replaced)
