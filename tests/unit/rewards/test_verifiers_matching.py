"""Exact and fuzzy match: values by hand, a naive distance, properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifier_example import check, prompt, section

from fairlead.core.errors import ConfigError, DataError
from fairlead.rewards.verifiers import validate_prompts
from fairlead.rewards.verifiers.matching import edit_distance, edit_similarity, normalise, token_f1

SHORT = st.text(alphabet="abc ", max_size=12)


@pytest.mark.parametrize(
    ("reference", "text", "options", "expected"),
    [
        ("Paris", " paris\n", {}, 1.0),
        ("Paris", "Paris.", {}, 0.0),
        ("Paris", "Paris.", {"normalise": ["case", "punctuation"]}, 1.0),
        ("the cat", "A  cat!", {"normalise": ["case", "punctuation", "articles", "space"]}, 1.0),
        ("cafe", "Café", {"normalise": ["accents", "case"]}, 1.0),
        ("Paris", "PARIS", {"normalise": []}, 0.0),
        (["UK", "United Kingdom"], "united kingdom", {}, 1.0),
        (7, "It is <answer>7</answer>", {"extract": ["tag"]}, 1.0),
        (7, "It is 7", {"extract": ["tag"]}, 0.0),
        ("b", "<think>b</think> c", {"after": "</think>"}, 0.0),
    ],
)
def test_exact(reference, text, options, expected):
    assert check("exact", {"reference": reference}, text, **options) == expected


@pytest.mark.parametrize(
    ("extract", "words"),
    [
        (["boxd"], r"extract\.0=boxd has a wrong value \(did you mean boxed\?\); expected 'boxed', .*Change it\.$"),
        (["boxd", "lastline"], r"extract\.0=boxd .*\(1 more fault\)\.$"),
        ([], r"extract=\[\] has a wrong value; expected .*at least 1 item.*Change it\.$"),
    ],
)
def test_a_typo_is_one_fault_with_the_nearest_name(extract, words):
    """The list is long enough as it was written, though none of its entries counts."""
    with pytest.raises(ConfigError, match=words):
        section("math", extract=extract)


def test_a_prompt_without_reference_is_not_judged():
    assert math.isnan(check("exact", {}, "text"))
    assert math.isnan(check("fuzzy", {"reference": None}, "text"))


def test_fuzzy_by_hand():
    """Words: {big, red, dog} and {red, dog, ran, off}: 2 * 2 / 7. Letters: kitten to sitting takes 3 of 7."""
    assert check("fuzzy", {"reference": "the big red dog"}, "Red dog ran off.") == pytest.approx(4 / 7)
    assert check("fuzzy", {"reference": "kitten"}, "sitting", measure="edits") == pytest.approx(1 - 3 / 7)
    assert check("fuzzy", {"reference": ["zzz", "kitten"]}, "sitting", measure="edits", threshold=0.5) == 1.0
    assert check("fuzzy", {"reference": "kitten"}, "sitting", measure="edits", threshold=0.6) == 0.0
    assert check("fuzzy", {"reference": "kitten"}, "", measure="edits") == 0.0


def naive_distance(a: str, b: str) -> int:
    rows = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
    return rows[-1][-1]


@given(SHORT, SHORT)
def test_edit_distance_is_that_of_plain_loops(a, b):
    assert edit_distance(a, b) == naive_distance(a, b)


@given(SHORT, SHORT)
def test_similarities_are_symmetric_shares_and_one_only_for_equals(a, b):
    for measure in (token_f1, edit_similarity):
        assert 0 <= measure(a, b) == measure(b, a) <= 1
        assert measure(a, a) == 1
    assert (edit_similarity(a, b) == 1) == (a == b)


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text):
    steps = ("case", "punctuation", "space")
    once = normalise(text, steps)
    assert normalise(once, steps) == normalise(normalise(once, steps), steps)


@pytest.mark.parametrize("bad", [{"a": 1}, [], "", True, [None]])
def test_a_reference_of_the_wrong_kind_is_told_with_its_place(bad):
    with pytest.raises(DataError, match=r"unknown:4 .* meta\.reference"):
        validate_prompts(section("exact"), [prompt(reference=bad, row=4)])


def test_a_verifier_that_applies_to_no_prompt_is_refused():
    assert validate_prompts(section("exact"), [prompt(reference="x"), prompt()]) == 1
    with pytest.raises(ConfigError, match="applies to none of 1 prompts"):
        validate_prompts(section("exact"), [prompt(answer="x")])
