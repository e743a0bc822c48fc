"""Completions from a cut distribution (top-k, top-p, min-p): the engine says what each token was drawn from, and trainer and reference are read
among the same tokens. On 64 sequences, exactly: so the gradient is that of the cut policy, and without it it is not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from online_example import make_loop, rows, run
from torch import Tensor

import tiny_models
from fairlead.algos import DR_GRPO
from fairlead.algos.grpo import DrGRPOConfig
from fairlead.algos.kl import kl_k1
from fairlead.algos.mismatch import CorrectionConfig, correction_weights
from fairlead.algos.spec import RolloutBatch
from fairlead.core.errors import EngineError, Interrupted, TrainError
from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.engine.local import LocalEngine
from fairlead.engine.rollouts import sample_rollouts
from fairlead.engine.sampler import process_logits
from fairlead.policies.online_config import OnlineConfig
from fairlead.text.packing import Branch, Tree, join_choices
from fairlead.train.batches import microbatch
from fairlead.train.forward import PolicyLogprobs
from naive.enumerable import LENGTH, PREFIX_ROWS, SEQUENCES, make_problem

PROBLEM = make_problem()
CUT = Sampling(max_new_tokens=LENGTH, top_k=3, top_p=0.8, min_p=0.05)


def table(logits: Tensor, allowed: Tensor) -> Tensor:
    """[64, 3] log-probability of every token of every sequence among the tokens of [21, 4] allowed ones; -inf outside."""
    return torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=-1)[PREFIX_ROWS, SEQUENCES]


def setting() -> tuple[Tensor, Tensor, Tensor]:
    """A policy that is not its reference, the tokens that it can draw, and the sequences that it can write."""
    logits = PROBLEM.ref_logits + 0.7 * torch.randn(
        PROBLEM.ref_logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    allowed = process_logits(logits, CUT).isfinite()
    return logits, allowed, torch.nonzero(table(logits, allowed).isfinite().all(dim=1))[:, 0]


def surrogate_gradient(logits: Tensor, *, behind: Tensor, chance: Tensor, among: Tensor) -> Tensor:
    """Expected gradient of the objective where sequences come with probability `chance`: at `logits`, token ratios to `behind`, log-probabilities
    among `among`."""
    logits = logits.clone().requires_grad_()
    possible = torch.nonzero(chance > 0)[:, 0]
    advantages = PROBLEM.rewards - (chance * PROBLEM.rewards).sum()
    batch = RolloutBatch(
        logprobs=table(logits, among)[possible].flatten(), old_logprobs=behind[possible].flatten(),
        advantages=advantages[possible].repeat_interleave(LENGTH), sequence_index=torch.arange(len(possible)).repeat_interleave(LENGTH),
        num_sequences=len(possible), weights=chance[possible],
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(-DR_GRPO.loss(batch, DrGRPOConfig(clip_low=1.0, clip_high=1e9)).total, logits)
    return gradient


def exact_gradient(logits: Tensor, allowed: Tensor) -> Tensor:
    """Of the expected reward of the cut policy, by enumeration."""
    logits = logits.clone().requires_grad_()
    chance = table(logits, allowed).sum(dim=1).exp()
    (gradient,) = torch.autograd.grad((chance * PROBLEM.rewards).sum(), logits)
    return gradient


def test_the_cut_leaves_some_tokens_out_and_some_in() -> None:
    _, allowed, possible = setting()
    assert 4 < len(possible) < 64 and 1 <= int(allowed.sum(dim=1).min()) < int(allowed.sum(dim=1).max()) == 3


def test_among_the_same_tokens_the_gradient_is_that_of_the_cut_policy() -> None:
    logits, allowed, _ = setting()
    sampled = table(logits, allowed)
    chance = sampled.sum(dim=1).exp()
    right = surrogate_gradient(logits, behind=sampled, chance=chance, among=allowed)
    torch.testing.assert_close(right, exact_gradient(logits, allowed))
    whole = surrogate_gradient(logits, behind=sampled, chance=chance, among=torch.ones_like(allowed))
    assert float((whole - right).abs().max()) > 0.1 * float(right.abs().max()), (
        "with the log-probabilities of all tokens it is another"
    )


def test_ratios_among_the_same_tokens_average_to_one_and_others_do_not() -> None:
    """Importance sampling in one line: sum over sequences of the sampler's probability times the ratio is 1, wherever the policy has moved to."""
    logits, allowed, possible = setting()
    sampled = table(logits, allowed)
    moved = logits + 0.3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def total(among: Tensor) -> float:
        gaps = (table(moved, among) - sampled)[possible].sum(dim=1)
        return float((sampled[possible].sum(dim=1).exp() * gaps.exp()).sum())

    assert total(allowed) == pytest.approx(1.0)
    assert total(torch.ones_like(allowed)) < 0.9, "the share that the cut has left of the moved policy"


