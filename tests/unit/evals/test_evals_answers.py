"""Replies of an evaluation: policy and reference under one setting, and a KL that a penalty does not distort."""

from pathlib import Path

import numpy as np
import pytest

import tiny_models
from fairlead.core.records import Message, Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.evals.answers import Answers, answer
from fairlead.evals.config import EvalsConfig
from fairlead.evals.monitors import judge_kl
from fairlead.models.load import load_tokenizer
from fairlead.text import ChatText

PROMPTS = [
    Prompt(messages=(Message(role="user", content=text),)) for text in ("a bad cab", "bead", "a cab faced", "dad")
]


def chat() -> ChatText:
    return ChatText(load_tokenizer(str(tiny_models.folder("llama"))), template=None, name="tiny")


def answers(*, against_itself: bool = False, **settings: object) -> Answers:
    """Of a tiny model, as the reference, or as a policy that still is its reference."""
    model = tiny_models.load("llama")
    services = Services(work=Path(), extras={"text": TextSection(max_length=64)})
    config = EvalsConfig.model_validate({"max_new_tokens": 24, "num_samples": 3, **settings})
    return answer(
        "p", model, chat(), PROMPTS, config, services, reference=model if against_itself else None, reward=None
    )


def test_replies_end_at_the_stop_texts() -> None:
    free, stopped = answers().completions(), answers(stop=("a",)).completions()
    before_the_end = [chat().decode(reply.token_ids[:-1]) for reply in stopped]
    assert all("a" not in text for text in before_the_end)
    ended = [reply for reply in stopped if "a" in reply.text]
    assert ended and all(reply.finish_reason == "stop" for reply in ended)
    assert any(len(reply.token_ids) > len(other.token_ids) for reply, other in zip(free, stopped, strict=True))
    assert all(reply.text.startswith(other.text) for reply, other in zip(free, stopped, strict=True)), "the same seeds"


def test_under_a_penalty_a_policy_that_is_its_reference_has_no_kl() -> None:
    """By the logprobs that were sampled from it would be far from 0; replies differ from those without the penalty."""
    found = answers(against_itself=True, repetition_penalty=2.0)
    assert found.kl is not None and found.kl == pytest.approx(np.zeros(4), abs=1e-4)
    assert [c.text for c in found.completions()] != [c.text for c in answers().completions()]


def test_under_a_penalty_a_mean_below_zero_is_no_fault() -> None:
    kl = -0.1 + 0.001 * np.arange(10)
    assert judge_kl(kl).outcome == "STOP"
    told = judge_kl(kl, has_penalty=True)
    assert told.outcome == "PASS" and "repetition penalty" in told.note
