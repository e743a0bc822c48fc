"""Stop texts and the repetition penalty of a recipe reach the engine; what needs exact probabilities refuses the penalty."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from online_example import make_loop, rows, run
from pydantic import ValidationError

from fairlead.core.protocols import Sample
from fairlead.engine.local import LocalEngine
from fairlead.policies.online import OnlineConfig, OnlineLoop, muted_metrics
from fairlead.policies.online_methods import METHODS
from fairlead.telemetry import DEFAULT_RULES
from fairlead.telemetry.rules import without_metrics

SHORT: dict[str, Any] = {"max_new_tokens": 8, "num_iterations": 2}


def first_samples(loop: OnlineLoop) -> list[Sample]:
    """What the loop's sampler asks its engine for, for every prompt."""
    sampler = loop.collector.sampler
    requests = [replace(r, num_samples=4) for r in loop.fixed.requests]
    return [s for r in sampler.rollouts(requests, sampler.sampling, group_size=4) for s in r.samples]


def texts(loop: OnlineLoop, samples: Sequence[Sample]) -> list[str]:
    return [loop.chat.decode(s.token_ids) for s in samples]


@pytest.mark.parametrize("method", ["ppo", "grpo", "best_of_n"])
def test_a_stop_text_ends_completions_as_an_end_of_turn_does(method: str, tmp_path: Path) -> None:
    """Each is the one without stop texts, up to the token with which it first holds the text; the run's first ratio is 1."""
    groups = {"group_size": 4}
    free = make_loop(tmp_path / "free", method, **SHORT, **groups)
    samples = first_samples(free)
    words = (free.chat.decode(s.token_ids[i : i + 1]).strip() for s in samples for i in range(2, len(s.token_ids)))
    word = next(word for word in words if word)
    loop = make_loop(tmp_path / "stop", method, stop=[word], **SHORT, **groups)
    num_ended = 0
    for sample, stopped in zip(samples, first_samples(loop), strict=True):
        holds = [i for i in range(1, len(sample.token_ids) + 1) if word in loop.chat.decode(sample.token_ids[:i])]
        expected = sample.token_ids[: holds[0]] if holds else sample.token_ids
        assert stopped.token_ids.tolist() == expected.tolist()
        assert stopped.finish_reason == ("stop" if holds else sample.finish_reason)
        num_ended += bool(holds)
    assert num_ended >= 1
    run(make_loop(tmp_path / "often", method, stop=["a", "e", "o"], **SHORT, **groups))
    first = rows(tmp_path / "often")[0]
    assert first["rl/missing_eos_share"] < 1.0 and first["rl/sampling_gap"] < 1e-4
    assert first.get("rl/first_ratio_gap", 0.0) < 1e-4


def test_a_repetition_penalty_reaches_the_engine_of_methods_that_imitate(tmp_path: Path) -> None:
    """The samples are the engine's own with this penalty; their probabilities are nobody's, so no gap is told and no rule looks for one."""
    loop = make_loop(tmp_path, "best_of_n", repetition_penalty=3.0, group_size=4, **SHORT)
    plain = make_loop(tmp_path / "plain", "best_of_n", group_size=4, **SHORT)
    sampler = loop.collector.sampler
    assert sampler.sampling.repetition_penalty == 3.0
    found = first_samples(loop)
    requests = [replace(r, num_samples=4) for r in loop.fixed.requests]
    engine = LocalEngine(loop.models.policy)
    expected = {(s.key, s.sample_index): s.token_ids.tolist() for s in engine.generate(requests, sampler.sampling)}
    assert {(s.key, s.sample_index): s.token_ids.tolist() for s in found} == expected
    assert texts(loop, found) != texts(plain, first_samples(plain))
    run(loop)
    assert loop.config.old_logprobs == "trainer"
    assert all("rl/sampling_gap" not in row and "rl/mismatch_sample_share" not in row for row in rows(tmp_path))
    watched = {rule.id for rule in without_metrics(DEFAULT_RULES, muted_metrics(loop.config))}
    assert "kl_negative" not in watched and {"kl_high", "kl_runaway"} <= watched


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.learns == "advantages"])
def test_methods_that_follow_probabilities_refuse_the_penalty(method: str) -> None:
    with pytest.raises(
        ValidationError,
        match=rf"repetition_penalty=1.2 draws from other probabilities than those whose gradient {method} follows",
    ):
        OnlineConfig.model_validate({"algorithm": method, "repetition_penalty": 1.2})


@pytest.mark.parametrize(("given", "message"), [
    ({"repetition_penalty": 1.2, "old_logprobs": "engine"}, "old_logprobs=engine are those of penalised logits"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["</x>"], "tools": {"environments": [{"kind": "calculator"}]}}, "stop=</x> ends a turn before its end of turn"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OnlineConfig.model_validate({"algorithm": "best_of_n", "group_size": 4, **given})
