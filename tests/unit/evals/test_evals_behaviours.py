"""Behaviours: metrics in closed form, verdicts on constructed changes, p-values against scipy, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import dump_json
from fairlead.core.records import Completion, Message, Prompt, to_dict
from fairlead.evals.behaviours import (
    Behaviour,
    compare,
    compare_all,
    group_completions,
    measure,
    phrase_pattern,
    win_rate,
    words,
)

PROMPTS = [Prompt(messages=(Message(role="user", content=f"Question {i}?"),)) for i in range(2)]


def reply(text, prompt=0, index=0, finish_reason="stop", token_ids=()):
    return Completion(
        prompt_id=PROMPTS[prompt].id,
        text=text,
        model="m",
        sample_index=index,
        finish_reason=finish_reason,
        token_ids=token_ids,
    )


GROUPS = (
    (
        reply("Maybe it is, maybe not.", token_ids=(1, 2, 3)),
        reply("It is good. It is good.", index=1, finish_reason="length", token_ids=(1,)),
    ),
    (
        reply("A fine film.", prompt=1, token_ids=(4, 5)),
        reply("Perhaps a fine film.", prompt=1, index=1, token_ids=(4, 5, 6, 7)),
    ),
)


class Length:
    """A scorer through the Protocol: words of the reply; NaN for the second prompt."""

    name = "length"

    def score(self, prompts, completions):
        return np.array(
            [math.nan if p == PROMPTS[1] else float(len(words(c))) for p, c in zip(prompts, completions, strict=True)]
        )


def behaviour(**changes):
    return Behaviour(**{"id": "b", "direction": "up", "metric": "words", "min_effect": 0.1, **changes})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metric": "phrases", "phrases": ("maybe", "perhaps")}, [0.5, 0.5]),  # once or twice in a reply counts once
        ({"metric": "regex", "pattern": "^[AP]"}, [0.0, 1.0]),
        ({"metric": "finished"}, [0.5, 1.0]),
        ({"metric": "words"}, [5.5, 3.5]),  # 5 and 6, 3 and 4
        ({"metric": "tokens"}, [2.0, 3.0]),
        ({"metric": "distinct", "ngram": 1}, [5 / 11, 4 / 7]),
        (
            {"metric": "repetition", "ngram": 3},
            [0.125, 0.0],
        ),  # "it is good" is the 4th of 4 trigrams: 1/4 over two replies
        ({"metric": "score"}, [5.5, math.nan]),
    ],
)
def test_metrics_closed_form(options, expected):
    """distinct-1 of prompt 0: maybe, it, is, not, good = 5 of 11 words; of prompt 1: a, fine, film, perhaps = 4 of 7."""
    measured = measure(behaviour(**options), PROMPTS, GROUPS, scorers={"length": Length()})
    assert measured == pytest.approx(expected, nan_ok=True)


def test_self_bleu_is_one_for_equal_replies_and_zero_for_different_ones():
    same = tuple(reply("the film is lovely today", index=i) for i in range(3))
    other = (reply("alpha beta", prompt=1), reply("gamma delta", prompt=1, index=1))
    assert measure(behaviour(metric="self_bleu"), PROMPTS, (same, other)) == pytest.approx([1.0, 0.0])


def test_phrases_match_whole_words_only():
    pattern = phrase_pattern(["sort of", "i can't"])
    assert pattern.search("It is SORT\nof fine")
    assert pattern.search("No, I can't.")
    assert not pattern.search("resort of mine")
    assert not pattern.search("sort offers")


def test_group_completions_sorts_and_refuses_gaps():
    shuffled = [GROUPS[1][1], GROUPS[0][0], GROUPS[1][0], GROUPS[0][1]]
    assert group_completions(PROMPTS, shuffled) == GROUPS
    with pytest.raises(DataError, match="has no completion"):
        group_completions(PROMPTS, shuffled[1:2])
    with pytest.raises(DataError, match="answers none of the prompts"):
        group_completions(PROMPTS[:1], shuffled)


NOISE = np.random.default_rng(0).normal(0, 0.2, 200)


@pytest.mark.parametrize(
    ("direction", "shift", "min_effect", "expected"),
    [
        ("up", 0.5, 0.2, "improved"),
        ("down", -0.5, 0.2, "improved"),
        ("up", -0.5, 0.2, "regressed"),
        ("down", 0.5, 0.2, "regressed"),
        ("up", 0.1, 0.2, "unchanged"),  # beyond chance, but smaller than what matters
        ("up", 0.19, 0.2, "inconclusive"),  # neither large enough nor shown to be small
        ("flat", 0.0, 0.2, "unchanged"),
        ("flat", 0.5, 0.2, "regressed"),
        ("flat", -0.5, 0.2, "regressed"),
        ("flat", 0.0, 0.001, "inconclusive"),
    ],
)
def test_verdicts_on_constructed_changes(direction, shift, min_effect, expected):
    """200 prompts, differences of sd 0.2 centred on `shift`: standard error 0.014."""
    after = NOISE - NOISE.mean() + shift
    result = compare(
        behaviour(direction=direction, min_effect=min_effect, guard=True), np.zeros(200), after, model="ppo"
    )
    assert result.verdict == expected
    assert result.effect == pytest.approx(shift, abs=1e-9)
    assert result.low <= result.effect <= result.high
    dump_json(to_dict(result))


def test_relative_margin_is_a_share_of_the_mean_before():
    """Mean before 10, margin a quarter: 2.5 words. A rise of 1 is unchanged, a rise of 4 regressed."""
    spec = behaviour(direction="flat", min_effect=0.25, is_relative=True, guard=True)
    before = 10 + NOISE - NOISE.mean()
    results = [compare(spec, before, before + rise + NOISE[::-1], model="m") for rise in (1.0, 4.0)]
    assert [r.verdict for r in results] == ["unchanged", "regressed"]
    assert results[0].meta["margin"] == pytest.approx(2.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(-1, 1))
def test_p_value_equals_scipy_and_sides_are_symmetric(seed, num, shift):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=num), rng.normal(size=num) + shift
    there = compare(behaviour(), before, after, model="m")
    back = compare(behaviour(), after, before, model="m")
    assert there.meta["p"] == pytest.approx(scipy_stats.ttest_rel(after, before).pvalue)
    assert (back.effect, back.low, back.high) == pytest.approx((-there.effect, -there.high, -there.low))
    order = rng.permutation(num)
    assert compare(behaviour(), before[order], after[order], model="m").effect == pytest.approx(there.effect)


def test_yes_or_no_outcomes_use_mcnemar():
    """6 prompts turned right, none wrong: p = 2 * 0.5^6."""
    before = np.zeros(20)
    after = np.array([1.0] * 6 + [0.0] * 14)
    assert compare(behaviour(metric="finished"), before, after, model="m").meta["p"] == pytest.approx(2 * 0.5**6)


def test_a_constant_change_needs_no_spread():
    assert compare(behaviour(), np.zeros(5), np.full(5, 2.5), model="m").verdict == "improved"
    assert compare(behaviour(), np.full(5, 0.3), np.full(5, 0.3), model="m").verdict == "unchanged"


def test_holm_corrects_claims_but_not_harm():
    """p = 0.03 alone passes at 0.05; among three claims it is 0.09 and does not. A regression still counts at 0.03."""
    rng = np.random.default_rng(3)
    t_target = scipy_stats.t.ppf(1 - 0.03 / 2, 49)
    change = rng.normal(size=50)
    change = (change - change.mean()) / change.std(ddof=1) + t_target / math.sqrt(50)
    null = rng.normal(size=50)
    null -= null.mean()
    specs = [behaviour(id=name) for name in "abc"]
    zero = {name: np.zeros(50) for name in "abc"}
    results = compare_all(specs, zero, {"a": change, "b": null, "c": -null}, model="m")
    assert compare(specs[0], zero["a"], change, model="m").verdict == "improved"
    assert results[0].verdict == "inconclusive"
    assert (results[0].meta["p"], results[0].meta["p_adjusted"]) == pytest.approx((0.03, 0.09))
    assert compare_all(specs, zero, {"a": -change, "b": null, "c": -null}, model="m")[0].verdict == "regressed"


def test_nothing_happening_is_rarely_called_an_improvement():
    """2,000 comparisons of equal policies at one-sided 2.5 %: at most 3.6 % (3 standard errors above)."""
    rng = np.random.default_rng(1)
    spec = behaviour(min_effect=1e-6)
    found = sum(compare(spec, *rng.normal(size=(2, 20)), model="m").verdict == "improved" for _ in range(2000))
    assert found / 2000 < 0.036


def test_prompts_without_a_value_are_counted_not_hidden():
    before, after = np.array([1.0, np.nan, 1.0, 2.0]), np.array([2.0, 1.0, np.nan, 3.0])
    result = compare(behaviour(), before, after, model="m")
    assert (result.num_prompts, result.meta["num_dropped"]) == (2, 2)
    with pytest.raises(DataError, match="too few"):
        compare(behaviour(), before[:2], after[:2], model="m")
    with pytest.raises(DataError, match="cannot be paired"):
        compare(behaviour(), before, after[:2], model="m")


def test_win_rate_closed_form():
    """131 wins of 200: Wilson 58.7 to 71.7 %; ties count half."""
    rate = win_rate(np.zeros(200), [1.0] * 131 + [-1.0] * 69)
    assert (rate.interval.value, rate.interval.low, rate.interval.high) == pytest.approx(
        (0.655, 0.587, 0.717), abs=5e-4
    )
    assert rate.p < 1e-4
    tied = win_rate([0, 0, 0, np.nan], [1, 0, 0, 1])
    assert (tied.num_wins, tied.num_ties, tied.num_losses, tied.interval.n) == (1, 2, 0, 3)
    assert tied.interval.value == pytest.approx(2 / 3)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=30))
def test_win_rates_of_both_sides_sum_to_one(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    there, back = win_rate(a, b), win_rate(b, a)
    assert there.interval.value + back.interval.value == pytest.approx(1)
    assert there.num_wins == sum(y > x for x, y in pairs)
    assert (there.num_ties, there.num_losses) == (back.num_ties, back.num_wins)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "phrases"}, "phrases is missing"),
        ({"metric": "regex", "pattern": "("}, "not a regular expression"),
        ({"direction": "flat"}, "flat is no aim"),
        ({"min_effect": 0}, "min_effect"),
        ({"metrik": "words"}, r"metrik=words is not a known key \(did you mean metric\?\)"),
        ({"id": "Not A Name"}, r"evals\.id=Not A Name"),
    ],
)
def test_wrong_declarations_are_refused_with_their_place(changes, message):
    data = {"id": "b", "direction": "up", "metric": "words", "min_effect": 0.1, **changes}
    with pytest.raises(ConfigError, match=message):
        parse_config(Behaviour, data, where="evals")


def test_unknown_scorers_and_missing_token_ids_are_refused():
    with pytest.raises(ConfigError, match=r"did you mean length\?"):
        measure(behaviour(metric="score", scorer="lengt"), PROMPTS, GROUPS, scorers={"length": Length()})
    with pytest.raises(DataError, match="has no token ids"):
        measure(behaviour(metric="tokens"), PROMPTS[:1], ((reply("text"),),))
