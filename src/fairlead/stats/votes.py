"""Votes: who gave which label to which item. The table that agreement and aggregation read.

Labels are in the canonical frame: `A` is the first completion of the stored pair, whatever side it was shown on. `swapped` says
which votes were given with the sides exchanged, so that a preference for a side can be told from a preference for a completion.

Legend:
    N  votes
    I  items, R raters, K labels

Example:
    votes = votes_from_rows([("pair-1", "ann", "A"), ("pair-1", "bob", "B"), ("pair-2", "ann", "A")])
    counts(votes)  # [[1, 1], [1, 0]]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.core.errors import DataError, explain, nearest
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray

UNKNOWN = -1
"""Label number of an item whose truth is not known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Votes:
    """Votes as parallel columns of numbers into the name tables. Immutable; a rater votes at most once on an item, unless
    `may_repeat` says otherwise."""

    items: IntArray
    """[N] in [0, I)."""
    raters: IntArray
    """[N] in [0, R)."""
    labels: IntArray
    """[N] in [0, K)."""
    item_names: tuple[str, ...]
    rater_names: tuple[str, ...]
    label_names: tuple[str, ...]
    """In rank order where labels are ordered."""
    swapped: BoolArray | None = None
    """[N] True where the second completion stood on the left; None where there are no sides."""
    sided: BoolArray | None = None
    """[N] False of single votes that were given without sides, such as an edit's over the reply that it mends; None where all have one."""
    may_repeat: bool = False
    """True where a rater judged items again. Aggregation then counts every vote; agreement between raters refuses such votes."""

    def __post_init__(self) -> None:
        lengths = {len(self.items), len(self.raters), len(self.labels)}
        lengths |= {len(column) for column in (self.swapped, self.sided) if column is not None}
        assert len(lengths) == 1, f"columns of votes differ in length: {sorted(lengths)}"
        if not self.may_repeat:
            refuse_repeats(self)

    @property
    def num_items(self) -> int:
        return len(self.item_names)

    @property
    def num_raters(self) -> int:
        return len(self.rater_names)

    @property
    def num_labels(self) -> int:
        return len(self.label_names)


def votes_from_rows(
    rows: Iterable[tuple[str, str, str]],
    *,
    label_names: Sequence[str] | None = None,
    swapped: Sequence[bool | None] | None = None,
    may_repeat: bool = False,
) -> Votes:
    """Number the items, raters and labels of (item, rater, label) rows.

    Args:
        rows: (item, rater, label); items and raters are numbered in order of appearance.
        label_names: all labels that can occur, in rank order. None takes those seen, by number where all are numbers.
        swapped: for each row, whether the sides were exchanged on screen; None of a vote that was given without sides.
        may_repeat: take several votes of a rater on an item, which only aggregation can use.
    Raises:
        DataError: a label is not in `label_names`, a rater voted twice on an item, or `swapped` does not fit the rows.
    """
    table = list(rows)
    if swapped is not None and len(swapped) != len(table):
        raise DataError(explain("swapped", len(swapped), "does not fit the votes", expected=f"{len(table)} entries",
                                remedy="Pass one entry for each row"))  # fmt: skip
    item_numbers = {name: i for i, name in enumerate(dict.fromkeys(row[0] for row in table))}
    rater_numbers = {name: i for i, name in enumerate(dict.fromkeys(row[1] for row in table))}
    names = rank_labels(row[2] for row in table) if label_names is None else tuple(label_names)
    label_numbers = {name: i for i, name in enumerate(names)}
    unknown = next((row[2] for row in table if row[2] not in label_numbers), None)
    if unknown is not None:
        raise DataError(_unknown_label("votes.label", unknown, names))
    return Votes(
        items=np.array([item_numbers[row[0]] for row in table], dtype=np.int64),
        raters=np.array([rater_numbers[row[1]] for row in table], dtype=np.int64),
        labels=np.array([label_numbers[row[2]] for row in table], dtype=np.int64),
        item_names=tuple(item_numbers),
        rater_names=tuple(rater_numbers),
        label_names=names,
        swapped=None if swapped is None else np.array([bool(each) for each in swapped], dtype=np.bool_),
        sided=None
        if swapped is None or None not in swapped
        else np.array([each is not None for each in swapped], dtype=np.bool_),
        may_repeat=may_repeat,
    )


