"""A round of rollouts: sample, score, compare, turn into advantages. The source of batches that makes a method on-policy.

    prompts -> engine -> trees of n completions -> scores -> reference logprobs, values -> token rewards -> advantages

Legend: N sampled tokens of the round, B completions, P prompts.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.advantages import gae, length_penalty, mean_and_std, token_rewards, whiten, whitening_statistics
from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.algos.spec import sum_by_sequence
from fairlead.core.protocols import GenerateRequest, Sampler, Sampling
from fairlead.models.adapters import reference_mode
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.policies.buffer import Round
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rewarding import Rewarder, Rollout, survivors, without_empty
from fairlead.policies.signals import reference_signals, text_signals, weight_signals
from fairlead.text.packing import Branch, Tree, pack_trees
from fairlead.train.forward import PolicyLogprobs, StateValues, annotate, with_array

_NUM_GAP_TREES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutModels:
    """Who takes part in a round."""

    policy: CausalModel
    reference: CausalModel | None
    """None when the policy carries an adapter: switched off, it is the reference."""
    reward: ScalarModel | None
    """None where no reward model scores."""
    value: ScalarModel | None
    """None for methods without one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Flat:
    """The round's completions as flat tensors, in tree and branch order."""

    lengths: Int[Tensor, "B"]
    sequence_index: Int[Tensor, "N"]
    group_index: Int[Tensor, "B"]
    has_eos: Bool[Tensor, "B"]
    old: Float[Tensor, "N"]
    kl: Float[Tensor, "N"]
    """Estimator k1, nats."""


