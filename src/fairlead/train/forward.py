"""Runs the models on a micro-batch and fills the tensors that an algorithm's batch kind asks for.

What needs randomness or a model lives here; losses stay pure. Frozen quantities (ref_logprobs, old_logprobs) are arrays of the
branches, computed once by `annotate`, never in the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fairlead.algos.mismatch import CorrectionConfig, truncated_ratios
from fairlead.algos.spec import Algorithm, Batch, GroupBatch, RolloutBatch, TokenBatch, UnpairedBatch
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.packing import Tree, pack_trees, plan_microbatches
from fairlead.train.batches import MicroBatch
from fairlead.train.noise import EmbeddingNoise, noisy_embeddings
from fairlead.train.views import expand_views, pick_outputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Models:
    """What is trained: a policy, a value model beside it or on its trunk, or a scalar (reward) model."""

    policy: CausalModel | None = None
    value: ScalarModel | None = None
    """On the policy's trunk where its `base` is the policy: one forward then gives logprobs and values."""
    reward: ScalarModel | None = None
    temperature: float = 1.0
    """Divides the logits of every policy that is compared."""
    correction: CorrectionConfig | None = None
    """Where trees bring no old log-probabilities: those of the step itself are taken, and the engine's are corrected by this."""

    def trunks(self) -> list[CausalModel]:
        """The transformers among them, each once."""
        scalars = [model.base for model in (self.value, self.reward) if model is not None]
        found = [*([self.policy] if self.policy is not None else []), *scalars]
        return list({id(model): model for model in found}.values())

    @property
    def shares_trunk(self) -> bool:
        """Whether the value model is a head on the policy's trunk."""
        return self.value is not None and self.value.base is self.policy

    @property
    def precision(self) -> str:
        """Of their products."""
        return ", ".join(dict.fromkeys(model.arithmetic.precision for model in self.trunks()))

    def notes(self) -> list[str]:
        """What the user should know about how these models run, a line each."""
        found = (model for model in self.trunks() if model.why_padded is not None)
        lines = (
            f"{m.config.model_type} {m.why_padded}, so it is trained on padded rows: slower, same results"
            for m in found
        )
        return list(dict.fromkeys(lines))


def run_forward(
    models: Models, batch: MicroBatch, algo: Algorithm, config: Any, *, noise: EmbeddingNoise | None = None
) -> Batch:
    """Build the algorithm's batch on the models' device, with gradients where the models train.

    Args:
        noise: on the input embeddings of a policy that learns tokens; training forwards alone give one.
    """
    trained = models.policy or (models.reward or models.value)
    assert trained is not None, "there is no model to run"
    return on_device(
        _fill(models, batch, algo, config, noise=noise),
        trained.base.device if isinstance(trained, ScalarModel) else trained.device,
    )


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Every tensor of a batch on one device; the planner's arrays begin on the CPU."""
    tensors = {f.name: x for f in fields(batch) if isinstance(x := getattr(batch, f.name), Tensor)}
    return replace(
        batch, **{name: x.to(device, non_blocking=True) for name, x in tensors.items() if x.device != device}
    )


def _fill(models: Models, batch: MicroBatch, algo: Algorithm, config: Any, *, noise: EmbeddingNoise | None) -> Batch:
    assert noise is None or algo.batch == "tokens", "noise on embeddings is for methods that learn tokens"
    needs = algo.needs_for(config)
    layout = batch.layout
    sequence_index = torch.from_numpy(layout.sequence_index)
    if algo.batch == "tokens" and models.reward is not None:
        return _step_batch(models.reward, batch)
    if algo.batch == "tokens":
        policy = _policy(models)
        with noisy_embeddings(policy, noise, trees=batch.trees, layout=layout):
            out = policy.logprobs(layout, temperature=models.temperature, needs=needs)
        return TokenBatch(
            logprobs=out.logprobs,
            sequence_index=sequence_index,
            num_sequences=layout.num_sequences,
            weights=batch.per_sequence_weight(),
            mean_logprobs=out.mean_logprobs,
        )
    if algo.batch == "groups":
        return _group_batch(models, batch, needs)
    if algo.batch == "unpaired":
        out = _policy(models).logprobs(layout, temperature=models.temperature)
        return _labelled(batch, logprobs=out.logprobs, ref_logprobs=batch.per_token("ref_logprobs"))
    return _rollout_batch(models, batch, needs)


def _step_batch(model: ScalarModel, batch: MicroBatch) -> TokenBatch:
    """Log-probabilities of the labels of steps, whose logits are read in the states before the kept tokens."""
    logits = model.values(batch.layout).float()
    labels = batch.per_token("labels").to(logits.device)
    logprobs = labels * functional.logsigmoid(logits) + (1 - labels) * functional.logsigmoid(-logits)
    return TokenBatch(logprobs=logprobs, sequence_index=torch.from_numpy(batch.layout.sequence_index),
                      num_sequences=batch.layout.num_sequences, weights=batch.per_sequence_weight())  # fmt: skip


