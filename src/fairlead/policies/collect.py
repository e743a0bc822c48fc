"""Rounds of rollouts for PPO: sample, score, value, turn into advantages. The source of batches that makes a method on-policy.

    prompts -> engine -> trees -> scores, reference logprobs, values -> token rewards -> GAE -> whitened advantages

Legend: N sampled tokens of the round, B completions.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fairlead.algos.advantages import gae, length_penalty, mean_and_std, token_rewards, whiten, whitening_statistics
from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.core.protocols import GenerateRequest, Sampler, Sampling
from fairlead.models.adapters import reference_mode
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.policies.ppo_config import PpoConfig
from fairlead.text.packing import Branch, Tree
from fairlead.train.forward import PolicyLogprobs, StateValues, annotate
from fairlead.train.scoring import score_with_disagreement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutModels:
    """Who takes part in a round."""

    policy: CausalModel
    reference: CausalModel | None
    """None when the policy carries an adapter: switched off, it is the reference."""
    reward: ScalarModel
    value: ScalarModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """One round's completions, ready to train on."""

    trees: list[Tree]
    metrics: dict[str, float]
    kl_per_sequence: float
    """Mean nats, what the adaptive controller looks at."""


def collect(
    models: RolloutModels, engine: Sampler, requests: Sequence[GenerateRequest], sampling: Sampling, config: PpoConfig, *, kl_coef: float,
    length_coef: float, max_tokens: int, heed: Callable[[], None],
) -> Round:  # fmt: skip
    """Run one round.

    Args:
        kl_coef: of this round, reward units a nat.
        length_coef: see PpoConfig.length_coef, resolved.
        max_tokens: budget of one forward.
        heed: called before each forward of a frozen model; raises to stop.
    """
    prompts = {request.key: np.asarray(request.token_ids, dtype=np.int64) for request in requests}
    samples = sorted(engine.generate(requests, sampling), key=lambda s: (s.key, s.sample_index))
    trees = [Tree(prompt_ids=prompts[s.key], branches=(Branch(token_ids=s.token_ids, arrays={"sampling_logprobs": s.sampling_logprobs,
                                                                                              "old_logprobs": s.sampling_logprobs}),))
             for s in samples]  # fmt: skip
    raw, disagreement = score_with_disagreement(models.reward, trees, max_tokens=max_tokens, heed=heed)
    trees = _reference_logprobs(models, trees, config.temperature, max_tokens, heed)
    trees = annotate(trees, "old_values", StateValues(models.value), max_tokens=max_tokens, heed=heed)
    lengths = np.array([len(s.token_ids) for s in samples])
    scores = models.reward.normalised(torch.from_numpy(raw)).float()
    has_eos = torch.tensor([s.finish_reason == "stop" for s in samples])
    shaped = scores + length_penalty(torch.from_numpy(lengths), coef=length_coef, max_tokens=config.max_new_tokens)
    index = torch.repeat_interleave(torch.arange(len(samples)), torch.from_numpy(lengths))
    old, ref, values = (_flat(trees, name) for name in ("old_logprobs", "ref_logprobs", "old_values"))
    kl = kl_k1(old, ref)
    rewards = token_rewards(shaped, kl, kl_coef=kl_coef, sequence_index=index, score_clip=config.score_clip, has_eos=has_eos,
                            missing_eos_penalty=config.missing_eos_penalty)  # fmt: skip
    advantages, returns = gae(rewards, values, gamma=config.gamma, lam=config.lam, sequence_index=index)
    mean, std = mean_and_std(whitening_statistics(advantages))
    white = whiten(advantages, mean=mean, std=std)
    trees = _attach(trees, lengths, advantages=white, returns=returns)
    metrics = {
        "rl/score": float(scores.mean()), "rl/score_std": float(scores.std()), "rl/reward": float(rewards.sum()) / len(samples),
        "rl/kl_k1": float(kl.mean()), "rl/kl_k1_sequence": float(kl.sum()) / len(samples), "rl/kl_k3": float(kl_k3(old, ref).mean()),
        "rl/kl_coef": kl_coef, "rl/kl_penalty": kl_coef * float(kl.sum()) / len(samples), "rl/length_tokens": float(lengths.mean()),
        "rl/missing_eos_share": float((~has_eos).float().mean()), "rl/advantages_std": float(std),
    }  # fmt: skip
    if disagreement is not None:
        metrics["rl/disagreement"] = float(disagreement.mean())
    return Round(trees=trees, metrics=metrics, kl_per_sequence=metrics["rl/kl_k1_sequence"])


def _reference_logprobs(
    models: RolloutModels, trees: list[Tree], temperature: float, max_tokens: int, heed: Callable[[], None]
) -> list[Tree]:
    with contextlib.ExitStack() as stack:
        reference = models.reference or stack.enter_context(reference_mode(models.policy))
        compute = PolicyLogprobs(reference, temperature)
        return annotate(trees, "ref_logprobs", compute, max_tokens=max_tokens, heed=heed)


def _flat(trees: Sequence[Tree], name: str) -> torch.Tensor:
    """[N] a branch array of all completions in order."""
    return torch.from_numpy(np.concatenate([b.arrays[name] for t in trees for b in t.branches]))


def _attach(trees: list[Tree], lengths: np.ndarray, **arrays: torch.Tensor) -> list[Tree]:
    """Give each single-branch tree its piece of every flat array."""
    cuts = np.cumsum(lengths)[:-1]
    pieces = {name: np.split(x.float().numpy(), cuts) for name, x in arrays.items()}
    return [
        replace(
            tree,
            branches=(
                replace(tree.branches[0], arrays={**tree.branches[0].arrays, **{n: p[i] for n, p in pieces.items()}}),
            ),
        )
        for i, tree in enumerate(trees)
    ]