def test_engine_and_trainer_agree_among_the_same_tokens_and_the_correction_then_is_one() -> None:
    logits, allowed, possible = setting()
    sampled = table(logits, allowed)[possible].flatten()
    index = torch.arange(len(possible)).repeat_interleave(LENGTH)
    for among, is_one in ((allowed, True), (torch.ones_like(allowed), False)):
        old = table(logits, among)[possible].flatten()
        weights, told = correction_weights(old, sampled, index, num_sequences=len(possible), config=CorrectionConfig())
        assert (
            (float((weights - 1).abs().max()) < 1e-12)
            == is_one
            == (told["rl/mismatch_ratio_q50"] == pytest.approx(1.0))
        )


def test_the_kl_of_the_cut_policy_is_exact_and_zero_at_the_reference() -> None:
    """E[k1] among the same tokens is KL(cut policy || reference cut alike); against the whole reference it would start above 0."""
    logits, allowed, possible = setting()
    sampled, reference = table(logits, allowed)[possible], table(PROBLEM.ref_logits, allowed)[possible]
    chance = sampled.sum(dim=1).exp()
    found = (chance.repeat_interleave(LENGTH) * kl_k1(sampled.flatten(), reference.flatten())).sum()
    prefixes, exact = PREFIX_ROWS[possible], torch.zeros((), dtype=torch.float64)
    for t in range(LENGTH):
        for prefix in prefixes[:, t].unique():
            reach = chance[prefixes[:, t] == prefix].sum()
            p, q = (
                torch.log_softmax(x[prefix].masked_fill(~allowed[prefix], -torch.inf), -1)
                for x in (logits, PROBLEM.ref_logits)
            )
            exact = exact + reach * (p.exp() * (p - q))[allowed[prefix]].sum()
    torch.testing.assert_close(found, exact)
    start = table(logits, allowed)[possible] - table(logits, torch.ones_like(allowed))[possible]
    assert float((chance * start.sum(dim=1)).sum()) > 0.1


@pytest.fixture(scope="module")
def sampled() -> tuple[Any, list[Sample]]:
    model = tiny_models.load("llama")
    requests = [GenerateRequest(key=f"p{i}", token_ids=(1, 3, 10 + i), num_samples=4) for i in range(3)]
    sampling = Sampling(
        max_new_tokens=9, top_k=6, top_p=0.7, temperature=0.8, seed=1, stop_token_ids=(5,), wants_choices=True
    )
    return model, list(LocalEngine(model, max_slots=5).generate(requests, sampling))


def trees_of(samples: Sequence[Sample]) -> list[Tree]:
    return [
        Tree(prompt_ids=np.array([1, 3, 10 + int(s.key[1:])]), branches=(
            Branch(token_ids=s.token_ids, choices=s.choices, arrays={"sampling_logprobs": s.sampling_logprobs}),))
        for s in samples
    ]  # fmt: skip


def test_the_engine_says_what_each_token_was_drawn_from(sampled: tuple[Any, list[Sample]]) -> None:
    _, samples = sampled
    assert len(samples) == 12
    for sample, tree in zip(samples, trees_of(samples), strict=True):
        assert sample.choices is not None and len(sample.choices) == len(sample.token_ids)
        ids = torch.from_numpy(np.concatenate([tree.prompt_ids, sample.token_ids]))[None]
        with torch.no_grad():
            logits = tiny_models.load_plain("llama")(ids).logits[0, 2:-1].float()
        left = process_logits(logits, Sampling(max_new_tokens=9, top_k=6, top_p=0.7, temperature=0.8))
        for t, chosen in enumerate(sample.choices):
            assert set(chosen[chosen >= 0].tolist()) == set(torch.nonzero(left[t].isfinite())[:, 0].tolist())
            assert sample.token_ids[t] in chosen


def test_the_trainer_has_the_engines_logprobs_among_them_and_not_among_all(sampled: tuple[Any, list[Sample]]) -> None:
    model, samples = sampled
    batch = microbatch(trees_of(samples))
    said = batch.per_token("sampling_logprobs")
    with torch.no_grad():
        among, whole = (PolicyLogprobs(model, 0.8, flag)(batch) for flag in (True, False))
    torch.testing.assert_close(among, said, atol=1e-5, rtol=0)
    assert float((whole - said).max()) < 1e-6 and float((whole - said).min()) < -0.1
    with pytest.raises(ValueError, match="11 of 12 branches"):
        bare = [replace(t, branches=tuple(replace(b, choices=None) for b in t.branches)) for t in trees_of(samples)]
        microbatch([bare[0], *trees_of(samples)[1:]]).choices()


