"""Faults of the online loop, each with what it does: rewards that fail or are no numbers, replies that are empty, groups of one survivor,
a reward service that is down, memory that runs out."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from online_example import METHODS, by_tokens, live_rows, make_loop, rows, run

from fairlead.core.errors import EngineError, Interrupted
from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.core.records import Completion
from fairlead.engine.cache import SlotCache
from fairlead.policies.online import OnlineLoop


def weights(loop: OnlineLoop) -> list[torch.Tensor]:
    return [p.detach().clone() for p in loop.learner.parameters]


def same(a: OnlineLoop, b: OnlineLoop) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def are_finite(loop: OnlineLoop) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in loop.learner.parameters)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_that_is_no_number_costs_its_completion_and_nothing_else(method: str, tmp_path: Path) -> None:
    """NaN, infinity and minus infinity end with the same weights, bit for bit; the share is told."""
    loops: list[OnlineLoop] = []
    for bad in (math.nan, math.inf, -math.inf):
        folder = tmp_path / str(bad)
        loops.append(
            run(make_loop(folder, method, lambda c, bad=bad: bad if c.token_ids[0] % 3 == 0 else by_tokens(c)))
        )
        found = rows(folder)
        assert any(row["rl/dropped_share"] > 0 for row in found) and all(
            math.isfinite(x) for row in found for x in row.values()
        )
    assert are_finite(loops[0]) and same(loops[0], loops[1]) and same(loops[0], loops[2])
    assert not same(loops[0], run(make_loop(tmp_path / "healthy", method)))


class Stripping:
    """An engine that gives back nothing at all for every second completion."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.count = engine, 0

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        for sample in sorted(self.engine.generate(requests, sampling), key=lambda s: (s.key, s.sample_index)):
            self.count += 1
            none = slice(0, 0 if self.count % 2 else None)
            yield replace(sample, token_ids=sample.token_ids[none], sampling_logprobs=sample.sampling_logprobs[none])


