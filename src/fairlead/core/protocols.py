"""The seams between packages: what a rollout engine, a scorer, a judge and a metric sink must do.

Stages receive these as arguments and never import the classes behind them; `pipeline/run.py` is the one place that wires
Protocols to classes.

Legend: token ids and logprobs are numpy arrays, never tensors, so that an engine may live in another process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Completion, FinishReason, Judgment, Message, Prompt, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample. The seed of each sample is derived from (seed, request key, sample index), never from placement.

    Logits are changed in this order: repetition penalty, temperature, top-k, top-p, min-p.
    """

    max_new_tokens: int
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means off."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the most likely token's probability; 0 means off."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that prompt or completion hold already, and multiplies the negative ones; 1 means off."""
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    """Texts that end a sample: it keeps all tokens up to the one with which its text first holds one of them. The engine needs a decoder."""
    wants_choices: bool = False
    """Whether samples shall say which tokens each of theirs was drawn from (`Sample.choices`), where some have no chance."""

    @property
    def is_cut(self) -> bool:
        """Whether some tokens have no chance, so that the sampled distribution is not the policy's at any temperature."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One tokenised prompt of which `num_samples` completions are wanted."""

    key: str
    """Stable name (the prompt's id); part of the seed. Unique in one call."""
    token_ids: tuple[int, ...]
    num_samples: int = 1
    max_new_tokens: int | None = None
    """A limit of its own below that of the sampling; None takes the sampling's."""

    def limit(self, sampling: Sampling) -> int:
        """Tokens that a sample of it may have."""
        own = sampling.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        return min(own, sampling.max_new_tokens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sampled completion."""

    key: str
    sample_index: int
    token_ids: npt.NDArray[np.int64]
    """[T] sampled tokens, the stop token included."""
    sampling_logprobs: npt.NDArray[np.float32]
    """[T] nats, of the processed distribution that the token was drawn from (at temperature 0: of the penalised logits)."""
    finish_reason: FinishReason
    """`stop`: by a stop token or a stop text; `length`: by the limit."""
    choices: npt.NDArray[np.int32] | None = None
    """[T, C] ids of the tokens that each one was drawn from, -1 beyond them; None when not asked for, or by an engine that cannot say."""
    policy_versions: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    """Spans (version, start, end) of tokens by the policy version that wrote them; in order, without gaps."""

    @property
    def oldest_version(self) -> int:
        """Version of its first token; staleness is counted from here."""
        return self.policy_versions[0][0]


Decode = Callable[[npt.NDArray[np.int64]], str]
"""Text of [T] token ids."""
PauseMode = Literal["keep", "wait", "abort"]
"""What becomes of samples in flight: `keep` freezes them until `resume`, `wait` finishes them first, `abort` drops them (counted in
`EngineHealth.num_aborted`, left out of what `generate` yields: ask for them again)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHealth:
    """What an engine says about itself."""

    state: Literal["ready", "paused", "stale", "failed"]
    """`stale`: restarted and without the policy's weights until the next `update_weights`; it must not sample."""
    policy_version: int
    num_tokens: int
    """Sampled so far."""
    num_active: int = 0
    """Samples being decoded."""
    num_waiting: int = 0
    """Samples that were asked for and have not begun."""
    num_aborted: int = 0
    num_out_of_memory: int = 0
    """Times that memory ran out and fewer samples were decoded together from then on."""


@runtime_checkable
class Sampler(Protocol):
    """The generate half of a rollout engine."""

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Yield each sample when it has finished; the order is the engine's own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRequest:
    """A conversation to which a policy shall reply."""

    key: str
    """Names the request, once in a call; with the seed it decides the samples."""
    prompt: Prompt
    num_samples: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a policy gave for one request."""

    key: str
    """Of the request."""
    completions: Sequence[Completion] = ()
    """They carry seed and sample index, and in `meta` what else it takes to sample them again. Empty when there are none."""
    fault: str = ""
    """Why there are none."""


class ReplySampler(Protocol):
    """A policy that people talk to: texts in, texts out. Used by one thread at a time."""

    name: str
    """Of its weights, stored with every reply and never shown to a rater."""

    def reply(self, requests: Sequence[ReplyRequest]) -> Iterator[Reply]:
        """Answer each request once, together, as they are done; what is answered beside a request changes nothing of its samples."""
        ...


@runtime_checkable
class RolloutEngine(Sampler, Protocol):
    """A sampler whose weights follow a training policy.

    While a `generate` is being read, other threads may call everything else; the reader itself may call `update_weights` between two
    samples: samples in flight go on with the new weights, and their spans say so.
    """

    def pause(self, mode: PauseMode = "keep") -> None:
        """Write no more tokens until `resume`; returns when none is being written."""
        ...

    def resume(self) -> None:
        """Go on after `pause`."""
        ...

    def update_weights(self, source: "WeightSource | None", version: int) -> None:
        """Take new weights, whole or not at all; later tokens carry `version`.

        Args:
            source: None for an engine that shares the trainer's parameters, or when it already has them.
        """
        ...

    def health(self) -> EngineHealth:
        """State, version and counters; never waits."""
        ...

    def close(self) -> None:
        """Free what it holds; it is not used afterwards."""
        ...


class WeightSource(Protocol):
    """Hands out named weights one after another, in layer order."""

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, tensor) by the names of the plain model, with adapters added in."""
        ...

    def write_adapter(self, folder: Path) -> bool:
        """Write the adapter alone, as peft does, into a folder; False, and nothing, for a model without one."""
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
    """`reward/NAME_mean`, `_std`, `_share` (where it applies) and `_failed` by component, `reward/total_mean`, `_std`, `reward/dropped`."""


class RewardComposer(Protocol):
    """One object that scores the completions of a round with everything that the recipe composes. Not thread-safe.

    A component that fails or is slow costs samples, never the run: they come back dropped.
    """

    dollars: float
    """Spent on judges so far, in this and earlier processes of the run."""
    needs_groups: bool
    """True when a lone completion of a prompt has no reward (normalise_then_sum): the group size must be at least 2."""

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int, is_aside: bool = False
    ) -> ComposedReward:
        """Score B completions; rows of one prompt (equal `Prompt.id`) are a group, wherever they stand.

        Called once for each round: running statistics move with every call. `completions` carry text, token_ids and finish_reason.

        Args:
            prompts: [B] the prompt of each completion.
            step: optimiser steps made so far; decides which model is active where the recipe swaps them.
            is_aside: of completions that are not trained on, such as a greedy baseline: scored in the units of the round before, while running
                statistics, counters and the log of scored samples stay as they are.
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

    def save(self, out: Path) -> None:
        """At the end of training: put the log of scored samples (scored.jsonl) into the policy's folder."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One finished turn of a policy, put to an environment."""

    prompt: Prompt
    messages: tuple[Message, ...]
    """What came after the prompt and before this turn: earlier turns and observations, in order."""
    text: str
    """The turn itself, without special tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an environment makes of a turn."""

    text: str | None = None
    """What the policy reads before its next turn; None: it has nothing to say, and the rollout is over."""
    is_done: bool = False
    """The rollout is over whatever `text` says."""
    reward: float = 0.0
    """Reward units, paid at the turn's last token."""
    num_calls: int = 0
    """Calls of tools in the turn."""
    num_errors: int = 0
    """Those of them that could not be answered as they were asked; `text` says why."""
    failure: str = ""
    """Why the environment itself failed, in words: the rollout is not trained on. Empty when it did not."""


class Environment(Protocol):
    """Answers a policy's turns: tools, a game, a user. It holds no state: the conversation so far says where it stands.

    An environment that fails or is slow costs its own rollout, never the run. Equal turns should get equal answers, or a run that was
    killed is not the same when it goes on.
    """

    def step(self, turns: Sequence[Turn]) -> Sequence[Observation]:
        """Answer B turns, each of another rollout."""
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