@dataclass(slots=True, eq=False, kw_only=True)
class Collector:
    """Makes rounds. Holds no state of its own between them."""

    config: OnlineConfig
    models: RolloutModels
    engine: Sampler
    rewarder: Rewarder
    sampling: Sampling
    """Its seed is that of the run."""
    length_coef: float
    """See OnlineConfig.length_coef, resolved."""
    max_tokens: int
    """Budget of one forward."""
    heed: Callable[[], None]
    """Called before each forward of a frozen model; raises to stop."""
    _seconds: dict[str, float] = field(default_factory=dict[str, float])

    def collect(self, prompts: PromptStream, *, number: int, kl_coef: float, step: int, policy_version: int) -> Round:
        """Make one round.

        Args:
            number: of the round, from 0; part of the seeds.
            kl_coef: of this round, reward units a nat.
            step: optimiser steps made so far.
            policy_version: of the policy as it is.
        """
        self._seconds = {}
        rollouts, scores, paid, metrics = self._scored(prompts, number=number, step=step)
        with self._timed("rl/forward_s"):
            trees, flat, kl_k3_mean = self._compared(rollouts)
            values = None
            if self.models.value is not None:
                trees = annotate(
                    trees, "old_values", StateValues(self.models.value), max_tokens=self.max_tokens, heed=self.heed
                )
                values = _array(trees, "old_values")
        shaped = scores + length_penalty(flat.lengths, coef=self.length_coef, max_tokens=self.config.max_new_tokens)
        rewards = token_rewards(shaped, flat.kl, kl_coef=kl_coef, sequence_index=flat.sequence_index, score_clip=self.config.score_clip,
                                has_eos=flat.has_eos, missing_eos_penalty=self.config.missing_eos_penalty)  # fmt: skip
        rewards = rewards if paid is None else rewards + paid
        arrays, std = self._advantages(rewards, values, flat)
        metrics |= _kl_metrics(flat, kl_k3_mean, kl_coef=kl_coef) | {
            "rl/reward": float(rewards.sum()) / len(scores), "rl/length_tokens": float(flat.lengths.double().mean()),
            "rl/missing_eos_share": float((~flat.has_eos).float().mean()), "rl/advantages_std": std, **self._seconds,
        }  # fmt: skip
        for name, array in arrays.items():
            trees = _attach(trees, name, array)
        metrics |= self._sampling_signals(trees)
        return Round(
            trees=trees, metrics=metrics, kl_per_sequence=metrics["rl/kl_k1_sequence"], policy_version=policy_version
        )

    def _scored(
        self, prompts: PromptStream, *, number: int, step: int
    ) -> tuple[list[Rollout], Float[Tensor, "B"], Float[Tensor, "N"] | None, dict[str, float]]:
        """Rollouts that may be trained on, their scores, what their single tokens are paid, and what is logged of them."""
        size = self.config.group_size
        requests = prompts.take(self.config.batch_size // size, num_samples=size)
        sampling = replace(self.sampling, seed=_round_seed(self.sampling.seed, number))
        with self._timed("rl/sample_s"):
            sampled, num_empty = without_empty(sample_rollouts(self.engine, requests, sampling, group_size=size))
        with self._timed("rl/score_s"):
            said = self.rewarder(sampled, step=step)
        kept = survivors(sampled, said.values, needs_group=self.config.method.needs_group, num_empty=num_empty)
        scores = kept.scores
        metrics = {
            "rl/score": float(scores.mean()),
            "rl/score_std": float(scores.std()),
            **said.metrics,
            **kept.metrics,
            **text_signals([sample.token_ids for rollout in kept.rollouts for sample in rollout.samples]),
        }
        paid = None if said.token_rewards is None else torch.cat([said.token_rewards[i] for i in kept.rows])
        return kept.rollouts, scores, paid, metrics

    def _compared(self, rollouts: Sequence[Rollout]) -> tuple[list[Tree], _Flat, float]:
        """Trees with the reference's logprobs, and all of it flat."""
        trees = [rollout.tree for rollout in rollouts]
        with contextlib.ExitStack() as stack:
            reference = self.models.reference or stack.enter_context(reference_mode(self.models.policy))
            compute = PolicyLogprobs(reference, self.config.temperature)
            trees = annotate(trees, "ref_logprobs", compute, max_tokens=self.max_tokens, heed=self.heed)
        lengths = torch.tensor([len(s.token_ids) for r in rollouts for s in r.samples])
        old, ref = _array(trees, "old_logprobs"), _array(trees, "ref_logprobs")
        flat = _Flat(
            lengths=lengths, sequence_index=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
            group_index=torch.repeat_interleave(torch.arange(len(trees)), torch.tensor([len(t.branches) for t in trees])),
            has_eos=torch.tensor([s.finish_reason == "stop" for r in rollouts for s in r.samples]), old=old, kl=kl_k1(old, ref),
        )  # fmt: skip
        return trees, flat, float(kl_k3(old, ref).mean())

    def _advantages(
        self, rewards: Float[Tensor, "N"], values: Float[Tensor, "N"] | None, flat: _Flat
    ) -> tuple[dict[str, Float[Tensor, "N"]], float]:
        """Arrays that the loss reads, and the standard deviation of the advantages before they were whitened."""
        assert values is not None, "gae reads values"
        advantages, returns = gae(
            rewards, values, gamma=self.config.gamma, lam=self.config.lam, sequence_index=flat.sequence_index
        )
        mean, std = mean_and_std(whitening_statistics(advantages))
        return {"advantages": whiten(advantages, mean=mean, std=std), "returns": returns}, float(std)

    def _sampling_signals(self, trees: Sequence[Tree]) -> dict[str, float]:
        """How far the engine's logprobs are from the trainer's, on a few prompts of the round."""
        few = trees[:_NUM_GAP_TREES]
        with torch.no_grad():
            logprobs = (
                self.models.policy.logprobs(pack_trees(few), temperature=self.config.temperature).logprobs.cpu().numpy()
            )
        sampled = np.concatenate([b.arrays["sampling_logprobs"] for t in few for b in t.branches])
        return {"rl/sampling_gap": float(np.abs(logprobs - sampled).mean()), **weight_signals(logprobs, sampled)}

    @contextlib.contextmanager
    def _timed(self, name: str) -> Generator[None]:
        started = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started


def sample_rollouts(
    engine: Sampler, requests: Sequence[GenerateRequest], sampling: Sampling, *, group_size: int
) -> list[Rollout]:
    """Sample, and gather the completions of each prompt into trees of `group_size`, ordered by key and sample index."""
    prompts = {request.key: np.asarray(request.token_ids, dtype=np.int64) for request in requests}
    samples = sorted(engine.generate(requests, sampling), key=lambda s: (s.key, s.sample_index))
    rollouts: list[Rollout] = []
    for start in range(0, len(samples), group_size):
        group = tuple(samples[start : start + group_size])
        branches = tuple(
            Branch(token_ids=s.token_ids, arrays={"sampling_logprobs": s.sampling_logprobs, "old_logprobs": s.sampling_logprobs}) for s in group
        )  # fmt: skip
        assert len({s.key for s in group}) == 1, "the engine did not return the samples that it was asked for"
        rollouts.append(Rollout(tree=Tree(prompt_ids=prompts[group[0].key], branches=branches), samples=group))
    return rollouts


def _kl_metrics(flat: _Flat, k3: float, *, kl_coef: float) -> dict[str, float]:
    """KL to the reference with standard errors over completions; that of a mean a token is a ratio's."""
    num, num_tokens = len(flat.lengths), int(flat.lengths.sum())
    by_sequence = sum_by_sequence(flat.kl.double(), flat.sequence_index, num)
    per_token = float(flat.kl.mean())
    off = by_sequence - per_token * flat.lengths
    return {
        **reference_signals((flat.old - flat.kl).numpy()),
        "rl/kl_k1": per_token, "rl/kl_k1_sequence": float(flat.kl.sum()) / num, "rl/kl_k3": k3, "rl/kl_coef": kl_coef,
        "rl/kl_k1_error": float(off.square().sum().sqrt()) / num_tokens,
        "rl/kl_k1_sequence_error": float(by_sequence.std(correction=0)) / num**0.5,
        "rl/kl_penalty": kl_coef * float(flat.kl.sum()) / num,
    }  # fmt: skip


def _round_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _array(trees: Sequence[Tree], name: str) -> Float[Tensor, "N"]:
    """A branch array of all completions in order."""
    return torch.from_numpy(np.concatenate([b.arrays[name] for t in trees for b in t.branches]))


def _attach(trees: Sequence[Tree], name: str, values: Float[Tensor, "N"]) -> list[Tree]:
    """Give each tree its piece of a flat array."""
    cuts = np.cumsum([sum(b.num_kept for b in tree.branches) for tree in trees])[:-1]
    pieces = np.split(values.float().numpy(), cuts)
    return [with_array(tree, name, piece) for tree, piece in zip(trees, pieces, strict=True)]
