"""Stage summaries: what is written reads back equal, numbers that are not finite included."""

import json
import math
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.core.gates import Gate
from fairlead.core.io import dump_json
from fairlead.core.summary import Chart, Figure, SamplePair, Series, StageSummary, Table, Threshold, summary_from_dict
from fairlead.core.summary import SeriesRole as Roles

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | NUMBER
GATE = Gate(name="g", question="?", unit="share", direction="at_least", stop=0.5, warn=0.6, remedy="Fix")

FIGURES = st.builds(
    Figure, name=TEXT, value=NUMBER, low=MAYBE, high=MAYBE, n=st.none() | st.integers(0, 9), unit=TEXT, note=TEXT
)
SERIES = st.builds(Series, label=TEXT, role=st.sampled_from(typing.get_args(Roles)),
                   points=st.lists(st.tuples(NUMBER, NUMBER), max_size=3).map(tuple),
                   band=st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=3).map(tuple))  # fmt: skip
CHARTS = st.builds(Chart, question=TEXT, x_label=TEXT, y_label=TEXT, series=st.lists(SERIES, max_size=2).map(tuple),
                   thresholds=st.lists(st.builds(Threshold, label=TEXT, value=NUMBER, kind=st.just("warn")), max_size=2).map(tuple))  # fmt: skip
TABLES = st.builds(
    Table, title=TEXT, columns=st.tuples(TEXT, TEXT), rows=st.lists(st.tuples(TEXT, MAYBE), max_size=2).map(tuple)
)
SAMPLES = st.builds(SamplePair, prompt=TEXT, before=TEXT, after=TEXT, before_score=MAYBE)
VERDICTS = st.builds(GATE.judge, NUMBER, n=st.integers(1, 9))
SUMMARIES = st.builds(
    StageSummary, stage=TEXT, headline=TEXT, figures=st.lists(FIGURES, max_size=2).map(tuple),
    verdicts=st.lists(VERDICTS, max_size=2).map(tuple), charts=st.lists(CHARTS, max_size=2).map(tuple),
    tables=st.lists(TABLES, max_size=2).map(tuple), samples=st.lists(SAMPLES, max_size=2).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple), cost_dollars=st.floats(0, 100), facts=st.dictionaries(TEXT, NUMBER, max_size=2),
)  # fmt: skip


@given(SUMMARIES)
def test_round_trip_through_json(summary):
    assert summary_from_dict(json.loads(dump_json(summary.to_dict()))) == summary


def test_a_gate_that_measured_nothing_can_be_written_and_read():
    stopped = GATE.judge(math.nan, n=0)
    chart = Chart(question="?", x_label="step", y_label="KL", thresholds=(),
                  series=(Series(label="KL", role="policy", points=((0.0, 1.0), (1.0, math.inf))),))  # fmt: skip
    figure = Figure(name="accuracy", value=math.nan, low=math.nan, n=0)
    summary = StageSummary(
        stage="rewards", headline="-", verdicts=(stopped,), charts=(chart,), figures=(figure,), facts={"x": math.nan}
    )
    back = summary_from_dict(json.loads(dump_json(summary.to_dict())))
    assert back.verdicts[0].outcome == "STOP" and math.isnan(back.verdicts[0].value)
    assert "not measured" in back.verdicts[0].line()
    assert back.charts[0].series[0].points[0] == (0.0, 1.0) and math.isnan(back.charts[0].series[0].points[1][1])
    assert math.isnan(back.figures[0].value) and back.figures[0].low is None
    assert back.facts == {"x": None}


@pytest.mark.parametrize(
    "change", [{"figures": [{"label": 1}]}, {"charts": [{}]}, {"tables": None}, {"verdicts": ["x"]}]
)
def test_damaged_summary_is_a_located_error(change):
    data = StageSummary(stage="s", headline="h").to_dict() | change
    with pytest.raises(DataError, match=r"^summary\.json cannot be read"):
        summary_from_dict(data, where="summary.json")


def test_missing_field_is_a_located_error():
    with pytest.raises(DataError, match="headline"):
        summary_from_dict({"stage": "s"})


def test_figure_line():
    line = Figure(name="win rate", value=0.655, low=0.587, high=0.718, n=200, unit="share").line()
    assert line == "win rate 65.5 % [58.7 %, 71.8 %] (n=200)"
    assert Figure(name="steps", value=12).line() == "steps 12"
