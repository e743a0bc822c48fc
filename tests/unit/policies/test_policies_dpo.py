"""The section of the direct methods: settings of each method, and a reference that moves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from fairlead.algos import ALGORITHMS, get_algorithm
from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, Interrupted, TrainError
from fairlead.core.io import write_jsonl
from fairlead.core.records import Message, Preference
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.policies import dpo
from fairlead.policies.dpo_config import PAIR_METHODS, DpoConfig, has_reference, settings_of
from fairlead.policies.reference import MovingReference
from fairlead.text import Branch, Tree
from fairlead.train.forward import Models, PolicyLogprobs, annotate
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop
from fairlead.train.setup import make_learner


def _parse(**section):
    return parse_config(DpoConfig, section, where="policies.x")


def test_every_registered_method_on_pairs_of_likelihoods_can_be_named():
    found = {
        a.name for a in ALGORITHMS if any(issubclass(type(a.config()), get_algorithm(n).config) for n in PAIR_METHODS)
    }
    assert found == set(PAIR_METHODS)


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_a_method_has_its_own_beta_unless_the_recipe_says_one(method):
    flips = {"flip_rate": 0.1} if method in ("cdpo", "robust") else {}
    assert settings_of(_parse(algorithm=method, **flips)) == get_algorithm(method).config()
    assert settings_of(_parse(algorithm=method, beta=0.7, **flips)).beta == 0.7
    assert has_reference(_parse(algorithm=method, **flips)) == (method not in ("orpo", "simpo", "cpo"))


def test_options_reach_the_method():
    config = _parse(algorithm="simpo", options={"gamma": 1.6, "nll_coef": 1})
    assert settings_of(config) == get_algorithm("simpo").config(gamma=1.6, nll_coef=1.0)
    config = _parse(algorithm="dpo", options={"average": True, "weighting": "aligned", "nll_coef": 0.2})
    assert settings_of(config) == get_algorithm("dpo").config(average=True, weighting="aligned", nll_coef=0.2)
    assert parse_config(DpoConfig, config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"algorithm": "simpo", "options": {"gama": 1}}, r"options.gama=1.0 is not a setting of simpo \(did you mean gamma\?\); expected one of"),
        ({"algorithm": "orpo", "options": {"gamma": 1}}, "options.gamma=1.0 is not a setting of orpo; expected no options"),
        ({"algorithm": "dpo", "options": {"beta": 1}}, "options.beta=1.0 is a key of its own"),
        ({"algorithm": "dpo", "options": {"weighting": "wpo"}}, "options.weighting=wpo has a wrong value; expected 'off', 'policy' or 'aligned'"),
        ({"algorithm": "dpo", "options": {"average": "perhaps"}}, "options.average=perhaps has a wrong value; expected a valid boolean"),
        ({"algorithm": "dpo", "options": {"ld_alpha": 2}}, "policies.x: options.ld_alpha=2.0 is out of range"),
        ({"algorithm": "ipo", "options": {"divergence": "js", "average": False}}, "options.divergence=js has no meaning for ipo"),
        ({"algorithm": "dpo", "flip_rate": 0.1}, "flip_rate=0.1 is not read by dpo"),
        ({"algorithm": "simpo", "refresh_every_steps": 10}, "refresh_every_steps=10 has no meaning for simpo"),
        ({"refresh_alpha": 0.5}, "refresh_alpha=0.5 is not read without refresh_every_steps"),
        ({"refresh_every_steps": 4, "refresh_alpha": 0.5, "training": {"lora": {}}}, "refresh_alpha=0.5 cannot mix adapters"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(section, words):
    with pytest.raises(ConfigError, match=words):
        _parse(**section)


def _batches():
    rng = np.random.default_rng(0)

    def side():
        return Branch(token_ids=np.concatenate([rng.integers(6, tiny_models.VOCABULARY, int(rng.integers(2, 8))), [5]]))

    return [
        [Tree(prompt_ids=np.array([1, 9, 8]), branches=(side(), side()), ranks=(0, 1)) for _ in range(3)] for _ in range(7)
    ]  # fmt: skip


class _Button:
    """Ctrl-C at the n-th time that somebody looks; n = 0 is never."""

    def __init__(self, at):
        self.at, self.num_looks = at, 0

    def __call__(self):
        self.num_looks += 1
        return 0 < self.at <= self.num_looks


class _Watched:
    """A source that keeps what was taken from it."""

    def __init__(self, source, seen):
        self.source, self.seen = source, seen

    def __len__(self):
        return len(self.source)

    def __getitem__(self, step):
        self.seen.append(self.source[step])
        return self.seen[-1]


def _run(folder: Path, *, every: int, alpha: float, stop_at: int = 0):
    """Seven steps with a moving reference; the learner, and the batches that it saw."""
    config = _parse(
        training={"learning_rate": 1e-2, "max_tokens_per_microbatch": 64},
        refresh_every_steps=every,
        refresh_alpha=alpha,
    )
    model = tiny_models.load("llama")
    learner = make_learner(
        Models(policy=model),
        get_algorithm("dpo"),
        settings_of(config),
        config.training,
        num_steps=7,
        largest=1,
        say=print,
    )
    services = Services(work=folder / "work", should_stop=_Button(stop_at))
    session = Session(
        learner, services=services, title="dpo", metric="dpo/accuracy", metrics_path=folder / "metrics.jsonl"
    )
    seen = []

    moving = MovingReference(session=session, model=model, batches=_batches(), every_steps=every, alpha=alpha)
    with session:
        run_loop(learner, _Watched(moving, seen), hooks=[session.after_step])
    return learner, seen


def _ref(batches):
    return [b.arrays["ref_logprobs"] for batch in batches for t in batch for b in t.branches]


def test_the_reference_follows_the_policy(tmp_path):
    """Every 3 steps: steps 0 to 2 see the start, 3 to 5 the policy after 3 steps (or its mean with the start), and a hard refresh
    makes the margin of step 3 exactly what it is for equal policies."""
    _, hard_seen = _run(tmp_path / "hard", every=3, alpha=1.0)
    _, soft_seen = _run(tmp_path / "soft", every=3, alpha=0.5)
    start = tiny_models.load("llama")
    expected = [annotate(b, "ref_logprobs", PolicyLogprobs(start), max_tokens=64) for b in _batches()[:3]]
    for seen in (hard_seen, soft_seen):
        for found, other in zip(_ref(seen[:3]), _ref(expected), strict=True):
            np.testing.assert_array_equal(found, other)
    rows = [float(row["dpo/margin"]) for row in _metrics(tmp_path / "hard")]
    assert [abs(rows[step]) < 1e-6 for step in (0, 3, 6)] == [True] * 3 and abs(rows[2]) > 1e-3 and abs(rows[5]) > 1e-3
    mixed = [float(row["dpo/margin"]) for row in _metrics(tmp_path / "soft")]
    assert mixed[:3] == rows[:3] and abs(mixed[3]) > 1e-3


def _metrics(folder: Path):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("alpha", "stop_at"), [(0.6, 1), (0.6, 3), (0.6, 6), (0.6, 7), (0.6, 9), (0.6, 12), (1.0, 7), (1.0, 9)]
)
def test_a_resumed_run_sees_the_same_references(tmp_path, alpha, stop_at):
    """Looks 1 to 4 come while the first block is annotated, 5 to 7 after its steps, 8 to 11 just after the first refresh."""
    whole, _ = _run(tmp_path / "a", every=3, alpha=alpha)
    with pytest.raises(Interrupted):
        _run(tmp_path / "b", every=3, alpha=alpha, stop_at=stop_at)
    resumed, _ = _run(tmp_path / "b", every=3, alpha=alpha)
    for expected, found in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(expected, found)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def _preferences():
    """Polite replies are better: 12 pairs to train on and 4 held out, the polite one shorter in half of them."""
    rows = []
    for number in range(16):
        prompt = (Message(role="user", content="said " + "abcdefghijklmnop"[number]),)
        chosen, rejected = ("yes", "no no no") if number % 2 else ("yes yes yes", "no")
        rows.append(
            Preference(
                prompt=prompt,
                chosen=chosen,
                rejected=rejected,
                p_chosen=0.9,
                split="heldout" if number < 4 else "train",
            )
        )
    return rows


def _run_stage(folder: Path, *, rows=None, change_policy=lambda folder: None, text=None, **section):
    policy, preferences, out = (folder / name for name in ("policy", "preferences", "out"))
    shutil.copytree(tiny_models.folder("llama"), policy)
    change_policy(policy)
    preferences.mkdir()
    write_jsonl(preferences / "preferences.jsonl", _preferences() if rows is None else rows)
    out.mkdir()
    training = {"learning_rate": 5e-3, "num_epochs": 6, "batch_size": 4, "schedule": "constant"}
    config = _parse(training=training, **section)
    services = Services(work=folder / "work", extras={"text": text or TextSection(max_length=64)})
    summary = dpo.run(config, inputs={"policy": policy, "preferences": preferences}, out=out, services=services)
    return summary, _metrics(out)


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_every_method_trains_in_the_stage(tmp_path, method):
    """With a reference the first margin is 0 and preflight says so; without one nothing is compared. Easy pairs are learned, also
    where the better reply is the longer one; discopop's gradient points the other way at first, so it is only run."""
    summary, rows = _run_stage(
        tmp_path, algorithm=method, **({"flip_rate": 0.1} if method in ("cdpo", "robust") else {})
    )
    is_compared = any(row[0] == "policy equals reference" for row in summary.tables[0].rows)
    assert is_compared == (abs(rows[0]["dpo/margin"]) < 1e-6) == (method not in ("orpo", "simpo", "cpo"))
    assert any("has no reference" in note for note in summary.notes) != is_compared
    assert len(rows) == 18
    if method != "discopop":
        assert summary.figures[0].value >= (0.75 if method == "cpo" else 1.0)  # cpo's sums favour the shorter side
        assert rows[-1]["dpo/margin"] > rows[0]["dpo/margin"]


