"""A gate's value and interval on a line with its limits, and how near the gate came to them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.core.gates import GateResult
from fairlead.report.scales import Scale, axis_range

WIDTH, HEIGHT = 168, 24
_LIMIT = re.compile(
    r"(stop|warn) ([<>]) (-?[\d,]+(?:\.\d+)?(?:e[+-]?\d+)?)( %)?"
)  # as core.gates.Gate.threshold writes it
_SEVERITY = {"PASS": 0, "WARN": 1, "STOP": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of a gate."""

    outcome: str
    """stop or warn."""
    sign: str
    """`<` when smaller values are wrong, `>` when larger ones are."""
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A stretch of the line on which the verdict is warn or stop."""

    outcome: str
    x: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeDrawing:
    """One gate in pixels of a box of 168 x 24."""

    zones: tuple[Zone, ...]
    low: float
    high: float
    value: float


def limits(threshold: str) -> tuple[Limit, ...]:
    """Read the limits back from a gate's rule in words; empty when it has another form."""
    return tuple(
        Limit(outcome=word, sign=sign, value=float(number.replace(",", "")) / (100 if is_percent else 1))
        for word, sign, number, is_percent in _LIMIT.findall(threshold)
    )


def draw_gauge(result: GateResult) -> GaugeDrawing | None:
    """Lay a gate out; None when it has no limits or measured nothing."""
    found = limits(result.threshold)
    ends = (result.low, result.value, result.high)
    if not found or not all(map(math.isfinite, ends)):
        return None
    low, high = axis_range([*ends, *(limit.value for limit in found)], padding=0.12)
    x = Scale(low=low, high=high, start=2, end=WIDTH - 2)
    return GaugeDrawing(zones=_zones(found, x), low=x(result.low), high=x(result.high), value=x(result.value))


def _zones(found: Sequence[Limit], x: Scale) -> tuple[Zone, ...]:
    """Warn first, so that stop is drawn over it."""
    zones = []
    for limit in sorted(found, key=lambda limit: limit.outcome, reverse=True):
        start, end = (x.start, x(limit.value)) if limit.sign == "<" else (x(limit.value), x.end)
        zones.append(Zone(outcome=limit.outcome, x=start, width=round(end - start, 1)))
    return tuple(zones)


def worst(results: Sequence[GateResult]) -> GateResult | None:
    """The gate to look at first: the severest verdict, not yet allowed, nearest to (or farthest beyond) its limit."""
    return max(results, key=lambda r: (_SEVERITY[r.outcome], not r.allowed, -margin(r)), default=None)


def margin(result: GateResult) -> float:
    """Distance to the nearest limit in half-widths of the interval (or in limits when exact); negative beyond it."""
    distances = []
    for limit in limits(result.threshold):
        away = result.value - limit.value if limit.sign == "<" else limit.value - result.value
        scale = (result.high - result.low) / 2 or abs(limit.value) or 1.0
        distances.append(away / scale)
    return min((d for d in distances if math.isfinite(d)), default=math.inf)
