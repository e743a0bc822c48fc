"""The seams between packages: what a rollout engine, a scorer, a judge and a metric sink must do.

Stages receive these as arguments and never import the classes behind them; `pipeline/run.py` is the one place that wires
Protocols to classes.

Legend: token ids and logprobs are numpy arrays, never tensors, so that an engine may live in another process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Completion, FinishReason, Judgment, Prompt, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample. The seed of each sample is derived from (seed, request key, sample index), never from placement."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means off."""
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One tokenised prompt of which `num_samples` completions are wanted."""

    key: str
    """Stable name (the prompt's id); part of the seed."""
    token_ids: tuple[int, ...]
    num_samples: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sampled completion."""

    key: str
    sample_index: int
    token_ids: npt.NDArray[np.int64]
    """[T] sampled tokens, the stop token included."""
    sampling_logprobs: npt.NDArray[np.float32]
    """[T] nats, of the processed distribution that the token was drawn from."""
    finish_reason: FinishReason
    policy_versions: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    """Spans (version, start, end) of tokens by the policy version that wrote them."""


@runtime_checkable
class Sampler(Protocol):
    """The generate half of a rollout engine."""

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Yield samples as they finish, in any order."""
        ...


@runtime_checkable
class RolloutEngine(Sampler, Protocol):
    """A sampler whose weights follow a training policy."""

    def pause(self) -> None:
        """Stop taking new tokens; requests in flight are kept."""
        ...

    def resume(self) -> None:
        """Go on after `pause`."""
        ...

    def update_weights(self, source: "WeightSource", version: int) -> None:
        """Take new weights; later tokens carry `version`."""
        ...

    def health(self) -> Mapping[str, Any]:
        """State, version and counters."""
        ...


class WeightSource(Protocol):
    """Hands out named weights one after another, in layer order."""

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, tensor)."""
        ...


class Scorer(Protocol):
    """Gives each completion one number: a rule, a reward model, an ensemble."""

    name: str

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """Return [B] raw scores; NaN means "not applicable"."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComposedReward:
    """What all components of a reward say together of B completions, and each by itself.

    A method that trains on it keeps the rows of `~dropped`. When `is_advantage`, the totals are normalised within groups and over the
    batch already: they are the advantages, and no baseline is subtracted and no spread divided out again.
    """

    total: npt.NDArray[np.float64]
    """[B] weighted sum of the components, in the unit that the composition's normalisation gives; NaN exactly where dropped."""
    components: Mapping[str, npt.NDArray[np.float64]]
    """[B] raw score by component, before weights and normalisation; NaN where it does not apply or failed."""
    dropped: npt.NDArray[np.bool_]
    """[B] not to be trained on: a component that the sample needs failed, or none applies. The rest of its group stays."""
    token_rewards: tuple[npt.NDArray[np.float64], ...] | None = None
    """B arrays [T]: what process rewards pay at the ends of steps, weighted, not part of `total`; None when nothing is paid there."""
    is_advantage: bool = False
    """True for normalise_then_sum."""
    active: Mapping[str, str] = field(default_factory=dict[str, str])
    """Component -> artifact id of the model that scored, to be written beside every logged sample."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """`reward/NAME/mean`, `/std`, `/share` (where it applies) and `/failed` by component, `reward/total/...`, `reward/dropped`."""


class RewardComposer(Protocol):
    """One object that scores the completions of a round with everything that the recipe composes. Not thread-safe.

    A component that fails or is slow costs samples, never the run: they come back dropped.
    """

    needs_groups: bool
    """True when a lone completion of a prompt has no reward (normalise_then_sum): the group size must be at least 2."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> ComposedReward:
        """Score B completions; rows of one prompt (equal `Prompt.id`) are a group, wherever they stand.

        Called once for each round: running statistics move with every call. `completions` carry text, token_ids and finish_reason.

        Args:
            prompts: [B] the prompt of each completion.
            step: optimiser steps made so far; decides which model is active where the recipe swaps them.
        Raises:
            EngineError: nothing could be scored in several rounds in a row.
        """
        ...

    def state(self) -> Mapping[str, Any]:
        """Running statistics and counters, JSON-able; belongs into every checkpoint, taken between rounds."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; later scores are those of a run that was never interrupted."""
        ...


class Judge(Protocol):
    """Compares completions as a rater does: a simulated rater or a judge model."""

    name: str
    kind: Literal["simulated", "judge"]

    def judge(self, task: Task, prompt: Prompt, a: Completion, b: Completion) -> Judgment:
        """Return one verdict in the canonical frame."""
        ...


class Learner(Protocol):
    """Takes batches and makes optimiser steps."""

    def step(self, batches: Sequence[Any]) -> Mapping[str, float]:
        """Make one optimiser step from the micro-batches of one global batch; return metrics."""
        ...


class MetricSink(Protocol):
    """Where metrics go: JSONL, TensorBoard, a tracker."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics of one step."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...
