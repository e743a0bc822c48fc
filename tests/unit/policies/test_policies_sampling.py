"""How a round is filled: dynamic sampling with a bound, rewards that fail, the greedy baseline, and what is told of it."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fairlead.core.errors import TrainError
from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.engine.rollouts import Rollout
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rewarding import Scores
from fairlead.policies.sampling import RoundSampler, mean_error


@dataclass
class Engine:
    """Writes the sample index, then the prompt's number; greedy completions begin with 99."""

    seen: list[tuple[str, int, float]] = field(default_factory=list)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        for request in requests:
            self.seen.append((request.key, sampling.seed, sampling.temperature))
            for i in range(request.num_samples):
                ids = np.array([99 if sampling.temperature == 0 else i, int(request.key[1:])])
                yield Sample(key=request.key, sample_index=i, token_ids=ids, sampling_logprobs=np.full(2, -1.0, dtype=np.float32),
                             finish_reason="stop")  # fmt: skip


@dataclass
class Judge:
    """Scores a completion by its two tokens."""

    score: Callable[[int, int], float]
    calls: int = 0
    aside: list[int] = field(default_factory=list)
    """First tokens of what was scored aside."""

    def __call__(self, rollouts: Sequence[Rollout], *, step: int, is_aside: bool = False) -> Scores:
        self.calls += 1
        firsts = [int(s.token_ids[0]) for r in rollouts for s in r.samples]
        assert (99 in firsts) == is_aside, "greedy completions alone are scored aside"
        self.aside += firsts if is_aside else []
        values = [self.score(*s.token_ids.tolist()) for r in rollouts for s in r.samples]
        return Scores(values=torch.tensor(values, dtype=torch.float32), metrics={"rl/disagreement": float(self.calls)})


def sample(score: Callable[[int, int], float], *, num_prompts: int = 12, engine: Engine | None = None, **settings: Any):
    """One round of 4 prompts with 2 completions each, of prompts p0, p1, ..."""
    given = {
        "algorithm": "grpo",
        "batch_size": 8,
        "group_size": 2,
        "minibatch_size": 8,
        "missing_eos_penalty": 0.0,
        "score_clip": None,
        **settings,
    }
    config = OnlineConfig.model_validate(given)
    stream = PromptStream([GenerateRequest(key=f"p{i}", token_ids=(1, i)) for i in range(num_prompts)], seed=0)
    judge = Judge(score)
    sampler = RoundSampler(
        config=config,
        engine=engine or Engine(),
        rewarder=judge,
        sampling=Sampling(max_new_tokens=4, seed=7),
        length_coef=0.0,
    )
    return sampler.sample(stream, number=0, step=0), stream, judge


def test_a_round_without_faults_is_taken_as_it_is() -> None:
    found, stream, judge = sample(lambda first, prompt: first + prompt)
    assert [len(r.samples) for r in found.rollouts] == [2] * 4 and stream.cursor == 4 and judge.calls == 1
    numbers = [int(r.samples[0].key[1:]) for r in found.rollouts]
    assert found.scores.tolist() == [x for n in numbers for x in (n, n + 1)]
    shares = (
        "rl/dropped_share",
        "rl/empty_share",
        "rl/lone_survivors",
        "rl/resampled_prompts",
        "rl/zero_variance_share",
    )
    assert [found.metrics[name] for name in shares] == [0.0] * 5


def test_the_error_of_the_mean_score_counts_prompts_and_not_completions() -> None:
    """Prompts that score 0, 0 and 3, 3: mean 1.5, deviations of prompts -3 and 3, sqrt(2 / 1 * 18) / 4 = 1.5. One completion each of 0, 1 and 5:
    mean 2, sd sqrt(14 / 2), over sqrt(3)."""
    assert mean_error([torch.tensor([0.0, 0.0]), torch.tensor([3.0, 3.0])]) == pytest.approx(1.5)
    assert mean_error([torch.tensor([x]) for x in (0.0, 1.0, 5.0)]) == pytest.approx(math.sqrt(14 / 2 / 3))
    found, _, _ = sample(lambda first, prompt: first + prompt)
    assert found.metrics["rl/score_error"] == pytest.approx(mean_error(found.scores.split(2)))
    alone, _, _ = sample(lambda first, prompt: first, batch_size=2, minibatch_size=2)
    assert "rl/score_error" not in alone.metrics


