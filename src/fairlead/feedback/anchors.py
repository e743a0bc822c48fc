"""Hidden anchors: when one is due in a rater's work, and which one.

An anchor is an item whose answer is known, served like any other: a gold item, or one that the rater judged long ago, with the sides
exchanged. Without anchors nothing tells a rater who drifts from pairs that became harder.

Where they stand must not be guessable and yet hold in every batch and every sitting, so each batch is cut in stretches with one anchor each
at a random place, and the first of a sitting comes within its first few items.

Example:
    rule = AnchorRule(share=0.075, batch=20)
    is_anchor_due(rule, key=("ann", sitting), place=7)
    choose_anchor(rule, gold=gold, history=history, key=("ann", 431))
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from fairlead.core.errors import ConfigError, explain
from fairlead.core.gates import declared
from fairlead.feedback.tasks import derived_rng

MIN_SHARE, MAX_SHARE = 0.05, 0.10
"""Fewer find a rater who drifts too late, more cost too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRule:
    """How many anchors, and how they are spread."""

    share: float = 0.075
    """Of a rater's items."""
    batch: int = 20
    """Items of a batch; each holds at least one anchor."""
    first_within: int = 5
    """Items of a sitting within which its first anchor comes: one who stops after a few items was seen too."""
    gap: int = 100
    """Items of the rater after which an item may be served again: sooner it would be remembered."""
    repeat_share: float = 0.5
    """Of anchors that are the rater's own earlier items with sides exchanged, where there are any old enough."""

    def __post_init__(self) -> None:
        if not MIN_SHARE <= self.share <= MAX_SHARE:
            raise ConfigError(explain("anchors.share", self.share, "is outside of what drift needs and raters bear",
                                      expected=f"{MIN_SHARE} to {MAX_SHARE}", remedy="Use 0.075"))  # fmt: skip
        if self.batch * MAX_SHARE < 1:
            raise ConfigError(explain("anchors.batch", self.batch, f"with an anchor in each would be more than {declared(MAX_SHARE)} anchors",
                                      expected=">= 10", remedy="Use batches of 20"))  # fmt: skip
        if not 1 <= self.first_within <= self.batch // 2 or self.gap < 0 or not 0 <= self.repeat_share <= 1:
            raise ConfigError(explain("anchors", f"first_within {self.first_within}, gap {self.gap}, repeat_share {self.repeat_share}",
                                      "is no schedule", expected=f"first_within from 1 to {self.batch // 2}, gap >= 0, repeat_share in [0, 1]",
                                      remedy="Use the defaults"))  # fmt: skip


def is_anchor_due(rule: AnchorRule, *, key: Sequence[Hashable], place: int) -> bool:
    """Is the item at this place of a sitting (from 0) an anchor? Batches are counted from the start of the sitting.

    Args:
        key: names the rater and the sitting; equal keys give equal places, so nothing needs to be stored.
    """
    number, within = divmod(place, rule.batch)
    return within in _places_in_batch(rule, key=key, number=number)


def _places_in_batch(rule: AnchorRule, *, key: Sequence[Hashable], number: int) -> tuple[int, ...]:
    """At least one; as many as the share says on average, each at a random place of its own part of the batch."""
    rng = derived_rng("anchor", *key, number)
    wanted = rule.share * rule.batch
    count = max(1, math.floor(wanted) + int(rng.random() < wanted - math.floor(wanted)))
    edges = [round(part * rule.batch / count) for part in range(count + 1)]
    places = [int(rng.integers(low, high)) for low, high in itertools.pairwise(edges)]
    if number == 0:
        places[0] = int(rng.integers(rule.first_within))
    return tuple(places)


def anchor_places(rule: AnchorRule, *, key: Sequence[Hashable], num_items: int) -> tuple[int, ...]:
    """All places of anchors among the first `num_items` of a sitting."""
    return tuple(place for place in range(num_items) if is_anchor_due(rule, key=key, place=place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """An item with a known answer."""

    item: str
    answer: Literal["a", "b", "tie"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """An item that the rater judged."""

    item: str
    order: int
    """Position among the rater's items, from 0."""
    verdict: str
    swapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorChoice:
    """An item to serve as an anchor."""

    item: str
    kind: Literal["gold", "repeat"]
    expected: str
    """The known answer, or what the rater said before: in the canonical frame."""
    swapped: bool
    """A repeat has the sides exchanged; a gold item those that were not shown last, or a fair draw."""


def choose_anchor(
    rule: AnchorRule, *, gold: Sequence[Gold], history: Sequence[Rated], key: Sequence[Hashable], now: int | None = None
) -> AnchorChoice | None:
    """The anchor to serve next: what was served longest ago, never anything of the last `gap` items; None when nothing is left.

    Args:
        history: all that the rater judged, anchors too, in order; or the part of it from which to choose, with `now`.
        key: names the rater and the moment; draws depend on nothing else.
        now: items of the rater so far, where `history` is a part; None is its length.
    """
    rng = derived_rng("anchor choice", *key)
    now = len(history) if now is None else now
    last = {row.item: row for row in history}
    fresh_gold = [g for g in gold if g.item not in last or now - last[g.item].order > rule.gap]
    known = {g.item for g in gold}
    old = [
        row for row in last.values()
        if row.item not in known and now - row.order > rule.gap and row.verdict in ("a", "b")
    ]  # fmt: skip
    is_repeat = bool(old) and (not fresh_gold or rng.random() < rule.repeat_share)
    if is_repeat:
        times = {row.item: sum(other.item == row.item for other in history) for row in old}
        fewest = min(times.values())
        candidates = sorted((row for row in old if times[row.item] == fewest), key=lambda row: row.item)
        row = candidates[int(rng.integers(len(candidates)))]
        return AnchorChoice(item=row.item, kind="repeat", expected=row.verdict, swapped=not row.swapped)
    if not fresh_gold:
        return None
    oldest = min(last[g.item].order if g.item in last else -1 for g in fresh_gold)
    candidates = sorted(
        (g for g in fresh_gold if (last[g.item].order if g.item in last else -1) == oldest), key=lambda g: g.item
    )
    chosen = candidates[int(rng.integers(len(candidates)))]
    before = last.get(chosen.item)
    swapped = bool(rng.random() < 0.5) if before is None else not before.swapped
    return AnchorChoice(item=chosen.item, kind="gold", expected=chosen.answer, swapped=swapped)
