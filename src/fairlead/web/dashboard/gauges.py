"""Small drawings that stand many on a page: a value with its interval on a line with the healthy range, and a sum along the work.

All gauges of one measure share one scale, so that raters can be compared down the page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.report.scales import Scale
from fairlead.stats.intervals import Interval

WIDTH, HEIGHT = 200, 26
SPARK_HEIGHT = 56
MAX_POINTS = 200
_EDGE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One value in pixels of a box of 200 x 26."""

    label: str
    words: str
    """Value and interval with unit."""
    note: str
    """Healthy, or what is beyond the range; why there is no value."""
    is_out: bool
    """The whole interval lies outside the healthy range."""
    zone_x: float
    zone_width: float
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a gauge shows, the same for all raters."""

    label: str
    unit: str
    low: float
    """Ends of the scale."""
    high: float
    healthy_low: float
    healthy_high: float
    scale: float = 1.0
    """What a value is multiplied with to be written."""
    digits: int = 0

    def write(self, value: float) -> str:
        """A value without its unit."""
        return f"{self.scale * value:.{self.digits}f}"

    @property
    def range_words(self) -> str:
        """The healthy range."""
        if self.healthy_high >= self.high:
            return f"{self.write(self.healthy_low)}{self.unit} or more"
        return f"{self.write(self.healthy_low)} to {self.write(self.healthy_high)}{self.unit}"


def draw(measure: Measure, found: Interval) -> Gauge:
    """Lay a value out; one that is undefined has only its reason."""
    x = Scale(low=measure.low, high=measure.high, start=_EDGE, end=WIDTH - _EDGE)

    def place(value: float) -> float:
        return x(min(max(value, measure.low), measure.high))

    start, end = place(measure.healthy_low), place(measure.healthy_high)
    if not math.isfinite(found.value):
        return Gauge(label=measure.label, words="", note=found.note.removeprefix("undefined: "), is_out=False, zone_x=start,
                     zone_width=round(end - start, 1), value=None, low=None, high=None)  # fmt: skip
    has_ends = math.isfinite(found.low) and math.isfinite(found.high)
    low, high = (found.low, found.high) if has_ends else (found.value, found.value)
    is_out = high < measure.healthy_low or low > measure.healthy_high
    words = f"{measure.write(found.value)}{measure.unit}"
    if has_ends:
        words += f" [{measure.write(low)}, {measure.write(high)}]"
    note = "outside the healthy range" if is_out else ""
    return Gauge(label=measure.label, words=words, note=note, is_out=is_out, zone_x=start, zone_width=round(end - start, 1),
                 value=place(found.value), low=place(low), high=place(high))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A sum along the work in pixels of a box of 200 x 56."""

    label: str
    words: str
    path: str
    limit_y: float
    limit_words: str
    is_out: bool


def draw_spark(label: str, values: Sequence[float], *, limit: float, words: str, is_out: bool) -> Spark:
    """Lay a curve out under its limit."""
    kept = list(values)[-MAX_POINTS:]
    x = Scale(low=0, high=max(len(kept) - 1, 1), start=_EDGE, end=WIDTH - _EDGE)
    y = Scale(low=0, high=max(limit * 1.15, max(kept, default=0.0)), start=SPARK_HEIGHT - 4, end=4)
    path = "M" + "L".join(f"{x(i)} {y(value)}" for i, value in enumerate(kept)) if kept else ""
    return Spark(
        label=label, words=words, path=path, limit_y=y(limit), limit_words=f"alarm at {limit:g}", is_out=is_out
    )
