"""Gold rewards: what the stage writes is what `load_gold` scores with."""

from pathlib import Path

import numpy as np
import pytest

from fairlead.core.config import Config, parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.services import Services
from fairlead.rewards.gold import GoldConfig, load_gold, run

PROMPT = Prompt(messages=(Message(role="user", content="How was it? "),))


class Holder(Config):
    """A recipe with nothing but a gold section."""

    gold: GoldConfig


def make_gold(config: dict, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True, parents=True)
    services = Services(work=tmp_path, extras={"find_file": lambda name: tmp_path / name})
    summary = run(parse_config(Holder, {"gold": config}).gold, inputs={}, out=out, services=services)
    return load_gold(out), summary


def scores(gold, *texts: str) -> np.ndarray:
    completions = [Completion(prompt_id=PROMPT.id, text=text, model="m", finish_reason="stop") for text in texts]
    return gold.score([PROMPT] * len(texts), completions)


def labelled(tmp_path: Path, num: int = 60) -> None:
    rows = [
        {"text": f"film {i} was {'great fun' if i % 2 else 'dull work'}", "stars": 9 if i % 2 else 2}
        for i in range(num)
    ]
    write_jsonl(tmp_path / "reviews.jsonl", [*rows, {"text": "neither", "stars": 5.5}])


def test_a_rule_scores_as_it_was_configured(tmp_path):
    """2 words of at most 2 are 1, 3 are one too many of 2."""
    gold, _ = make_gold({"type": "rule", "rule": {"kind": "length", "max_words": 2}}, tmp_path)
    np.testing.assert_array_equal(scores(gold, "oh yes", "no no no"), [1.0, 0.5])


def test_a_verifier_is_gold_where_it_applies_to_everything(tmp_path):
    gold, summary = make_gold({"type": "verifier", "verifier": {"kind": "regex", "pattern": "yes$"}}, tmp_path)
    np.testing.assert_array_equal(scores(gold, "oh yes", "no"), [1.0, 0.0])
    assert summary.headline == "Gold reward: the verifier regex."
    bare, _ = make_gold({"type": "verifier", "verifier": {"kind": "regex"}}, tmp_path / "bare")
    with pytest.raises(DataError, match="has no score: the verifier does not apply"):
        scores(bare, "yes")


def test_an_unknown_rule_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match=r"lengt is not known \(did you mean length\?\)"):
        make_gold({"type": "rule", "rule": {"kind": "lengt", "max_words": 3}}, tmp_path)


def test_a_classifier_orders_texts_by_their_labels_and_reports_its_accuracy(tmp_path):
    labelled(tmp_path)
    gold, summary = make_gold({"type": "classifier", "path": "reviews.jsonl", "scale": 0.5}, tmp_path)
    good, bad = scores(gold, "film 7 was great fun", "film 8 was dull work")
    assert good > 0 > bad
    assert summary.figures[0].value == 1.0
    assert summary.figures[0].n == 6  # a tenth of the 60 labelled texts; the neutral one is not used
    doubled, _ = make_gold({"type": "classifier", "path": "reviews.jsonl", "scale": 1.0}, tmp_path)
    np.testing.assert_allclose(scores(doubled, "film 7 was great fun"), 2 * good)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"words": "x", "stars": 3}, r"reviews.jsonl:1.text is missing; expected one of words, stars"),
        ({"text": "x", "stars": "many"}, r"reviews.jsonl:1.stars=many is not a number"),
        ({"text": "x", "stars": 9}, r"has texts of one kind only"),
    ],
)
def test_unusable_labels_are_named(tmp_path, row, wrong):
    write_jsonl(tmp_path / "reviews.jsonl", [row])
    with pytest.raises(DataError, match=wrong):
        make_gold({"type": "classifier", "path": "reviews.jsonl"}, tmp_path)
