import numpy as np
import pytest

from fairlead.core.errors import ConfigError
from fairlead.feedback.anchors import MAX_SHARE, MIN_SHARE, AnchorRule, Gold, Rated, anchor_places, choose_anchor

RULE = AnchorRule()


@pytest.mark.parametrize(("share", "batch"), [(0.05, 20), (0.075, 20), (0.10, 20), (0.075, 50), (0.05, 10)])
def test_every_batch_and_every_sitting_has_an_anchor_and_the_share_holds(share, batch):
    rule, shares = AnchorRule(share=share, batch=batch), []
    for sitting in range(100):
        places = anchor_places(rule, key=("ann", sitting), num_items=10 * batch)
        assert places[0] < rule.first_within
        assert all(any(start <= p < start + batch for p in places) for start in range(0, 10 * batch, batch))
        shares.append(len(places) / (10 * batch))
    assert np.mean(shares) == pytest.approx(max(share, 1 / batch), rel=0.06)
    assert MIN_SHARE - 1e-9 <= np.mean(shares) <= MAX_SHARE + 1e-9


def test_places_are_evenly_spread_and_depend_on_the_key_alone():
    seen, rule = np.zeros(20), AnchorRule(share=0.05)
    for sitting in range(2000):
        places = anchor_places(rule, key=("ann", sitting), num_items=40)
        assert places == anchor_places(rule, key=("ann", sitting), num_items=40)
        seen[places[1] - 20] += 1
    assert seen.min() > 2000 / 20 * 0.6


def _history(n, *, verdict="a"):
    return [Rated(item=f"i{k}", order=k, verdict=verdict, swapped=bool(k % 2)) for k in range(n)]


def test_a_repeat_is_old_and_has_its_sides_exchanged():
    history = _history(250)
    for moment in range(50):
        choice = choose_anchor(RULE, gold=[], history=history, key=("ann", moment))
        before = next(row for row in history if row.item == choice.item)
        assert (choice.kind, choice.expected, choice.swapped) == ("repeat", "a", not before.swapped)
        assert 250 - before.order > 100


def test_gold_is_served_in_turn_and_not_again_within_the_gap():
    gold = [Gold(item="g1", answer="a"), Gold(item="g2", answer="b")]
    first = choose_anchor(RULE, gold=gold, history=[], key=("ann", 0))
    assert first.kind == "gold"
    history = [Rated(item=first.item, order=0, verdict="a", swapped=True)]
    second = choose_anchor(RULE, gold=gold, history=history, key=("ann", 1))
    assert second.item != first.item
    history.append(Rated(item=second.item, order=1, verdict="b", swapped=False))
    assert choose_anchor(RULE, gold=gold, history=history, key=("ann", 2)) is None
    later = [*history, *[Rated(item=f"i{k}", order=k, verdict="skip", swapped=False) for k in range(2, 110)]]
    again = choose_anchor(RULE, gold=gold, history=later, key=("ann", 3))
    assert (again.item, again.swapped) == (first.item, False)


def test_skips_and_ties_are_no_repeats():
    assert choose_anchor(RULE, gold=[], history=_history(250, verdict="skip"), key=("ann", 0)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.2}, "anchors.share=0.2"),
        ({"batch": 5}, "anchors.batch=5"),
        ({"first_within": 50}, "is no schedule"),
    ],
)
def test_schedules_outside_of_the_rules_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        AnchorRule(**settings)
