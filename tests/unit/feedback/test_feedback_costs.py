import math

import pytest

from fairlead.core.errors import DataError
from fairlead.feedback.costs import Entry, Ledger, budget_state, count_usable


def test_cost_per_usable_pair_by_hand():
    """Three votes at .30 and one judge's call at .10 gave two usable pairs: 1.00 / 2."""
    ledger = Ledger(entries=[*[Entry(kind="human", dollars=0.30)] * 3, Entry(kind="ai", dollars=0.10)], num_usable=2)
    assert (ledger.human, ledger.ai, ledger.total) == pytest.approx((0.90, 0.10, 1.00))
    assert ledger.per_usable_pair == pytest.approx(0.5)
    assert math.isnan(Ledger(entries=ledger.entries, num_usable=0).per_usable_pair)


def test_the_budget_stops_before_it_is_overdrawn():
    ledger = Ledger(entries=[Entry(kind="human", dollars=0.30)] * 3, num_usable=3)
    assert budget_state(ledger, budget=1.20).may_spend
    state = budget_state(ledger, budget=1.19)
    assert (state.may_spend, state.left, state.usable_pairs_left) == (
        False,
        pytest.approx(0.29),
        pytest.approx(0.29 / 0.30),
    )
    assert budget_state(ledger, budget=None).may_spend
    assert budget_state(ledger, budget=0.5).left == 0


def test_ties_and_doubtful_pairs_are_not_usable():
    assert count_usable([0.9, 0.55, 0.5, 0.6], is_tie=[False, False, True, False]) == 2
    assert count_usable([0.9, 0.55]) == 1


@pytest.mark.parametrize("dollars", [-0.1, math.nan, math.inf])
def test_what_is_no_cost_is_refused(dollars):
    with pytest.raises(DataError, match="is no cost"):
        Entry(kind="human", dollars=dollars)
