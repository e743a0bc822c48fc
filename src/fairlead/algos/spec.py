"""The algorithm contract: what a loss sees, what it returns, and how the loop normalises it.

Losses are pure functions on flat kept tokens. `loss` returns a SUM; `count`, computed from masks and sizes only, is summed
over the global batch first, and the loop divides. So accumulation and data parallelism change nothing.

Legend:
    N  kept tokens of the micro-batch (those that some loss reads), flat
    B  sequences (completions)
    P  groups (pairs, rankings, prompts)

Example:
    loss = DPO.loss(batch, DPO.config())
    (loss.total / DPO.count(batch, DPO.config())).backward()
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BatchKind = Literal["tokens", "groups", "unpaired", "rollouts"]
Statistics = Mapping[str, Tensor]
"""What a method knows of the whole global batch, by name: scalars, or one value a unit (a group of a group batch, else a sequence)."""


def _no_statistics() -> Statistics:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenBatch:
    """Sequences to imitate."""

    logprobs: Float[Tensor, "N"]
    """Current policy, with gradient, nats."""
    sequence_index: Int[Tensor, "N"]
    """Which sequence a kept token belongs to, in [0, B)."""
    num_sequences: int
    weights: Float[Tensor, "B"] | None = None
    """Weight of each sequence; None means 1."""
    mean_logprobs: Float[Tensor, "N"] | None = None
    """Mean log-probability over the vocabulary (with gradient), for label smoothing; None when not asked for."""
    statistics: Statistics = field(default_factory=_no_statistics)
    """See `Algorithm.statistics`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupBatch:
    """Completions of one prompt each, to be compared. Pairs have two sequences a group, ranks 0 (chosen) and 1 (rejected)."""

    sequence_index: Int[Tensor, "N"]
    group_index: Int[Tensor, "B"]
    """Which group a sequence belongs to, in [0, P)."""
    ranks: Int[Tensor, "B"]
    """0 is best; equal ranks are ties."""
    num_groups: int
    logprobs: Float[Tensor, "N"] | None = None
    """Policy, with gradient; for methods that read likelihoods."""
    ref_logprobs: Float[Tensor, "N"] | None = None
    collision_logprobs: Float[Tensor, "N"] | None = None
    """log of the policy's summed squared probabilities at each token, without gradient; for WPO's weights."""
    scores: Float[Tensor, "B"] | None = None
    """Reward-model output at the last token, with gradient; for reward models."""
    targets: Float[Tensor, "B"] | None = None
    """Rating that the score should equal; for regression."""
    p_chosen: Float[Tensor, "P"] | None = None
    """Probability that rank 0 is really better (soft label); None means 1."""
    margins: Float[Tensor, "P"] | None = None
    """Score distance asked for; None means 0."""
    is_tie: Bool[Tensor, "P"] | None = None
    weights: Float[Tensor, "P"] | None = None
    statistics: Statistics = field(default_factory=_no_statistics)
    """See `Algorithm.statistics`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnpairedBatch:
    """Completions each labelled good or bad."""

    logprobs: Float[Tensor, "N"]
    ref_logprobs: Float[Tensor, "N"]
    sequence_index: Int[Tensor, "N"]
    is_good: Bool[Tensor, "B"]
    weights: Float[Tensor, "B"] | None = None
    """Weight of each sequence; None means 1."""
    statistics: Statistics = field(default_factory=_no_statistics)
    """See `Algorithm.statistics`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutBatch:
    """Sampled completions with their advantages; all token tensors cover the same kept (sampled) tokens."""

    logprobs: Float[Tensor, "N"]
    """Current policy, with gradient."""
    old_logprobs: Float[Tensor, "N"]
    """Behaviour policy, recomputed by the trainer (or the engine's when they are proven equal)."""
    advantages: Float[Tensor, "N"]
    """Per token, already whitened over the global batch."""
    sequence_index: Int[Tensor, "N"]
    num_sequences: int
    ref_logprobs: Float[Tensor, "N"] | None = None
    entropy: Float[Tensor, "N"] | None = None
    """Of the current policy, nats; None when not asked for."""
    values: Float[Tensor, "N"] | None = None
    """Value model, with gradient."""
    old_values: Float[Tensor, "N"] | None = None
    returns: Float[Tensor, "N"] | None = None
    correction: Float[Tensor, "N"] | None = None
    """Trainer's over engine's probability of each token, truncated (`mismatch.py`), 0 where masked; without gradient; None means 1."""
    mismatch: Float[Tensor, "N"] | None = None
    """The same before it was truncated, where the loss is to log it; without gradient."""
    sampling_logprobs: Float[Tensor, "N"] | None = None
    """The engine's, beside `mismatch`."""
    weights: Float[Tensor, "B"] | None = None
    """Weight of each sequence, 0 for one that has no score; None means 1."""
    statistics: Statistics = field(default_factory=_no_statistics)
    """See `Algorithm.statistics`."""


