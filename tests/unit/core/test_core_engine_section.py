"""The recipe's `engine`."""

import pytest
from pydantic import ValidationError

from fairlead.core.engine_section import EngineSection
from fairlead.policies.online_config import OnlineConfig

SERVER = {"kind": "remote", "url": "http://h/v1", "model": "m"}


def test_the_default_is_the_engine_of_ones_own():
    assert EngineSection().kind == "local" and OnlineConfig().engine.kind == "local"
    assert EngineSection.model_validate(EngineSection().model_dump()) == EngineSection(), (
        "a resolved recipe loads again"
    )
    assert EngineSection.model_validate(SERVER).api == "chat"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"url": "http://h/v1"}, "engine.url=http://h/v1 is not read by kind=local"),
        ({"kind": "vllm", "model": "m"}, "engine.model=m is not read"),
        ({**SERVER, "memory_share": 0.3}, "engine.memory_share=0.3 is not read"),
        ({"kind": "remote", "url": "http://h/v1"}, "engine.model is missing"),
        ({"kind": "remote", "model": "m"}, "engine.url is missing"),
        ({"kind": "sglang"}, "local"),
    ],
)
def test_what_does_not_fit_is_refused(section, told):
    with pytest.raises(ValidationError, match=told.replace("(", "\\(")):
        EngineSection.model_validate(section)


def test_on_policy_training_needs_weights_that_follow():
    with pytest.raises(ValidationError, match="do not follow the policy's"):
        OnlineConfig.model_validate({"engine": SERVER})
    exact = OnlineConfig.model_validate({"engine": {"kind": "vllm", "precision": "fp32"}, "old_logprobs": "engine"})
    assert exact.has_exact_engine and exact.old_logprobs == "engine"


@pytest.mark.parametrize(
    "given",
    [{"engine": {"kind": "vllm"}}, {"engine": {"precision": "bf16"}}, {"training": {"precision": "bf16"}}],
    ids=["vllm", "engine", "training"],
)
def test_a_ratio_against_an_engine_that_rounds_otherwise_is_refused(given):
    with pytest.raises(
        ValidationError, match="old_logprobs=engine would compare with logprobs that were rounded otherwise"
    ):
        OnlineConfig.model_validate({**given, "old_logprobs": "engine"})


@pytest.mark.parametrize(
    ("given", "precision", "engine", "old"),
    [
        ({}, "fp32", "fp32", "engine"),
        ({}, "bf16", "bf16", "trainer"),
        ({"engine": {"precision": "bf16"}}, "fp32", "bf16", "trainer"),
        ({"engine": {"precision": "fp32"}}, "bf16", "fp32", "trainer"),
        ({"engine": {"kind": "vllm"}}, "fp32", "auto", "trainer"),
        ({"engine": {"kind": "vllm", "precision": "fp32"}}, "fp32", "fp32", "trainer"),
        ({"old_logprobs": "trainer"}, "fp32", "fp32", "trainer"),
    ],
)
def test_the_old_logprobs_are_the_engines_where_both_compute_in_fp32(given, precision, engine, old):
    found = OnlineConfig.model_validate(given).resolved(precision)
    assert (found.training.precision, found.engine.precision, found.old_logprobs) == (precision, engine, old)
    assert found.resolved(precision) == found


def test_an_engine_that_does_not_say_what_it_drew_from_is_refused_where_that_must_be_recorded():
    with pytest.raises(ValidationError, match="top_k=50 leaves tokens without a chance"):
        OnlineConfig.model_validate({"engine": {"kind": "vllm"}, "top_k": 50})
    assert OnlineConfig.model_validate({"top_k": 50}).top_k == 50
