"""What a method must know of the whole global batch before its micro-batches can be summed: `Algorithm.statistics`, run once a step.

    micro-batches --forward without gradient--> batches --merge--> global batch --statistics--> cut --> each micro-batch its part

A batch that is one micro-batch needs no second forward. A method that reads `mismatched` completions (KTO) pays for these alone,
each prompt once for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fairlead.algos.spec import Algorithm, Batch, Statistics
from fairlead.algos.units import cut_statistics, global_statistics, merge_batches, num_units
from fairlead.text.packing import Tree
from fairlead.train.batches import MicroBatch, make_microbatches
from fairlead.train.forward import Models, run_forward


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What is known of one global batch."""

    parts: Sequence[Statistics]
    """The statistics of each micro-batch."""
    scalars: Mapping[str, float]
    """What the next step is told, and checkpoints keep."""
    forward: Batch | None = None
    """The forward of the only micro-batch, with gradient, where it has been made already."""


def know_batch(
    models: Models, microbatches: Sequence[MicroBatch], algo: Algorithm, config: Any, *, previous: Mapping[str, float], max_tokens: int
) -> Known:  # fmt: skip
    """Statistics of a global batch; empty ones, at no cost, for a method that asks for none.

    Args:
        previous: scalar statistics of the steps before.
        max_tokens: budget of a forward over mismatched completions.
    """
    if algo.statistics is None:
        return Known(parts=[{} for _ in microbatches], scalars=previous)
    if "mismatched" in algo.needs_for(config):
        asides = make_microbatches([mismatched_tree(t) for b in microbatches for t in b.trees], max_tokens=max_tokens)
        found = _statistics(algo, config, _forwards(models, asides, algo, config), previous)
        assert all(x.ndim == 0 for x in found.values()), "statistics of mismatched completions are scalars"
        parts = cut_statistics(found, [0] * len(microbatches))
        return Known(parts=parts, scalars=global_statistics(found, previous))
    if len(microbatches) == 1:
        forward = run_forward(models, microbatches[0], algo, config)
        found = _statistics(algo, config, [forward], previous)
        return Known(parts=[found], scalars=global_statistics(found, previous), forward=forward)
    batches = _forwards(models, microbatches, algo, config)
    found = _statistics(algo, config, batches, previous)
    parts = cut_statistics(found, [num_units(b) for b in batches])
    return Known(parts=parts, scalars=global_statistics(found, previous))


def mismatched_tree(tree: Tree) -> Tree:
    """The prompt with completions of another prompt; which of them is good means nothing here."""
    assert tree.mismatched, "this method reads completions of other prompts: see text.examples.with_mismatched"
    return replace(tree, branches=tree.mismatched, ranks=(0,) * len(tree.mismatched), mismatched=())


def _forwards(models: Models, microbatches: Sequence[MicroBatch], algo: Algorithm, config: Any) -> list[Batch]:
    with torch.no_grad():
        return [run_forward(models, batch, algo, config) for batch in microbatches]


@torch.no_grad()
def _statistics(
    algo: Algorithm, config: Any, batches: Sequence[Batch], previous: Mapping[str, float]
) -> dict[str, Tensor]:
    assert algo.statistics is not None
    whole = merge_batches(batches)
    like = next(x for x in (getattr(whole, name, None) for name in ("logprobs", "scores")) if isinstance(x, Tensor))
    told = {name: like.new_tensor(value) for name, value in previous.items()}
    return algo.statistics(replace(whole, statistics=told), config)
