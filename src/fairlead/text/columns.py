"""Trees that are not held as objects: columns of arrays, on disk or in memory, from which single trees are made when they are asked for.

    records --encode--> trees --to_columns--> arrays --write_columns--> file, memory-mapped --StoredTrees--> Sequence[Tree]

Whatever reads trees takes a Sequence[Tree], so a list of trees and these are one to it. numpy only: a machine without Arrow keeps the same
columns in memory.

Legend: P trees, B completions, T tokens.

Example:
    trees = StoredTrees([TreeColumns(to_columns(encoded))])
    trees[3]                                            # a Tree
    TreeView(trees, order=np.flatnonzero(is_heldout))   # some of them
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from fairlead.core.arrow import Column
from fairlead.text.packing import Branch, Ints, Tree

FORMAT = "trees/1"
"""Version of the columns below; another one is not read."""
_NUMBER = "number/"


class Trees(Sequence[Tree]):
    """What is common to sequences of trees that make each tree when it is asked for; a slice is a list."""

    __slots__ = ()

    def make(self, place: int) -> Tree:
        """The tree at a place in [0, len)."""
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> Tree: ...

    @overload
    def __getitem__(self, place: slice) -> list[Tree]: ...

    def __getitem__(self, place: int | slice) -> Tree | list[Tree]:
        if isinstance(place, slice):
            return [self.make(i) for i in range(*place.indices(len(self)))]
        i = place + len(self) if place < 0 else place
        if not 0 <= i < len(self):
            raise IndexError(f"tree {place} of {len(self)}")
        return self.make(int(i))


def to_columns(trees: Sequence[Tree]) -> dict[str, Column]:
    """Columns with a row for every tree. Token ids are kept in 32 bits, weights, numbers and ratings in 64.

    Raises:
        ValueError: trees with arrays or mismatched completions, which are views and not data, or with unequal numbers.
    """
    names = sorted(trees[0].numbers) if trees else []
    if any(sorted(t.numbers) != names or t.mismatched or any(b.arrays for b in t.branches) for t in trees):
        raise ValueError("trees of one file have the same numbers, no arrays and no mismatched completions")
    branches = [b for t in trees for b in t.branches]
    of_tree = _offsets(len(t.branches) for t in trees)
    kept = [_NONE if b.kept is None else b.kept for b in branches]
    ratings = [r for t in trees for r in t.targets]
    columns = {
        "prompt": Column(_flat([t.prompt_ids for t in trees]), (_offsets(len(t.prompt_ids) for t in trees),)),
        "completion": Column(_flat([b.token_ids for b in branches]), (of_tree, _offsets(len(b.token_ids) for b in branches))),
        "kept": Column(_flat(kept).astype(np.uint8), (of_tree, _offsets(map(len, kept)))),
        "weight": Column(np.array([b.weight for b in branches], dtype=np.float64), (of_tree,)),
        "rank": Column(np.array([r for t in trees for r in t.ranks], dtype=np.int32), (_offsets(len(t.ranks) for t in trees),)),
        "target": Column(np.array([x for r in ratings for x in r], dtype=np.float64),
                         (_offsets(len(t.targets) for t in trees), _offsets(map(len, ratings)))),
    }  # fmt: skip
    for name in names:
        columns[_NUMBER + name] = Column(np.array([t.numbers[name] for t in trees], dtype=np.float64))
    return columns


_NONE = np.zeros(0, dtype=bool)


def _flat(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, dtype=np.int32)


def _offsets(sizes: Iterable[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(np.fromiter(sizes, dtype=np.int64))]).astype(np.int64)


class TreeColumns(Trees):
    """Trees of one set of columns (`to_columns`). Immutable."""

    __slots__ = ("_branch_starts", "_columns", "_kept_starts", "_numbers", "_prompt_starts", "_token_starts", "columns")

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self._prompt_starts = columns["prompt"].offsets[0]
        self._branch_starts, self._token_starts = columns["completion"].offsets
        self._kept_starts = columns["kept"].offsets[1]
        self._numbers = {name.removeprefix(_NUMBER): c.values for name, c in columns.items() if name.startswith(_NUMBER)}  # fmt: skip

    def __len__(self) -> int:
        return len(self._prompt_starts) - 1

    def make(self, place: int) -> Tree:
        """A tree with arrays of its own."""
        start, end = self._prompt_starts[place : place + 2].tolist()
        prompt = self.columns["prompt"].values[start:end].astype(np.int64)
        first, last = self._branch_starts[place : place + 2].tolist()
        return Tree(
            prompt_ids=prompt,
            branches=tuple(self._branch(b) for b in range(first, last)),
            ranks=self._ranks(place),
            numbers={name: float(values[place]) for name, values in self._numbers.items()},
            targets=self._targets(place),
        )

    def _branch(self, b: int) -> Branch:
        start, end = self._token_starts[b : b + 2].tolist()
        ids = self.columns["completion"].values[start:end].astype(np.int64)
        first, last = self._kept_starts[b : b + 2].tolist()
        kept = self.columns["kept"].values[first:last].astype(bool) if last > first else None
        return Branch(token_ids=ids, kept=kept, weight=float(self.columns["weight"].values[b]))

    def _ranks(self, place: int) -> tuple[int, ...]:
        column = self.columns["rank"]
        start, end = column.offsets[0][place : place + 2].tolist()
        return tuple(column.values[start:end].tolist())

    def _targets(self, place: int) -> tuple[tuple[float, ...], ...]:
        column = self.columns["target"]
        start, end = column.offsets[0][place : place + 2].tolist()
        if start == end:
            return ()
        bounds = column.offsets[1][start : end + 1].tolist()
        return tuple(tuple(column.values[a:b].tolist()) for a, b in itertools.pairwise(bounds))

    def sizes(self) -> Ints:
        """[P] tokens of every tree, without touching a token."""
        return np.diff(self._prompt_starts) + np.diff(self._token_starts[self._branch_starts])


class StoredTrees(Trees):
    """Trees of several sets of columns, one after the other. Immutable."""

    __slots__ = ("_starts", "parts")

    def __init__(self, parts: Sequence[TreeColumns]) -> None:
        self.parts = tuple(parts)
        self._starts: list[int] = _offsets(map(len, self.parts)).tolist()

    def __len__(self) -> int:
        return self._starts[-1]

    def make(self, place: int) -> Tree:
        """A tree with arrays of its own."""
        part = bisect.bisect_right(self._starts, place) - 1
        return self.parts[part].make(place - self._starts[part])

    def sizes(self) -> Ints:
        """[P] tokens of every tree, without touching a token."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(part.sizes() for part in self.parts)])

    def ranks(self) -> Ints:
        """[B] rank of every completion, in tree order; empty when nothing is compared."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(part.columns["rank"].values for part in self.parts)])


@dataclass(frozen=True, slots=True, eq=False)
class TreeView(Trees):
    """Some trees of another sequence, in an order of their own, or with something changed in each. Nothing is copied before it is asked for.

    Pure: `change` depends on its arguments alone.
    """

    trees: Sequence[Tree]
    order: Ints | None = None
    """[P] places in `trees`; None for all, in their order."""
    change: Callable[[Tree, int], Tree] | None = None
    """(tree, place in this view) -> tree"""

    def __len__(self) -> int:
        return len(self.trees) if self.order is None else len(self.order)

    def make(self, place: int) -> Tree:
        """A tree of the view."""
        tree = self.trees[place if self.order is None else int(self.order[place])]
        return tree if self.change is None else self.change(tree, place)


def all_ranks(trees: Sequence[Tree]) -> Ints:
    """[B] rank of every completion, in tree order; at once for stored trees."""
    return trees.ranks() if isinstance(trees, StoredTrees) else np.array([r for t in trees for r in t.ranks], dtype=np.int64)  # fmt: skip


def hash_tree(tree: Tree, update: Callable[..., None]) -> None:
    """Feed what a model reads of a tree to a hash: tokens, and which of them are kept."""
    update(f"tree {len(tree.prompt_ids)} {len(tree.branches)}".encode())
    update(np.ascontiguousarray(tree.prompt_ids).data)
    for branch in tree.branches:
        kept = np.ones(len(branch.token_ids), dtype=bool) if branch.kept is None else branch.kept
        update(f"branch {len(branch.token_ids)}".encode())
        update(np.ascontiguousarray(branch.token_ids).data)
        update(np.packbits(kept).data)