Batch = TokenBatch | GroupBatch | UnpairedBatch | RolloutBatch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loss:
    """A sum to be divided by the global count, and metrics `area/name` as (sum, count) pairs without gradient."""

    total: Float[Tensor, ""]
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One training method. `config` is the frozen dataclass of its settings."""

    name: str
    paper: str
    batch: BatchKind
    config: type[Any]
    count: Callable[[Any, Any], Tensor]
    """(batch, config) -> scalar; from masks and sizes only, never from the model."""
    loss: Callable[[Any, Any], Loss]
    needs: frozenset[str] = frozenset()
    """What forward.py must fill beyond `logprobs`: any of ref_logprobs, scores, values, entropy, mean_logprobs, collision_logprobs.
    "mismatched" asks the trees for completions of other prompts, which only `statistics` sees."""
    optional_needs: Callable[[Any], frozenset[str]] | None = None
    """config -> what its settings need beyond `needs` (label smoothing reads mean_logprobs, at a price only when on)."""
    statistics: Callable[[Any, Any], dict[str, Tensor]] | None = None
    """(global batch, config) -> what must be known of the whole batch before a loss can be a sum over its units; without gradient.

    The result, scalars or one value a unit, is `statistics` of every micro-batch that `loss` sees. The batch given here carries the
    scalars of the steps before as its `statistics`, for means that move; checkpoints keep them. With "mismatched" among `needs` its
    sequences are completions of other prompts and the result is scalars."""
    holds_fixed: Callable[[Any], bool] | None = None
    """config -> whether the gradient is that of the total with what the loss detaches held fixed (a ratio as a mere weight, a KL shown by
    another estimator); None means that it is the total's own."""
    derived: Callable[[Mapping[str, float]], dict[str, float]] | None = None
    """means of the metrics -> what is logged (a standard deviation in place of a mean square); see `logged`."""

    def needs_for(self, config: Any) -> frozenset[str]:
        """Everything that forward.py must fill for `config`."""
        return self.needs | (self.optional_needs(config) if self.optional_needs else frozenset())

    def logged(self, means: Mapping[str, float]) -> dict[str, float]:
        """The metrics to log, from sum / count of each metric over the global batch."""
        return dict(means) if self.derived is None else self.derived(means)


def sum_by_sequence(x: Float[Tensor, "N"], sequence_index: Int[Tensor, "N"], num_sequences: int) -> Float[Tensor, "B"]:
    """Sum token values into their sequences."""
    return torch.zeros(num_sequences, dtype=x.dtype, device=x.device).index_add(0, sequence_index, x)


def pair_rows(batch: GroupBatch) -> tuple[Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Row numbers of the chosen and the rejected sequence of every pair.

    Raises:
        ValueError: a group does not have exactly the ranks 0 and 1.
    """
    order = torch.argsort(batch.group_index * 2 + batch.ranks)
    expected = torch.arange(2 * batch.num_groups, device=order.device)
    if order.numel() != 2 * batch.num_groups or not bool(
        ((batch.group_index[order] == expected // 2) & (batch.ranks[order] == expected % 2)).all()
    ):
        raise ValueError(f"{order.numel()} sequences in {batch.num_groups} groups are not pairs with ranks 0 and 1")
    return order[0::2], order[1::2]
