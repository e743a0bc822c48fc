import math

import numpy as np
import pytest

from fairlead.core.errors import DataError
from fairlead.stats.sequential import (
    Sprt,
    anytime_interval,
    interval_after_stop,
    operating_curve,
    read_sequence,
)
from naive import sequential_naive as naive

GATE = Sprt(p0=0.60, p1=0.75)
SMALL = Sprt(p0=0.4, p1=0.8, alpha=0.2, beta=0.2, cap=10)
SMALL_RULES = {"p0": 0.4, "p1": 0.8, "alpha": 0.2, "beta": 0.2}


def test_expected_lengths_are_the_published_ones():
    """Wald: (.05 * 2.890 - .95 * 2.251) / (.6 * .2231 - .4 * .4700) = 36.8 under H0, and 47.7 under H1."""
    assert round(GATE.expected_items(at_p1=False)) == 37
    assert round(GATE.expected_items(at_p1=True)) == 48


def test_the_curves_of_the_gate_as_documented():
    """With the cap of 100 the exact mean lengths are 39 and 48, and both errors stay below what was asked for."""
    curve = operating_curve(GATE, [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80])
    assert curve.passes == pytest.approx([0.0011, 0.0073, 0.0418, 0.1808, 0.5012, 0.8421, 0.9799], abs=5e-5)
    assert curve.fails == pytest.approx([0.9984, 0.9845, 0.9000, 0.6461, 0.2960, 0.0777, 0.0124], abs=5e-5)
    assert curve.mean_items == pytest.approx([20.0137, 27.1767, 38.9043, 52.8488, 58.0402, 48.4530, 34.6926], abs=5e-5)
    assert curve.passes[2] <= GATE.alpha
    assert curve.fails[5] <= GATE.beta
    assert curve.passes + curve.fails + curve.undecided == pytest.approx(np.ones(7), abs=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.4, 0.61, 0.8, 1.0])
def test_the_recursion_equals_all_sequences(p):
    curve = operating_curve(SMALL, p)
    found = (curve.passes[0], curve.fails[0], curve.undecided[0], curve.mean_items[0])
    assert found == pytest.approx(naive.operating_point(p, cap=SMALL.cap, **SMALL_RULES), abs=1e-12)


def test_a_sequence_ends_where_the_definition_says():
    rng = np.random.default_rng(0)
    for p in (0.5, 0.7, 0.9):
        for _ in range(100):
            answers = [bool(a) for a in rng.random(100) < p]
            reading = read_sequence(GATE, answers)
            expected = naive.end_of(answers, p0=0.60, p1=0.75, alpha=0.05, beta=0.10)
            assert (reading.decision, reading.num_used, reading.num_right) == expected
            assert len(reading.path) == reading.num_used


def test_thirteen_right_answers_pass_and_later_ones_do_not_count():
    """Each right answer adds ln(.75/.60) = .2231 nats; ln(.90/.05) = 2.890 is reached by the thirteenth."""
    reading = read_sequence(GATE, [True] * 13 + [False] * 20)
    assert (reading.decision, reading.num_used) == ("pass", 13)
    assert reading.path[-1] == pytest.approx(13 * math.log(1.25))
    assert read_sequence(GATE, [False] * 5).decision == "fail"
    assert read_sequence(GATE, []).decision == "continue"
    assert GATE.decide([True] * 12) == "continue"


def test_a_test_at_its_cap_passes_nobody():
    answers = ([True, True, False] * 34)[:100]
    reading = read_sequence(GATE, answers)
    assert (reading.decision, reading.num_used) == ("undecided", 100)


def test_the_earliest_pass_by_hand():
    """Nothing ends higher than 13 of 13: p^13 = .025 at the lower limit, and half of p^13 reaches 1/2 only at p = 1."""
    share = read_sequence(GATE, [True] * 13).share
    assert (share.low, share.high) == (pytest.approx(0.025 ** (1 / 13), abs=1e-9), pytest.approx(1, abs=1e-9))
    assert share.value == pytest.approx(1, abs=1e-9)


def test_a_late_pass_counts_less_than_its_share():
    """A test that stops because luck brought the sum to the bound shows too high a share; the value takes that back."""
    answers = [True, True, True, False] * 6 + [True] * 20
    reading = read_sequence(GATE, answers)
    assert reading.decision == "pass"
    assert reading.share.value < reading.num_right / reading.num_used
    assert reading.share.low < reading.share.value < reading.share.high


def test_the_interval_after_the_stop_covers_every_share():
    """Exact coverage over all ends of a small test: at least 95 % at each p, and limits rise with the ends."""
    ways = naive.ends(cap=SMALL.cap, **SMALL_RULES)
    intervals = {end: interval_after_stop(SMALL, end[2], end[1]) for end in ways}
    for p in np.linspace(0.05, 0.95, 19):
        chances = {end: count * p ** end[2] * (1 - p) ** (end[1] - end[2]) for end, count in ways.items()}
        assert sum(chances.values()) == pytest.approx(1)
        covered = sum(c for end, c in chances.items() if intervals[end].low <= p <= intervals[end].high)
        assert covered >= 0.95 - 1e-9
    ordered = sorted(ways, key=naive.rank)
    lows = [intervals[end].low for end in ordered]
    assert lows == sorted(lows)


def test_ends_are_ordered_as_in_the_naive_rule():
    """P(end at least as high as the one seen) at the lower limit is 2.5 %, by all sequences."""
    ways = naive.ends(cap=SMALL.cap, **SMALL_RULES)
    for end in ways:
        interval = interval_after_stop(SMALL, end[2], end[1])
        for limit, keep in ((interval.low, lambda other, e=end: naive.rank(other) >= naive.rank(e)),
                            (interval.high, lambda other, e=end: naive.rank(other) <= naive.rank(e))):  # fmt: skip
            if 1e-6 < limit < 1 - 1e-6:
                tail = sum(
                    count * limit ** other[2] * (1 - limit) ** (other[1] - other[2])
                    for other, count in ways.items()
                    if keep(other)
                )
                assert tail == pytest.approx(0.025, abs=1e-6)


def test_numbers_that_are_no_end_are_refused():
    with pytest.raises(DataError, match="20 of 50 is no end of this test"):
        interval_after_stop(GATE, 20, 50)
    with pytest.raises(DataError, match="is no test"):
        Sprt(p0=0.8, p1=0.6)
    with pytest.raises(DataError, match="not true shares"):
        operating_curve(GATE, [1.2])


def test_the_anytime_interval_by_hand():
    """No right answer of 1: B(1, 2) / (1 - p) = 1 / (2 (1 - p)) reaches 20 at p = .975."""
    interval = anytime_interval(0, 1)
    assert (interval.low, interval.high) == (0.0, pytest.approx(0.975))
    assert math.isnan(anytime_interval(0, 0).value)
    with pytest.raises(DataError, match="does not fit"):
        anytime_interval(3, 2)


@pytest.mark.parametrize("p", [0.6, 0.75])
def test_the_anytime_interval_misses_at_some_look_at_most_once_in_twenty(p):
    """Exact, by recursion over the looks: the chance that any of the first 60 intervals misses p."""
    reach, missed = {0: 1.0}, 0.0
    for n in range(1, 61):
        after = {}
        for x, chance in reach.items():
            for y, step in ((x + 1, p), (x, 1 - p)):
                after[y] = after.get(y, 0.0) + chance * step
        reach = {}
        for x, chance in after.items():
            interval = anytime_interval(x, n)
            if interval.low <= p <= interval.high:
                reach[x] = chance
            else:
                missed += chance
    assert 0 < missed <= 0.05
