"""A chart as geometry: everything that the SVG template needs, in the pixels of its view box.

The plot stands on a box of 440 x 264, small enough that its 12 px text is still 10 px on a phone. Series are labelled at their end,
pushed apart where they would overlap; thresholds are labelled on their line where it is emptiest. Roles choose colour, dash and marker
in the style sheet, so that colour never stands alone.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.core.gates import figure, some
from fairlead.core.summary import Chart, Series, Threshold
from fairlead.report.scales import Point, Scale, axis_range, spread, thin, tick_labels, ticks
from fairlead.report.tables import TableView, chart_table

WIDTH, HEIGHT = 440, 264
TOP, BOTTOM = 30, HEIGHT - 40
CHAR = 6.6  # mean width of a character at 12 px in the widest of the usual system fonts
BOLD = 7.6  # the same for bold, in which series are named
LINE = 14  # height of a label's line
MAX_LABEL_CHARS = 15
MAX_DRAWN_POINTS = 400
MAX_MARKERS = 30
DENSE_POINTS = 100  # from here on a line is drawn thin, for noise looks heavier than it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A round value on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A point with the text that hovering shows."""

    x: float
    y: float
    hover: str
    low: float | None
    """Pixel of the interval's lower end, for charts of points."""
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineDrawing:
    """One series."""

    role: str
    """Chooses the colour."""
    order: int
    """How many series of the same role came before; chooses the dash."""
    is_dense: bool
    """Draw the line thin."""
    path: str
    """SVG path data; empty for charts of points."""
    band: str
    """SVG path data of the interval; empty when there is none."""
    markers: tuple[Marker, ...]
    label: tuple[str, ...]
    """One or two lines."""
    label_x: float
    label_y: float
    """Baseline of the first line."""
    leader: str
    """Path from the end of the line to a label that had to move; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdDrawing:
    """One labelled horizontal line. One that lies outside the range has only its label, at the edge."""

    kind: str
    y: float
    is_inside: bool
    label: str
    label_x: float
    label_y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartDrawing:
    """One chart. `lines` is empty when there is nothing to draw; `notes` says why."""

    id: str
    question: str
    description: str
    """The chart in words, for people who cannot see it."""
    x_label: str
    y_label: str
    left: float
    right: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[LineDrawing, ...]
    thresholds: tuple[ThresholdDrawing, ...]
    notes: tuple[str, ...]
    table: TableView


def draw_chart(chart: Chart, *, chart_id: str) -> ChartDrawing:
    """Lay a chart out; points that are not finite are counted in the notes and left out."""
    drawn = [s for s in chart.series if _finite(s.points)]
    notes = _notes(chart, drawn)
    if not drawn:
        return ChartDrawing(id=chart_id, question=chart.question, description="", x_label=chart.x_label, y_label=chart.y_label, left=0, right=0,
                            x_ticks=(), y_ticks=(), lines=(), thresholds=(), notes=notes, table=chart_table(chart))  # fmt: skip
    labels = [_wrap(s.label) for s in drawn]
    y_low, y_high = axis_range(
        _y_values(drawn), has_zero=chart.y_zero, extra=[t.value for t in chart.thresholds if math.isfinite(t.value)]
    )
    y_values = ticks(y_low, y_high)
    y_texts = tick_labels(y_values)
    left = 10 + CHAR * max(map(len, y_texts), default=1)
    right = WIDTH - 14 - BOLD * max(len(line) for label in labels for line in label)
    y = Scale(low=y_low, high=y_high, start=BOTTOM, end=TOP)
    x, x_ticks = _x_axis(chart, drawn, left=left, right=right)
    return ChartDrawing(
        id=chart_id, question=chart.question, description=_describe(chart, drawn), x_label=chart.x_label, y_label=chart.y_label,
        left=round(left, 1), right=round(right, 1), x_ticks=x_ticks,
        y_ticks=tuple(Tick(at=y(v), label=text) for v, text in zip(y_values, y_texts, strict=True)),
        lines=_draw_lines(drawn, labels, x=x, y=y, style=chart.style, chart=chart),
        thresholds=_draw_thresholds(chart.thresholds, drawn, x=x, y=y), notes=notes, table=chart_table(chart),
    )  # fmt: skip


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _finite_band(series: Series) -> list[tuple[float, float, float]]:
    return [row for row in series.band if all(map(math.isfinite, row))]


def _y_values(drawn: Sequence[Series]) -> list[float]:
    values = [y for s in drawn for _, y in _finite(s.points)]
    return values + [end for s in drawn for _, low, high in _finite_band(s) for end in (low, high)]


def _notes(chart: Chart, drawn: Sequence[Series]) -> tuple[str, ...]:
    notes = []
    if not drawn:
        notes.append(
            "Nothing was logged for this question yet. The curve appears when the stage has run: `fairlead run`."
        )
    missing = sum(len(s.points) - len(_finite(s.points)) for s in chart.series)
    if missing:
        notes.append(f"{some(missing, 'point is', 'points are')} not a finite number and not drawn.")
    empty = [s.label for s in chart.series if s not in drawn]
    if empty and drawn:
        notes.append(f"No points: {', '.join(empty)}.")
    return tuple(notes)


def _x_axis(chart: Chart, drawn: Sequence[Series], *, left: float, right: float) -> tuple[Scale, tuple[Tick, ...]]:
    values = [x for s in drawn for x, _ in _finite(s.points)]
    padding = 0.04 if chart.style == "points" or len(set(values)) == 1 else 0.0
    low, high = axis_range(values, has_zero=chart.x_zero, padding=padding)
    scale = Scale(low=low, high=high, start=left, end=right)
    shown = ticks(low, high, num=4, is_integer=all(v == int(v) for v in values))
    return scale, tuple(Tick(at=scale(v), label=text) for v, text in zip(shown, tick_labels(shown), strict=True))


def _draw_lines(
    drawn: Sequence[Series], labels: Sequence[tuple[str, ...]], *, x: Scale, y: Scale, style: str, chart: Chart
) -> tuple[LineDrawing, ...]:
    ends = [max(_finite(s.points), key=lambda p: p[0]) for s in drawn]
    centres = spread(
        [y(end[1]) for end in ends], gaps=[LINE * len(label) + 2 for label in labels], low=TOP - 6, high=BOTTOM + 6
    )
    seen: Counter[str] = Counter()
    lines = []
    for series, label, end, centre in zip(drawn, labels, ends, centres, strict=True):
        end_x, end_y = x(end[0]), y(end[1])
        has_moved = abs(centre - end_y) > 5 or end_x < x.end - 12
        lines.append(LineDrawing(
            role=series.role, order=seen[series.role] % 3, is_dense=len(series.points) >= DENSE_POINTS,
            path="" if style == "points" else _path(series, x=x, y=y),
            band="" if style == "points" else _band(series, x=x, y=y), markers=_markers(series, x=x, y=y, chart=chart),
            label=label, label_x=round(x.end + 12, 1), label_y=round(centre - LINE * len(label) / 2 + 11, 1),
            leader=f"M{end_x + 3:.1f} {end_y:.1f}L{x.end + 9:.1f} {centre:.1f}" if has_moved else "",
        ))  # fmt: skip
        seen[series.role] += 1
    return tuple(lines)


def _path(series: Series, *, x: Scale, y: Scale) -> str:
    """Path through the points in order of x; a point that is not finite leaves a gap."""
    runs: list[list[Point]] = [[]]
    for point in sorted((p for p in series.points if math.isfinite(p[0])), key=lambda p: p[0]):
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    share = max(8, MAX_DRAWN_POINTS // len(runs))
    return "".join("M" + "L".join(f"{x(a)} {y(b)}" for a, b in thin(run, max_points=share)) for run in runs if run)


def _band(series: Series, *, x: Scale, y: Scale) -> str:
    rows = sorted(_finite_band(series))
    if len(rows) < 2:
        return ""
    upper = thin([(a, high) for a, _, high in rows], max_points=MAX_DRAWN_POINTS)
    lower = thin([(a, low) for a, low, _ in rows], max_points=MAX_DRAWN_POINTS)
    return "M" + "L".join(f"{x(a)} {y(b)}" for a, b in [*upper, *reversed(lower)]) + "Z"


def _markers(series: Series, *, x: Scale, y: Scale, chart: Chart) -> tuple[Marker, ...]:
    """A marker a point while there are few; else only one at the end of the line."""
    points = sorted(_finite(series.points))
    if len(points) > MAX_MARKERS and chart.style == "line":
        points = points[-1:]
    intervals = {a: (low, high) for a, low, high in _finite_band(series)}
    markers = []
    for a, b in points:
        ends = intervals.get(a)
        hover = f"{series.label}: {figure(b)} at {chart.x_label} {figure(a)}"
        if ends:
            hover += f", interval {figure(ends[0])} to {figure(ends[1])}"
        is_drawn = ends is not None and chart.style == "points"
        markers.append(Marker(x=x(a), y=y(b), hover=hover, low=y(ends[0]) if ends and is_drawn else None,
                              high=y(ends[1]) if ends and is_drawn else None))  # fmt: skip
    return tuple(markers)


def _draw_thresholds(
    thresholds: Sequence[Threshold], drawn: Sequence[Series], *, x: Scale, y: Scale
) -> tuple[ThresholdDrawing, ...]:
    shown = [t for t in thresholds if math.isfinite(t.value)]
    texts = [t.label if figure(t.value) in t.label else f"{t.label} {figure(t.value)}" for t in shown]
    places = [min(max(y(t.value), TOP), BOTTOM) for t in shown]
    wanted = [
        place - LINE / 2 - 2 if t.value <= y.high else place + LINE / 2 for t, place in zip(shown, places, strict=True)
    ]
    centres = spread(wanted, gaps=[LINE] * len(shown), low=TOP - LINE, high=BOTTOM)
    busy = _busy(drawn, x=x, y=y)
    drawings = []
    for threshold, text, place, centre in zip(shown, texts, places, centres, strict=True):
        is_inside = y.low <= threshold.value <= y.high
        if not is_inside:
            text = f"{'↑' if threshold.value > y.high else '↓'} {text}"
        label_x = _emptiest(busy, width=len(text) * CHAR, y=centre, left=x.start, right=x.end)
        drawings.append(ThresholdDrawing(kind=threshold.kind, y=place, is_inside=is_inside, label=text, label_x=label_x,
                                         label_y=round(centre + 4, 1)))  # fmt: skip
    return tuple(drawings)


def _busy(drawn: Sequence[Series], *, x: Scale, y: Scale) -> list[Point]:
    """Pixels that labels should not cover: points, and where intervals end and pass."""
    points = [(x(a), y(b)) for s in drawn for a, b in thin(_finite(s.points), max_points=MAX_DRAWN_POINTS)]
    for a, low, high in (row for s in drawn if len(s.band) <= MAX_MARKERS for row in _finite_band(s)):
        points += [(x(a), y(low + (high - low) * share / 8)) for share in range(9)]
    return points


def _emptiest(busy: Sequence[Point], *, width: float, y: float, left: float, right: float) -> float:
    """Where, from the left, a label covers the fewest points."""
    room = max(right - left - width - 8, 0.0)

    def covered(start: float) -> int:
        return sum(start - 3 <= a <= start + width + 3 and abs(b - y) < LINE * 0.8 for a, b in busy)

    return round(min((left + 4 + room * i / 12 for i in range(13)), key=covered), 1)


def _wrap(label: str) -> tuple[str, ...]:
    """Break a label into at most two lines."""
    if len(label) <= MAX_LABEL_CHARS:
        return (label or "?",)
    cut = label.rfind(" ", 0, MAX_LABEL_CHARS + 1)
    first, rest = (
        (label[:cut], label[cut + 1 :]) if cut > 0 else (label[: MAX_LABEL_CHARS - 1], label[MAX_LABEL_CHARS - 1 :])
    )
    return (first, rest if len(rest) <= MAX_LABEL_CHARS else rest[: MAX_LABEL_CHARS - 1] + "…")


def _describe(chart: Chart, drawn: Sequence[Series]) -> str:
    sentences = []
    for series in drawn:
        points = sorted(_finite(series.points))
        first, last = points[0], points[-1]
        if len(points) == 1:
            sentences.append(f"{series.label}: {figure(first[1])} at {chart.x_label} {figure(first[0])}.")
        else:
            sentences.append(f"{series.label} goes from {figure(first[1])} at {chart.x_label} {figure(first[0])} "
                             f"to {figure(last[1])} at {figure(last[0])}.")  # fmt: skip
    sentences += [f"{t.label} at {figure(t.value)}." for t in chart.thresholds]
    return f"{chart.y_label} by {chart.x_label}. " + " ".join(sentences)