def test_prompts_that_teach_nothing_are_counted_and_kept_without_resampling() -> None:
    found, stream, _ = sample(lambda first, prompt: first * (prompt % 2))
    num_even = sum(int(r.samples[0].key[1:]) % 2 == 0 for r in found.rollouts)
    assert stream.cursor == 4 and 0 < num_even < 4
    assert found.metrics["rl/zero_variance_share"] == num_even / 4


def test_dynamic_sampling_replaces_them_by_prompts_that_teach() -> None:
    engine = Engine()
    found, stream, judge = sample(lambda first, prompt: first * (prompt % 2), max_resamples=10, engine=engine)
    assert all(int(r.samples[0].key[1:]) % 2 for r in found.rollouts) and len(found.rollouts) == 4
    assert judge.calls > 1 and stream.cursor > 4
    assert found.metrics["rl/resampled_prompts"] == stream.cursor - 4
    seeds = [seed for _, seed, _ in engine.seen]
    assert len(set(seeds)) == judge.calls, "every try has a seed of its own, for a prompt may come again"
    mean = found.metrics["rl/score"]
    assert mean == pytest.approx(0.5 * (1 - found.metrics["rl/zero_variance_share"])), (
        "the score is that of all that was sampled"
    )


def test_dynamic_sampling_ends_at_its_bound_with_what_there_is() -> None:
    found, stream, judge = sample(lambda first, prompt: first * (prompt == 1), max_resamples=2, num_prompts=40)
    assert judge.calls == 3 and stream.cursor <= 12
    assert [r.samples[0].key for r in found.rollouts] == ["p1"], "the one that teaches"
    alike, _, judge = sample(lambda first, prompt: 1.0, max_resamples=2)
    assert judge.calls == 3 and len(alike.rollouts) == 4 and alike.metrics["rl/zero_variance_share"] == 1.0


def test_failed_scores_cost_completions_and_a_lost_round_is_sampled_again() -> None:
    def score(first: int, prompt: int) -> float:
        return math.nan if prompt % 2 and first else math.inf if prompt == 0 else float(first)

    found, _, _ = sample(score, num_prompts=4)
    assert sorted(r.samples[0].key for r in found.rollouts) == ["p2"]
    assert found.metrics["rl/dropped_share"] == 6 / 8 and found.metrics["rl/lone_survivors"] == 2
    calls = [0]

    def later(first: int, prompt: int) -> float:
        calls[0] += 1
        return math.nan if calls[0] <= 16 else float(first)

    again, stream, judge = sample(later)
    assert judge.calls == 3 and len(again.rollouts) == 4 and stream.cursor == 12
    assert again.metrics["rl/dropped_share"] == 16 / 24


def test_a_reward_that_stays_silent_ends_the_run_with_the_reason() -> None:
    with pytest.raises(
        TrainError, match=r"rewards=40 completions leave none to train on after 5 tries; .* last checkpoint is kept"
    ):
        sample(lambda first, prompt: math.nan)


def test_scores_of_the_scorer_are_means_over_its_calls_weighed_by_completions() -> None:
    found, _, judge = sample(lambda first, prompt: first * (prompt % 2), max_resamples=10)
    assert 1.0 < found.metrics["rl/disagreement"] < judge.calls


def test_the_greedy_completion_is_the_baseline_and_without_its_score_a_prompt_is_dropped() -> None:
    engine = Engine()

    def score(first: int, prompt: int) -> float:
        return (math.nan if prompt == 3 else -1.0 - prompt) if first == 99 else float(first)

    found, _, judge = sample(score, num_prompts=4, engine=engine, algorithm="remax", missing_eos_penalty=0.5)
    assert judge.aside == [99] * 4 and found.metrics["rl/disagreement"] == 1.0, "what is told is of the samples"
    assert {r.samples[0].key: r.baseline for r in found.rollouts} == {"p0": -1.0, "p1": -2.0, "p2": -3.0}
    assert found.scores.tolist() == [0.0, 1.0] * 3 and found.metrics["rl/dropped_share"] == 2 / 8
    assert sorted(temperature for _, _, temperature in engine.seen) == [0.0] * 4 + [1.0] * 4


def test_one_completion_that_is_left_has_metrics_that_a_checkpoint_can_hold() -> None:
    settings = {"algorithm": "reinforce_pp", "batch_size": 2, "group_size": 1, "minibatch_size": 2}
    found, _, _ = sample(lambda first, prompt: math.nan if prompt else 1.0, num_prompts=2, **settings)
    assert len(found.scores) == 1 and found.metrics["rl/score_std"] == 0.0
    json.dumps(found.metrics, allow_nan=False)
