"""Figures on real votes with known truth, against those of an independent implementation."""

import gzip
import json
import os
from pathlib import Path

import pytest

from fairlead.stats.aggregation import accuracy_with_ties, dawid_skene, majority, one_coin
from fairlead.stats.agreement import agreement_report, rater_agreement
from fairlead.stats.votes import number_labels, votes_from_rows

pytestmark = pytest.mark.data


def read_rows(name):
    folder = os.environ.get("FAIRLEAD_DATA")
    if not folder or not (Path(folder) / "raters" / name).exists():
        pytest.skip(f"FAIRLEAD_DATA does not hold raters/{name}")
    with gzip.open(Path(folder) / "raters" / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def load(name):
    votes = votes_from_rows((row["item"], row["rater"], row["label"]) for row in read_rows(f"{name}.votes.jsonl.gz"))
    return votes, number_labels(votes, {row["item"]: row["truth"] for row in read_rows(f"{name}.truth.jsonl.gz")})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bluebird_duck", {"majority": 0.7593, "dawid_skene": 0.8889, "one_coin": 0.5833}),
        ("dog", {"majority": 0.8222, "dawid_skene": 0.8426, "one_coin": 0.8302}),
        ("product", {"majority": 0.8966, "dawid_skene": 0.9397, "one_coin": 0.9084}),
    ],
)
def test_accuracy_on_known_truth(name, expected):
    votes, truth = load(name)
    found = {
        "majority": majority(votes),
        "dawid_skene": dawid_skene(votes),
        "one_coin": one_coin(votes, label_shares="estimated"),
    }
    for method, aggregate in found.items():
        assert accuracy_with_ties(aggregate, truth) == pytest.approx(expected[method], abs=0.01), method


@pytest.mark.parametrize("name", ["bluebird_duck", "dog", "product"])
def test_equal_label_shares_are_no_worse_than_estimated_ones(name):
    votes, truth = load(name)
    equal, estimated = one_coin(votes), one_coin(votes, label_shares="estimated")
    assert accuracy_with_ties(equal, truth) >= accuracy_with_ties(estimated, truth)


def test_dog_has_fifty_ties():
    votes, _ = load("dog")
    assert majority(votes).is_tied.sum() == 50


@pytest.mark.parametrize(("name", "alpha"), [("bluebird_duck", 0.1255), ("dog", 0.5194), ("product", 0.1575)])
def test_alpha_of_crowds(name, alpha):
    found = agreement_report(load(name)[0], seed=0)["krippendorff_alpha"]
    assert found.value == pytest.approx(alpha, abs=5e-5)
    assert found.low < alpha < found.high


def test_alpha_and_raters_of_pandalm():
    rows = [
        (row["id"], rater, str(label))
        for row in read_rows("pandalm_3raters.jsonl.gz")
        for rater, label in row["votes"].items()
    ]
    votes = votes_from_rows(rows)
    assert agreement_report(votes, seed=0)["krippendorff_alpha"].value == pytest.approx(0.8642, abs=5e-5)
    assert all(interval.value > 0.9 for interval in rater_agreement(votes).values())
