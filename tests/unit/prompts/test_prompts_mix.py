"""Quotas by slice: closed forms and properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.prompts.mix import slice_quotas


@pytest.mark.parametrize(
    ("available", "mix", "total", "expected"),
    [
        ({"a": 100, "b": 900}, {"a": 0.5, "b": 0.5}, None, {"a": 100, "b": 100}),
        ({"a": 100, "b": 900}, {"a": 0.25, "b": 0.75}, None, {"a": 100, "b": 300}),
        ({"a": 100, "b": 900}, {"a": 0.5, "b": 0.5}, 400, {"a": 100, "b": 300}),
        ({"a": 100, "b": 900}, {"a": 0.5, "b": 0.5}, 100, {"a": 50, "b": 50}),
        ({"a": 10, "b": 20, "c": 900}, {"a": 0.4, "b": 0.4, "c": 0.2}, 100, {"a": 10, "b": 20, "c": 70}),
        ({"a": 5, "b": 5}, {"a": 0.5, "b": 0.5}, 99, {"a": 5, "b": 5}),
        ({"b": 30}, {"a": 0.5, "b": 0.5}, None, {"b": 30}),
        ({"other": 30}, {"a": 1.0}, 10, {}),
        ({"a": 9, "b": 9, "c": 9}, {"a": 0.333, "b": 0.333, "c": 0.334}, 10, {"a": 3, "b": 3, "c": 4}),
    ],
)
def test_quotas_by_hand(available, mix, total, expected):
    assert slice_quotas(available, mix=mix, total=total) == expected


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 500), min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9), min_size=1),
    st.one_of(st.none(), st.integers(1, 2000)),
)
@settings(deadline=None, max_examples=25)
def test_quotas_never_exceed_the_data_and_reach_the_total(available, weights, total):
    mix = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    quotas = slice_quotas(available, mix=mix, total=total)
    present = set(mix) & set(available)
    assert set(quotas) == present
    assert all(0 <= quotas[name] <= available[name] for name in present)
    if total is not None and present:
        assert sum(quotas.values()) == min(total, sum(available[name] for name in present))
    if total is None and present:
        assert any(quotas[name] == available[name] for name in present)  # the scarcest slice sets the size
        scale = min(available[name] / mix[name] for name in present)
        assert all(abs(quotas[name] - scale * mix[name]) <= 1 for name in present)
