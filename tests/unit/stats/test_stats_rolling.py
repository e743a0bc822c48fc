import numpy as np
import pytest

from fairlead.core.errors import DataError
from fairlead.stats.agreement import agreement_report, krippendorff_alpha
from fairlead.stats.intervals import Interval, undefined
from fairlead.stats.rolling import action_for, rolling_alpha
from fairlead.stats.votes import votes_from_rows


def _rows(accuracies, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for item, accuracy in enumerate(accuracies):
        truth = rng.integers(0, 2)
        for rater in "abc":
            rows.append((f"i{item}", rater, "AB"[truth if rng.random() < accuracy else 1 - truth]))
    return rows


def test_a_fall_is_seen_in_the_window_in_which_it_happens():
    points = rolling_alpha(votes_from_rows(_rows([0.97] * 200 + [0.55] * 200)), seed=0, window=100, step=100)
    assert [p.last_item for p in points] == [99, 199, 299, 399]
    assert [p.action for p in points] == ["may_scale", "may_scale", "pause", "pause"]
    assert points[-1].alpha.high < 0.4


def test_every_point_equals_alpha_of_its_items():
    rows = _rows([0.8] * 60)
    points = rolling_alpha(votes_from_rows(rows), seed=0, window=20, step=15, num_resamples=50)
    assert [(p.first_item, p.last_item) for p in points] == [(10, 29), (25, 44), (40, 59)]
    for point in points:
        part = [row for row in rows if point.first_item <= int(row[0][1:]) <= point.last_item]
        assert point.alpha.value == pytest.approx(krippendorff_alpha(votes_from_rows(part)))


def test_fewer_items_than_a_window_give_one_point():
    rows = _rows([0.8] * 30)
    (point,) = rolling_alpha(votes_from_rows([*rows, ("single", "a", "A")]), seed=1, window=100)
    assert (point.first_item, point.last_item) == (0, 29)
    assert point.alpha == agreement_report(votes_from_rows(rows), seed=1)["krippendorff_alpha"]
    assert rolling_alpha(votes_from_rows([("1", "a", "A")]), seed=0) == ()


def test_actions_by_hand():
    assert action_for(Interval(0.3, 0.2, 0.39, 100)) == "pause"
    assert action_for(Interval(0.3, 0.2, 0.41, 100)) == "warn"
    assert action_for(Interval(0.5, 0.4, 0.6, 100)) == "go_on"
    assert action_for(Interval(0.61, 0.5, 0.7, 100)) == "may_scale"
    assert action_for(undefined("unanimous", n=3)) == "not_measured"
    with pytest.raises(DataError, match="makes no windows"):
        rolling_alpha(votes_from_rows([("1", "a", "A")]), seed=0, window=1)