def sizes_batch(batch: MicroBatch, algo: Algorithm) -> Batch:
    """The algorithm's batch with zeros where a model would speak: all that `count` may look at."""
    layout = batch.layout
    sequence_index, zeros = torch.from_numpy(layout.sequence_index), torch.zeros(len(layout.kept_target))
    if algo.batch == "tokens":
        return TokenBatch(logprobs=zeros, sequence_index=sequence_index, num_sequences=layout.num_sequences,
                          weights=batch.per_sequence_weight())  # fmt: skip
    if algo.batch == "groups":
        return _groups(batch)
    if algo.batch == "unpaired":
        return _labelled(batch, logprobs=zeros, ref_logprobs=zeros)
    return RolloutBatch(
        logprobs=zeros,
        old_logprobs=zeros,
        advantages=zeros,
        sequence_index=sequence_index,
        num_sequences=layout.num_sequences,
        weights=batch.per_sequence_weight(),
    )


def _policy(models: Models) -> CausalModel:
    assert models.policy is not None, "this algorithm trains a policy"
    return models.policy


def _group_batch(models: Models, batch: MicroBatch, needs: frozenset[str]) -> GroupBatch:
    layout, groups = batch.layout, _groups(batch)
    if "scores" in needs:
        assert models.reward is not None, "this algorithm trains a reward model"
        return replace(groups, scores=pick_outputs(batch, models.reward.outputs(layout)))
    out = _policy(models).logprobs(layout, temperature=models.temperature, needs=needs)
    ref_logprobs = batch.per_token("ref_logprobs") if "ref_logprobs" in needs else None
    return replace(groups, logprobs=out.logprobs, ref_logprobs=ref_logprobs, collision_logprobs=out.collision_logprobs)


def _groups(batch: MicroBatch) -> GroupBatch:
    layout = batch.layout
    groups = GroupBatch(
        sequence_index=torch.from_numpy(layout.sequence_index), group_index=torch.from_numpy(layout.group_index), ranks=batch.ranks(),
        num_groups=layout.num_trees, p_chosen=batch.per_tree("p_chosen", 1.0), margins=batch.per_tree("margin", 0.0),
        is_tie=batch.per_tree("is_tie", 0.0) > 0, weights=batch.per_tree("weight", 1.0),
    )  # fmt: skip
    return expand_views(batch, groups)


def _labelled(batch: MicroBatch, *, logprobs: Tensor, ref_logprobs: Tensor) -> UnpairedBatch:
    """Completions of rank 0 are good; the weight of a tree is that of each of its completions."""
    layout = batch.layout
    return UnpairedBatch(
        logprobs=logprobs, ref_logprobs=ref_logprobs, sequence_index=torch.from_numpy(layout.sequence_index), is_good=batch.ranks() == 0,
        weights=batch.per_tree("weight", 1.0)[torch.from_numpy(layout.group_index)],
    )  # fmt: skip


def _rollout_batch(models: Models, batch: MicroBatch, needs: frozenset[str]) -> RolloutBatch:
    layout, policy = batch.layout, _policy(models)
    hidden = policy.kept_hidden(layout)
    out = policy.read_logprobs(hidden, layout, temperature=models.temperature, needs=needs, choices=batch.choices())
    old = out.logprobs.detach() if models.correction is not None else batch.per_token("old_logprobs")
    rollouts = RolloutBatch(
        logprobs=out.logprobs, old_logprobs=old, advantages=batch.per_token("advantages"),
        sequence_index=torch.from_numpy(layout.sequence_index), num_sequences=layout.num_sequences,
        ref_logprobs=batch.per_token("ref_logprobs") if "ref_logprobs" in needs else None, entropy=out.entropy,
        correction=batch.optional_per_token("correction"), weights=batch.per_sequence_weight(),
    )  # fmt: skip
    if models.correction is not None:
        rollouts = _corrected(rollouts, batch, models.correction)
    if "values" not in needs:
        return rollouts
    assert models.value is not None, "this algorithm trains a value model"
    return replace(
        rollouts,
        values=models.value.read_values(hidden) if models.shares_trunk else models.value.values(layout),
        old_values=batch.per_token("old_values"),
        returns=batch.per_token("returns"),
    )


def _corrected(rollouts: RolloutBatch, batch: MicroBatch, config: CorrectionConfig) -> RolloutBatch:
    """With weights for the difference of engine and trainer, of a batch whose old log-probabilities are those of the step."""
    old = rollouts.old_logprobs
    sampled, index = batch.per_token("sampling_logprobs").to(old.device), rollouts.sequence_index.to(old.device)
    weights, ratios = truncated_ratios(old, sampled, index, num_sequences=rollouts.num_sequences, config=config)
    return replace(rollouts, correction=weights, mismatch=ratios, sampling_logprobs=sampled)


