"""Process rewards: where steps end, what a model learns of them, what each step is paid."""

import json
import math
from functools import partial

import numpy as np
import pytest
import rewards_example as example
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from fairlead.core.config import parse_config
from fairlead.core.errors import DataError, ModelError
from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Message, Prompt, StepLabels
from fairlead.core.reward_section import ComposeSection, ProcessComponent
from fairlead.models.frozen import load_frozen
from fairlead.models.load import load_tokenizer
from fairlead.rewards.composer import Composer
from fairlead.rewards.process import ProcessConfig, run
from fairlead.rewards.process_model import ProcessSource, load_steps
from fairlead.rewards.steps import reply_score, step_payments
from fairlead.text import ChatText
from fairlead.text.steps import encode_steps, step_places
from fairlead.train.budget import PlainBudget
from naive import process_naive as naive

AGGREGATES = ("min", "product", "last", "mean", "sum")


def prompt(number):
    return Prompt(messages=example.prompt(number).messages)


@pytest.fixture(scope="module")
def chat():
    return ChatText(load_tokenizer(str(tiny_models.folder("llama"))), name="tiny")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from(AGGREGATES))
def test_scores_and_payments_equal_the_loops_and_add_up(steps, how):
    found = step_payments(np.array(steps), how)
    np.testing.assert_allclose(found, naive.payments(steps, how), atol=1e-12)
    assert found.sum() == pytest.approx(naive.reply_score(steps, how)) == reply_score(np.array(steps), how)


def test_payments_by_hand():
    """0.8, 0.5, 0.9: the least so far is 0.8, 0.5, 0.5, so the second step costs 0.3 and the third earns nothing. Product: 0.8, 0.4, 0.36."""
    steps = np.array([0.8, 0.5, 0.9])
    np.testing.assert_allclose(step_payments(steps, "min"), [0.8, -0.3, 0.0])
    np.testing.assert_allclose(step_payments(steps, "product"), [0.8, -0.4, -0.04])
    np.testing.assert_allclose(step_payments(steps, "last"), [0.8, -0.3, 0.4])
    np.testing.assert_allclose(step_payments(steps, "sum"), steps)
    assert math.isnan(reply_score(np.zeros(0), "min"))


def test_steps_end_where_their_text_does(chat):
    """Each place is the fewest tokens whose text holds the step; the separator and blank pieces belong to none."""
    text = "yes no. a. . yes yes"
    ids = chat.encode_completion(text, finished=False).tolist()
    places = step_places(chat.decode, ids, separator=".")
    assert [chat.decode(ids[:place]).strip() for place in places] == ["yes no", "yes no. a", "yes no. a. . yes yes"]
    assert step_places(chat.decode, [], separator=".") == []


def test_a_label_is_read_after_its_step_and_before_the_next(chat):
    row = StepLabels(prompt=prompt(0).messages, steps=("yes", "no a", "no"), labels=(1.0, 0.0, 0.25))
    (tree,) = encode_steps(chat, [row], separator=".", max_length=64).trees
    branch = tree.branches[0]
    ends = [chat.decode(branch.token_ids[:place]) for place in np.flatnonzero(branch.kept)]
    assert [end.strip() for end in ends] == ["yes", "yes.no a", "yes.no a.no"]
    np.testing.assert_array_equal(branch.arrays["labels"], np.array([1.0, 0.0, 0.25], dtype=np.float32))
    assert branch.token_ids[-1] == chat.terminator_id


def test_given_steps_carry_no_label_and_what_does_not_fit_is_counted(chat):
    row = StepLabels(prompt=prompt(0).messages, steps=("yes", "no"), labels=(1.0,), num_given=1)
    whole = encode_steps(chat, [row], separator=".", max_length=64)
    assert whole.trees[0].branches[0].arrays["labels"].tolist() == [1.0] and whole.num_truncated == 0
    size = whole.trees[0].num_tokens
    cut = encode_steps(
        chat,
        [row, StepLabels(prompt=row.prompt, steps=("yes", "no"), labels=(0.0, 1.0))],
        separator=".",
        max_length=size - 1,
    )
    assert (len(cut.trees), cut.num_dropped, cut.num_truncated) == (1, 1, 1)
    assert cut.trees[0].branches[0].arrays["labels"].tolist() == [0.0]
    with pytest.raises(DataError):
        encode_steps(chat, [row], separator=".", max_length=size - 1)


