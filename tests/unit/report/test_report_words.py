"""Differences of words: nothing is lost, only what changed is marked."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.report.words import MAX_WORDS, Segment, compare_words, split_words

TEXT = st.text(st.sampled_from("ab .,\n日本é"), max_size=40)


def marked(segments: tuple[Segment, ...]) -> list[str]:
    return [segment.text for segment in segments if segment.is_changed]


@settings(deadline=None, max_examples=25)
@given(before=TEXT | st.text(max_size=40), after=TEXT | st.text(max_size=40))
def test_segments_give_the_replies_back(before: str, after: str):
    difference = compare_words(before, after)
    assert "".join(s.text for s in difference.before) == before and "".join(s.text for s in difference.after) == after


@settings(deadline=None, max_examples=25)
@given(text=TEXT | st.text(max_size=60))
def test_words_give_the_text_back(text: str):
    assert "".join(split_words(text)) == text


def test_only_changed_words_are_marked():
    difference = compare_words("The weather is bad today.", "The weather is lovely today!")
    assert (
        marked(difference.before) == ["bad", "."]
        and marked(difference.after) == ["lovely", "!"]
        and difference.note == ""
    )


def test_a_word_added_marks_one_side():
    difference = compare_words("I like soft rain", "I like the soft rain")
    assert marked(difference.before) == [] and marked(difference.after) == ["the"]


def test_a_lone_word_between_changes_is_part_of_the_change():
    difference = compare_words("start one the two end of it all", "start six the ten end of it all")
    assert marked(difference.before) == ["one the two"] and marked(difference.after) == ["six the ten"]


def test_spaces_alone_are_no_difference():
    assert marked(compare_words("a b c", "a  b\nc").after) == []


def test_scripts_without_spaces_are_compared_by_character():
    assert marked(compare_words("今日は天気が悪い", "今日は天気が良い").after) == ["良"]


def test_the_same_and_the_rewritten_say_so():
    assert compare_words("a", "a").note == "The two replies are the same."
    rewritten = compare_words("one two three", "four five six")
    assert (
        rewritten.note == "Rewritten: 0 % of the words are shared, so differences are not marked."
        and marked(rewritten.after) == []
    )


def test_long_replies_are_not_compared():
    difference = compare_words("word " * (MAX_WORDS + 1), "word")
    assert f"{MAX_WORDS} words" in difference.note and marked(difference.before) == []
