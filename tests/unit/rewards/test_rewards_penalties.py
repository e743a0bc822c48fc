"""Rules about a reply's form: by hand."""

import pytest

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.records import Completion
from fairlead.rewards.rules import make_rule


def reply(text, *, num_tokens=1, finish_reason="stop"):
    return Completion(
        prompt_id="p", text=text, model="m", token_ids=tuple(range(num_tokens)), finish_reason=finish_reason
    )


def scores(config, *replies):
    return make_rule(config).score([], list(replies)).tolist()


def test_length_penalty_falls_evenly_after_the_free_tokens():
    """free 6, max 10: nothing up to 6, (8 - 6) / 4 = 0.5 at 8, 1 at 10 and beyond."""
    replies = [reply("a", num_tokens=n) for n in (1, 6, 8, 10, 12)]
    assert scores({"kind": "length_penalty", "max_tokens": 10, "free_tokens": 6}, *replies) == [0, 0, -0.5, -1, -1]
    assert scores({"kind": "length_penalty", "max_tokens": 10}, replies[0]) == [-0.1]


def test_length_penalty_refuses_texts_without_tokens():
    with pytest.raises(DataError, match="has text and no token_ids"):
        scores({"kind": "length_penalty", "max_tokens": 10}, reply("a", num_tokens=0))


def test_repetition_is_the_share_of_repeated_phrases():
    """(a b) (b a) (a b) (b a): two of four bigrams came before. Two words have no trigram."""
    assert scores({"kind": "repetition", "n": 2}, reply("a b A b a"), reply("a b c d")) == [-0.5, 0]
    assert scores({"kind": "repetition"}, reply("a a")) == [0]


def test_missing_eos_is_a_cut_or_empty_reply():
    assert scores({"kind": "missing_eos"}, reply("done"), reply("cut", finish_reason="length"), reply(" ")) == [
        0,
        -1,
        -1,
    ]


def test_tags_stand_once_and_in_order():
    replies = [reply(t) for t in ("<a>x</a> 1", "</a><a>", "<a><a></a>", "<a>x", "")]
    assert scores({"kind": "tags", "tags": ["<a>", "</a>"]}, *replies) == [1, 0, 0, 0, 0]
    assert scores({"kind": "tags", "tags": ["<a>", "</a>"], "partial": True}, *replies) == [1, 0.5, 0, 0.5, 0]


@pytest.mark.parametrize(("config", "message"), [
    ({"kind": "length_penalty", "max_tokens": 5, "free_tokens": 5}, "does not fit max_tokens=5"),
    ({"kind": "repetition", "n": 0}, "is not a number of words"),
    ({"kind": "tags", "tags": []}, "has an empty tag"),
    ({"kind": "tags", "tags": ["a"], "partial": 1}, "has a wrong value"),
    ({"kind": "missing_eos", "penalty": 2}, "is not a known key"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        make_rule(config)
