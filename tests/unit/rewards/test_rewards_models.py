"""Reward models and judges as components: what they say, of which tokens, and when another one says it."""

from functools import partial

import numpy as np
import pytest
import rewards_example as example
import torch

import tiny_models
from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError
from fairlead.core.records import Completion, Judgment, Message, Prompt
from fairlead.core.reward_section import ModelComponent
from fairlead.models.checkpoint import save_policy
from fairlead.models.frozen import load_frozen
from fairlead.models.heads import Readout, new_reward_head, save_head
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.rewards.judged import JudgedSource, OneByOne, circle_pairs
from fairlead.rewards.models import ModelSource, load_scorer
from fairlead.text import Branch, ChatText, Tree
from fairlead.train.budget import PlainBudget
from fairlead.train.scoring import read_outputs

NAMES = ("quality", "brevity")


def go_on():
    """Never stop."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three reward models: plain, of two attributes, an ensemble of three heads."""
    made = {}
    for i, (name, num) in enumerate({"plain": 1, "attributes": 2, "ensemble": 3}.items()):
        folder = made[name] = tmp_path_factory.mktemp(name)
        base = load_policy(str(tiny_models.folder("llama")))
        model = new_reward_head(base, seed=i, num_outputs=num)
        model.mean, model.std = 0.3, 2.0
        if num > 1:
            is_ensemble = num == 3
            names = tuple(f"member {m}" for m in range(num)) if is_ensemble else NAMES
            model.readout = Readout(
                names=names, means=(0.1,) * num, stds=(0.5,) * num, weights=(1 / num,) * num, is_ensemble=is_ensemble
            )
        save_policy(base, load_tokenizer(str(tiny_models.folder("llama"))), folder)
        save_head(model, folder)
    return made


@pytest.fixture(scope="module")
def chat():
    return ChatText(tiny_models.make_tokenizer(), name="policy")


def scorer(folder, chat, **part):
    section = parse_config(ModelComponent, {"type": "model", **part}, where="rewards.components.a")
    return load_scorer(
        folder,
        name="a",
        part=section,
        policy=chat,
        template=None,
        load=partial(load_frozen, device="cpu"),
        budget=PlainBudget(256),
        heed=go_on,
    )


def batch(chat):
    """Two prompts, their completions mixed up."""
    prompts = [example.prompt(0), example.prompt(1)]
    rows = [(0, "yes yes"), (1, "no"), (0, "no yes no"), (1, "yes"), (0, "no")]
    completions = [
        Completion(
            prompt_id=prompts[p].id,
            text=text,
            model="policy",
            token_ids=tuple(chat.encode_completion(text).tolist()),
            sample_index=i,
        )
        for i, (p, text) in enumerate(rows)
    ]
    return [prompts[p] for p, _ in rows], completions


def outputs_one_by_one(model, chat, prompts, completions):
    """[B, M], each completion in a forward of its own."""
    trees = [Tree(prompt_ids=chat.encode_prompt(p.messages), branches=(Branch(token_ids=np.array(c.token_ids)),))
             for p, c in zip(prompts, completions, strict=True)]  # fmt: skip
    return np.concatenate([read_outputs(model, [tree], max_tokens=64, heed=go_on) for tree in trees]).astype(np.float64)


def test_completions_in_any_order_are_scored_as_one_by_one(folders, chat):
    prompts, completions = batch(chat)
    found = scorer(folders["plain"], chat)
    alone = outputs_one_by_one(found.model, chat, prompts, completions)[:, 0]
    np.testing.assert_allclose(found.score(prompts, completions), (alone - 0.3) / 2.0, atol=1e-5)
    assert len(set(np.round(alone, 4))) == 5


@pytest.mark.parametrize(("options", "combine"), [
    ({}, lambda z: z.mean(axis=1)),
    ({"aggregate": "min"}, lambda z: z.min(axis=1)),
    ({"aggregate": "uncertainty", "uncertainty_coef": 0.7}, lambda z: z.mean(axis=1) - 0.7 * z.std(axis=1)),
])  # fmt: skip
def test_members_of_an_ensemble_are_aggregated_as_asked(options, combine, folders, chat):
    prompts, completions = batch(chat)
    found = scorer(folders["ensemble"], chat, **options)
    z = (outputs_one_by_one(found.model, chat, prompts, completions) - 0.1) / 0.5
    np.testing.assert_allclose(found.score(prompts, completions), (combine(z) - 0.3) / 2.0, atol=1e-4)


def test_attributes_have_their_own_weights_or_the_recipes(folders, chat):
    prompts, completions = batch(chat)
    trained, own = (
        scorer(folders["attributes"], chat),
        scorer(folders["attributes"], chat, attributes={"brevity": -2.0}),
    )
    z = (outputs_one_by_one(trained.model, chat, prompts, completions) - 0.1) / 0.5
    np.testing.assert_allclose(trained.score(prompts, completions), (z.mean(axis=1) - 0.3) / 2.0, atol=1e-4)
    np.testing.assert_allclose(own.score(prompts, completions), -2.0 * z[:, 1], atol=1e-4)


