"""A round of rollouts: sample, score, compare, turn into advantages. The source of batches that makes a method on-policy.

    prompts -> sampling.py -> trees of n completions with scores -> reference logprobs, values -> token rewards -> advantages

Legend: N sampled tokens of the round, B completions, P prompts.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.advantages import gae, mean_and_std, token_rewards, whiten, whitening_statistics
from fairlead.algos.group_advantages import AdvantageName, rollout_advantages
from fairlead.algos.kl import MAX_EXPONENT, kl_k1, kl_k3
from fairlead.algos.mismatch import CorrectionConfig, correction_weights, mismatch_metrics
from fairlead.algos.spec import sum_by_sequence
from fairlead.core.errors import TrainError, explain
from fairlead.engine.rollouts import Rollout
from fairlead.models.adapters import reference_mode
from fairlead.policies.buffer import Round
from fairlead.policies.choosing import choose_learned
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rollout_models import RolloutModels
from fairlead.policies.sampling import MAX_LOST_TRIES, RoundSampler, Sampled
from fairlead.policies.signals import perplexity, text_signals
from fairlead.text.packing import Tree
from fairlead.train.budget import Budget, read_within
from fairlead.train.forward import (
    LogprobsAndValues,
    PolicyLogprobs,
    StateValues,
    TokenFunction,
    annotate,
    with_array,
    without_array,
)

NUM_GAP_TREES = 4  # with one completion each: a forward of everything would cost a sixth of a round of GRPO


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Flat:
    """The round's completions as flat tensors, in tree and branch order."""

    lengths: Int[Tensor, "B"]
    sequence_index: Int[Tensor, "N"]
    group_index: Int[Tensor, "B"]
    has_eos: Bool[Tensor, "B"]
    ref: Float[Tensor, "N"]
    """Of the reference, nats."""
    kl: Float[Tensor, "N"]
    """Estimator k1, nats."""
    kl_k3: float
    """Mean a token."""


