"""What a format is, and how the outcome of every row is accounted for.

A format turns one row of a file into items: records, or `LeftOut` for what the row held but could not give. Nothing else may
happen to a row, so the numbers of a finished reading always reconcile (see `ReadReport`).

Example:
    def read(row: Row) -> list[Item]:
        return [checked(Preference(prompt=..., chosen=..., rejected=...))]

    MINE = Format(name="mine", kind="preferences", detect=mostly(lambda v: "winner" in v), read=read, doc="Our own export.")
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fairlead.core.io import Row
from fairlead.core.records import Preference, Record

Kind = Literal["preferences", "demonstrations", "labels", "votes", "prompts", "steps", "annotations"]
Pairing = Literal["all", "adjacent", "best_vs_each", "best_vs_worst"]
Values = Mapping[str, Any]


class Unusable(Exception):
    """A row cannot be used; the message is its reason, the same words for the same fault."""


class Vote(NamedTuple):
    """One label that one rater gave to one item, as text."""

    item: str
    rater: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something that a row held and that gave no record."""

    reason: str
    is_fault: bool = True
    """False when the data is sound but not of the kind asked for (a reply that nobody ranked)."""
    row: Row | None = None
    """The row it stands for, in a group of rows; None for a part of the row being read."""


Item = Record | Vote | LeftOut
Read = Callable[..., Sequence[Item]]
"""(row) -> items; formats with `pairings` also take `pairs=`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Rows that follow each other with equal keys and only together give records."""

    kind: Kind
    key: Callable[[Row], Hashable]
    read: Callable[[Sequence[Row]], Sequence[Item]]
    """Every row that no `LeftOut` names counts as used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Rows, from wherever they stand in the file, that are one thing."""

    members: Sequence[Row]
    row: Row | None
    """Them together, in the form that `Format.read` takes; None when they make nothing."""
    left_out: Sequence[LeftOut] = ()
    """Members that do not belong; each names its row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of file that other people write. Pure data and pure functions; readers raise only `Unusable`."""

    name: str
    kind: Kind
    """What such a file holds first of all."""
    detect: Callable[[list[dict[str, Any]]], bool]
    """Does a sample of rows look like this format? Formats are written so that only one says yes."""
    read: Read
    write: Callable[[Preference], dict[str, Any]] | None = None
    """Raises `Unusable` for a preference that the format cannot carry."""
    doc: str
    """Fields and rules, one or two sentences."""
    also: Mapping[Kind, Read] = field(default_factory=dict[Kind, Read])
    """Further kinds of record that the same file gives."""
    neighbours: Neighbours | None = None
    gather: Callable[[Sequence[Row]], Iterator[Gathered]] | None = None
    """For files whose rows are parts of one thing in any order: such a file is read whole before its first record."""
    is_named_only: bool = False
    """Never detected, because its files look like those of another format."""
    is_own: bool = False
    """Fairlead's own records, which name their source themselves."""
    pairings: tuple[Pairing, ...] = ()
    """How rankings may be cut into pairs, the default first; empty for files that hold pairs already."""


@dataclass(slots=True, kw_only=True)
class ReadReport:
    """What became of every row. Complete once the reading is exhausted.

    Invariant: rows == used + sum(rejects) + sum(skips).
    """

    path: str
    format: str
    rows: int = 0
    used: int = 0
    """Rows that gave records, alone or together with their neighbours."""
    records: int = 0
    rejects: dict[str, int] = field(default_factory=dict[str, int])
    """Faulty rows by reason; each is also in the rejects file."""
    skips: dict[str, int] = field(default_factory=dict[str, int])
    """Sound rows that hold nothing of the kind asked for, by reason."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Parts of used rows that gave no record (a completion without a rank, a pair of equal scores), by reason."""

    @property
    def reconciles(self) -> bool:
        """Is every row accounted for exactly once?"""
        return self.rows == self.used + sum(self.rejects.values()) + sum(self.skips.values())

    @property
    def top_reason(self) -> str:
        """The reason for which most rows gave nothing, with its count."""
        reasons = {**self.rejects, **self.skips}
        reason = max(reasons, key=lambda r: reasons[r], default="no rows")
        return f"{reason} ({reasons.get(reason, 0)} of {self.rows} rows)"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """How many preferences were written, and why the others could not be."""

    written: int
    left_out: Mapping[str, int]


def mostly(matches: Callable[[Values], bool]) -> Callable[[list[dict[str, Any]]], bool]:
    """Detect a format by a test of one row that at least half of the sample passes (a few damaged rows do not hide it)."""

    def detect(rows: list[dict[str, Any]]) -> bool:
        return bool(rows) and 2 * sum(matches(row) for row in rows) >= len(rows)

    return detect
