"""The layout of a batch: trees (a prompt once, then each of its completions) in one flat row of tokens.

A completion's positions start where its prompt ends; it sees the prompt and itself, never a sibling. The same layout serves
SFT (one completion), pairs, rankings and RL groups. numpy only: the controller plans, the trainer turns it into tensors.

Legend:
    N  tokens of the row        K  kept tokens (whose logprobs are read)
    B  completions              P  trees (prompts)

Example, a prompt of 2 tokens with completions of 2 and 1:
    tokens    p0 p1 | a0 a1 | b0      positions 0 1 | 2 3 | 2      a0 and b0 are both predicted at p1
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """One completion of a tree."""

    token_ids: Ints
    """[T]"""
    kept: npt.NDArray[np.bool_] | None = None
    """[T] tokens that a loss reads; None means all."""
    arrays: dict[str, Floats] = field(default_factory=dict[str, Floats])
    """Per kept token: old_logprobs, ref_logprobs, advantages, ..."""
    choices: npt.NDArray[np.int32] | None = None
    """[kept tokens, C] ids of the tokens that each one was drawn from, -1 beyond them; None where every token had a chance."""
    weight: float = 1.0

    @property
    def num_kept(self) -> int:
        """Tokens that a loss reads."""
        return len(self.token_ids) if self.kept is None else int(self.kept.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """A prompt with its completions. An empty prompt is allowed when each branch brings its own beginning."""

    prompt_ids: Ints
    branches: tuple[Branch, ...]
    ranks: tuple[int, ...] = ()
    """Rank of each branch, 0 best; empty when the branches are not compared. Of unpaired labels 0 is good and 1 is bad."""
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    """Per group: p_chosen, margin, is_tie, weight."""
    targets: tuple[tuple[float, ...], ...] = ()
    """Ratings of each branch, one an output of the reward model; NaN where there is none. Empty when branches are not rated."""
    mismatched: tuple[Branch, ...] = ()
    """Completions of another prompt, which `statistics` alone reads (KTO); never in a row with `branches`."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the row that this tree takes."""
        return len(self.prompt_ids) + sum(len(b.token_ids) for b in self.branches)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A flat row of trees, as index arrays."""

    token_ids: Ints
    """[N]"""
    position_ids: Ints
    """[N] position within prompt + completion."""
    tree_index: Ints
    """[N] tree of each token."""
    branch_index: Ints
    """[N] 0 for prompt tokens, j + 1 for the tokens of a tree's j-th branch."""
    kept_source: Ints
    """[K] row whose hidden state predicts the kept token."""
    kept_target: Ints
    """[K] the kept token."""
    sequence_index: Ints
    """[K] completion of each kept token."""
    last_index: Ints
    """[B] row of each completion's last token (where a scalar head reads)."""
    group_index: Ints
    """[B] tree of each completion."""
    num_trees: int

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.last_index)


def join_choices(parts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """[K, C] of all parts [K_i, C_i] in order, the narrower ones filled up with -1."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts])


def pack_trees(trees: Sequence[Tree]) -> Layout:
    """Lay trees out in one row.

    Raises:
        ValueError: a branch is empty, or keeps its very first token without a prompt to predict it from.
    """
    columns: dict[str, list[Ints]] = {
        name: [] for name in ("ids", "positions", "tree", "branch", "source", "target", "sequence")
    }
    last: list[int] = []
    group: list[int] = []
    offset = 0
    for t, tree in enumerate(trees):
        length = len(tree.prompt_ids)
        _append(columns, tree.prompt_ids, np.arange(length), tree=t, branch=0)
        prompt_end = offset + length - 1
        offset += length
        for j, branch in enumerate(tree.branches):
            size = len(branch.token_ids)
            if size == 0:
                raise ValueError(f"branch {j} of tree {t} has no tokens")
            _append(columns, branch.token_ids, length + np.arange(size), tree=t, branch=j + 1)
            kept = np.arange(size) if branch.kept is None else np.flatnonzero(branch.kept)
            source = offset + kept - 1
            if len(kept) and kept[0] == 0:
                if length == 0:
                    raise ValueError(
                        f"branch {j} of tree {t} keeps its first token but has no prompt to predict it from"
                    )
                source[0] = prompt_end
            columns["source"].append(source)
            columns["target"].append(branch.token_ids[kept])
            columns["sequence"].append(np.full(len(kept), len(last), dtype=np.int64))
            offset += size
            last.append(offset - 1)
            group.append(t)
    flat = {k: np.concatenate(v).astype(np.int64) if v else np.zeros(0, dtype=np.int64) for k, v in columns.items()}
    return Layout(token_ids=flat["ids"], position_ids=flat["positions"], tree_index=flat["tree"], branch_index=flat["branch"],
                  kept_source=flat["source"], kept_target=flat["target"], sequence_index=flat["sequence"],
                  last_index=np.asarray(last, dtype=np.int64), group_index=np.asarray(group, dtype=np.int64), num_trees=len(trees))  # fmt: skip


def _append(columns: dict[str, list[Ints]], ids: Ints, positions: Ints, *, tree: int, branch: int) -> None:
    columns["ids"].append(ids)
    columns["positions"].append(positions)
    columns["tree"].append(np.full(len(ids), tree, dtype=np.int64))
    columns["branch"].append(np.full(len(ids), branch, dtype=np.int64))


def plan_microbatches(sizes: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Best-fit decreasing: put trees of the given sizes into as few rows of at most `max_tokens` as it can, in O(n log n) searches.

    Deterministic; a tree is never split. A tree larger than the budget gets a row of its own. Rows keep input order inside.
    """
    bins: list[list[int]] = []
    free: list[
        tuple[int, int]
    ] = []  # (free tokens, bin), ascending: the tightest bin that fits comes first, then the oldest
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = bisect.bisect_left(free, (sizes[i], -1))
        if place < len(free):
            left, b = free.pop(place)
            bins[b].append(i)
            bisect.insort(free, (left - sizes[i], b))
        else:
            bins.append([i])
            bisect.insort(free, (max(0, max_tokens - sizes[i]), len(bins) - 1))
    return sorted((sorted(row) for row in bins), key=lambda row: row[0])


def fill_rate(sizes: Sequence[int], plan: Sequence[Sequence[int]], *, max_tokens: int) -> float:
    """Share of the planned rows' budget that tokens fill, in (0, 1]; a row that is larger than the budget counts as full."""
    rows = [sum(sizes[i] for i in row) for row in plan]
    return sum(rows) / sum(max(row, max_tokens) for row in rows) if rows else 1.0


def unshare(trees: Sequence[Tree]) -> list[Tree]:
    """The plain layout: every completion with its own copy of the prompt (the reference that sharing is checked against)."""
    return [
        Tree(prompt_ids=tree.prompt_ids, branches=(branch,), numbers=tree.numbers)
        for tree in trees
        for branch in tree.branches
    ]