def rows():
    """`yes` is a right step and `no` a wrong one, in every order of three."""
    found = []
    for number in range(16):
        for code in range(8):
            steps = tuple("yes" if code >> place & 1 else "no" for place in range(3))
            labels = tuple(float(step == "yes") for step in steps)
            split = "heldout" if number < 4 else "train"
            found.append(StepLabels(prompt=prompt(number).messages, steps=steps, labels=labels, split=split))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A process-reward model that has learned them."""
    folder = tmp_path_factory.mktemp("process")
    write_jsonl(folder / "steps.jsonl", rows())
    inputs, out = example.make_inputs(folder), folder / "model"
    out.mkdir()
    training = {"learning_rate": 3e-3, "num_epochs": 3, "batch_size": 8}
    config = parse_config(
        ProcessConfig, {"data": [{"path": "steps.jsonl"}], "separator": ".", "training": training}, where="process"
    )
    services = example.services(folder / "work")
    services.extras["find_file"] = lambda path: folder / path
    return run(config, inputs=inputs, out=out, services=services), out


def reader(folder, chat):
    return load_steps(
        folder,
        policy=chat,
        template=None,
        load=partial(load_frozen, device="cpu"),
        budget=PlainBudget(256),
        heed=lambda: None,
    )


def reply(chat, text, *, finished=True):
    ids = tuple(chat.encode_completion(text, finished=finished).tolist())
    return Completion(
        prompt_id="p", text=text, model="m", token_ids=ids, finish_reason="stop" if finished else "length"
    )


def test_it_learns_which_steps_are_right(trained):
    summary, out = trained
    assert summary.facts["balanced_accuracy"] > 0.95
    assert json.loads((out / "process.json").read_text()) == {"separator": "."}
    figures = {figure.name: figure.value for figure in summary.figures}
    assert figures["first wrong step found"] > 0.9


def test_steps_of_sampled_replies_are_scored_as_they_were_learned(trained, chat):
    """A reply that was cut has a last step all the same; one of separators has none."""
    replies = [reply(chat, "yes.no.yes"), reply(chat, "no.yes", finished=False), reply(chat, ".")]
    found = reader(trained[1], chat).read([prompt(0)] * 3, replies)
    assert [(steps.scores > 0.5).tolist() for steps in found] == [[True, False, True], [False, True], []]
    alone = [reader(trained[1], chat).read([prompt(0)], [one])[0].scores for one in replies]
    for together, one in zip(found, alone, strict=True):
        np.testing.assert_allclose(together.scores, one, atol=1e-5)


def source(trained, chat, **options):
    part = parse_config(ProcessComponent, {"type": "process", **options}, where="a")
    return ProcessSource(("model-p", trained[1]), lambda folder: reader(folder, chat), part), part


def test_paid_at_the_ends_of_steps_or_at_the_end_the_return_is_the_same(trained, chat):
    replies = [reply(chat, "yes.no.yes"), reply(chat, "yes"), reply(chat, ".")]
    for how in AGGREGATES:
        sparse = source(trained, chat, aggregate=how)[0].ask([prompt(0)] * 3, replies, step=0)
        dense = source(trained, chat, aggregate=how, is_dense=True)[0].ask([prompt(0)] * 3, replies, step=0)
        assert sparse.token_rewards is None and math.isnan(sparse.values[2])
        for paid, value, one in zip(dense.token_rewards, sparse.values, replies, strict=True):
            assert len(paid) == len(one.token_ids) and paid.sum() == pytest.approx(
                0 if math.isnan(value) else value, abs=1e-9
            )
    places = np.flatnonzero(dense.token_rewards[0])
    assert [chat.decode(replies[0].token_ids[: place + 1]).strip() for place in places] == [
        "yes",
        "yes.no",
        "yes.no.yes",
    ]


def test_the_composer_hands_dense_rewards_on_with_their_weight(trained, chat):
    made, _ = source(trained, chat, is_dense=True)
    section = parse_config(
        ComposeSection, {"components": {"steps": {"type": "process", "is_dense": True, "weight": 3.0}}}, where="rewards"
    )
    replies = [reply(chat, "yes.no"), reply(chat, ".")]
    found = Composer(section, {"steps": made}).score([prompt(0)] * 2, replies, step=0)
    raw = made.ask([prompt(0)] * 2, replies, step=0)
    np.testing.assert_allclose(found.token_rewards[0], 3 * raw.token_rewards[0])
    assert found.total[0] == 0 and found.active == {"steps": "model-p"}
    assert found.dropped.tolist() == [False, True]  # nothing scores a reply without a step
    assert found.metrics["reward/steps_mean"] == pytest.approx(raw.values[0])


def test_a_model_of_another_kind_is_refused(chat):
    with pytest.raises(ModelError, match=r"has no process\.json"):
        reader(tiny_models.folder("llama"), chat)


def test_replies_of_one_prompt_only_are_refused(tmp_path):
    write_jsonl(
        tmp_path / "steps.jsonl",
        [StepLabels(prompt=(Message(role="user", content="a"),), steps=("yes",), labels=(1.0,))],
    )
    inputs = example.make_inputs(tmp_path)
    services = example.services(tmp_path / "work")
    services.extras["find_file"] = lambda path: tmp_path / path
    config = parse_config(ProcessConfig, {"data": [{"path": "steps.jsonl"}]}, where="process")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="expected labelled replies of several prompts on both sides"):
        run(config, inputs=inputs, out=tmp_path / "out", services=services)
