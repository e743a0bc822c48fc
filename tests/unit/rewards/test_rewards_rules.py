"""Rule scorers: closed forms, a naive count, properties, refusals."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion
from fairlead.rewards.rules import (
    LengthRule,
    Lexicon,
    LexiconRule,
    load_rule,
    make_rule,
    word_tokens,
)

LEXICON = Lexicon(warm=["lovely", "warm"], cold=["dull"], hedges=["maybe", "sort of", "sort of maybe", "i guess"])
RULE = LexiconRule(lexicon=LEXICON)
VOCABULARY = ["lovely", "warm", "dull", "maybe", "sort", "of", "i", "guess", "the", "film"]


def completion(text, finish_reason="stop"):
    return Completion(prompt_id="p-1", text=text, model="m", finish_reason=finish_reason)


def score(text, finish_reason="stop", rule=RULE):
    return rule.score([], [completion(text, finish_reason)])[0]


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("A lovely film.", "stop", 1.0),
        ("Lovely, warm, LOVELY!", "stop", 2.0),  # 3 warm, clipped to 2
        ("Dull dull dull", "stop", -2.0),
        ("A lovely but dull film, maybe.", "stop", -0.5),  # 1 - 1 - 0.5
        ("I guess maybe it is sort of lovely", "stop", 0.0),  # 1 - 0.5 * min(3, 2)
        ("The film is lovely and", "length", 0.0),
        ("", "stop", -1.0),
        ("...", "length", -1.0),  # empty and unfinished is charged once
        ("lovelyish, un-dull? undull", "stop", -1.0),  # whole tokens only; a hyphen separates
        ("dull dull maybe i guess", "length", -4.0),
    ],
)
def test_lexicon_rule_closed_form(text, reason, expected):
    assert score(text, reason) == expected


def test_longest_hedge_counts_once_and_matches_do_not_overlap():
    """`sort of maybe` is one hedge although `sort of` and `maybe` are entries; `sort of` then `maybe` apart are two."""
    assert LEXICON.count("it is sort of maybe fine")[2] == 1
    assert LEXICON.count("sort of fine, maybe")[2] == 2


def naive_hedges(tokens):
    phrases = sorted((h.split() for h in LEXICON.hedges), key=len, reverse=True)
    num, i = 0, 0
    while i < len(tokens):
        for phrase in phrases:
            if tokens[i : i + len(phrase)] == phrase:
                num, i = num + 1, i + len(phrase)
                break
        else:
            i += 1
    return num


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=12), max_size=8), st.randoms())
def test_scores_equal_a_naive_loop_and_follow_a_permutation(token_lists, random):
    completions = [completion(" ".join(tokens)) for tokens in token_lists]
    expected = []
    for tokens in token_lists:
        net = sum(t in ("lovely", "warm") for t in tokens) - tokens.count("dull")
        expected.append(max(-2, min(2, net)) - 0.5 * min(2, naive_hedges(tokens)) - (not tokens))
    scores = RULE.score([], completions)
    assert scores.dtype == np.float64
    assert scores.tolist() == expected
    order = list(range(len(completions)))
    random.shuffle(order)
    assert RULE.score([], [completions[i] for i in order]).tolist() == [expected[i] for i in order]


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=60))
def test_any_text_scores_within_the_declared_range_and_ignores_case(text):
    assert -4 <= score(text) <= 2
    ascii_text = text.encode("ascii", "ignore").decode()
    assert score(ascii_text.upper()) == score(ascii_text.lower())


def test_word_tokens_keep_inner_apostrophes():
    assert word_tokens("Don\u2019t, 'really' 2nd-rate") == ["don't", "really", "2nd", "rate"]


@pytest.mark.parametrize(
    ("lists", "part"),
    [
        ({"warm": ["a"], "cold": ["a"], "hedges": []}, "warm and cold"),
        ({"warm": ["two words"], "cold": [], "hedges": []}, "lexicon.warm"),
        ({"warm": [], "cold": ["Dull"], "hedges": []}, "lexicon.cold"),
        ({"warm": [], "cold": [], "hedges": ["..."]}, "lexicon.hedges"),
    ],
)
def test_bad_word_lists_are_refused(lists, part):
    with pytest.raises(DataError, match=part):
        Lexicon(**lists)


def test_load_rule_reads_a_file_and_refuses_other_shapes(tmp_path):
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"warm": ["lovely"], "cold": ["dull"], "hedges": ["who knows"]}))
    rule = load_rule(path)
    assert score("Lovely, who knows.", rule=rule) == 0.5
    assert pickle.loads(pickle.dumps(rule)) == rule
    path.write_text(json.dumps({"warm": []}))
    with pytest.raises(DataError, match="is not a lexicon"):
        load_rule(path)
    path.write_text(json.dumps({"warm": ["a"], "cold": "dull", "hedges": []}))
    with pytest.raises(DataError, match="cold"):
        load_rule(path)


def test_the_length_rule_closed_form():
    """Length: 6 words against [2, 4] is 2 too many, 1 - 2/4; 0 words is 2 too few, 1 - 2/4; 9 words is past twice the limit."""
    length = LengthRule(min_words=2, max_words=4)
    assert [score("w " * n, rule=length) for n in (0, 1, 2, 4, 6, 9)] == [0.5, 0.75, 1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "length", "max_words": 20},
        {"kind": "length", "max_words": 20, "name": "brief"},
    ],
)
def test_make_rule_builds_scorers(config):
    scorer: Scorer = make_rule(config)
    assert scorer.name == config.get("name", config["kind"])
    assert scorer.score([], [completion("aa"), completion("b")]).shape == (2,)
    assert scorer.score([], []).shape == (0,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"rewards\.rule\.kind is missing"),
        ({"kind": "lexicn"}, r"rewards\.rule\.kind=lexicn is not known \(did you mean lexicon\?\)"),
        ({"kind": "lexicon"}, r"rewards\.rule\.path is missing"),
        ({"kind": "regex", "pattern": "a"}, r"rewards\.rule\.kind=regex is not known.*patterns and JSON are verifiers"),
        (
            {"kind": "length", "max_word": 1},
            r"rewards\.rule\.max_words is missing",
        ),
        ({"kind": "length", "max_words": 3, "hits": 1}, r"rewards\.rule\.hits=1 is not a known key"),
        ({"kind": "length", "max_words": True}, r"rewards\.rule\.max_words=True has a wrong value"),
        ({"kind": "length", "min_words": 9, "max_words": 3}, "does not fit min_words=9"),
    ],
)
def test_make_rule_names_the_place_of_a_fault(config, message):
    with pytest.raises(ConfigError, match=message):
        make_rule(config, where="rewards.rule")
