"""Gates: the verdict rule against a naive restatement, and the words of the line."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairlead
from fairlead.core.gates import Gate, allow, declared, figure, measure, percent, some

VALUES = st.floats(-10, 10)


def gate(direction="at_least", stop=0.60, warn=0.65):
    return Gate(name="reward.accuracy", question="?", unit="share", direction=direction, stop=stop, warn=warn,
                remedy="Collect more")  # fmt: skip


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome"),
    [
        (0.71, 0.66, 0.75, "PASS"),
        (0.64, 0.58, 0.70, "WARN"),  # below warn
        (0.55, 0.45, 0.65, "WARN"),  # below stop, but the interval reaches across
        (0.50, 0.45, 0.55, "STOP"),  # the whole interval is below stop
        (0.60, None, None, "WARN"),  # exactly at stop is not below it
        (0.59, None, None, "STOP"),
        (0.65, None, None, "PASS"),
    ],
)
def test_verdict_by_hand(value, low, high, outcome):
    assert gate().judge(value, low=low, high=high, n=400).outcome == outcome


@given(VALUES, VALUES, VALUES, VALUES, VALUES)
def test_at_most_mirrors_at_least(value, a, b, stop, warn):
    low, high = min(a, b, value), max(a, b, value)
    up = gate("at_least", stop, warn).judge(value, low=low, high=high, n=5)
    down = gate("at_most", -stop, -warn).judge(-value, low=-high, high=-low, n=5)
    assert up.outcome == down.outcome


@given(VALUES, VALUES, VALUES, st.none() | VALUES, st.none() | VALUES)
def test_verdict_equals_the_rule_in_words(value, a, b, stop, warn):
    low, high = min(a, b, value), max(a, b, value)
    if stop is not None and high < stop:
        expected = "STOP"
    elif (warn is not None and value < warn) or (stop is not None and value < stop):
        expected = "WARN"
    else:
        expected = "PASS"
    assert gate("at_least", stop, warn).judge(value, low=low, high=high, n=5).outcome == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_measured_never_passes(value):
    assert gate().judge(value, n=10).outcome == "STOP"
    assert gate(stop=None).judge(value, n=10).outcome == "WARN"
    assert gate().judge(0.9, n=0).outcome == "STOP"
    assert gate().judge(0.9, n=0).note == "Nothing was measured"
    assert (
        gate()
        .judge(math.nan, low=math.nan, high=math.nan, n=0)
        .line()
        .startswith("STOP reward.accuracy not measured (n=0;")
    )


def test_allowed_stop_keeps_its_verdict_and_says_why():
    stopped = gate().judge(0.5, n=10)
    assert stopped.is_blocking
    allowed = allow(stopped, {"reward.accuracy": "pilot run"})
    assert (allowed.outcome, allowed.is_blocking) == ("STOP", False)
    assert allowed.line().endswith("Collect more. Allowed on record: pilot run.")
    assert allow(stopped, {"other": "x"}) is stopped
    passed = gate().judge(0.9, n=10)
    assert allow(passed, {"reward.accuracy": "x"}) is passed


def test_line_has_value_interval_n_threshold_and_remedy():
    line = gate().judge(0.64, low=0.58, high=0.7, n=400, note="On held-out pairs").line()
    assert line == ("WARN reward.accuracy 64.0 % [58.0 %, 70.0 %] (n=400; stop < 60 %, warn < 65 %) On held-out pairs. "
                    "Collect more.")  # fmt: skip
    assert gate(stop=None, warn=None).threshold() == "shown only"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (12.0, "12"), (0.5, "0.500"), (10.04, "10.0"), (100.4, "100"), (999.7, "1,000"), (-999.7, "-1,000"),
     (1234567.0, "1,234,567"), (-0.123456, "-0.123"), (0.0000123, "1.23e-05"), (math.nan, "nan"), (3, "3")],
)  # fmt: skip
def test_figure_has_three_significant_digits(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.7125, "71.2 %"), (0.7135, "71.4 %"), (0.712501, "71.3 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (-0.0001, "0.0 %"), (-0.25, "-25.0 %"),
     (12.5, "1,250.0 %"), (math.nan, "nan"), (np.float64(0.65), "65.0 %"), (2 / 3, "66.7 %")],
)  # fmt: skip
def test_percent_rounds_halves_of_the_decimal_number_to_the_even_digit(value, text):
    assert percent(value) == text


@given(
    st.integers(0, 1000).map(lambda n: n / 1000) | st.integers(0, 200).map(lambda n: n / 200) | st.floats(0.1, 0.999)
)
def test_a_rate_is_the_same_number_in_every_form(value):
    """The figure of a share and its per cent are one rounding: 0.712 and 71.2 %, never 0.713 and 71.2 %."""
    if 0.1 <= value < 0.9995:
        assert percent(value) == f"{100 * float(figure(value)):.1f} %"


def test_no_rate_is_written_in_another_form():
    """Python's own per cent format multiplies before it rounds, and so contradicts `figure`."""
    sources = Path(fairlead.__file__).parent.rglob("*.py")
    found = [
        f"{p}:{i}"
        for p in sources
        for i, line in enumerate(p.read_text("utf-8").splitlines(), 1)
        if re.search(r":[+,]?[.\d]*%}", line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.7125, "share", "71.2 %"), (0.7125, "share of prompts", "71.2 % of prompts"), (0.45, "kappa", "0.450 kappa"), (3.0, "", "3"),
     (0.5, "shares of stock", "0.500 shares of stock"), (12, "tokens", "12 tokens")],
)  # fmt: skip
def test_shares_are_per_cent_and_other_units_are_not(value, unit, text):
    assert measure(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.65, "65 %"), (0.0125, "1.25 %"), (1.0, "100 %"), (0.0, "0 %"), (-0.5, "-50 %"), (0.1, "10 %")],
)
def test_what_was_declared_keeps_its_digits(value, text):
    assert declared(value) == text


@given(st.floats(1e-3, 1e6))
def test_figure_is_within_half_a_unit_of_the_third_digit(value):
    assert math.isclose(float(figure(value).replace(",", "")), value, rel_tol=0.005001)


@pytest.mark.parametrize(("words", "said"), [
    ((1, "vote"), "1 vote"), ((0, "vote"), "0 votes"), ((1200, "vote"), "1,200 votes"), ((1, "reply", "replies"), "1 reply"),
    ((2, "pair has", "pairs have"), "2 pairs have"),
])  # fmt: skip
def test_things_are_counted_in_words(words, said):
    assert some(*words) == said
