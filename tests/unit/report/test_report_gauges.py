"""Gauges read a gate's rule back from its words and put the value on the right side of it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.gates import Gate, GateResult, allow, figure
from fairlead.report.gauges import WIDTH, draw_gauge, limits, margin, worst

LIMITS = st.floats(-1e5, 1e5, allow_nan=False) | st.none()


def gate(direction: str = "at_least", stop: float | None = 0.6, warn: float | None = 0.65, name: str = "g") -> Gate:
    return Gate(name=name, question="", unit="", direction=direction, stop=stop, warn=warn, remedy="r")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(stop=LIMITS, warn=LIMITS, direction=st.sampled_from(["at_least", "at_most"]))
def test_limits_of_shares_are_written_in_per_cent_and_read_back(stop: float | None, warn: float | None, direction: str):
    rule = Gate(name="g", question="", unit="share", direction=direction, stop=stop, warn=warn, remedy="r")  # type: ignore[arg-type]
    found = {limit.outcome: limit.value for limit in limits(rule.threshold())}
    assert found == pytest.approx(
        {word: value for word, value in (("stop", stop), ("warn", warn)) if value is not None}
    )


@settings(deadline=None, max_examples=25)
@given(stop=LIMITS, warn=LIMITS, direction=st.sampled_from(["at_least", "at_most"]))
def test_limits_are_what_the_gate_wrote(stop: float | None, warn: float | None, direction: str):
    found = {limit.outcome: limit for limit in limits(gate(direction, stop, warn).threshold())}
    wanted = {word: value for word, value in (("stop", stop), ("warn", warn)) if value is not None}
    assert {word: limit.value for word, limit in found.items()} == {
        word: float(figure(v).replace(",", "")) for word, v in wanted.items()
    }
    assert {limit.sign for limit in found.values()} <= {"<" if direction == "at_least" else ">"}


@pytest.mark.parametrize("direction", ["at_least", "at_most"])
@pytest.mark.parametrize("value", [0.2, 0.55, 0.62, 0.64, 0.7, 0.9])
def test_the_dot_lies_in_the_zone_of_its_verdict(direction: str, value: float):
    rule = gate(direction) if direction == "at_least" else gate(direction, stop=0.65, warn=0.6)
    result = rule.judge(value, n=10)
    drawing = draw_gauge(result)
    assert drawing is not None
    zones = {zone.outcome for zone in drawing.zones if zone.x <= drawing.value <= zone.x + zone.width}
    assert zones == {"PASS": set(), "WARN": {"warn"}, "STOP": {"warn", "stop"}}[result.outcome]
    assert all(zone.x >= 0 and zone.x + zone.width <= WIDTH for zone in drawing.zones)


def test_nothing_measured_and_no_limits_draw_nothing():
    assert draw_gauge(gate().judge(math.nan, n=0)) is None
    assert draw_gauge(gate(stop=None, warn=None).judge(1.0, n=5)) is None


def test_the_worst_is_the_severest_not_allowed_and_nearest():
    def result(name: str, value: float) -> GateResult:
        return gate(name=name).judge(value, low=value - 0.01, high=value + 0.01, n=9)

    far, near, warned, stopped = (
        result("far", 0.9),
        result("near", 0.66),
        result("warned", 0.62),
        result("stopped", 0.1),
    )
    assert worst([far, near]) is near
    assert worst([far, near, warned]) is warned
    assert worst([far, stopped, warned]) is stopped
    allowed = allow(stopped, {"stopped": "why"})
    assert worst([allowed, result("other", 0.2)]).gate == "other"  # type: ignore[union-attr]
    assert worst([]) is None


def test_margin_counts_half_widths():
    """0.75 with interval 0.70 to 0.80 is two half-widths above warn < 0.65."""
    assert margin(gate().judge(0.75, low=0.70, high=0.80, n=9)) == pytest.approx(2.0)
    assert margin(gate(stop=None, warn=None).judge(0.75, n=9)) == math.inf
