import math
import time
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from fairlead.stats.diversity import distinct_n, ngram_lift, ngrams, repeated_ngram_share, self_bleu
from naive import stats_naive as naive

texts = st.lists(st.sampled_from("abcd"), max_size=12)
samples = st.lists(texts, min_size=2, max_size=5)


@given(samples)
def test_self_bleu_equals_the_loop_over_samples(found):
    assert self_bleu([found])[0] == pytest.approx(naive.self_bleu(found))


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=4, max_size=15), min_size=2, max_size=5))
def test_self_bleu_equals_sacrebleu_with_one_added(found):
    metric = BLEU(smooth_method="add-k", smooth_value=1, tokenize="none", effective_order=True)
    scores = []
    for i, text in enumerate(found):
        others = [" ".join(other) for j, other in enumerate(found) if j != i]
        scores.append(metric.sentence_score(" ".join(text), others).score / 100)
    assert self_bleu([found])[0] == pytest.approx(np.mean(scores))


@given(samples, st.randoms(use_true_random=False))
def test_self_bleu_ignores_the_order_of_samples_and_what_tokens_are_called(found, random):
    shuffled = random.sample(found, len(found))
    renamed = [["xyzw"["abcd".index(token)] for token in text] for text in shuffled]
    assert self_bleu([renamed])[0] == pytest.approx(self_bleu([found])[0])


def test_self_bleu_of_equal_and_of_disjoint_samples():
    words = ["the", "cat", "sat", "on", "the", "mat"]
    assert self_bleu([[words, words, words]])[0] == pytest.approx(1)
    assert self_bleu([[["a", "b"], ["c", "d"]]])[0] == 0
    assert self_bleu([[[], []]])[0] == 0
    assert math.isnan(self_bleu([[words]])[0])
    assert self_bleu([]).shape == (0,)


def test_self_bleu_rises_as_entropy_falls():
    """Samples of 40 words from flatter and flatter distributions."""
    rng = np.random.default_rng(0)
    levels = []
    for sharpness in (0.0, 1.0, 2.0, 4.0):
        p = np.arange(1, 65.0) ** -sharpness
        drawn = rng.choice(64, size=(16, 8, 40), p=p / p.sum())
        levels.append(self_bleu(drawn.tolist()).mean())
    assert levels == sorted(levels)
    assert levels[0] < 0.12 < 0.6 < levels[-1]


def test_a_usual_evaluation_takes_about_a_second():
    random = Random(0)
    prompts = [[[random.choice("abcdefghijklmnop") for _ in range(40)] for _ in range(8)] for _ in range(64)]
    start = time.process_time()
    self_bleu(prompts)
    assert time.process_time() - start < 5


def test_distinct_counts_over_all_texts_together():
    """aab, ab: unigrams a a b a b (2 of 5); bigrams aa ab ab (2 of 3)."""
    found = [list("aab"), list("ab")]
    assert distinct_n(found, 1) == pytest.approx(2 / 5)
    assert distinct_n(found, 2) == pytest.approx(2 / 3)
    assert math.isnan(distinct_n([["a"]], 2))


def test_repeats_are_counted_per_text():
    """abababab has bigrams ab ba ab ba ab ba ab: 2 of 7 are new."""
    assert repeated_ngram_share([list("abababab"), list("abcd"), []], n=2) == pytest.approx([5 / 7, 0, 0])


@given(texts, st.integers(1, 4))
def test_ngrams_are_the_windows_of_the_text(text, n):
    assert ngrams(text, n) == [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def test_lift_finds_the_phrase_that_a_policy_repeats():
    """`as an ai` in 4 of 10 texts and in none of 20: lift (4.5/10.5) / (0.5/20.5) = 17.6."""
    texts = [["as", "an", "ai", "yes"]] * 4 + [["yes"]] * 6
    found = ngram_lift(texts, [["yes"]] * 20)
    assert found[0].ngram == ("as", "an", "ai", "yes")
    assert found[0].lift == pytest.approx((4.5 / 10.5) / (0.5 / 20.5))
    assert (found[0].share, found[0].reference_share) == (0.4, 0.0)
    assert found[-1].ngram == ("yes",)
    assert found[-1].lift == pytest.approx(1)
    assert len(ngram_lift(texts, [["yes"]], top=2)) == 2
    assert ngram_lift(texts, [["yes"]], orders=(1,), min_share=0.5)[0].ngram == ("yes",)


def test_a_phrase_said_twice_in_a_text_counts_once():
    assert ngram_lift([["a", "a"], ["b"]], [["b"]], orders=(1,))[0].share == 0.5