@dataclass(slots=True, eq=False, kw_only=True)
class Collector:
    """Makes rounds. Holds no state between them."""

    config: OnlineConfig
    models: RolloutModels
    sampler: RoundSampler
    estimator: AdvantageName | Literal["gae"]
    """`gae`, or a name of algos/group_advantages.py."""
    budget: Budget
    """Of one forward; the learner's own."""
    heed: Callable[[], None]
    """Called before each forward of a frozen model; raises to stop."""

    def collect(self, prompts: PromptStream, *, number: int, kl_coef: float, step: int, policy_version: int) -> Round:
        """Make one round.

        Args:
            number: of the round, from 0; part of the seeds.
            kl_coef: of this round, reward units a nat.
            step: optimiser steps made so far.
            policy_version: of the policy as it is.
        """
        for retry in range(MAX_LOST_TRIES):
            sampled = self.sampler.sample(prompts, number=number, step=step, retry=retry)
            found = self._round(sampled, kl_coef=kl_coef, policy_version=policy_version)
            if found.trees:
                return found
        raise TrainError(explain(self.config.algorithm, f"{MAX_LOST_TRIES} rounds", "held nothing to learn from",
                                 expected="two completions of one prompt that are paid differently" if self.config.method.learns == "pairs" else
                                 "one that is learned from: not cut where learns_from_cut is false, of min_score or more where that is set",
                                 remedy="Raise group_size or max_new_tokens, lower min_score; the last checkpoint is kept"))  # fmt: skip

    def _round(self, sampled: Sampled, *, kl_coef: float, policy_version: int) -> Round:
        """What was sampled, compared and chosen; without trees when nothing of it can be learned from."""
        started = time.monotonic()
        trees, flat, values = self._compared(sampled.rollouts)
        seconds, signals = time.monotonic() - started, self._sampling_signals(trees)
        perplexities = self._perplexities(trees, flat)
        in_reward = kl_coef if self.config.kl.where == "reward" else 0.0
        rewards = self._rewards(sampled, flat, kl_coef=in_reward)
        trees, told = self._learned(sampled, trees, rewards, values, flat)
        token_ids = [sample.token_ids for rollout in sampled.rollouts for sample in rollout.samples]
        metrics = sampled.metrics | _kl_metrics(flat, kl_coef=kl_coef, in_reward=in_reward) | {
            "rl/reward": float(rewards.sum()) / len(flat.lengths), "rl/length_tokens": float(flat.lengths.double().mean()),
            "rl/missing_eos_share": float((~flat.has_eos).float().mean()),
            "rl/forward_s": seconds, **signals, **told, **text_signals(token_ids),
            **perplexities,
        }  # fmt: skip
        return Round(
            trees=trees, metrics=metrics, kl_per_sequence=metrics["rl/kl_k1_sequence"], policy_version=policy_version
        )

    def _learned(
        self,
        sampled: Sampled,
        trees: list[Tree],
        rewards: Float[Tensor, "N"],
        values: Float[Tensor, "N"] | None,
        flat: _Flat,
    ) -> tuple[list[Tree], dict[str, float]]:
        """What the loss is shown of the round, and what is logged of that."""
        if self.config.method.learns != "advantages":
            by_completion = sum_by_sequence(rewards, flat.sequence_index, len(flat.lengths))
            if self.sampler.sampling.is_cut and self.config.method.learns == "pairs":  # DPO compares whole policies
                trees = self._with_reference(trees, among_choices=False)
            return choose_learned(self.config, sampled.rollouts, trees, rewards=by_completion, scores=sampled.scores)
        arrays, std = self._advantages(sampled, rewards, values, flat)
        corrected: dict[str, float] = {}
        if self.config.old_logprobs == "trainer":
            arrays["correction"], corrected = self._correction(trees, flat)
        for name, array in arrays.items():
            trees = _attach(trees, name, array)
        if self._is_told_by_the_step:
            trees = [without_array(tree, "old_logprobs") for tree in trees]
        if not self.config.learns_from_cut:
            trees = without_cut(trees, flat.has_eos)
        return trees, {"rl/advantages_std": std, **corrected}

    def _compared(self, rollouts: Sequence[Rollout]) -> tuple[list[Tree], _Flat, Float[Tensor, "N"] | None]:
        """Trees with the reference's logprobs (and values), all of it flat, and the values."""
        trees = [part for rollout in rollouts for part in split_tree(rollout.tree, max_tokens=self.budget.max_tokens)]
        policy, value, temperature = self.models.policy, self.models.value, self.config.temperature
        reads_policy = self.config.old_logprobs == "trainer"
        if reads_policy and value is not None and value.base is policy:
            trees = self._read(trees, ("old_logprobs", "old_values"), LogprobsAndValues(policy, value, temperature))
        else:
            if reads_policy:
                trees = self._read(trees, "old_logprobs", PolicyLogprobs(policy, temperature))
            if value is not None:
                trees = self._read(trees, "old_values", StateValues(value))
        trees = self._with_reference(trees)
        values = None if value is None else _array(trees, "old_values")
        sizes = torch.tensor([len(r.samples) for r in rollouts])
        lengths = torch.tensor([len(s.token_ids) for r in rollouts for s in r.samples])
        old, ref = _array(trees, "old_logprobs"), _array(trees, "ref_logprobs")
        flat = _Flat(
            lengths=lengths, sequence_index=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
            group_index=torch.repeat_interleave(torch.arange(len(rollouts)), sizes),
            has_eos=torch.tensor([s.finish_reason == "stop" for r in rollouts for s in r.samples]), ref=ref, kl=kl_k1(old, ref),
            kl_k3=float(kl_k3(old, ref).mean()),
        )  # fmt: skip
        return trees, flat, values

    def _perplexities(self, trees: list[Tree], flat: _Flat) -> dict[str, float]:
        """Of the samples under the frozen models: the reference at the temperature of the run, the base model as it is."""
        found = {"rl/reference_perplexity": perplexity(flat.ref.numpy())}
        if self.models.base is not None:
            read = self._read(trees, "base_logprobs", PolicyLogprobs(self.models.base, among_choices=False))
            found["rl/base_perplexity"] = perplexity(_array(read, "base_logprobs").numpy())
        return found

    def _with_reference(self, trees: Sequence[Tree], *, among_choices: bool = True) -> list[Tree]:
        """Trees with the reference's logprobs."""
        with contextlib.ExitStack() as stack:
            reference = self.models.reference or stack.enter_context(reference_mode(self.models.policy))
            compute = PolicyLogprobs(reference, self.config.temperature, among_choices)
            return self._read(trees, "ref_logprobs", compute)

    def _read(self, trees: Sequence[Tree], name: str | tuple[str, ...], compute: TokenFunction) -> list[Tree]:
        """Trees with an array of a model that is not trained by them."""
        return read_within(self.budget, trees, lambda n: annotate(trees, name, compute, max_tokens=n, heed=self.heed))

    @property
    def _is_told_by_the_step(self) -> bool:
        return self.config.old_logprobs == "step" and self.config.method.learns == "advantages"

    def _rewards(self, sampled: Sampled, flat: _Flat, *, kl_coef: float) -> Float[Tensor, "N"]:
        """What every token is paid."""
        shaped = self.sampler.shaped(sampled.scores, flat.lengths)
        rewards = token_rewards(shaped, flat.kl, kl_coef=kl_coef, sequence_index=flat.sequence_index, score_clip=self.config.score_clip,
                                has_eos=flat.has_eos, missing_eos_penalty=self.config.missing_eos_penalty)  # fmt: skip
        return rewards if sampled.token_rewards is None else rewards + sampled.token_rewards

    def _advantages(
        self, sampled: Sampled, rewards: Float[Tensor, "N"], values: Float[Tensor, "N"] | None, flat: _Flat
    ) -> tuple[dict[str, Float[Tensor, "N"]], float]:
        """Arrays that the loss reads, and the standard deviation of the advantages (before they are whitened, for gae)."""
        if sampled.is_advantage:
            advantages = sum_by_sequence(rewards, flat.sequence_index, len(flat.lengths))[flat.sequence_index]
            return {"advantages": advantages}, float(advantages.std(correction=0))
        if self.estimator == "gae":
            assert values is not None, "gae reads values"
            advantages, returns = gae(
                rewards, values, gamma=self.config.gamma, lam=self.config.lam, sequence_index=flat.sequence_index
            )
            mean, std = mean_and_std(whitening_statistics(advantages))
            return {"advantages": whiten(advantages, mean=mean, std=std), "returns": returns}, float(std)
        baselines = [r.baseline for r in sampled.rollouts if r.baseline is not None]
        found = rollout_advantages(self.estimator, rewards, sequence_index=flat.sequence_index, group_index=flat.group_index,
                                   gamma=self.config.gamma, greedy_scores=torch.tensor(baselines) if baselines else None)  # fmt: skip
        return {"advantages": found.advantages}, float(found.advantages.std(correction=0))

    def _correction(self, trees: Sequence[Tree], flat: _Flat) -> tuple[Float[Tensor, "N"], dict[str, float]]:
        """Weights for the difference between engine and trainer, and what was corrected."""
        return correction_weights(
            _array(trees, "old_logprobs"), _array(trees, "sampling_logprobs"), flat.sequence_index, num_sequences=len(flat.lengths),
            config=CorrectionConfig(**self.config.correction.model_dump()),
        )  # fmt: skip

    def _sampling_signals(self, trees: Sequence[Tree]) -> dict[str, float]:
        """How far the engine's logprobs are from the trainer's: of every token where both are at hand, else of a few completions. Nothing where
        the engine's are of penalised logits, or where the step says it."""
        if self.config.has_penalty or self._is_told_by_the_step:
            return {}
        if self.config.old_logprobs != "trainer":
            trees = [Tree(prompt_ids=tree.prompt_ids, branches=tree.branches[:1]) for tree in trees[:NUM_GAP_TREES]]
            compute = PolicyLogprobs(self.models.policy, self.config.temperature)
            trees = self._read(trees, "old_logprobs", compute)
        gaps = _array(trees, "old_logprobs") - _array(trees, "sampling_logprobs")
        return {
            "rl/sampling_gap": float(gaps.abs().mean()),
            **mismatch_metrics(gaps.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()),
        }


