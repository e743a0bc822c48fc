"""Numbers to places: round tick values, axis ranges, labels pushed apart, long curves thinned without losing their extremes."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear map from values [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def axis_range(
    values: Sequence[float], *, has_zero: bool = False, extra: Sequence[float] = (), padding: float = 0.05
) -> tuple[float, float]:
    """Choose an axis range that shows all values.

    Args:
        values: finite numbers that must be visible.
        has_zero: zero means something and is included.
        extra: numbers (thresholds) included one by one, nearest first, while the range stays below three times the data's.
        padding: share of the range added at each end, but never beyond a zero end.
    """
    low, high = min(values), max(values)
    if has_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    limit = 3 * (high - low) if high > low else math.inf
    for value in sorted(extra, key=lambda v: max(low - v, v - high, 0.0)):
        if max(high, value) - min(low, value) <= limit:
            low, high = min(low, value), max(high, value)
    if low == high:
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    room = (high - low) * padding
    return (low if has_zero and low == 0 else low - room), (high if has_zero and high == 0 else high + room)


def ticks(low: float, high: float, *, num: int = 5, is_integer: bool = False) -> list[float]:
    """Return about `num` round values (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    if is_integer:
        step = max(1.0, round(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Render ticks with the same number of decimals, thousands separated."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=abs(values[0]) if values else 1.0) or 1.0
    largest = max((abs(v) for v in values), default=0.0)
    if largest >= 1e7 or step < 1e-4:
        return [f"{v:.3g}" for v in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{v:,.{decimals}f}".replace("-", "\N{MINUS SIGN}") for v in (round(v, 12) + 0.0 for v in values)]


def spread(wanted: Sequence[float], *, gaps: Sequence[float], low: float, high: float) -> list[float]:
    """Move label centres as little as needed so that none overlap.

    Args:
        wanted: centres in pixels, any order.
        gaps: height of each label.
        low: top of the space.
        high: bottom of the space; exceeded only when the labels do not fit at all.
    Returns:
        Centres in the order of `wanted`.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _top(groups[-1], wanted, gaps, low, high) < _bottom(
            groups[-2], wanted, gaps, low, high
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = list(wanted)
    for group in groups:
        at = _top(group, wanted, gaps, low, high)
        for i in group:
            placed[i] = at + gaps[i] / 2
            at += gaps[i]
    return placed


def _top(group: Sequence[int], wanted: Sequence[float], gaps: Sequence[float], low: float, high: float) -> float:
    """Top of labels stacked without space between, centred where they want to be, kept inside [low, high]."""
    height = sum(gaps[i] for i in group)
    offsets, at = [], 0.0
    for i in group:
        offsets.append(wanted[i] - (at + gaps[i] / 2))
        at += gaps[i]
    return max(low, min(sum(offsets) / len(offsets), high - height))


def _bottom(group: Sequence[int], wanted: Sequence[float], gaps: Sequence[float], low: float, high: float) -> float:
    return _top(group, wanted, gaps, low, high) + sum(gaps[i] for i in group)


def thin(points: Sequence[Point], *, max_points: int) -> list[Point]:
    """Keep the first, last, lowest and highest point of equal runs, so that a spike stays visible."""
    if len(points) <= max_points:
        return list(points)
    size = math.ceil(len(points) / (max_points / 4))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        run = range(start, min(start + size, len(points)))
        lowest, highest = min(run, key=lambda i: points[i][1]), max(run, key=lambda i: points[i][1])
        kept += [points[i] for i in sorted({run[0], lowest, highest, run[-1]})]
    return kept