def counts(votes: Votes) -> IntArray:
    """Return how many raters gave each label to each item, [I, K]."""
    cells = votes.items * votes.num_labels + votes.labels
    flat = np.bincount(cells, minlength=votes.num_items * votes.num_labels)
    return flat.reshape(votes.num_items, votes.num_labels).astype(np.int64)


def votes_per_rater(votes: Votes) -> IntArray:
    """Return the number of votes of each rater, [R]."""
    return np.bincount(votes.raters, minlength=votes.num_raters).astype(np.int64)


def number_labels(votes: Votes, known: Mapping[str, str]) -> IntArray:
    """Turn {item name: label name} into label numbers, [I], with `UNKNOWN` where an item is not named.

    Items that have no vote are left out: there is nothing to compare them with.

    Raises:
        DataError: a label is not one of `votes.label_names`.
    """
    label_numbers = {name: i for i, name in enumerate(votes.label_names)}
    numbers = np.full(votes.num_items, UNKNOWN, dtype=np.int64)
    for i, item in enumerate(votes.item_names):
        if item not in known:
            continue
        if known[item] not in label_numbers:
            raise DataError(_unknown_label(f"gold.{item}", known[item], votes.label_names))
        numbers[i] = label_numbers[known[item]]
    return numbers


def label_values(votes: Votes) -> FloatArray:
    """Return the labels as numbers, [K], for statistics that need distances between them.

    Raises:
        DataError: a label is not a number.
    """
    if not all(_is_number(name) for name in votes.label_names):
        wrong = next(name for name in votes.label_names if not _is_number(name))
        raise DataError(explain("label", wrong, "is not a number", expected="numbers for level=interval",
                                remedy="Use level=nominal or level=ordinal"))  # fmt: skip
    return np.array([float(name) for name in votes.label_names])


def linked_groups(votes: Votes) -> IntArray:
    """Number the groups of raters that are linked by shared items, [R].

    More than one group means that raters of different groups cannot be compared with each other.
    """
    groups = np.arange(votes.num_raters)
    while True:
        lowest = np.full(votes.num_items, votes.num_raters)
        np.minimum.at(lowest, votes.items, groups[votes.raters])
        spread = groups.copy()
        np.minimum.at(spread, votes.raters, lowest[votes.items])
        if np.array_equal(spread, groups):
            return np.unique(groups, return_inverse=True)[1].astype(np.int64)
        groups = spread


def rank_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names, ordered as numbers where all are numbers and alphabetically otherwise."""
    distinct = sorted(set(names))
    return tuple(sorted(distinct, key=float)) if all(_is_number(name) for name in distinct) else tuple(distinct)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _unknown_label(path: str, label: str, names: Sequence[str]) -> str:
    return explain(path, label, f"is not a label{nearest(label, names)}", expected=f"one of {', '.join(names)}",
                   remedy="Correct the label or name it among the labels")  # fmt: skip


def refuse_repeats(votes: Votes) -> None:
    """Raise DataError when a rater voted twice on an item: a rater's agreement with himself is not agreement between raters."""
    cells = votes.items * max(votes.num_raters, 1) + votes.raters
    distinct, times = np.unique(cells, return_counts=True)
    if len(distinct) == len(cells):
        return
    item, rater = divmod(int(distinct[np.argmax(times)]), votes.num_raters)
    raise DataError(explain(f"votes.{votes.item_names[item]}", votes.rater_names[rater],
                            f"votes {int(times.max())} times on the same item", expected="one vote of a rater on an item",
                            remedy="Keep one of the votes; only to aggregate, may_repeat=True takes them all"))  # fmt: skip
