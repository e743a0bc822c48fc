"""Failures of the runbook that a gate notices at the end of a training, planted in tiny trainings: in the demonstrations, the labels, the reward or
the rate. Each has a healthy counterpart that differs in this alone."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from online_example import by_tokens, make_loop

import tiny_models
from fairlead.core.config import parse_config
from fairlead.core.gates import GateResult
from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Demonstration, Message, Preference
from fairlead.core.sections import Scope, TextSection
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.policies import dpo, sft
from fairlead.policies.dpo_config import DpoConfig
from fairlead.policies.online_summary import summarise
from fairlead.policies.sft import SftConfig

WORDS = ("a", "man", "yes", "the", "ball", "no", "home", "what")
FEW: dict[str, Any] = {"num_epochs": 4, "batch_size": 8, "schedule": "constant", "learning_rate": 5e-3}


def verdict(summary: StageSummary, gate: str) -> GateResult:
    return next(result for result in summary.verdicts if result.gate == gate)


def asked(num: int) -> list[tuple[Message, ...]]:
    """Different prompts."""
    texts = itertools.islice(itertools.product(WORDS, repeat=4), num)
    return [(Message(role="user", content=" ".join(text)),) for text in texts]


def supervised(
    folder: Path, replies: Sequence[str], heldout: Sequence[str], *, scope: Scope = "toy", **training: Any
) -> StageSummary:
    """The stage `sft` on these replies."""
    prompts = asked(len(replies) + len(heldout))
    rows = [
        Demonstration(messages=(*prompt, Message(role="assistant", content=reply)), split="heldout" if i >= len(replies) else "train")
        for i, (prompt, reply) in enumerate(zip(prompts, [*replies, *heldout], strict=True))
    ]  # fmt: skip
    out, path = folder / "out", folder / "demonstrations.jsonl"
    out.mkdir(parents=True)
    write_jsonl(path, rows)
    config = parse_config(SftConfig, {"data": [{"path": str(path)}], "training": {**FEW, **training}}, where="sft")
    extras = {"text": TextSection(max_length=64), "base_model": tiny_models.folder("llama"), "scope": scope,
              "find_file": lambda path, key="": Path(path)}  # fmt: skip
    return sft.run(config, inputs={}, out=out, services=Services(work=folder / "work", extras=extras))


def test_what_is_learned_by_heart_raises_held_out_perplexity(tmp_path: Path) -> None:
    """It learns one reply whatever it is asked; held-out conversations want a long one of other words, or the same."""
    learned, other = ["yes yes yes"] * 24, "no home what ball man the " * 3
    found = verdict(supervised(tmp_path / "bad", learned, [other] * 8, learning_rate=2e-2), "sft.perplexity")
    assert found.outcome == "STOP" and found.value > 1.02, found.line()
    good = supervised(tmp_path / "good", learned, ["yes yes yes"] * 8, learning_rate=2e-2)
    assert verdict(good, "sft.perplexity").outcome == "PASS"


def test_demonstrations_that_are_too_few_for_the_scope_are_noticed(tmp_path: Path) -> None:
    """500 are asked for scope narrow, 200 for a toy."""
    once = {"num_epochs": 1, "batch_size": 64}
    found = verdict(supervised(tmp_path / "bad", ["yes"] * 210, ["yes"] * 8, scope="narrow", **once), "sft.count")
    assert found.outcome == "WARN" and found.value == 210, found.line()
    good = supervised(tmp_path / "good", ["yes"] * 210, ["yes"] * 8, scope="toy", **once)
    assert verdict(good, "sft.count").outcome == "PASS"


@pytest.mark.parametrize(("are_kept", "outcomes"), [(False, ("WARN", "STOP")), (True, ("PASS",))])
def test_a_policy_that_prefers_what_people_did_not_is_noticed(
    are_kept: bool, outcomes: tuple[str, ...], tmp_path: Path
) -> None:
    """It learns to be polite from 16 pairs; the labels of the 12 that are held out say the same, or the opposite."""
    rows: list[Preference] = []
    for i, prompt in enumerate(asked(28)):
        chosen, rejected = ("yes", "no no no") if i % 2 else ("yes yes yes", "no")
        is_heldout = i < 12
        if is_heldout and not are_kept:
            chosen, rejected = rejected, chosen
        rows.append(
            Preference(prompt=prompt, chosen=chosen, rejected=rejected, split="heldout" if is_heldout else "train")
        )
    policy, preferences, out = (tmp_path / name for name in ("policy", "preferences", "out"))
    shutil.copytree(tiny_models.folder("llama"), policy)
    preferences.mkdir()
    out.mkdir()
    write_jsonl(preferences / "preferences.jsonl", rows)
    config = parse_config(DpoConfig, {"algorithm": "dpo", "training": {**FEW, "num_epochs": 6}}, where="policies.x")
    services = Services(work=tmp_path / "work", extras={"text": TextSection(max_length=64)})
    summary = dpo.run(config, inputs={"policy": policy, "preferences": preferences}, out=out, services=services)
    found = verdict(summary, "dpo.accuracy")
    assert found.outcome in outcomes, found.line()


def length(completion: Completion) -> float:
    """A reward that is gamed by writing on."""
    return float(len(completion.token_ids))


def on_policy(folder: Path, score: Callable[[Completion], float], *, rate: float, num_rounds: int) -> StageSummary:
    """GRPO to its end; rules may say what they like."""
    rules = {"kl_runaway": {"mode": "off"}, "hacking": {"mode": "propose"}}
    training = {"learning_rate": rate, "schedule": "constant", "alerts": {"rules": rules}}
    loop = make_loop(
        folder,
        "grpo",
        score,
        num_iterations=num_rounds,
        batch_size=16,
        minibatch_size=16,
        max_new_tokens=8,
        training=training,
    )
    loop.run(bos_token_id=1)
    return summarise(loop.config, folder / "metrics.jsonl", loop.preflight, length_coef=0.0)


def test_a_policy_that_ran_away_from_its_reference_is_noticed(tmp_path: Path) -> None:
    """The rate is far too high for a reward that pays for length."""
    found = verdict(on_policy(tmp_path / "bad", length, rate=2e-2, num_rounds=20), "rl.kl")
    assert found.outcome == "STOP" and found.value > 1.0, found.line()
    assert verdict(on_policy(tmp_path / "good", by_tokens, rate=1e-3, num_rounds=8), "rl.kl").outcome == "PASS"


def test_a_policy_that_learned_nothing_is_noticed(tmp_path: Path) -> None:
    """Every completion is paid alike, so no group teaches anything: KL 0, gain 0."""
    found = verdict(on_policy(tmp_path / "bad", lambda _: 1.0, rate=1e-3, num_rounds=4), "rl.collapse")
    assert found.outcome == "WARN" and found.value == pytest.approx(0.0), found.line()
    assert verdict(on_policy(tmp_path / "good", by_tokens, rate=1e-3, num_rounds=8), "rl.collapse").outcome == "PASS"
