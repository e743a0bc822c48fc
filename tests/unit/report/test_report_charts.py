"""Charts: round ticks, labels that do not overlap, everything inside the box, nothing hidden silently."""

import itertools
import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairlead.core.summary import Chart, Series, Threshold
from fairlead.report.charts import HEIGHT, LINE, WIDTH, draw_chart
from fairlead.report.scales import axis_range, spread, thin, tick_labels, ticks
from fairlead.report.tables import MAX_CHART_ROWS

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)
QUICK = settings(deadline=None, max_examples=25)


def chart(*series: Series, **changes: object) -> Chart:
    return Chart(**{"question": "q", "x_label": "step", "y_label": "loss", "series": series, **changes})


def line(*ys: float, label: str = "policy", role: str = "policy", **changes: object) -> Series:
    return Series(**{"label": label, "role": role, "points": tuple((float(i), y) for i, y in enumerate(ys)), **changes})


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.3, 0.3, ["−0.2", "0.0", "0.2"]),
        (0, 12000, ["0", "5,000", "10,000"]),
        (2.31, 2.36, ["2.31", "2.32", "2.33", "2.34", "2.35", "2.36"]),
        (0, 3e-5, ["0", "1e-05", "2e-05", "3e-05"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]):
    assert tick_labels(ticks(low, high)) == labels


@QUICK
@given(low=FLOATS, width=st.floats(1e-3, 1e6))
def test_ticks_lie_inside_evenly_and_differ(low: float, width: float):
    assume(width > abs(low) * 1e-6)
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    assert all(low - width * 1e-6 <= v <= low + width * (1 + 1e-6) for v in found)
    if len(found) > 2 and abs(low) < 1e4 * width and abs(low) < 1e4:
        assert len(set(tick_labels(found))) == len(found)


def test_integer_ticks_have_no_fractions():
    assert ticks(0, 3, is_integer=True) == [0, 1, 2, 3]


@QUICK
@given(values=st.lists(FLOATS, min_size=1, max_size=20), extra=st.lists(FLOATS, max_size=4), has_zero=st.booleans())
def test_axis_shows_all_values(values: list[float], extra: list[float], has_zero: bool):
    low, high = axis_range(values, has_zero=has_zero, extra=extra)
    assert low < high and low <= min(values) and high >= max(values)
    if has_zero:
        assert low <= 0 <= high


def test_a_far_threshold_does_not_squash_the_curve():
    """Data 0 to 1 may stretch to a range of 3: 2.5 is shown, 40 is not."""
    low, high = axis_range([0.0, 1.0], extra=[40.0, 2.5], padding=0.0)
    assert (low, high) == (0.0, 2.5)


@QUICK
@given(wanted=st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_never_overlap_and_keep_their_order(wanted: list[float]):
    gaps = [14.0] * len(wanted)
    placed = spread(wanted, gaps=gaps, low=0, high=200)
    ordered = sorted(placed)
    assert all(b - a >= 14 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert min(placed) >= 7 - 1e-9 and max(placed) <= 193 + 1e-9
    for (a, at), (b, bt) in zip(
        sorted(zip(wanted, placed, strict=True)), sorted(zip(wanted, placed, strict=True))[1:], strict=False
    ):
        assert a == b or at < bt


def test_labels_that_do_not_overlap_stay():
    assert spread([20.0, 100.0, 50.0], gaps=[14, 14, 14], low=0, high=200) == [20.0, 100.0, 50.0]


@QUICK
@given(ys=st.lists(FLOATS, min_size=1, max_size=900))
def test_thinning_keeps_ends_and_extremes(ys: list[float]):
    points = [(float(i), y) for i, y in enumerate(ys)]
    kept = thin(points, max_points=100)
    assert len(kept) <= 104 and kept[0] == points[0] and kept[-1] == points[-1]
    assert min(y for _, y in kept) == min(ys) and max(y for _, y in kept) == max(ys)
    assert kept == sorted(kept)


def _numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


@QUICK
@given(
    curves=st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60), min_size=1, max_size=5
    ),
    limit=FLOATS,
    style=st.sampled_from(["line", "points"]),
)
def test_everything_lies_inside_the_box(curves: list[list[float]], limit: float, style: str):
    series = [line(*ys, label=f"curve number {i}") for i, ys in enumerate(curves)]
    drawing = draw_chart(
        chart(*series, style=style, thresholds=(Threshold(label="stop", value=limit, kind="stop"),)), chart_id="c"
    )
    for drawn in drawing.lines:
        numbers = _numbers(drawn.path)
        assert all(drawing.left - 0.1 <= x <= drawing.right + 0.1 for x in numbers[::2])
        assert all(0 <= y <= HEIGHT for y in numbers[1::2])
        assert 0 <= drawn.label_y <= HEIGHT and drawn.label_x <= WIDTH - 30
    tops = sorted(d.label_y for d in drawing.lines)
    assert all(b - a >= LINE for a, b in itertools.pairwise(tops))
    for item in drawing.thresholds:
        assert 0 < item.label_y < HEIGHT and drawing.left <= item.label_x <= drawing.right


