"""Which tokens of a packed row attend to which, as padded blocks that fused attention can take.

A tree becomes *segments*. The first is its prompt with its longest branch, a plain causal square; each other branch is a segment of
its own, whose queries are the branch and whose keys are prompt and branch. In every segment the queries are the last of the keys,
so "may see" is a matter of place: key j of query i when j <= i + (number of keys - number of queries). Segments of similar size
share a block. numpy only, built once a micro-batch.

Legend: N tokens of the row, R segments of a block, Q and K its longest queries and keys, S padded query (or key) places of all blocks.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.text.packing import Layout

Ints = npt.NDArray[np.int64]

WASTE = 1.5
"""The longest segment of a block may be so many times its shortest: padding is weighed against calls."""
SLACK = 16
"""Tokens by which lengths may differ in any case."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Segments of similar size, padded on the right."""

    num_queries: Ints
    """[R]"""
    num_keys: Ints
    """[R] the queries are the last of them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """R, Q, K."""
        return len(self.num_queries), int(self.num_queries.max()), int(self.num_keys.max())

    @property
    def is_causal(self) -> bool:
        """Whether each segment is a causal square, for which fused attention needs no mask."""
        return bool((self.num_queries == self.num_keys).all())

    def mask(self, window: int | None) -> npt.NDArray[np.bool_]:
        """[R, 1, Q, K] True where a query may see a key; every row, padding too, sees at least one."""
        _, longest_query, longest_key = self.shape
        query = np.arange(longest_query)[None, :, None] + (self.num_keys - self.num_queries)[:, None, None]
        key = np.arange(longest_key)[None, None, :]
        seen = (key <= query) & (key < self.num_keys[:, None, None])
        if window is not None:
            last = np.minimum(
                query, self.num_keys[:, None, None] - 1
            )  # a padding query looks where the last real one does
            seen &= key > last - window
        return seen[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """From the flat row to padded places and back."""

    rows: Ints
    """[S] row of the flat row at each place; padding points at row 0."""
    home: Ints
    """[N] the place of each row (of its own segment, when it has several)."""
    extra_rows: Ints
    """Rows that stand in a second segment too: prompts, as keys of the other branches."""
    extra_places: Ints
    """Their places there."""

    @property
    def is_identity(self) -> bool:
        """Whether padded places are the flat row itself."""
        return len(self.rows) == len(self.home) and bool((self.rows == np.arange(len(self.rows))).all())


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """All blocks of a layout, with the gathers of queries and keys into them, one block after the other."""

    blocks: tuple[Block, ...]
    queries: Gather
    keys: Gather


def plan_segments(layout: Layout) -> Segments:
    """Cut a layout into segments and put similar ones together; the same layout gives the same plan."""
    groups = _group([segment for tree in _trees(layout) for segment in tree])
    blocks = tuple(
        Block(np.array([len(q) for q, _ in group]), np.array([len(k) for _, k in group])) for group in groups
    )
    num_tokens = len(layout.token_ids)
    queries = _gather([[q for q, _ in group] for group in groups], num_tokens, [[0] * len(group) for group in groups])
    shared = [[len(k) - len(q) for q, k in group] for group in groups]
    return Segments(blocks, queries, _gather([[k for _, k in group] for group in groups], num_tokens, shared))


def _trees(layout: Layout) -> list[list[tuple[Ints, Ints]]]:
    """(queries, keys) of every segment, tree by tree, as rows of the flat row."""
    starts = np.searchsorted(layout.tree_index, np.arange(layout.num_trees + 1))
    trees = []
    for start, end in itertools.pairwise(starts):
        branch = layout.branch_index[start:end]
        edges = start + np.searchsorted(branch, np.arange(int(branch[-1]) + 2 if end > start else 1))
        prompt = np.arange(edges[0], edges[1]) if len(edges) > 1 else np.zeros(0, dtype=np.int64)
        parts = [np.arange(a, b) for a, b in itertools.pairwise(edges[1:])]
        main = max(range(len(parts)), key=lambda j: (len(parts[j]), -j), default=None)
        path = prompt if main is None else np.concatenate([prompt, parts[main]])
        segments = [(path, path)] if len(path) else []
        segments += [(part, np.concatenate([prompt, part])) for j, part in enumerate(parts) if j != main and len(part)]
        trees.append(segments)
    return trees


def _group(segments: list[tuple[Ints, Ints]]) -> list[list[tuple[Ints, Ints]]]:
    """Segments of similar size together: squares apart from the others, by length, ties by place in the row."""
    order = sorted(segments, key=lambda s: (len(s[0]) != len(s[1]), len(s[1]), len(s[0]), int(s[0][0])))
    groups: list[list[tuple[Ints, Ints]]] = []
    for queries, keys in order:
        if groups and _fits(groups[-1], queries, keys):
            groups[-1].append((queries, keys))
        else:
            groups.append([(queries, keys)])
    return groups


def _fits(group: list[tuple[Ints, Ints]], queries: Ints, keys: Ints) -> bool:
    first_queries, first_keys = group[0]
    if (len(first_queries) == len(first_keys)) != (len(queries) == len(keys)):
        return False
    fewest = min(len(q) for q, _ in group)
    most = max(len(q) for q, _ in group)
    return _close(len(first_keys), len(keys)) and _close(min(fewest, len(queries)), max(most, len(queries)))


def _close(shortest: int, longest: int) -> bool:
    return longest <= max(WASTE * shortest, shortest + SLACK)


def _gather(groups: list[list[Ints]], num_tokens: int, num_shared: list[list[int]]) -> Gather:
    """Pad each group's rows to its longest; the first `num_shared` rows of a segment have their home elsewhere."""
    rows, home = [], np.zeros(num_tokens, dtype=np.int64)
    extra_rows, extra_places = [], []
    offset = 0
    for group, shared in zip(groups, num_shared, strict=True):
        longest = max(map(len, group))
        padded = np.zeros((len(group), longest), dtype=np.int64)
        for r, (segment, count) in enumerate(zip(group, shared, strict=True)):
            padded[r, : len(segment)] = segment
            places = offset + r * longest + np.arange(len(segment))
            home[segment[count:]] = places[count:]
            extra_rows.append(segment[:count])
            extra_places.append(places[:count])
        rows.append(padded.reshape(-1))
        offset += padded.size
    empty = np.zeros(0, dtype=np.int64)
    return Gather(np.concatenate(rows) if rows else empty, home,
                  np.concatenate(extra_rows) if extra_rows else empty, np.concatenate(extra_places) if extra_places else empty)  # fmt: skip
