"""Normal form, words and n-gram hashes, against plain loops and by property."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.prompts.words import hash_words, mix_bits, ngrams, normalise, num_words, stable_hash, words


@pytest.mark.parametrize(
    "variant",
    [
        "What is it?",
        "  what\tIS\n it? ",
        "what\u00a0is it?",
        "Ｗhat is it?",
        "wh\u00adat is\u200b it?",
        "WHAT\u3000IS IT?",
    ],
)
def test_normalise_joins_variants_of_space_case_width_and_invisible_characters(variant):
    assert normalise(variant) == "what is it?"


def test_normalise_joins_composed_and_decomposed_letters_and_keeps_different_ones_apart():
    assert normalise("Cafe\u0301 STRASSE") == normalise("café straße")
    assert normalise("3 + 4") != normalise("3 - 4")
    assert normalise("resume") != normalise("résumé")


@given(st.text())
@settings(deadline=None, max_examples=25)
def test_normalise_is_idempotent_and_blind_to_outer_space(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(f" \n{text}\t") == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("well, what is 3.5 - 2?", ["well", "what", "is", "3", "5", "-", "2"]),
        ("東京は 何 ですか?", ["東", "京", "は", "何", "で", "す", "か"]),
        ("???", ["???"]),
        ("(a+b)*c", ["(", "a", "+", "b", ")", "*", "c"]),
    ],
)
def test_words_keep_symbols_that_carry_meaning(text, expected):
    assert words(text) == expected


def test_num_words_counts_characters_of_unspaced_scripts():
    assert num_words("how do i, then?") == 4
    assert num_words("東京 tower") == 3


def naive_ngrams(texts, size):
    """Every run of `size` words with the text that it is from."""
    return [(tuple(w[i : i + size]), t) for t, w in enumerate(map(words, texts)) for i in range(len(w) - size + 1)]


@given(st.lists(st.text(alphabet="ab c", min_size=1).filter(str.strip), min_size=1, max_size=6), st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_ngrams_equal_a_plain_loop(texts, size):
    """Equal runs have equal hashes, different runs different ones, and each stands with its own text."""
    texts = [normalise(text) for text in texts]
    hashes, index = ngrams(hash_words(texts), size)
    expected = naive_ngrams(texts, size)
    assert index.tolist() == [text for _, text in expected]
    table = {}
    for value, (run, _) in zip(hashes.tolist(), expected, strict=True):
        assert table.setdefault(run, value) == value
    assert len(set(table.values())) == len(table)


def test_hashes_do_not_depend_on_the_process():
    """BLAKE2b of the text: the same whatever PYTHONHASHSEED says."""
    code = "from fairlead.prompts.words import stable_hash; print(stable_hash('a prompt', salt='heldout'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{stable_hash('a prompt', salt='heldout')}\n"}
    assert stable_hash("a prompt", salt="heldout") != stable_hash("a prompt", salt="order")


def test_mix_bits_changes_half_of_the_bits():
    """Neighbouring integers end up with about 32 of 64 different bits (mean of 1,000 pairs, standard error 0.13)."""
    values = mix_bits(np.arange(1001, dtype=np.uint64))
    assert abs(np.mean([value.bit_count() for value in (values[1:] ^ values[:-1]).tolist()]) - 32) < 1
