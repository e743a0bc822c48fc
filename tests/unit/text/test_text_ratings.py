"""Ratings by attribute, as formats keep them."""

import math

import numpy as np
import pytest

from fairlead.core.io import Row
from fairlead.core.records import Message, Preference
from fairlead.formats.helpsteer import HELPSTEER2
from fairlead.formats.ultrafeedback import ULTRAFEEDBACK
from fairlead.text.ratings import encode_ratings, known_attributes, read_ratings

PROMPT = (Message(role="user", content="q"),)


class _Letters:
    """One token a letter; stands in for ChatText."""

    def encode_prompts(self, conversations):
        return [np.array([1] + [ord(c) for c in messages[-1].content]) for messages in conversations]

    def encode_completions(self, texts):
        return [np.array([ord(c) for c in text]) for text in texts]

    def merges(self, rows):
        return [False for _ in rows]

    def appends(self, prompt, reply):
        return True


@pytest.mark.parametrize("best_first", [True, False])
def test_ratings_of_helpsteer_follow_their_completion(best_first):
    rows = [
        {"prompt": "q", "response": "good", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1},
        {"prompt": "q", "response": "poor", "helpfulness": 1, "correctness": 2, "coherence": 4, "complexity": 1, "verbosity": 3},
    ]  # fmt: skip
    rows = rows if best_first else rows[::-1]
    assert HELPSTEER2.neighbours is not None
    (pair,) = HELPSTEER2.neighbours.read([Row(where="f:1", number=i, values=row) for i, row in enumerate(rows)])
    assert read_ratings(pair, ("helpfulness", "verbosity")) == ([4.0, 1.0], [1.0, 3.0])
    assert "correctness" in known_attributes([pair])


def test_aspects_of_ultrafeedback_stand_beside_the_pair():
    def completion(text, honesty, truthfulness):
        ratings = {"honesty": {"Rating": honesty}, "truthfulness": {"Rating": truthfulness}}
        return {"response": text, "model": "m", "annotations": ratings}

    row = {"instruction": "q", "completions": [completion("good", "5", "4"), completion("poor", "2", "N/A")]}
    (pair,) = ULTRAFEEDBACK.read(Row(where="f:1", number=1, values=row))
    chosen, rejected = read_ratings(pair, ("honesty", "truthfulness"))
    assert chosen == [5.0, 4.0] and rejected[0] == 2.0 and math.isnan(rejected[1])


def test_a_completion_in_several_pairs_has_one_rating():
    rows = [
        Preference(prompt=PROMPT, chosen="a", rejected="b", meta={"chosen_x": 3, "rejected_x": 1, "rejected_y": 5}),
        Preference(prompt=PROMPT, chosen="a", rejected="c", meta={"chosen_x": 4}),
        Preference(prompt=PROMPT, chosen="a", rejected="much too long", meta={"rejected_x": 0}),
    ]
    encoded, num_unrated = encode_ratings(_Letters(), rows, ("x", "y"), max_length=4)
    (tree,) = encoded.trees
    assert [chr(branch.token_ids[0]) for branch in tree.branches] == ["a", "b"]
    assert tree.targets[0][0] == 3.5 and math.isnan(tree.targets[0][1]) and tree.targets[1] == (1.0, 5.0)
    assert num_unrated == 1 and (encoded.num_truncated, encoded.num_dropped) == (1, 0)  # c; the last does not fit
