"""What the templates receive: typed, documented, already worded. A template only places what stands here; it computes nothing.

All text is untrusted. It stays `str` up to the template, where autoescaping makes it harmless; nothing here is ever markup.
"""

from dataclasses import dataclass

from fairlead.report.charts import ChartDrawing
from fairlead.report.gauges import GaugeDrawing
from fairlead.report.lineage import LineageDrawing
from fairlead.report.tables import TableView
from fairlead.report.words import Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureView:
    """One number with its uncertainty in words."""

    name: str
    value: str
    unit: str
    interval: str
    """`0.587 to 0.718, n = 200`, or why there is none."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictView:
    """One row of a table of gates."""

    outcome: str
    """PASS, WARN or STOP."""
    gate: str
    question: str
    value: str
    """With unit."""
    interval: str
    """With n."""
    gauge: GaugeDrawing | None
    rules: tuple[str, ...]
    """`stop < 0.60`, `warn < 0.65`."""
    remedy: str
    """Empty for PASS."""
    allowed: str
    """The reason that a person gave, or empty."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """One prompt with two replies."""

    prompt: str
    difference: Difference
    after_label: str
    before_facts: str
    """`score 0.31, 42 tokens`."""
    after_facts: str
    change: str
    """Signed change of the score; empty when a score is missing."""
    change_value: str
    """The same, exact, for sorting."""
    direction: str
    """`up`, `down` or `same`; empty when a score is missing."""
    badge: str
    """`Biggest fall`, `Biggest rise` or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage of the flow."""

    anchor: str
    number: int
    title: str
    headline: str
    outcome: str
    """Severest verdict: PASS, WARN, STOP, or NONE when the stage has no gate."""
    outcome_word: str
    """The same in words for the strip; says when a person allowed it."""
    worst_gate: str
    """Name of the gate to look at first."""
    worst_value: str
    figures: tuple[FigureView, ...]
    verdicts: tuple[VerdictView, ...]
    charts: tuple[ChartDrawing, ...]
    tables: tuple[TableView, ...]
    reference: TableView | None
    """Published agreement, in the stage that measures agreement."""
    first_samples: tuple[SampleView, ...]
    """Biggest fall and biggest rise; all of them when there are few."""
    more_samples: tuple[SampleView, ...]
    sample_hint: str
    """What would stand in place of samples, in the stage that compares policies; else empty."""
    notes: tuple[str, ...]
    time: str
    cached: str
    """Says so when an earlier run made the artifact; else empty."""
    cost: str
    memory: str
    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """Time, money and memory of one stage."""

    anchor: str
    title: str
    time: str
    seconds: str
    """Exact, for sorting."""
    share: float
    """Per cent of the longest stage; width of the bar."""
    is_cached: bool
    cost: str
    dollars: str
    memory: str
    memory_mb: str
    pace: str
    """`2,140 tokens/s, 0.22 s/step`, on-policy with tokens a second by phase; empty for a stage that trains nothing."""
    tokens_per_s: str
    """Exact, for sorting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideView:
    """One verdict that a person passed on record."""

    anchor: str
    stage: str
    line: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """The whole page."""

    name: str
    created: str
    """ISO 8601, for machines."""
    created_words: str
    scope: str
    model: str
    answer: str
    figures: tuple[FigureView, ...]
    gate_count: str
    """`12 gates: 9 PASS, 2 WARN, 1 STOP.`"""
    strip_columns: int
    """Cells in a row of the gate strip on a wide screen."""
    stages: tuple[StageView, ...]
    overrides: tuple[OverrideView, ...]
    costs: tuple[CostRow, ...]
    total_time: str
    total_cost: str
    total_cached: str
    lineage: LineageDrawing | None
    command: str
