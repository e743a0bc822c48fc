"""The first half of a round: prompts are sampled and scored until there are enough that teach something.

    take prompts -> engine (-> environment -> engine ...) -> drop empty -> score -> drop what has no score -> enough? else take more, up to a bound

With `max_resamples` prompts whose completions all score alike are put aside and others are sampled in their place (DAPO's dynamic sampling);
when the bound is reached, the round is as large as it became.

Legend: B completions of the round, in tree and branch order.
"""

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.advantages import completion_rewards, length_penalty, overlong_penalty
from fairlead.algos.group_advantages import informative_groups
from fairlead.core.errors import TrainError, explain
from fairlead.core.protocols import GenerateRequest, Sampler, Sampling
from fairlead.engine.dialogues import Dialogues
from fairlead.engine.rollouts import Rollout, sample_rollouts
from fairlead.engine.transcripts import Transcript, transcript_metrics
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rewarding import Rewarder, Scores, survivors, without_empty, without_failed

_COUNTED = (
    "_failed",
    "_judge_tokens",
    "_judge_dollars",
    "_judge_faults",
)  # ends of names of counts; the others are means
MAX_LOST_TRIES = 5  # times that a round may lose every completion before the run ends


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """Completions that may be trained on."""

    rollouts: list[Rollout]
    scores: Float[Tensor, "B"]
    token_rewards: Float[Tensor, "N"] | None
    """What is paid at single tokens besides."""
    is_advantage: bool
    """See Scores."""
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A prompt of the round with its scores and what is paid at its tokens."""

    rollout: Rollout
    scores: Tensor
    paid: list[Tensor] | None


@dataclass(slots=True, eq=False)
class _Tally:
    """What happened while a round was sampled."""

    scores: list[Tensor] = field(default_factory=list[Tensor])
    """Of the completions of each prompt."""
    metrics: list[tuple[float, dict[str, float]]] = field(default_factory=list[tuple[float, dict[str, float]]])
    num_prompts: int = 0
    num_sampled: int = 0
    num_empty: int = 0
    num_lone: int = 0
    num_alike: int = 0
    transcripts: list[Transcript] = field(default_factory=list[Transcript])

    def told(self, num_kept: int, *, num_wanted: int, has_groups: bool) -> dict[str, float]:
        """Metrics of the round; those of the scorer are means over its calls, weighed by their completions, and sums of what it counts."""
        scores, total = torch.cat(self.scores), sum(weight for weight, _ in self.metrics)
        num_scored = len(scores)
        found = {"rl/score": float(scores.mean()), "rl/score_std": float(scores.std(correction=0))}
        found |= {"rl/score_error": mean_error(self.scores)} if len(self.scores) > 1 else {}
        for name in dict.fromkeys(name for _, metrics in self.metrics for name in metrics):
            if name.endswith(_COUNTED):
                found[name] = sum(metrics.get(name, 0.0) for _, metrics in self.metrics)
                continue
            rows = [(weight, metrics[name]) for weight, metrics in self.metrics if name in metrics]
            is_whole = len(rows) == 1 or total == 0
            found[name] = (
                rows[-1][1] if is_whole else float(np.average([x for _, x in rows], weights=[w for w, _ in rows]))
            )
        found |= {"rl/dropped_share": (self.num_sampled - num_scored) / max(1, self.num_sampled),
                  "rl/empty_share": self.num_empty / max(1, self.num_sampled), "rl/lone_survivors": float(self.num_lone),
                  "rl/resampled_prompts": float(self.num_prompts - num_wanted)}  # fmt: skip
        return found | ({"rl/zero_variance_share": self.num_alike / max(1, self.num_prompts)} if has_groups else {})


@dataclass(slots=True, eq=False, kw_only=True)
class RoundSampler:
    """Samples and scores rounds."""

    config: OnlineConfig
    engine: Sampler
    rewarder: Rewarder
    sampling: Sampling
    """Its seed is that of the run."""
    length_coef: float
    """See OnlineConfig.length_coef, resolved."""
    dialogues: Dialogues | None = None
    """Where rollouts have several turns."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Of the phases of the last round."""
    num_tokens: dict[str, int] = field(default_factory=dict[str, int])
    """That these phases wrote or scored, by the name of their seconds."""

    def sample(self, prompts: PromptStream, *, number: int, step: int, retry: int = 0) -> Sampled:
        """Completions of one round.

        Args:
            number: of the round, from 0; part of the seeds.
            step: optimiser steps made so far.
            retry: how many times this round was sampled before, from 0; part of the seeds.
        Raises:
            TrainError: nothing could be trained on, several times in a row.
        """
        self.seconds, self.num_tokens = {}, {}
        wanted = self.config.batch_size // self.config.group_size
        kept, aside, tally, is_advantage = list[_Kept](), list[_Kept](), _Tally(), False
        num_lost = attempt = 0
        first_seed = retry * (self.config.max_resamples + MAX_LOST_TRIES + 1)
        while True:
            seed = round_seed(self.sampling.seed, number, first_seed + attempt)
            found, said = self._try(prompts, wanted - len(kept), seed=seed, step=step, tally=tally)
            is_advantage |= said.is_advantage
            for one, teaches in found:
                (kept if teaches or not self.config.max_resamples else aside).append(one)
            attempt += 1
            num_lost += not found
            is_over = attempt > self.config.max_resamples and bool(kept or aside)
            if len(kept) >= wanted or is_over:
                break
            if num_lost >= MAX_LOST_TRIES:
                raise TrainError(explain("rewards", f"{tally.num_sampled} completions", f"leave none to train on after {num_lost} tries",
                                         expected="finite scores, and two or more a prompt for methods that compare a group",
                                         remedy="See what the rewards, and tools, say of one completion; the last checkpoint is kept"))  # fmt: skip
        chosen = (kept or aside)[:wanted]
        paid = None if chosen[0].paid is None else torch.cat([x for one in chosen for x in one.paid or []])
        return Sampled(
            rollouts=[one.rollout for one in chosen], scores=torch.cat([one.scores for one in chosen]), token_rewards=paid,
            is_advantage=is_advantage,
            metrics=tally.told(len(chosen), num_wanted=wanted, has_groups=self.config.group_size > 1) | self._told(tally) | self.seconds
            | self._rates(),
        )  # fmt: skip

    def _rates(self) -> dict[str, float]:
        """Tokens a second of each phase; the engine waits while environments answer."""
        waits = {"rl/sample_s": self.seconds.get("rl/environment_s", 0.0)}
        return {
            f"{name.removesuffix('_s')}_tokens_per_s": num / max(self.seconds[name] - waits.get(name, 0.0), 1e-9)
            for name, num in self.num_tokens.items()
        }

    def _told(self, tally: _Tally) -> dict[str, float]:
        """Metrics of turns and tools."""
        if self.config.tools is None:
            return {}
        return transcript_metrics(tally.transcripts, error_penalty=self.config.tools.error_penalty)

    def _try(
        self, prompts: PromptStream, num_prompts: int, *, seed: int, step: int, tally: _Tally
    ) -> tuple[list[tuple[_Kept, bool]], Scores]:
        """Sample and score some prompts; each that is left, and whether its completions score differently."""
        config = self.config
        requests = prompts.take(num_prompts, num_samples=config.group_size)
        sampling = replace(self.sampling, seed=seed, wants_choices=self.sampling.is_cut)
        with self._timed("rl/sample_s"):
            asked = self.rollouts(requests, sampling, group_size=config.group_size)
            greedy = without_empty(self._greedy(asked, sampling)) if config.needs_greedy else []
        written = without_empty(asked)
        self._count("rl/sample_s", [*asked, *greedy])
        sampled = without_failed(written)
        num_left = sum(len(r.samples) for r in sampled)
        with self._timed("rl/score_s"):
            said = self.rewarder(sampled, step=step)
            said = replace(said, token_rewards=_with_turn_rewards(said.token_rewards, sampled))
            values = said.values
            if config.needs_greedy:
                sampled, values = self._with_baselines(sampled, values, greedy, step=step)
        self._count("rl/score_s", [*sampled, *greedy])
        left = survivors(sampled, values, needs_group=config.needs_group)
        num_sampled = sum(len(r.samples) for r in asked)
        tally.num_prompts += num_prompts
        tally.num_sampled += num_sampled
        tally.num_empty += num_sampled - sum(len(r.samples) for r in written)
        tally.transcripts += [transcript for r in asked for transcript in r.transcripts]
        tally.num_lone += left.num_lone
        tally.metrics.append((float(num_left), dict(said.metrics)))
        found = _cut(left.rollouts, left.scores, said, left.rows)
        tally.scores += [one.scores for one in found]
        teaches = _teaches(left.rollouts, left.scores + _turn_rewards(left.rollouts))
        tally.num_alike += int((~teaches).sum())
        return list(zip(found, teaches.tolist(), strict=True)), said

    def rollouts(self, requests: Sequence[GenerateRequest], sampling: Sampling, *, group_size: int) -> list[Rollout]:
        """Rollouts of one turn, or of as many as the environment lets them have."""
        found = sample_rollouts(self.engine, requests, sampling, group_size=group_size)
        if self.dialogues is None:
            return found
        found = self.dialogues.go_on(found, self.engine, sampling)
        self.seconds["rl/environment_s"] = self.seconds.get("rl/environment_s", 0.0) + self.dialogues.environment_s
        return found

    def _greedy(self, rollouts: Sequence[Rollout], sampling: Sampling) -> list[Rollout]:
        """The most likely completion of every prompt of the try."""
        prompts = {r.samples[0].key: r.tree.prompt_ids for r in rollouts}
        requests = [GenerateRequest(key=key, token_ids=tuple(ids.tolist())) for key, ids in prompts.items()]
        return self.rollouts(requests, replace(sampling, temperature=0.0, wants_choices=False), group_size=1)

    def _with_baselines(
        self, rollouts: Sequence[Rollout], values: Tensor, greedy: Sequence[Rollout], *, step: int
    ) -> tuple[list[Rollout], Tensor]:
        """Rollouts with the reward of their greedy completion, which is scored aside; without one a prompt's scores are NaN."""
        scores = self.rewarder(greedy, step=step, is_aside=True).values if greedy else torch.zeros(0)
        lengths = torch.tensor([len(r.samples[0].token_ids) for r in greedy])
        has_eos = torch.tensor([r.samples[0].finish_reason == "stop" for r in greedy], dtype=torch.bool)
        rewards = completion_rewards(self.shaped(scores, lengths), score_clip=self.config.score_clip, has_eos=has_eos,
                                     missing_eos_penalty=self.config.missing_eos_penalty)  # fmt: skip
        rewards = rewards + _turn_rewards(greedy)
        has_failed = torch.tensor([any(t.failure for t in r.transcripts) for r in greedy], dtype=torch.bool)
        rewards = torch.where(has_failed, torch.nan, rewards)
        by_key = {r.samples[0].key: float(x) for r, x in zip(greedy, rewards, strict=True)}
        found = [replace(r, baseline=by_key.get(r.samples[0].key, np.nan)) for r in rollouts]
        known = torch.tensor([np.isfinite(by_key.get(s.key, np.nan)) for r in rollouts for s in r.samples])
        return found, torch.where(known, values, torch.nan)

    def shaped(self, scores: Float[Tensor, "B"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Scores with what length costs."""
        config = self.config
        shaped = scores + length_penalty(lengths, coef=self.length_coef, max_tokens=config.max_new_tokens)
        buffer = round(config.overlong_share * config.max_new_tokens)
        if not buffer:
            return shaped
        return shaped + overlong_penalty(lengths, max_tokens=config.max_new_tokens, buffer_tokens=buffer)

    def _count(self, name: str, rollouts: Sequence[Rollout]) -> None:
        """Their tokens to a phase."""
        num = sum(len(sample.token_ids) for rollout in rollouts for sample in rollout.samples)
        self.num_tokens[name] = self.num_tokens.get(name, 0) + num

    @contextlib.contextmanager
    def _timed(self, name: str) -> Generator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def round_seed(seed: int, number: int, attempt: int) -> int:
    """Seed of a try to sample a round."""
    parts = (seed, number, attempt) if attempt else (seed, number)
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def mean_error(groups: Sequence[Tensor]) -> float:
    """Standard error of the mean over all completions, of which those of one prompt go together.

    sqrt(P / (P - 1) * sum_p (sum_{i in p} (x_i - mean))^2) / N

    Args:
        groups: [G] scores of each of P > 1 prompts, which may differ in number.
    Equals: sd / sqrt(N) with one completion a prompt.
    """
    scores, num = torch.cat([group.double() for group in groups]), len(groups)
    off = torch.stack([(group.double() - scores.mean()).sum() for group in groups])
    return float((num / (num - 1) * off.square().sum()).sqrt()) / len(scores)


def _teaches(rollouts: Sequence[Rollout], scores: Float[Tensor, "B"]) -> Bool[Tensor, "P"]:
    if not rollouts:
        return torch.zeros(0, dtype=torch.bool)
    sizes = torch.tensor([len(r.samples) for r in rollouts])
    return informative_groups(scores, torch.repeat_interleave(torch.arange(len(rollouts)), sizes))


def _turn_rewards(rollouts: Sequence[Rollout]) -> Float[Tensor, "B"]:
    """What the environment pays in all turns of each completion."""
    paid = [
        float(r.transcripts[i].paid.sum()) if r.transcripts else 0.0 for r in rollouts for i in range(len(r.samples))
    ]
    return torch.tensor(paid, dtype=torch.float32)


def _with_turn_rewards(paid: tuple[Tensor, ...] | None, rollouts: Sequence[Rollout]) -> tuple[Tensor, ...] | None:
    """What tokens are paid by scorers, and by the environment at the ends of turns, by completion."""
    turns = [torch.from_numpy(t.paid).float() for r in rollouts for t in r.transcripts]
    if not turns or paid is None:
        return tuple(turns) or paid
    return tuple(a + b for a, b in zip(paid, turns, strict=False))


def _cut(rollouts: Sequence[Rollout], scores: Tensor, said: Scores, rows: npt.NDArray[np.intp]) -> list[_Kept]:
    """Each prompt with its own part of everything."""
    sizes = [len(r.samples) for r in rollouts]
    ends = np.cumsum(sizes)[:-1].tolist()
    pieces = np.split(rows, ends) if sizes else []
    return [
        _Kept(rollout, part, None if said.token_rewards is None else [said.token_rewards[i] for i in own])
        for rollout, part, own in zip(rollouts, scores.split(sizes), pieces, strict=True)
    ]