@pytest.mark.parametrize("method", METHODS)
def test_completions_without_a_token_are_counted_and_left_out(method: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def score(completion: Completion) -> float:
        seen.append(len(completion.token_ids))
        return by_tokens(completion)

    loop = make_loop(tmp_path, method, score)
    loop.collector.sampler.engine = Stripping(loop.collector.sampler.engine)
    run(loop)
    assert [row["rl/empty_share"] for row in rows(tmp_path)] == [0.5] * 3
    assert all(row["rl/dropped_share"] >= 0.5 for row in rows(tmp_path))
    assert seen and min(seen) > 0, "nothing empty is scored"
    assert are_finite(loop)


@pytest.mark.parametrize("method", METHODS)
def test_one_survivor_of_a_group_is_no_group(method: str, tmp_path: Path) -> None:
    """Of each four completions of a prompt the first alone gets a score in round two; a method that compares has nothing there and samples
    again, one with a value model learns from it."""
    calls = [0]

    def score(completion: Completion) -> float:
        calls[0] += 1
        is_faulty = 8 < calls[0] <= 16
        return math.nan if is_faulty and completion.sample_index else by_tokens(completion)

    loop = run(make_loop(tmp_path, method, score, group_size=4))
    second = rows(tmp_path)[1]
    assert (second["rl/lone_survivors"], second["rl/dropped_share"]) == (
        (2.0, 0.5) if method == "grpo" else (0.0, 0.75)
    )
    assert are_finite(loop) and calls[0] == (32 if method == "grpo" else 24)


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_service_that_comes_back_costs_one_try(method: str, tmp_path: Path) -> None:
    said: list[str] = []
    calls = [0]

    def score(completion: Completion) -> float:
        calls[0] += 1
        if calls[0] == 9:  # the first of round two: all of the call fails
            raise ConnectionError("refused")
        return by_tokens(completion)

    run(make_loop(tmp_path, method, score, services={"say": said.append}))
    second = rows(tmp_path)[1]
    assert second["rl/dropped_share"] == 0.5 and second["reward/said_failed"] == 8.0, (
        "a try that lost 8 and one that lost none"
    )
    told = [line for line in said if "failed on 8 of 8 completions" in line]
    assert len(told) == 1 and "ConnectionError: refused" in told[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_service_that_stays_down_ends_the_run_and_the_same_command_goes_on_exactly(
    method: str, tmp_path: Path
) -> None:
    calls = [0]

    def score(completion: Completion) -> float:
        calls[0] += 1
        if calls[0] > 8:
            raise ConnectionError("refused")
        return by_tokens(completion)

    with pytest.raises(
        EngineError, match=r"scored no completion in 5 rounds in a row.*run the same command to go on"
    ) as info:
        run(make_loop(tmp_path / "down", method, score))
    assert "\n" not in str(info.value)
    again = run(make_loop(tmp_path / "down", method))
    whole = run(make_loop(tmp_path / "whole", method))
    assert again.session.resumed_from == whole.steps_per_round
    assert (
        same(again, whole)
        and (tmp_path / "down" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    )


class NoRoom:
    """Memory for `limit` tokens a forward of one model, when a test says so."""

    def __init__(self, model: Any, limit: int, *, when: Callable[[], bool]) -> None:
        self.limit, self.when, self.num_failed = limit, when, 0
        model.causal_lm.get_input_embeddings().register_forward_hook(self)

    def __call__(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        if self.when() and output[..., 0].numel() > self.limit:
            self.num_failed += 1
            raise MemoryError("DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_runs_out_while_the_reference_is_read_halves_the_budget_of_the_run(
    method: str, tmp_path: Path
) -> None:
    """The first forward of the first round fails: the run is the one that had the smaller budget from the start, bit for bit."""
    said: list[str] = []
    loop = make_loop(tmp_path / "small", method, services={"say": said.append})
    fault = NoRoom(loop.models.reference, 60, when=lambda: True)
    run(loop)
    assert fault.num_failed >= 1 and loop.learner.is_lowered and loop.learner.max_tokens <= 60
    assert live_rows(tmp_path / "small")[0]["train/out_of_memory"] == fault.num_failed
    assert len([line for line in said if "memory ran out at step 1" in line and "is made again" in line]) == 1
    plain = make_loop(tmp_path / "plain", method)
    plain.learner.max_tokens = loop.learner.max_tokens
    assert same(loop, run(plain))
    assert (tmp_path / "small" / "metrics.jsonl").read_bytes() == (tmp_path / "plain" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_runs_out_in_a_step_is_counted_and_a_resumed_run_keeps_the_budget(
    method: str, tmp_path: Path
) -> None:
    """It runs out in the first step of the second round. Stopped after that step and started again with all the memory it wants, the run is
    the one that went on; both are the run that always had enough, to rounding."""

    def faulty(folder: Path, **services: Any) -> tuple[OnlineLoop, NoRoom]:
        loop = make_loop(folder, method, services=services, minibatch_size=8)
        start = loop.steps_per_round

        def in_that_step() -> bool:
            return torch.is_grad_enabled() and loop.learner.step_number == start

        return loop, NoRoom(loop.models.policy, 30, when=in_that_step)

    whole, fault = faulty(tmp_path / "whole")
    run(whole)
    assert fault.num_failed >= 1 and whole.learner.is_lowered
    assert [row.get("train/out_of_memory", 0.0) for row in live_rows(tmp_path / "whole")] == [
        0.0,
        fault.num_failed,
        0.0,
    ]
    stopped, _ = faulty(tmp_path / "stopped", should_stop=lambda: stopped.learner.step_number > stopped.steps_per_round)
    with pytest.raises(Interrupted):
        run(stopped)
    again = run(make_loop(tmp_path / "stopped", method, minibatch_size=8))
    assert (
        again.session.resumed_from == whole.steps_per_round + 1 and again.learner.max_tokens == whole.learner.max_tokens
    )
    assert same(whole, again)
    healthy = run(make_loop(tmp_path / "healthy", method, minibatch_size=8))
    assert not healthy.learner.is_lowered
    for a, b in zip(weights(whole), weights(healthy), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_completion_that_does_not_fit_alone_ends_the_run_before_the_step(method: str, tmp_path: Path) -> None:
    loop = make_loop(tmp_path, method)
    before = weights(loop)
    NoRoom(loop.models.policy, 1, when=torch.is_grad_enabled)
    with pytest.raises(MemoryError):
        run(loop)
    assert loop.learner.step_number == 0 and all(torch.equal(a, b) for a, b in zip(before, weights(loop), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_runs_out_in_the_engine_costs_slots_and_changes_nothing(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of the first round finds no memory for 8 slots; the run is the one that always had enough, bit for bit."""
    whole = run(make_loop(tmp_path / "whole", method))
    said: list[str] = []
    loop = make_loop(tmp_path / "small", method, services={"say": said.append})
    allocate = SlotCache.allocate

    def allocate_if_it_fits(cache: SlotCache, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        if cache.num_slots > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        allocate(cache, layer, key, value)

    monkeypatch.setattr(SlotCache, "allocate", allocate_if_it_fits)
    assert same(whole, run(loop))
    assert [row.get("rl/out_of_memory", 0.0) for row in live_rows(tmp_path / "small")] == [1.0, 0.0, 0.0]
    assert len([line for line in said if "memory ran out in the engine with 8 sequences" in line]) == 1
    assert (tmp_path / "small" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
