"""Reward models that go on from an earlier one: which votes are read, what they learn, what they do not forget."""

from dataclasses import replace

import pytest
import rewards_example as example

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, ModelError
from fairlead.core.io import write_jsonl
from fairlead.core.records import Preference
from fairlead.rewards.config import RewardsConfig
from fairlead.rewards.stage import run
from fairlead.rewards.update import Votes

TRAINING = {"learning_rate": 3e-3, "num_epochs": 2, "batch_size": 6}


def pair(number, *, split="train", chosen="yes", rejected="no"):
    return Preference(prompt=example.prompt(number).messages, chosen=chosen, rejected=rejected, split=split)


def votes(folder, new, old, **options):
    for name, rows in (("new", new), ("old", old)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    return Votes(new=folder / "new.jsonl", replay=folder / "old.jsonl", **options)


def test_no_prompt_is_on_both_sides(tmp_path):
    """New: 0 trained, 1 and 2 held out. Old: 2 and 3 trained, 1 trained too (so held-out 1 and 2 go), 4 held out."""
    new = [pair(0), pair(1, split="heldout"), pair(2, split="heldout"), pair(5, split="heldout")]
    old = [pair(2), pair(3), pair(1), pair(4, split="heldout"), pair(5, split="heldout")]
    found = votes(tmp_path, new, old)
    rows = list(found.rows())
    assert rows == [new[0], new[3], old[0], old[1], old[2]]
    assert (found.num_replayed, found.num_known, found.num_heldout_now, found.num_rows) == (3, 2, 0, 9)
    assert found.notes() == (
        "3 earlier pairs replayed.",
        "2 held-out pairs left out: the earlier model was trained on their prompts.",
    )


def test_a_share_is_drawn_by_content(tmp_path):
    old = [pair(i % 26, chosen=f"yes {i}") for i in range(200)]
    new = [pair(0)]
    half = {row.id for row in votes(tmp_path, new, old, share=0.5, seed=1).rows()} - {new[0].id}
    again = {row.id for row in votes(tmp_path, new, old[::-1], share=0.5, seed=1).rows()} - {new[0].id}
    more = {row.id for row in votes(tmp_path, new, old, share=0.8, seed=1).rows()} - {new[0].id}
    assert half == again and half < more and 70 < len(half) < 130


def test_held_out_prompts_that_are_all_known_are_refused(tmp_path):
    with pytest.raises(DataError, match="are all of prompts that the earlier model was trained on"):
        list(votes(tmp_path, [pair(0), pair(1, split="heldout")], [pair(1)]).rows())


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A reward model that knows `yes` from `no`, with the inputs it was made from."""
    folder = tmp_path_factory.mktemp("earlier")
    inputs, out = example.make_inputs(folder), folder / "model"
    out.mkdir()
    config = parse_config(RewardsConfig, {"training": TRAINING}, where="rewards")
    summary = run(config, inputs=inputs, out=out, services=example.services(folder / "work"))
    assert summary.facts["accuracy"] > 0.9
    return inputs, out


def update(earlier, folder, changes, *, start=None):
    inputs, model = earlier
    fresh = [
        replace(row, chosen=row.chosen + " a", rejected=row.rejected + " a", id="")
        for row in example.preferences()
        if row.split == "train"
    ]
    heldout = [row for row in example.preferences() if row.split == "heldout"]
    (folder / "preferences").mkdir()
    write_jsonl(folder / "preferences" / "preferences.jsonl", [*fresh[:12], *heldout])
    (folder / "preferences" / "summary.json").write_text('{"facts": {}}')
    given = {**inputs, "preferences": folder / "preferences", "start": start or model, "replay": inputs["preferences"]}
    (folder / "out").mkdir()
    config = parse_config(
        RewardsConfig,
        {"training": {**TRAINING, "learning_rate": 1e-5}, "update": {"model": "reward_model-1"}} | changes,
        where="rewards",
    )
    return run(config, inputs=given, out=folder / "out", services=example.services(folder / "work"))


def test_an_update_starts_where_the_earlier_model_ended(earlier, tmp_path):
    """A rate at which nothing can be learned in a few steps: what it knows, it knows from before."""
    summary = update(earlier, tmp_path, {"update": {"model": "reward_model-1", "replay": 0.5}})
    before = next(figure for figure in summary.figures if figure.name == "accuracy before the update")
    assert before.value > 0.9 and summary.facts["accuracy"] == pytest.approx(before.value, abs=0.05)
    assert any("earlier pairs replayed" in note for note in summary.notes)
    assert 12 < summary.facts["num_train_pairs"] < 12 + 72


def test_nothing_is_replayed_at_share_0(earlier, tmp_path):
    summary = update(earlier, tmp_path, {"update": {"model": "reward_model-1", "replay": 0.0}})
    assert summary.facts["num_train_pairs"] == 12 and not any("replayed" in note for note in summary.notes)


def test_a_model_with_other_outputs_is_refused(earlier, tmp_path):
    with pytest.raises(ModelError, match=r"rewards\.update\.model=model has one score; expected attributes quality"):
        update(earlier, tmp_path, {"loss": "regression", "attributes": {"quality": 1.0}})


def test_an_ensemble_is_not_updated():
    with pytest.raises(ConfigError, match=r"is not possible with ensemble\.kind=heads"):
        parse_config(RewardsConfig, {"update": {"model": "a"}, "ensemble": {"kind": "heads"}}, where="rewards")
