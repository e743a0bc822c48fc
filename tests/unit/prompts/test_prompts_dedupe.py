"""MinHash and near-duplicates against the exact pairwise Jaccard similarity."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.prompts.dedupe import (
    NUM_HASHES,
    band_rows,
    families,
    has_neighbour,
    jaccard,
    keep_first,
    minhash,
    near_duplicates,
    shingle_sets,
)
from fairlead.prompts.words import hash_words, words

SMALL_TEXTS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12)


@functools.lru_cache(maxsize=2000)
def naive_shingles(text):
    """Word 3-grams as a set of tuples; a shorter text is one tuple."""
    w = words(text)
    return {tuple(w[i : i + 3]) for i in range(len(w) - 2)} or {tuple(w)}


def naive_jaccard(a, b):
    """|a & b| / |a | b|."""
    return len(naive_shingles(a) & naive_shingles(b)) / len(naive_shingles(a) | naive_shingles(b))


def naive_near_pairs(texts, threshold):
    """Every pair at or above the threshold."""
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if naive_jaccard(texts[i], texts[j]) >= threshold
    }


def found_pairs(near):
    """Near pairs between all texts, groups of equal texts spelled out."""
    members = {}
    for text, node in enumerate(near.same_as.tolist()):
        members.setdefault(node, []).append(text)
    pairs = {pair for group in members.values() for pair in itertools.combinations(group, 2)}
    for i, j in near.pairs.tolist():
        pairs |= {tuple(sorted(pair)) for pair in itertools.product(members[i], members[j])}
    return pairs


def edited_texts(num_originals, *, seed):
    """Random texts of 40 words, each followed by copies with 1 to 6 words replaced: similarities from 0.35 to 0.95."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(num_originals):
        original = rng.integers(0, 5000, 40)
        texts.append(original)
        for num_edits in range(1, 7):
            copy = original.copy()
            copy[rng.choice(40, num_edits, replace=False)] = rng.integers(5000, 10000, num_edits)
            texts.append(copy)
    return [" ".join(f"w{i}" for i in text) for text in texts]


@given(SMALL_TEXTS)
@settings(deadline=None, max_examples=25)
def test_jaccard_of_sets_equals_the_naive_one(texts):
    pairs = np.array(list(itertools.product(range(len(texts)), repeat=2)))
    sets = shingle_sets(hash_words(texts))
    expected = [naive_jaccard(texts[i], texts[j]) for i, j in pairs]
    np.testing.assert_allclose(jaccard(sets, pairs), expected, rtol=0, atol=1e-15)
    assert sets.sizes.tolist() == [len(naive_shingles(text)) for text in texts]


def test_jaccard_by_hand():
    """`a b c d` has shingles abc, bcd; `a b c e` has abc, bce: one of three is common."""
    sets = shingle_sets(hash_words(["a b c d", "a b c e"]))
    assert jaccard(sets, np.array([[0, 1]])).tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.85])
def test_minhash_finds_no_false_pair_and_misses_hardly_any(threshold):
    """Precision is 1 because each pair is checked exactly; recall is at least the target at the threshold."""
    texts = edited_texts(40, seed=7)
    near = near_duplicates(hash_words(texts), threshold=threshold, exact_up_to=0)
    expected, found = naive_near_pairs(texts, threshold), found_pairs(near)
    assert len(expected) > 25
    assert found <= expected
    assert len(found) >= 0.99 * len(expected)


@given(SMALL_TEXTS, st.floats(0.3, 1))
@settings(deadline=None, max_examples=25)
def test_few_texts_are_compared_exactly(texts, threshold):
    assert found_pairs(near_duplicates(hash_words(texts), threshold=threshold)) == naive_near_pairs(texts, threshold)


def test_both_ways_are_used_on_their_side_of_the_limit():
    """At this low threshold MinHash happens to miss one of the 318 pairs; the exact way finds all."""
    texts = edited_texts(20, seed=2)
    hashed, expected = hash_words(texts), naive_near_pairs(texts, 0.34)
    exact = near_duplicates(hashed, threshold=0.34, exact_up_to=len(texts))
    estimated = near_duplicates(hashed, threshold=0.34, exact_up_to=len(texts) - 1)
    assert found_pairs(exact) == expected
    assert 0.99 * len(expected) <= len(found_pairs(estimated)) < len(expected)


