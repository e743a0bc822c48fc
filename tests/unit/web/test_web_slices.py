"""Fields of the items as columns of numbers: grown item by item they are what they would be at once, and those of many values are dropped."""

import numpy as np
import pytest

from fairlead.web.dashboard.slices import MAX_VALUES, extended, parts


def said(fields):
    return {name: each and [each.values[number] for number in each.numbers] for name, each in fields.items()}


ITEMS = [{"source": "hh"}, {"source": "web", "level": "easy"}, {"source": "hh", "level": "hard"}, {"level": "easy"}]


@pytest.mark.parametrize("cut", range(5))
def test_items_in_two_readings_give_the_columns_of_one(cut):
    """A field that later items bring was not given of the earlier ones, and the other way round."""
    found = extended(extended({}, 0, ITEMS[:cut]), cut, ITEMS[cut:])
    assert said(found) == {
        "source": ["hh", "web", "hh", "not given"],
        "level": ["not given", "easy", "hard", "easy"],
    }
    assert found["source"].is_value("hh").tolist() == [True, False, True, False]
    assert not found["source"].is_value("unheard of").any()


def test_a_field_of_more_values_stays_dropped():
    """One value more than `MAX_VALUES` in the second reading; in the third its values are few, but those before are not known any more."""
    first = extended({}, 0, [{"number": str(i)} for i in range(MAX_VALUES)])
    assert len(first["number"].values) == MAX_VALUES
    second = extended(first, MAX_VALUES, [{"number": "one more"}])
    assert second == {"number": None} == extended(second, MAX_VALUES + 1, [{"number": "0"}] * 50)


def test_parts_have_two_values_and_fewer_than_items():
    items = [{"all": "same", "own": str(i), "half": str(i % 2)} for i in range(4)]
    fields = extended({}, 0, items)
    assert list(parts(fields, 4)) == ["half"] and parts(extended({}, 0, []), 0) == {}
    assert np.array_equal(parts(fields, 4)["half"].numbers, [0, 1, 0, 1])