@pytest.mark.parametrize(
    "section",
    [
        {"options": {"weighting": "aligned", "nll_coef": 0.2}},
        {"options": {"average": True}, "beta": 1.0},
        {"options": {"ld_alpha": 0.5}},
        {"options": {"divergence": "js"}},
        {"refresh_every_steps": 4, "refresh_alpha": 0.6},
    ],
    ids=str,
)
def test_the_options_train_in_the_stage(tmp_path, section):
    summary, rows = _run_stage(tmp_path, **section)
    assert summary.figures[0].value == 1.0
    assert ("dpo/policy_weight" in rows[-1]) == ("weighting" in section.get("options", {}))


def _cut_embeddings(policy: Path) -> None:
    tensors = load_file(policy / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:40].clone()
    save_file(tensors, policy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((policy / "config.json").read_text(encoding="utf-8"))
    (policy / "config.json").write_text(json.dumps(config | {"vocab_size": 40}), encoding="utf-8")


def test_rows_with_tokens_that_the_policy_lacks_are_refused_before_the_reference_pass(tmp_path):
    with pytest.raises(TrainError, match="dpo: preflight: tokens have embeddings"):
        _run_stage(tmp_path, change_policy=_cut_embeddings)


def test_rows_that_cannot_be_used_are_left_out_counted_and_said_once(tmp_path):
    """Two pairs of weight 0, one whose prompt alone exceeds the context, one with a side that does."""
    rows, long = _preferences(), "what did you say " * 30
    asks = tuple(Message(role="user", content=text) for text in (long, "say"))
    rows += [
        replace(row, id="", weight=0.0, prompt=(Message(role="user", content=f"so {i}"),))
        for i, row in enumerate(rows[-2:])
    ]
    rows += [
        replace(rows[-1], id="", weight=1.0, prompt=asks[:1]),
        replace(rows[-1], id="", weight=1.0, prompt=asks[1:], rejected=long),
    ]
    whole, _ = _run_stage(tmp_path / "whole")
    summary, metrics = _run_stage(tmp_path / "odd", rows=rows)
    assert summary.notes == (
        "2 pairs dropped: a side is longer than text.max_length.",
        "2 pairs of weight 0 are left out.",
    )
    assert summary.headline == whole.headline and len(metrics) == 18, "what is left out has no part in the batches"


def test_preferences_of_weight_0_alone_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"preferences \(train\)=12 rows have weight 0, which leaves nothing to learn"):
        _run_stage(tmp_path, rows=[replace(row, id="", weight=0.0) for row in _preferences() if row.split == "train"])


def test_prompts_that_the_tokenizer_would_join_with_replies_are_noted_once(tmp_path):
    rows = [
        replace(r, id="", prompt=(Message(role="user", content=r.prompt[0].content + " "),)) for r in _preferences()
    ]
    summary, _ = _run_stage(tmp_path, rows=rows, text=TextSection(max_length=64, template="plain"))
    (note,) = summary.notes
    assert note.startswith(f"In {len(rows)} of {len(rows)} pairs looked at, the tokenizer would join"), note