def test_sets_of_unequal_width_are_joined() -> None:
    joined = join_choices([np.array([[3], [4]], np.int32), np.array([[1, 2]], np.int32)])
    assert joined.tolist() == [[3, -1], [4, -1], [1, 2]]


LEARNED: dict[str, dict[str, Any]] = {
    "ppo": {}, "grpo": {"old_logprobs": "trainer", "group_size": 4}, "remax": {}, "online_dpo": {"group_size": 4, "minibatch_size": 8},
    "best_of_n": {"group_size": 4, "minibatch_size": 8},
}  # fmt: skip
SHORT = {"top_k": 20, "top_p": 0.8, "num_iterations": 2, "num_epochs": 1, "temperature": 0.9}


@pytest.mark.parametrize("method", LEARNED)
def test_a_round_of_cut_samples_trains(method: str, tmp_path: Path) -> None:
    """Preflight has compared engine and trainer, policy and reference; policy gradients start at ratio 1 and KL 0, also with the trainer's."""
    loop = run(make_loop(tmp_path, method, **{**LEARNED[method], **SHORT}))
    found = rows(tmp_path)
    assert loop.preflight is not None and abs(found[0]["rl/kl_k1"]) < 1e-5
    assert found[0]["rl/sampling_gap"] < 1e-4
    if loop.config.method.learns == "advantages":
        assert found[0]["rl/first_ratio_gap"] < 1e-3 and found[0]["rl/entropy"] < np.log(20)
    else:
        assert found[0]["rl/learned_share"] > 0


def test_pairs_are_learned_among_all_tokens(tmp_path: Path) -> None:
    """What a pair was drawn from says nothing of which of two is better: DPO compares whole policies, and its margin starts at 0."""
    run(make_loop(tmp_path, "online_dpo", **{**LEARNED["online_dpo"], **SHORT}))
    assert abs(rows(tmp_path)[0]["dpo/margin"]) < 1e-4


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_run_on_cut_samples_goes_on_with_the_same_bits(method: str, tmp_path: Path) -> None:
    changes = {**LEARNED[method], **SHORT, "minibatch_size": 4, "max_staleness": 1}
    whole = run(make_loop(tmp_path / "whole", method, **changes))
    loop = make_loop(
        tmp_path / "again", method, services={"should_stop": lambda: loop.learner.step_number >= 1}, **changes
    )
    with pytest.raises(Interrupted):
        run(loop)
    again = run(make_loop(tmp_path / "again", method, **changes))
    assert again.session.resumed_from == 1
    assert all(torch.equal(p, again.learner.trainable[n]) for n, p in whole.learner.trainable.items())
    assert rows(tmp_path / "again") == rows(tmp_path / "whole")


class Silent:
    """An engine that cannot say what it drew from; it gives the log-probabilities of the cut distribution all the same."""

    def __init__(self, engine: Any, *, lies: bool = False) -> None:
        self.engine, self.lies = engine, lies

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        for sample in self.engine.generate(requests, sampling):
            wide = np.tile(np.arange(tiny_models.VOCABULARY, dtype=np.int32), (len(sample.token_ids), 1))
            yield replace(sample, choices=wide if self.lies and sampling.wants_choices else None)


def test_an_engine_that_cannot_say_it_is_refused(tmp_path: Path) -> None:
    engine = Silent(LocalEngine(tiny_models.load("llama")))
    with pytest.raises(EngineError, match=r"top_k=4 leaves some tokens without a chance.*does not say which.*top_k: 0"):
        sample_rollouts(
            engine,
            [GenerateRequest(key="p", token_ids=(1, 3))],
            Sampling(max_new_tokens=2, top_k=4, wants_choices=True),
            group_size=1,
        )


def test_one_that_says_too_much_is_found_out_before_the_first_step(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, "grpo", **{**LEARNED["grpo"], **SHORT})
    loop.collector.sampler.engine = Silent(loop.collector.sampler.engine, lies=True)
    with pytest.raises(TrainError, match="preflight: engine and trainer logprobs agree"):
        run(loop)


@pytest.mark.parametrize("given", [{"top_p": 0.9}, {"min_p": 0.1}])
def test_a_cut_without_a_bound_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"leaves an unknown number of tokens.*top_k: 256"):
        OnlineConfig.model_validate(given)
    assert OnlineConfig.model_validate({**given, "top_k": 64}).top_k == 64
