"""Reward models of every kind: trained, saved, loaded, interrupted."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import rewards_example as example
import torch

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, Interrupted
from fairlead.core.io import read_records
from fairlead.core.records import Score
from fairlead.models.heads import load_head
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.rewards.config import RewardsConfig
from fairlead.rewards.data import read_data
from fairlead.rewards.stage import run
from fairlead.text import ChatText
from fairlead.text.encoding import Storage
from fairlead.train.forward import score_trees
from fairlead.train.identity import data_fingerprint

TRAINING = {"learning_rate": 3e-3, "num_epochs": 2, "batch_size": 6}
ATTRIBUTES = {"quality": 1.0, "wordiness": -0.5}
VARIANTS = {
    "plain": {},
    "rankings": {"loss": "plackett_luce", "top": 2},
    "all pairs": {"loss": "all_pairs"},
    "criteria": {"loss": "criteria", "attributes": ATTRIBUTES},
    "regression": {"loss": "regression", "attributes": ATTRIBUTES},
    "heads": {"ensemble": {"kind": "heads", "size": 3}},
    "bootstrap of rankings": {"loss": "plackett_luce", "ensemble": {"kind": "bootstrap", "size": 2}},
    "averaged regression": {
        "loss": "regression",
        "attributes": ATTRIBUTES,
        "ensemble": {"kind": "bootstrap", "size": 2, "combine": "weights"},
    },
}
DISJOINT = {"ensemble": {"kind": "disjoint", "size": 2}}
AVERAGED = {"ensemble": {"kind": "seeds", "size": 2, "combine": "weights"}}
_LOW = {**TRAINING, "learning_rate": 1e-9}


def config_of(changes):
    return parse_config(RewardsConfig, {"training": TRAINING, **changes}, where="rewards")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return example.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def train(inputs, tmp_path):
    """changes -> (summary, folder, model as later stages load it)."""

    def run_stage(changes):
        out = tmp_path / "out"
        out.mkdir()
        summary = run(config_of(changes), inputs=inputs, out=out, services=example.services(tmp_path / "work"))
        return summary, out, load_head(load_policy(str(out)), out)

    return run_stage


def data_of(changes, inputs):
    tokenizer = load_tokenizer(str(inputs["policy"]))
    return read_data(config_of(changes), ChatText(tokenizer, name="tiny"), inputs, max_length=64)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_kind_learns_and_comes_back_normalised(name, train, inputs):
    """36 held-out pairs, all decided by what was trained on; chance is 0.5 and a wrong sign 0."""
    changes = VARIANTS[name]
    summary, out, model = train(changes)
    assert summary.facts["accuracy"] > 0.9
    data = data_of(changes, inputs)
    reference = model.normalised(torch.from_numpy(score_trees(model, data.reference, max_tokens=512)))
    assert float(reference.mean()) == pytest.approx(0, abs=1e-4)
    assert float(reference.std(correction=0)) == pytest.approx(1, abs=1e-4)
    heldout = score_trees(model, data.heldout.trees, max_tokens=512)
    assert float((heldout[0::2] > heldout[1::2]).mean()) == pytest.approx(summary.facts["accuracy"])
    assert summary.facts["num_train_pairs"] == 72
    is_ensemble = "ensemble" in changes and changes["ensemble"].get("combine") != "weights"
    assert (out / "scores.jsonl").is_file() == is_ensemble
    assert len(model.members) == (1 if name == "bootstrap of rankings" else 0)


def test_an_ensemble_says_how_far_its_members_disagree(train, inputs):
    summary, out, model = train(DISJOINT)
    scores = list(read_records(out / "scores.jsonl", Score))
    trees = data_of({}, inputs).reference
    np.testing.assert_allclose([score.value for score in scores], score_trees(model, trees, max_tokens=512), atol=1e-4)
    for score in scores:
        first, second = score.meta["members"]
        assert score.value == pytest.approx((first + second) / 2)
        assert score.meta["disagreement"] == pytest.approx(abs(first - second) / 2)
    found = {figure.name: figure.value for figure in summary.figures}
    assert found["disagreement"] == pytest.approx(np.mean([score.meta["disagreement"] for score in scores]))
    table = next(t for t in summary.tables if t.title == "Members of the ensemble")
    assert [row[1] for row in table.rows] == [36, 36, 72]
    model.uncertainty_coef = 2.0
    cautious = score_trees(model, trees, max_tokens=512)
    expected = [score.value - 2.0 * score.meta["disagreement"] for score in scores]
    np.testing.assert_allclose(cautious, expected, atol=1e-4)


def test_the_mean_of_weights_is_one_model_between_its_members(train, tmp_path):
    """Untrained members differ in nothing but rounding: the same start, so the same mean."""
    _, out, model = train({**AVERAGED, "training": _LOW})
    assert sorted(path.name for path in out.glob("*.safetensors")) == ["fairlead_head.safetensors", "model.safetensors"]
    one = load_head(load_policy(str(tmp_path / "work" / "trained-0")), tmp_path / "work" / "trained-0")
    torch.testing.assert_close(model.head.weight, one.head.weight, atol=1e-6, rtol=0)


def test_attributes_are_told_apart(train):
    summary, _, _ = train(VARIANTS["regression"])
    table = next(t for t in summary.tables if t.title == "Attributes")
    by_name = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert (by_name["quality"]["ratings"], by_name["wordiness"]["ratings"]) == (48, 32)
    assert by_name["quality"]["mean"] == pytest.approx(1.5)
    assert by_name["wordiness"]["pairs"] == 24
    assert min(row["held-out accuracy"] for row in by_name.values()) > 0.9


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("changes", [VARIANTS["heads"], VARIANTS["averaged regression"]], ids=["heads", "weights"])
def test_interrupted_anywhere_it_ends_with_the_same_bytes(changes, inputs, tmp_path):
    config = config_of(changes)

    def attempt(folder, at):
        looks = 0

        def should_stop():
            nonlocal looks
            looks += 1
            return 0 < at <= looks

        out = tmp_path / f"{folder}-out-{at}"
        out.mkdir()
        try:
            run(config, inputs=inputs, out=out, services=example.services(tmp_path / folder, should_stop=should_stop))
        except Interrupted:
            return None, looks
        return digest(out), looks

    expected, looks = attempt("whole", 0)
    for number, share in enumerate((0.3, 0.9)):
        found, _ = attempt(f"part-{number}", round(share * looks))
        assert found is None
        found, _ = attempt(f"part-{number}", 0)
        assert found == expected


def test_finished_members_are_not_trained_again(inputs, tmp_path):
    """Interrupted in the second member, the first comes back without a step."""
    config = config_of(DISJOINT)
    titles = []

    class Bar:
        def advance(self, num=1, *, note=""):
            titles.append(self.title if "going" not in note else "")

    import contextlib

    @contextlib.contextmanager
    def progress(title, total):
        bar = Bar()
        bar.title = title
        yield bar

    def stop():
        return "reward model 2 of 2" in titles

    def attempt(should_stop):
        titles.clear()
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        run(
            config,
            inputs=inputs,
            out=out,
            services=example.services(tmp_path / "work", progress=progress, should_stop=should_stop),
        )

    with pytest.raises(Interrupted):
        attempt(stop)
    assert titles.count("reward model 1 of 2") == 12
    attempt(lambda: False)
    assert titles.count("reward model 1 of 2") == 1  # the bar moves once to where the run was


def test_votes_weigh_pairs(inputs, tmp_path):
    plain, weighed = (data_of({"use_vote_weights": on}, inputs).train.trees for on in (False, True))
    assert {tree.numbers["weight"] for tree in plain} == {1.0}
    assert [tree.numbers["weight"] for tree in weighed[::6]] == [1.0 + number % 3 for number in range(6, 18)]
    rows = [replace(row, num_votes=0) for row in example.preferences()]
    with pytest.raises(DataError, match="use_vote_weights=True finds no votes"):
        data_of({"use_vote_weights": True}, example.make_inputs(tmp_path, rows))


def test_a_name_that_nobody_rated_is_refused(inputs):
    with pytest.raises(
        DataError,
        match=r"wordines is rated in no pair \(did you mean wordiness\?\); expected one of quality, wordiness",
    ):
        data_of({"loss": "criteria", "attributes": {"wordines": 1.0}}, inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "criteria", "attributes": ATTRIBUTES, "use_vote_weights": True}, "use_vote_weights=True is not read"),
        ({"top": 2}, "top=2 is not read by loss=bradley_terry"),
        ({"loss": "all_pairs", "ties": "davidson"}, "ties=davidson is not read"),
        ({"tie_rate": 0.1}, "tie_rate=0.1 is not read with ties=soft"),
        ({"loss": "regression"}, "attributes are missing"),
        ({"attributes": {"quality": 1.0}}, "are not read with loss=bradley_terry"),
        ({"loss": "criteria", "attributes": {"quality": 0.0}}, "weigh nothing"),
        ({"ensemble": {"kind": "heads", "combine": "weights"}}, "no models to average"),
        (
            {"loss": "criteria", "attributes": ATTRIBUTES, "ensemble": {"kind": "seeds"}},
            "not defined for several attributes",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(changes)


def test_members_share_nothing_when_disjoint(inputs):
    from fairlead.rewards.training import plan_members

    trees = data_of({}, inputs).train.trees
    members = plan_members(config_of({"ensemble": {"kind": "disjoint", "size": 3}}), trees, seed=3)
    prompts = [{tree.prompt_ids.tobytes() for tree in member.trees} for member in members]
    assert sum(len(member.trees) for member in members) == len(trees)
    assert len(set.union(*prompts)) == sum(map(len, prompts)) == 12
    with pytest.raises(DataError, match="more than the 12 prompts"):
        plan_members(config_of({"ensemble": {"kind": "disjoint", "size": 13}}), trees, seed=3)


def test_the_default_writes_what_it_always_wrote(train):
    """No readout, no members: folders of earlier versions and of this one are alike."""
    _, out, model = train({})
    assert set(json.loads((out / "fairlead_head.json").read_text())) == {"mean", "std", "facts"}
    assert model.readout is None and model.head.out_features == 1


def test_criteria_leave_out_what_cannot_be_compared(tmp_path):
    """Four prompts of training of which one completion is rated."""
    rows = []
    for number, row in enumerate(example.preferences()):
        meta = {"chosen_quality": row.meta["chosen_quality"]} if number % 6 == 0 else {}
        rows.append(row if number >= 60 else replace(row, meta=meta))
    inputs = example.make_inputs(tmp_path, rows)
    changes = {"loss": "criteria", "attributes": {"quality": 1.0}}
    data = data_of(changes, inputs)
    assert len(data.train.trees) == 8
    assert "4 completions left out: no other completion of their prompt is rated." in data.notes
    assert len(data_of({**changes, "loss": "regression"}, inputs).train.trees) == 12


@pytest.mark.parametrize("changes", [{}, {"loss": "plackett_luce"}, {"loss": "regression", "attributes": {"quality": 1.0}},
                                     {"loss": "criteria", "attributes": {"quality": 1.0, "wordiness": -0.5}}])  # fmt: skip
def test_data_from_the_cache_is_the_data(changes, inputs, tmp_path):
    plain, written, found = (
        read_data(config_of(changes), ChatText(load_tokenizer(str(inputs["policy"])), name="tiny"), inputs, max_length=64, storage=storage)
        for storage in (None, *(Storage(folder=tmp_path / "trees") for _ in range(2)))
    )  # fmt: skip
    for other in (written, found):
        assert (other.notes, other.scales, other.num_train_pairs) == (plain.notes, plain.scales, plain.num_train_pairs)
        assert [r.id for r in other.heldout_rows] == [r.id for r in plain.heldout_rows]
        for name in ("train", "heldout"):
            mine, theirs = getattr(other, name).trees, getattr(plain, name).trees
            assert data_fingerprint(list(mine)) == data_fingerprint(list(theirs)) and len(mine) > 1
    assert len(list((tmp_path / "trees").iterdir())) == 2
