"""The plain layout for models whose sequences cannot share a row: every completion with its own prompt, padded on the right.

A state-space layer hands its state from token to token whatever the positions say, so siblings and neighbours of a flat row would
see each other. Such a model runs over padded rows instead, with its own attention and its own masks; the hidden states are then
gathered back into the flat row, and everything after that (kept tokens, heads, losses, preflight) is the same as for trees. Padding
comes last, so no token of a causal model looks at it and no mask is needed. numpy only, built once a micro-batch.

Legend: N tokens of the flat row, R rows of a batch, T its longest row.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.models.segments import SLACK, WASTE
from fairlead.text.packing import Layout

Ints = npt.NDArray[np.int64]

_SHARED_LAYERS = frozenset(("full_attention", "sliding_attention"))
"""Kinds of layers that a plan of ours computes as the model would."""
_STATE_LAYERS = frozenset(("conv", "linear_attention", "hybrid", "hybrid_sliding"))


def why_padded(kind: Any, config: Any) -> str | None:
    """What keeps sequences of a transformers model from sharing a row, in words; None when they can.

    Args:
        kind: class of the causal language model: it says whether it keeps state and whether its attention can be replaced.
        config: it says which kinds of layers there are.
    """
    kinds = frozenset(getattr(config.get_text_config(), "layer_types", None) or ())
    if kind._is_stateful or kinds & _STATE_LAYERS:
        return "keeps state across a row"
    if kinds - _SHARED_LAYERS:
        return f"has layers of {', '.join(sorted(kinds - _SHARED_LAYERS))}"
    return None if kind._supports_attention_backend else "has an attention of its own"


@dataclass(frozen=True, slots=True, eq=False)
class PaddedRows:
    """Batches of rows of similar length, and the way back."""

    token_ids: tuple[Ints, ...]
    """[R, T] of each batch; 0 where a row has ended."""
    home: Ints
    """[N] place of each token of the flat row among the places of all batches, one after the other; of a shared prompt, one copy."""


def plan_rows(layout: Layout) -> PaddedRows:
    """Cut a layout into padded rows; the same layout gives the same plan."""
    home = np.zeros(len(layout.token_ids), dtype=np.int64)
    batches: list[Ints] = []
    offset = 0
    for paths in _batches(layout):
        longest = len(paths[-1])
        ids = np.zeros((len(paths), longest), dtype=np.int64)
        for row, path in enumerate(paths):
            ids[row, : len(path)] = layout.token_ids[path]
            home[path] = offset + row * longest + np.arange(len(path))
        batches.append(ids)
        offset += ids.size
    return PaddedRows(tuple(batches), home)


def _batches(layout: Layout) -> Iterator[list[Ints]]:
    """Paths of similar length together, shortest first, ties by place in the row."""
    batch: list[Ints] = []
    for path in sorted(_paths(layout), key=len):
        if batch and len(path) > max(WASTE * len(batch[0]), len(batch[0]) + SLACK):
            yield batch
            batch = []
        batch.append(path)
    if batch:
        yield batch


def _paths(layout: Layout) -> Iterator[Ints]:
    """Rows of the flat row that make up prompt and completion, of every completion; a prompt without one stands alone."""
    starts = np.searchsorted(layout.tree_index, np.arange(layout.num_trees + 1))
    for start, end in itertools.pairwise(starts):
        rows, branch = np.arange(start, end), layout.branch_index[start:end]
        prompt, others = rows[branch == 0], np.unique(branch[branch > 0])
        yield from (np.concatenate([prompt, rows[branch == b]]) for b in others)
        if len(prompt) and not len(others):
            yield prompt