def _go_on() -> None:
    """Never stop."""


def annotate(
    trees: Sequence[Tree], name: str | tuple[str, ...], compute: "TokenFunction", *, max_tokens: int,
    heed: Callable[[], None] = _go_on,
) -> list[Tree]:  # fmt: skip
    """Attach a frozen per-token array, or several from one forward, to every branch.

    Args:
        name: of the array; a tuple names each column of [K, M] values.
        compute: maps a MicroBatch to [K] values; run without gradient.
        heed: called before each forward; raises to stop (`Services.heed`, `Session.heed`).
    """
    found: dict[int, np.ndarray] = {}
    with torch.no_grad():
        for row in plan_microbatches([t.num_tokens for t in trees], max_tokens=max_tokens):
            heed()
            part = tuple(trees[i] for i in row)
            batch = MicroBatch(part, pack_trees(part))
            values = compute(batch).float().cpu().numpy()
            sizes = [sum(b.num_kept for b in t.branches) for t in part]
            for i, piece in zip(row, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
                found[i] = piece
    if isinstance(name, str):
        return [with_array(tree, name, found[i]) for i, tree in enumerate(trees)]
    done = list(trees)
    for column, one in enumerate(name):
        done = [with_array(tree, one, np.ascontiguousarray(found[i][:, column])) for i, tree in enumerate(done)]
    return done


class TokenFunction:
    """[K] numbers of a micro-batch, or [K, M] of several kinds."""

    def __call__(self, batch: MicroBatch) -> Tensor:
        """Compute them."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PolicyLogprobs(TokenFunction):
    """Token logprobs under a policy at a temperature."""

    model: CausalModel
    temperature: float = 1.0
    among_choices: bool = True
    """Of the distribution that the tokens were drawn from, where some tokens had no chance; else of the whole one."""

    def __call__(self, batch: MicroBatch) -> Tensor:
        """[K] nats."""
        choices = batch.choices() if self.among_choices else None
        return self.model.logprobs(batch.layout, temperature=self.temperature, choices=choices).logprobs


@dataclass(frozen=True, slots=True)
class StateValues(TokenFunction):
    """Values of the states in which the kept tokens are chosen."""

    model: ScalarModel

    def __call__(self, batch: MicroBatch) -> Tensor:
        """[K] in reward units."""
        return self.model.values(batch.layout)


@dataclass(frozen=True, slots=True)
class LogprobsAndValues(TokenFunction):
    """Both of a policy and a value head on its trunk, from one forward."""

    model: CausalModel
    value: ScalarModel
    temperature: float = 1.0

    def __call__(self, batch: MicroBatch) -> Tensor:
        """[K, 2] nats and reward units."""
        hidden = self.model.kept_hidden(batch.layout)
        logprobs = self.model.read_logprobs(
            hidden, batch.layout, temperature=self.temperature, choices=batch.choices()
        ).logprobs
        return torch.stack([logprobs, self.value.read_values(hidden).to(logprobs.dtype)], dim=1)


def score_trees(
    model: ScalarModel, trees: Sequence[Tree], *, max_tokens: int, heed: Callable[[], None] = _go_on
) -> np.ndarray:
    """[B] raw scores of all completions, in tree and branch order, without gradient; `heed` as in `annotate`."""
    scores: dict[int, np.ndarray] = {}
    with torch.no_grad():
        for row in plan_microbatches([t.num_tokens for t in trees], max_tokens=max_tokens):
            heed()
            part = [trees[i] for i in row]
            values = model.scores(pack_trees(part)).cpu().numpy()
            for i, piece in zip(row, np.split(values, np.cumsum([len(t.branches) for t in part])[:-1]), strict=True):
                scores[i] = piece
    return np.concatenate([scores[i] for i in range(len(trees))]) if trees else np.zeros(0)


def with_array(tree: Tree, name: str, values: np.ndarray) -> Tree:
    """Attach [K] values, in the order of branches and kept tokens, to a tree."""
    pieces = np.split(values, np.cumsum([b.num_kept for b in tree.branches])[:-1])
    branches = tuple(
        replace(b, arrays={**b.arrays, name: piece}) for b, piece in zip(tree.branches, pieces, strict=True)
    )
    return replace(tree, branches=branches)


def without_array(tree: Tree, name: str) -> Tree:
    """The tree without an array of its branches."""
    branches = tuple(
        replace(b, arrays={key: array for key, array in b.arrays.items() if key != name}) for b in tree.branches
    )
    return replace(tree, branches=branches)