def test_a_model_with_another_tokenizer_reads_the_text(folders, chat):
    prompts, completions = batch(chat)
    other = [
        Completion(prompt_id=c.prompt_id, text=c.text, model="policy", token_ids=(5, 6, 7), sample_index=i)
        for i, c in enumerate(completions)
    ]
    found = scorer(folders["plain"], chat)
    expected = found.score(prompts, completions)
    assert (
        np.abs(found.score(prompts, other) - expected).max() > 0.01
    )  # the same tokenizer: its tokens are read as they are
    reader = type(found.reader)(chat=found.reader.chat, policy="another tokenizer")
    foreign = type(found)(
        name="a", model=found.model, reader=reader, part=found.part, budget=PlainBudget(256), heed=go_on
    )
    np.testing.assert_allclose(foreign.score(prompts, other), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "part", "message"), [
    ("plain", {"aggregate": "min"}, r"rewards\.components\.a\.aggregate=min has no members to aggregate"),
    ("attributes", {"aggregate": "uncertainty"}, "has no members to aggregate"),
    ("attributes", {"attributes": {"brevty": 1}}, r"attributes\.brevty is no attribute of the reward model \(did you mean brevity\?\)"),
    ("ensemble", {"attributes": {"quality": 1}}, "one of none: it has one score"),
])  # fmt: skip
def test_what_a_model_does_not_have_is_refused(name, part, message, folders, chat):
    with pytest.raises(ConfigError, match=message):
        scorer(folders[name], chat, **part)


def test_a_swap_happens_at_its_step_whatever_was_asked_before(folders, chat):
    loaded = []

    def load(folder):
        loaded.append(folder)
        return scorer(folder, chat)

    make = lambda: ModelSource({0: ("model-a", folders["plain"]), 10: ("model-b", folders["attributes"])}, load)  # noqa: E731
    prompts, completions = batch(chat)
    source = make()
    before, at = (source.ask(prompts, completions, step=step).values for step in (9, 10))
    assert [source.active(step) for step in (0, 9, 10, 99)] == ["model-a", "model-a", "model-b", "model-b"]
    assert loaded == [folders["plain"], folders["attributes"]]
    torch.testing.assert_close(before, scorer(folders["plain"], chat).score(prompts, completions))
    torch.testing.assert_close(at, scorer(folders["attributes"], chat).score(prompts, completions))
    np.testing.assert_array_equal(make().ask(prompts, completions, step=12).values, at)  # a resumed run


class LongerWins:
    """A judge for which more words win; it skips what says `odd`."""

    name, kind = "longer", "judge"

    def judge(self, task, prompt, a, b):
        assert (task.completion_a, task.completion_b) == (a.id, b.id) and a.id < b.id
        if "bad" in (a.text, b.text):
            raise OSError("gone")
        left, right = len(a.text.split()), len(b.text.split())
        verdict = "skip" if "odd" in (a.text, b.text) else "a" if left > right else "b" if right > left else "tie"
        return Judgment(task_id=task.id, rater=self.name, rater_kind="judge", verdict=verdict)


def replies(*texts):
    prompt = Prompt(messages=(Message(role="user", content="x"),))
    return [prompt] * len(texts), [
        Completion(prompt_id=prompt.id, text=t, model="m", sample_index=i) for i, t in enumerate(texts)
    ]


def judged(*texts):
    return JudgedSource(OneByOne(LongerWins()), num_opponents=3).ask(*replies(*texts), step=0)


def test_the_share_of_comparisons_won_by_hand():
    """All pairs of 3, 2, 2, 1 words: the first beats three; the twos beat the last and tie: 1.5 of 3; the last wins nothing."""
    asked = judged("a a a", "a a", "b b", "a")
    np.testing.assert_allclose(asked.values, [1, 0.5, 0.5, 0])


def test_comparisons_that_are_skipped_do_not_count_and_who_has_none_has_no_score():
    asked = judged("a a", "odd", "a")
    np.testing.assert_allclose(asked.values, [1, np.nan, 0])
    assert not asked.failed.any() and np.isnan(judged("alone").values).all()


def test_a_comparison_that_fails_counts_for_nobody_and_who_has_none_left_failed():
    """Of a, b and bad the comparison of a and b is left; of two, one of them bad, none is."""
    asked = judged("a a", "a", "bad")
    np.testing.assert_allclose(asked.values, [1, 0, np.nan])
    assert asked.failed.tolist() == [False, False, True] and asked.reason == "OSError: gone"
    assert judged("a", "bad").failed.all()


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("wanted", [1, 2, 3, 5])
def test_everybody_in_the_circle_has_the_same_number_of_opponents(size, wanted):
    pairs = list(circle_pairs(size, wanted))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) and all(i != j for i, j in pairs)
    counts = {sum(i in pair for pair in pairs) for i in range(size)}
    assert len(counts) == 1 and min(wanted, size - 1) <= counts.pop() <= wanted + 1
