"""Held-out splits: disjoint, stable, by family, unbiased."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.prompts.splits import heldout_mask

KEYS = st.lists(st.text(alphabet="abcdefgh ", min_size=1, max_size=12), min_size=1, max_size=40, unique=True)


def sides(keys, families, heldout):
    """Side by key."""
    mask = heldout_mask(keys, families=np.array(families, np.int64), heldout=heldout)
    return dict(zip(keys, mask.tolist(), strict=True))


@given(KEYS, KEYS, st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=25)
def test_a_prompt_keeps_its_side_when_others_are_added_or_shuffled(keys, added, heldout):
    before = sides(keys, range(len(keys)), heldout)
    more = sorted({*keys, *added}, reverse=True)
    after = sides(more, range(len(more)), heldout)
    assert {key: after[key] for key in keys} == before


@given(KEYS, st.data(), st.one_of(st.floats(0.01, 0.99), st.integers(1, 5).map(float)))
@settings(deadline=None, max_examples=25)
def test_families_stay_together_and_stable_under_relabelling_and_reordering(keys, data, heldout):
    labels = data.draw(st.lists(st.integers(0, 4), min_size=len(keys), max_size=len(keys)))
    if heldout >= len(keys):
        heldout = 0.5
    first = sides(keys, labels, heldout)
    for label in set(labels):
        assert len({first[key] for key, own in zip(keys, labels, strict=True) if own == label}) == 1
    assert sides(keys, [9 - label for label in labels], heldout) == first
    assert sides(keys[::-1], labels[::-1], heldout) == first


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_share_is_unbiased_whatever_the_size_of_families(size):
    """20,000 / size families at 0.2: the share held out is within 4 standard errors, sqrt(0.16 * size / 20000)."""
    keys = [f"prompt {i}" for i in range(20_000)]
    mask = heldout_mask(keys, families=np.arange(20_000) // size, heldout=0.2)
    assert abs(mask.mean() - 0.2) < 4 * np.sqrt(0.16 * size / 20_000)


def test_a_count_is_met_exactly_and_a_family_that_does_not_fit_is_passed_over():
    keys = [f"prompt {i}" for i in range(100)]
    assert heldout_mask(keys, families=np.arange(100), heldout=17).sum() == 17
    families = np.where(np.arange(100) < 60, 0, np.arange(100))
    mask = heldout_mask(keys, families=families, heldout=30)
    assert mask.sum() == 30
    assert not mask[:60].any()


def test_nothing_is_held_out_at_zero_or_without_prompts():
    assert not heldout_mask(["a", "b"], families=np.arange(2), heldout=0).any()
    assert heldout_mask([], families=np.zeros(0, np.int64), heldout=0.5).tolist() == []


def test_a_count_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match=r"prompts\.heldout=2 would hold out all of 2 prompts; expected < 2"):
        heldout_mask(["a", "b"], families=np.arange(2), heldout=2)