def split_tree(tree: Tree, *, max_tokens: int) -> list[Tree]:
    """Trees of at most `max_tokens` that hold its branches in order, as few as that takes; a branch is never split."""
    room = max_tokens - len(tree.prompt_ids)
    parts: list[list[int]] = [[]]
    used = 0
    for i, branch in enumerate(tree.branches):
        if parts[-1] and used + len(branch.token_ids) > room:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += len(branch.token_ids)
    return (
        [tree] if len(parts) == 1 else [replace(tree, branches=tuple(tree.branches[i] for i in part)) for part in parts]
    )


def without_cut(trees: Sequence[Tree], has_eos: Bool[Tensor, "B"]) -> list[Tree]:
    """Completions that were cut off weigh nothing, and trees of such alone are left out; they still were in their group's baseline."""
    ends = iter(has_eos.tolist())
    found = [
        replace(tree, branches=tuple(replace(b, weight=float(next(ends))) for b in tree.branches)) for tree in trees
    ]
    return [tree for tree in found if any(branch.weight for branch in tree.branches)]


def _kl_metrics(flat: _Flat, *, kl_coef: float, in_reward: float) -> dict[str, float]:
    """KL to the reference with standard errors over completions; that of a mean a token is a ratio's."""
    num, num_tokens = len(flat.lengths), int(flat.lengths.sum())
    by_sequence = sum_by_sequence(flat.kl.double(), flat.sequence_index, num)
    per_token = float(flat.kl.mean())
    off = by_sequence - per_token * flat.lengths
    return {
        "rl/kl_k1": per_token, "rl/kl_k1_sequence": float(flat.kl.sum()) / num, "rl/kl_k3": flat.kl_k3, "rl/kl_coef": kl_coef,
        "rl/kl_k1_error": float(off.square().sum().sqrt()) / num_tokens,
        "rl/kl_k1_sequence_error": float(by_sequence.std(correction=0)) / num**0.5,
        "rl/kl_penalty": in_reward * float(flat.kl.sum()) / num,
    }  # fmt: skip


def _array(trees: Sequence[Tree], name: str) -> Float[Tensor, "N"]:
    """A branch array of all completions in order."""
    return torch.from_numpy(np.concatenate([b.arrays[name] for t in trees for b in t.branches]))


def _attach(trees: Sequence[Tree], name: str, values: Float[Tensor, "N"]) -> list[Tree]:
    """Give each tree its piece of a flat array."""
    cuts = np.cumsum([sum(b.num_kept for b in tree.branches) for tree in trees])[:-1]
    pieces = np.split(values.float().numpy(), cuts)
    return [with_array(tree, name, piece) for tree, piece in zip(trees, pieces, strict=True)]
