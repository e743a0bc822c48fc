"""A whole round against plain loops: what the collector hands the loss of every method is what samples and scores say, by the method's estimator.

Log-probabilities and values are read again from plain transformers, one completion at a time; scores by the test's own function.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from online_example import by_tokens, make_loop

import tiny_models
from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.core.records import Completion
from fairlead.policies.online import OnlineLoop
from fairlead.policies.online_methods import METHODS
from fairlead.text import Tree
from naive import rounds_naive
from naive.rounds_naive import Prices

RULE = {"components": {"said": {"type": "rule", "rule": {"kind": "repetition"}}}}
"""Stands for the test's scores, and leaves the penalty for a missing end to the section."""
PAID: dict[str, Any] = {
    "length_coef": 0.3, "overlong_share": 0.4, "score_clip": 0.5, "missing_eos_penalty": 0.7, "rewards": RULE, "batch_size": 12,
    "minibatch_size": 12, "max_new_tokens": 10, "temperature": 0.9, "group_size": 3, "max_resamples": 0, "training": {"learning_rate": 1e-3},
}  # fmt: skip
KL_COEF = 0.35
ADVANTAGED = [name for name, method in METHODS.items() if method.learns == "advantages"]
OWN: dict[str, dict[str, Any]] = {"ppo": {"gamma": 0.9, "lam": 0.8}, "reinforce_pp": {"gamma": 0.9}}


class Kept:
    """The engine, and every sample that it gave."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.sampled: dict[tuple[str, int], Sample] = {}
        self.greedy: dict[str, Sample] = {}

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        for sample in self.engine.generate(requests, sampling):
            if sampling.temperature == 0:
                self.greedy[sample.key] = sample
            else:
                self.sampled[sample.key, sample.sample_index] = sample
            yield sample


def moved_loop(folder: Path, method: str, **changes: Any) -> tuple[OnlineLoop, Kept]:
    """A loop whose policy has left its reference and whose values say something."""
    loop = make_loop(folder, method, **{**PAID, **OWN.get(method, {}), **changes})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loop.models.policy.module.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        if loop.models.value is not None:
            loop.models.value.head.weight.add_(
                0.1 * torch.randn(loop.models.value.head.weight.shape, generator=generator)
            )
    engine = Kept(loop.collector.sampler.engine)
    loop.collector.sampler.engine = engine
    return loop, engine


def plain_reading(
    module: Any, prompt: list[int], ids: list[int], temperature: float
) -> tuple[list[float], torch.Tensor]:
    """Log-probabilities of a completion's tokens, and the states that they were chosen in, from one plain forward."""
    with torch.no_grad():
        out = module(torch.tensor([[*prompt, *ids]]), output_hidden_states=True)
    rows = slice(len(prompt) - 1, len(prompt) + len(ids) - 1)
    logprobs = torch.log_softmax(out.logits[0, rows].double() / temperature, dim=-1)
    return [float(logprobs[t, token]) for t, token in enumerate(ids)], out.hidden_states[-1][0, rows]


def naive_round(loop: OnlineLoop, engine: Kept, trees: Sequence[Tree]) -> list[rounds_naive.Completion]:
    """The round's completions as the plain loops want them, in the order of the trees."""
    policy, reference, value_trunk = (tiny_models.load_plain("llama") for _ in range(3))
    policy.load_state_dict(loop.models.policy.module.state_dict())
    value = loop.models.value
    if value is not None and value.base is loop.models.policy:
        value_trunk = policy
    found: list[rounds_naive.Completion] = []
    samples = [engine.sampled[key] for key in sorted(engine.sampled)]
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    assert len(samples) == len(branches) == 12
    for sample, (tree, branch) in zip(samples, branches, strict=True):
        assert np.array_equal(sample.token_ids, branch.token_ids)
        prompt, ids = tree.prompt_ids.tolist(), sample.token_ids.tolist()
        old, _ = plain_reading(policy, prompt, ids, 0.9)
        ref, _ = plain_reading(reference, prompt, ids, 0.9)
        _, states = plain_reading(value_trunk, prompt, ids, 0.9)
        values = [0.0] * len(ids) if value is None else (states @ value.head.weight[0].detach()).tolist()
        greedy = engine.greedy.get(sample.key)
        more = {} if greedy is None else {"greedy_score": said(greedy), "greedy_length": len(greedy.token_ids),
                                          "greedy_has_eos": greedy.finish_reason == "stop"}  # fmt: skip
        found.append(
            rounds_naive.Completion(prompt=sorted({k for k, _ in engine.sampled}).index(sample.key), score=said(sample),
                                    has_eos=sample.finish_reason == "stop", old_logprobs=old, ref_logprobs=ref, values=values, **more)
        )  # fmt: skip
    return found


def said(sample: Sample) -> float:
    """The score of a sample, by the function that the loop's scorer asks too."""
    return by_tokens(
        Completion(prompt_id=sample.key, text="", model="policy", token_ids=tuple(sample.token_ids.tolist()))
    )


@pytest.mark.parametrize("method", [*ADVANTAGED, "ppo on one trunk", "ppo, the trainer's logprobs"])
def test_what_the_loss_is_given_is_what_plain_loops_make_of_samples_and_scores(method: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"value_model": "shared"} if "trunk" in method else {}
    if "trainer" in method:
        changes["old_logprobs"] = "trainer"
    loop, engine = moved_loop(tmp_path, method.partition(" ")[0].rstrip(","), **changes)
    config = loop.config
    found = loop.collector.collect(loop.prompts, number=0, kl_coef=KL_COEF, step=0, policy_version=0)
    rows = naive_round(loop, engine, found.trees)
    prices = Prices(kl_coef=KL_COEF, length_coef=0.3, overlong_share=0.4, max_new_tokens=10, score_clip=0.5, missing_eos_penalty=0.7,
                    gamma=config.gamma, lam=config.lam)  # fmt: skip
    in_reward = config.kl.where == "reward"
    expected, returns = rounds_naive.advantages(rows, config.estimator, prices, in_reward=in_reward)
    branches = [b for tree in found.trees for b in tree.branches]
    for i, branch in enumerate(branches):
        near = {"atol": 2e-4, "rtol": 1e-3}
        np.testing.assert_allclose(branch.arrays["advantages"], expected[i], **near)
        np.testing.assert_allclose(branch.arrays["old_logprobs"], rows[i].old_logprobs, **near)
        np.testing.assert_allclose(branch.arrays["ref_logprobs"], rows[i].ref_logprobs, **near)
        assert ("returns" in branch.arrays) == (returns is not None)
        if returns is not None:
            np.testing.assert_allclose(branch.arrays["old_values"], rows[i].values, **near)
            np.testing.assert_allclose(branch.arrays["returns"], returns[i], **near)
    kl = [[a - b for a, b in zip(r.old_logprobs, r.ref_logprobs, strict=True)] for r in rows]
    assert (
        found.kl_per_sequence == pytest.approx(sum(map(sum, kl)) / 12, abs=1e-3) and abs(found.kl_per_sequence) > 0.02
    )
    assert float(np.std(np.concatenate([b.arrays["advantages"] for b in branches]))) > 0.05
    assert not all(r.has_eos for r in rows), "the penalty of a cut completion is paid by some"
