"""Overlap with evaluation files, against a plain loop and at the edges of the rule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.prompts.contamination import MAX_SHARING_PROMPTS, find_overlap
from fairlead.prompts.words import hash_words, words


def overlap(prompts, evaluation, **options):
    """Compare normalised texts by all of each."""
    return find_overlap(hash_words(prompts), keys=[(p,) for p in prompts], evaluation=evaluation, **options)


def numbered(first, last):
    """`w1 w2 ...`."""
    return " ".join(f"w{i}" for i in range(first, last + 1))


def naive_shares_run(prompt, evaluation, longest):
    """Does the prompt hold a run of `longest` words, or all of a shorter evaluation prompt of at least 8 words?"""
    shortest = min(8, longest)
    for text in evaluation:
        own = words(text)
        size = min(longest, len(own))
        runs = [own[i : i + size] for i in range(len(own) - size + 1)]
        inside = words(prompt)
        if size >= shortest and any(inside[i : i + size] == run for run in runs for i in range(len(inside))):
            return True
    return False


@given(
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=14).map(" ".join), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=14).map(" ".join), min_size=1, max_size=5),
    st.sampled_from([5, 9, 13]),
)
@settings(deadline=None, max_examples=25)
def test_overlap_equals_a_plain_loop(prompts, evaluation, longest):
    """Ten or fewer evaluation prompts, so that no run counts as a template."""
    found = overlap(prompts, evaluation, ngram_words=longest)
    assert found.is_exact.tolist() == [p in evaluation for p in prompts]
    assert found.has_ngram.tolist() == [naive_shares_run(p, evaluation, longest) for p in prompts]


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none():
    evaluation = [numbered(1, 20)]
    found = overlap([f"x {numbered(5, 17)} y", f"x {numbered(5, 16)} y"], evaluation)
    assert found.has_ngram.tolist() == [True, False]
    assert found.rule() == "equality and 13-grams"


@pytest.mark.parametrize(("num_words", "is_found"), [(12, True), (8, True), (7, False)])
def test_a_short_evaluation_prompt_is_compared_whole_down_to_eight_words(num_words, is_found):
    found = overlap([f"before {numbered(1, num_words)} after"], [numbered(1, num_words)])
    assert found.has_ngram.tolist() == [is_found]
    assert found.num_too_short == (0 if is_found else 1)
    assert found.rule() == (f"equality and {num_words}-grams" if is_found else "equality only")


def test_a_run_that_many_evaluation_prompts_share_is_their_template():
    template = numbered(1, 15)
    for num_sharing, is_found in ((MAX_SHARING_PROMPTS, True), (MAX_SHARING_PROMPTS + 1, False)):
        evaluation = [f"{template} q{i}" for i in range(num_sharing)]
        assert overlap([f"{template} mine"], evaluation).has_ngram.tolist() == [is_found]


def test_any_form_of_a_prompt_may_be_equal():
    found = find_overlap(
        hash_words(["be kind who are you"]), keys=[("be kind who are you", "who are you")], evaluation=["who are you"]
    )
    assert found.is_exact.tolist() == [True]
    assert found.is_contaminated.tolist() == [True]