def test_a_number_that_is_not_finite_leaves_a_gap_and_is_counted():
    drawing = draw_chart(chart(line(1.0, 2.0, math.nan, 3.0, 4.0)), chart_id="c")
    assert drawing.lines[0].path.count("M") == 2
    assert drawing.notes == ("1 point is not a finite number and not drawn.",)


def test_nothing_to_draw_teaches():
    drawing = draw_chart(chart(line(math.nan), line(label="b")), chart_id="c")
    assert not drawing.lines and "Nothing was logged" in drawing.notes[0] and "1 point" in drawing.notes[1]


def test_a_series_without_points_is_named():
    assert draw_chart(chart(line(1.0, 2.0), line(label="judge")), chart_id="c").notes == ("No points: judge.",)


def test_zero_is_visible_where_it_means_something():
    with_zero = draw_chart(chart(line(5.0, 6.0), y_zero=True), chart_id="c")
    assert with_zero.y_ticks[0].label == "0" and "0" not in [
        t.label for t in draw_chart(chart(line(5.0, 6.0)), chart_id="c").y_ticks
    ]


def test_a_threshold_outside_is_named_at_the_edge():
    drawing = draw_chart(
        chart(line(0.1, 0.2), thresholds=(Threshold(label="stop", value=9.0, kind="stop"),)), chart_id="c"
    )
    assert not drawing.thresholds[0].is_inside and drawing.thresholds[0].label == "↑ stop 9"


def test_a_threshold_label_avoids_the_curve():
    """The curve lies on the threshold in its left half only; the label goes right."""
    drawing = draw_chart(
        chart(line(*[1.05] * 20, *[3.0] * 20), thresholds=(Threshold(label="warn", value=1.0, kind="warn"),)),
        chart_id="c",
    )
    assert drawing.thresholds[0].label_x > (drawing.left + drawing.right) / 2


def test_labels_break_into_two_lines():
    labels = [
        draw_chart(chart(line(1.0, label=text)), chart_id="c").lines[0].label
        for text in ("held out", "reward trained on", "a" * 40, "")
    ]
    assert labels == [("held out",), ("reward trained", "on"), ("a" * 14, "a" * 14 + "…"), ("?",)]


def test_noise_of_many_steps_is_drawn_thin():
    assert [draw_chart(chart(line(*[1.0] * n)), chart_id="c").lines[0].is_dense for n in (99, 100)] == [False, True]


def test_series_of_one_role_differ_in_dash():
    assert [d.order for d in draw_chart(chart(line(1.0), line(2.0), line(3.0, role="judge")), chart_id="c").lines] == [
        0,
        1,
        0,
    ]


def test_points_carry_their_interval():
    series = Series(label="raters", role="people", points=((1.0, 0.5),), band=((1.0, 0.4, 0.6),))
    marker = draw_chart(chart(series, style="points"), chart_id="c").lines[0].markers[0]
    assert marker.low is not None and marker.high is not None and marker.low > marker.y > marker.high
    assert marker.hover == "raters: 0.500 at step 1, interval 0.400 to 0.600"


def test_the_description_tells_the_curve():
    text = draw_chart(
        chart(line(2.0, 1.5), thresholds=(Threshold(label="stop", value=1.0, kind="stop"),)), chart_id="c"
    ).description
    assert text == "loss by step. policy goes from 2 at step 0 to 1.50 at 1. stop at 1."


def test_the_table_has_bands_and_says_what_it_leaves_out():
    long = line(*map(float, range(1000)), band=tuple((float(i), i - 1.0, i + 1.0) for i in range(1000)))
    table = draw_chart(chart(long, thresholds=(Threshold(label="stop", value=2.0, kind="stop"),)), chart_id="c").table
    assert table.columns == ("step", "policy", "policy, low", "policy, high")
    assert len(table.rows) == MAX_CHART_ROWS and [cell.text for cell in table.rows[-1]] == [
        "999",
        "999",
        "998",
        "1,000",
    ]
    assert table.caption == "stop: 2. 100 of 1000 rows, evenly spaced; all are in the artifact."