def test_similarity_is_the_exact_one():
    texts = edited_texts(5, seed=3)
    near = near_duplicates(hash_words(texts), threshold=0.5)
    assert len(near.pairs) > 10
    for (i, j), value in zip(near.pairs.tolist(), near.similarity, strict=True):
        assert i < j
        assert value == pytest.approx(naive_jaccard(texts[i], texts[j]), abs=1e-15)


def test_minhash_agreement_estimates_jaccard():
    """Columns agree with probability J; over 128 columns and 60 pairs the mean error is within 4 standard errors of 0."""
    texts = edited_texts(60, seed=1)
    signatures = minhash(shingle_sets(hash_words(texts)))
    errors = [
        (signatures[i] == signatures[i + 2]).mean() - naive_jaccard(texts[i], texts[i + 2])
        for i in range(0, len(texts), 7)
    ]
    assert abs(np.mean(errors)) < 4 * 0.5 / np.sqrt(NUM_HASHES * len(errors))
    assert np.max(np.abs(errors)) < 4.5 * 0.5 / np.sqrt(NUM_HASHES)


def test_band_rows_keep_the_promised_recall_and_one_more_row_would_break_it():
    def recall(threshold, rows):
        return 1 - (1 - threshold**rows) ** (NUM_HASHES // rows)

    for threshold in (0.3, 0.5, 0.8, 0.95):
        rows = band_rows(threshold)
        assert recall(threshold, rows) >= 0.995 > recall(threshold, rows + 1)
    assert band_rows(1.0) == NUM_HASHES


def naive_keep_first(texts, threshold, order):
    """Keep each text unless a kept one is near."""
    kept = []
    for text in order:
        if all(naive_jaccard(texts[text], texts[other]) < threshold for other in kept):
            kept.append(text)
    return set(kept)


@given(SMALL_TEXTS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_keep_first_equals_the_greedy_loop_in_any_order(texts, random):
    order = list(range(len(texts)))
    random.shuffle(order)
    near = near_duplicates(hash_words(texts), threshold=0.5)
    kept_by = keep_first(near, order=order)
    kept = {i for i in order if kept_by[i] == i}
    assert kept == naive_keep_first(texts, 0.5, order)
    for text, owner in enumerate(kept_by.tolist()):
        assert owner in kept
        assert naive_jaccard(texts[text], texts[owner]) >= 0.5


@given(SMALL_TEXTS, st.data())
@settings(deadline=None, max_examples=25)
def test_families_are_the_connected_components_of_the_living(texts, data):
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    near = near_duplicates(hash_words(texts), threshold=0.5)
    labels = families(near, alive=alive)
    living = set(np.flatnonzero(alive).tolist())
    edges = {(i, j) for i, j in naive_near_pairs(texts, 0.5) if {i, j} <= living}
    reach = {i: {i} for i in living}
    for _ in living:
        for i, j in edges:
            reach[i] = reach[j] = reach[i] | reach[j]
    for i, j in itertools.combinations(sorted(living), 2):
        assert (labels[i] == labels[j]) == (j in reach[i] or i in reach[j])
    lonely = has_neighbour(near, alive=alive)
    assert {i for i in living if lonely[i]} == {i for edge in edges for i in edge}


def test_a_text_that_is_not_in_the_order_neither_stays_nor_drops_others():
    near = near_duplicates(hash_words(["a b c d", "a b c d", "x y z"]), threshold=0.8)
    assert keep_first(near, order=[1, 2]).tolist() == [-1, 1, 2]


def test_no_texts_have_no_pairs():
    near = near_duplicates(hash_words([]), threshold=0.8)
    assert near.pairs.shape == (0, 2)
    assert families(near, alive=np.zeros(0, bool)).tolist() == []


def test_many_copies_of_one_template_stay_linear():
    """50,000 equal texts are one node: all pairs would be 1.25 billion."""
    near = near_duplicates(hash_words(["tell me a story"] * 50_000), threshold=0.8)
    assert len(near.pairs) == 0
    assert set(near.same_as.tolist()) == {0}
