"""What a stage says about itself: figures, verdicts, curves, tables, samples. The report draws it, the terminal prints it.

A stage returns one `StageSummary`; it is stored as `summary.json` in the stage's artifact, so that a report can be drawn from
artifacts alone. Colours follow the role of a series (policy, reference, reward, people, judge), never its position.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.core.gates import GateResult, figure

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
        interval = (
            f" [{figure(self.low)}, {figure(self.high)}]" if self.low is not None and self.high is not None else ""
        )
        count = f" (n={self.n})" if self.n is not None else ""
        return f"{self.name} {figure(self.value)}{' ' + self.unit if self.unit else ''}{interval}{count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under column names; numbers stay numbers so that the page can sort and align them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    caption: str = ""


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
        """Plain JSON-able data."""
        return dataclasses.asdict(self)


def summary_from_dict(data: Mapping[str, Any]) -> StageSummary:
    """Read back what `to_dict` wrote."""

    def charts(rows: list[dict[str, Any]]) -> tuple[Chart, ...]:
        return tuple(
            Chart(**{
                **row,
                "series": tuple(
                    Series(**{**s, "points": _tuples(s["points"]), "band": _tuples(s["band"])}) for s in row["series"]
                ),
                "thresholds": tuple(Threshold(**t) for t in row["thresholds"]),
            })
            for row in rows
        )  # fmt: skip

    return StageSummary(
        stage=data["stage"], headline=data["headline"],
        figures=tuple(Figure(**row) for row in data["figures"]),
        verdicts=tuple(GateResult(**row) for row in data["verdicts"]),
        charts=charts(data["charts"]),
        tables=tuple(Table(**{**row, "columns": tuple(row["columns"]), "rows": _tuples(row["rows"])}) for row in data["tables"]),
        samples=tuple(SamplePair(**row) for row in data["samples"]),
        notes=tuple(data["notes"]), cost_dollars=data["cost_dollars"], facts=data["facts"],
    )  # fmt: skip


def _tuples(rows: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(row) for row in rows)
