"""Items on which raters disagree: found, sorted and filtered on the sheet, of a ranking by every pair of its replies.

Filters and sorts are names of tables here and never become part of a query.

Example:
    disputes = find_disputes(database, project_id, Wanted(sort="newest", state="open"))
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fairlead.stats.arrays import BoolArray, FloatArray
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Flag
from fairlead.web.dashboard.sheet import Sheet, sheet_of
from fairlead.web.decisions import decisions_of
from fairlead.web.errors import invalid
from fairlead.web.excerpts import excerpt_of_item
from fairlead.web.ranked import counts_by_item, ranked_votes

PAGE_SIZE = 30
KINDS = {"any": "any difference", "sides": "left against right", "no_majority": "no majority"}
STATES = {"open": "not decided", "decided": "decided", "all": "all"}
USES = {"all": "all pairs", "production": "production", "calibration": "calibration"}
SORTS = {
    "disagreement": "most disputed first",
    "votes": "most votes first",
    "newest": "newest vote first",
    "oldest": "oldest vote first",
}
_NUM_SIDES = 4  # a, b, tie, both_bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader asks for; anything else than the names above is refused."""

    kind: str = "any"
    state: str = "open"
    use: str = "all"
    sort: str = "disagreement"
    field: str = ""
    """A slice of the items and its value; empty for all."""
    value: str = ""
    flagged: bool = False
    page: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("state", STATES), ("use", USES), ("sort", SORTS)):
            if getattr(self, name) not in allowed:
                raise invalid(f"{name} is no choice of this page. Choose one of {', '.join(allowed)}.")
        if not 1 <= self.page <= 1_000_000:
            raise invalid("There is no such page of the list. Go back to the first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One line of the list."""

    item_id: str
    about: str
    """Beginning of the last turn."""
    counts: tuple[int, int, int, int]
    """Votes for one reply, for the other (the more frequent first, so that nothing tells the order), ties, both bad; of a ranking on the most
    disputed pair of its replies."""
    num_pairs: int
    """Of its replies; 1 of a pair."""
    num_differ: int
    """Of them, those on which votes differ."""
    disagreement: float
    """Share of pairs of votes that differ; of a ranking the mean over all pairs of its replies."""
    use: str
    num_flags: int
    is_decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputes:
    """One page of the list."""

    rows: tuple[Dispute, ...]
    num: int
    num_pages: int
    slices: Mapping[str, tuple[str, ...]]
    """Fields and values that can be asked for."""
    age_s: int


def find_disputes(database: Database, project_id: str, wanted: Wanted) -> Disputes:
    """The page of the list that is wanted."""
    kept = sheet_of(database, project_id)
    sheet = kept.value
    ranked = counts_by_item(ranked_votes(database, project_id))
    slices = {name: tuple(sorted(each.values)) for name, each in sheet.slices.items() if name != "use"}
    if wanted.field and wanted.value not in slices.get(wanted.field, ()):
        raise invalid("There is no such part of the pairs. Choose one of the list.")
    with database.read() as rows:
        decided = set(decisions_of(rows, project_id))
        flags = _flags(rows, project_id)
        places = order_of(sheet, wanted, decided=decided, flagged=set(flags), ranked=ranked)
        num_pages = max(1, -(-len(places) // PAGE_SIZE))
        shown = places[(wanted.page - 1) * PAGE_SIZE : wanted.page * PAGE_SIZE]
        counts = item_counts(sheet)
        found = tuple(
            _line(rows, sheet.item_ids[i], counts=ranked.get(sheet.item_ids[i], counts[i][None]), is_calibration=bool(sheet.is_calibration[i]),
                  num_flags=flags.get(sheet.item_ids[i], 0), is_decided=sheet.item_ids[i] in decided)
            for i in shown
        )  # fmt: skip
    return Disputes(rows=found, num=len(places), num_pages=num_pages, slices=slices, age_s=kept.age_s())


def item_counts(sheet: Sheet) -> FloatArray:
    """[I, 4] votes for a, for b, ties, both bad."""
    size = len(sheet.item_ids)
    votes = sheet.is_vote
    flat = np.bincount(sheet.items[votes] * _NUM_SIDES + sheet.labels[votes], minlength=size * _NUM_SIDES)
    return flat.reshape(size, _NUM_SIDES).astype(np.float64)


def disagreement(counts: FloatArray) -> FloatArray:
    """[I] share of pairs of votes of an item that differ; 0 below two votes. 1 - sum_c n_c (n_c - 1) / (n (n - 1))."""
    total = counts.sum(1)
    pairs = total * (total - 1)
    equal = (counts * (counts - 1)).sum(1)
    return np.where(pairs > 0, 1 - equal / np.maximum(pairs, 1), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """How votes on each item of the sheet split; of a ranking on any, or on average over all, of its pairs."""

    differ: FloatArray
    """[I] share of pairs of votes that differ, on average."""
    lacking: FloatArray
    """[I] share of its pairs of replies that have no majority."""
    sided: BoolArray
    """[I] on some pair one vote is for one reply and one for the other."""


def _split(sheet: Sheet, counts: FloatArray, ranked: Mapping[str, FloatArray]) -> _Split:
    found = _Split(
        differ=disagreement(counts), lacking=_no_majority(counts).astype(np.float64), sided=_is_sided(counts)
    )
    for place, name in enumerate(sheet.item_ids if ranked else ()):
        pairs = ranked.get(name)
        if pairs is not None:
            found.differ[place] = disagreement(pairs).mean()
            found.lacking[place] = _no_majority(pairs).mean()
            found.sided[place] = _is_sided(pairs).any()
    return found


def _no_majority(counts: FloatArray) -> BoolArray:
    ordered = np.sort(counts, axis=1)
    return (ordered[:, -1] == ordered[:, -2]) & (ordered[:, -1] > 0)


def _is_sided(counts: FloatArray) -> BoolArray:
    return (counts[:, 0] > 0) & (counts[:, 1] > 0)


_IS_KIND: dict[str, Callable[[_Split], BoolArray]] = {
    "any": lambda split: split.differ > 0,
    "sides": lambda split: split.sided,
    "no_majority": lambda split: split.lacking > 0,
}


def order_of(
    sheet: Sheet, wanted: Wanted, *, decided: set[str], flagged: set[str], ranked: Mapping[str, FloatArray]
) -> list[int]:
    """Places of the wanted items in the sheet, in the wanted order.

    Args:
        ranked: `counts_by_item` of the rankings, whose every pair is read.
    """
    if not sheet.item_ids:
        return []
    counts = item_counts(sheet)
    split = _split(sheet, counts, ranked)
    is_wanted = _IS_KIND[wanted.kind](split)
    if wanted.flagged:  # a flag is a reason to look at an item on which nobody disagrees
        is_wanted = _are_among(sheet, flagged)
    if wanted.state != "all":
        is_wanted &= _are_among(sheet, decided) == (wanted.state == "decided")
    if wanted.use != "all":
        is_wanted &= sheet.is_calibration == (wanted.use == "calibration")
    if wanted.field:
        is_wanted &= sheet.slices[wanted.field].is_value(wanted.value)
    places = np.flatnonzero(is_wanted)
    return places[np.argsort(_KEYS[wanted.sort](sheet, counts, split)[places], kind="stable")].tolist()


def _are_among(sheet: Sheet, names: set[str]) -> BoolArray:
    """[I]"""
    return np.array([name in names for name in sheet.item_ids]) if names else np.zeros(len(sheet.item_ids), np.bool_)


def _newest(sheet: Sheet) -> FloatArray:
    """[I] time of the newest vote."""
    newest = np.zeros(len(sheet.item_ids))
    np.maximum.at(newest, sheet.items, sheet.at_ms.astype(np.float64))
    return newest


_KEYS: dict[str, Callable[[Sheet, FloatArray, _Split], FloatArray]] = {
    "disagreement": lambda _sheet, _counts, split: -split.differ - split.lacking,
    "votes": lambda _sheet, counts, _split: -counts.sum(1),
    "newest": lambda sheet, _counts, _split: -_newest(sheet),
    "oldest": lambda sheet, _counts, _split: _newest(sheet),
}


def _line(
    rows: Rows, item_id: str, *, counts: FloatArray, is_calibration: bool, num_flags: int, is_decided: bool
) -> Dispute:
    """One item of the list, from [P, 4] votes on the pairs of its replies."""
    differ = disagreement(counts)
    worst = int(np.argmax(differ + _no_majority(counts)))
    return Dispute(
        item_id=item_id, about=excerpt_of_item(rows, item_id), counts=_anonymous(counts[worst]), num_pairs=len(counts),
        num_differ=int((differ > 0).sum()), disagreement=float(differ.mean()), use="calibration" if is_calibration else "production",
        num_flags=num_flags, is_decided=is_decided,
    )  # fmt: skip


def _anonymous(counts: FloatArray) -> tuple[int, int, int, int]:
    one, other = sorted((int(counts[0]), int(counts[1])), reverse=True)
    return one, other, int(counts[2]), int(counts[3])


def _flags(rows: Rows, project_id: str) -> dict[str, int]:
    """From the flags, which are few: SQLite would go through all assignments of the project."""
    found = rows.execute(
        sa.select(Assignment.project_id, Assignment.item_id).where(Assignment.id.in_(sa.select(Flag.assignment_id)))
    )
    return Counter(item_id for of, item_id in found if of == project_id)


def drawn_for(item_id: str, person_id: str) -> int:
    """A number drawn by item and person: sides and names of a page stay the same when it is loaded again, and say nothing."""
    return int.from_bytes(hashlib.sha256(f"{item_id}\n{person_id}".encode()).digest()[:8])
