"""What ratings cost: human and AI, per pair that can be used, and when the budget is spent.

Example:
    ledger = Ledger(entries=(Entry(kind="human", dollars=0.30), Entry(kind="ai", dollars=0.0136)), num_usable=1)
    ledger.per_usable_pair    # 0.3136
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fairlead.core.errors import DataError, explain

DOLLARS_PER_PAIR = 0.30
"""What a crowd worker's comparison cost AlpacaEval: 300 dollars and 36,800 s per 1,000."""
USABLE_P = 0.6
"""Least probability of the chosen side at which a pair teaches more than it confuses."""

Kind = Literal["human", "ai"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One payment: for a vote, an hour, a call of a judge."""

    kind: Kind
    dollars: float
    item: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dollars) and self.dollars >= 0):
            raise DataError(
                explain(
                    "cost.dollars",
                    self.dollars,
                    "is no cost",
                    expected="a finite number >= 0",
                    remedy="Correct the entry",
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything that was paid, and what came of it."""

    entries: Sequence[Entry]
    num_usable: int
    """Pairs that go into training; `count_usable`."""

    @property
    def human(self) -> float:
        """Dollars to people."""
        return math.fsum(entry.dollars for entry in self.entries if entry.kind == "human")

    @property
    def ai(self) -> float:
        """Dollars to models."""
        return math.fsum(entry.dollars for entry in self.entries if entry.kind == "ai")

    @property
    def total(self) -> float:
        """Dollars."""
        return math.fsum(entry.dollars for entry in self.entries)

    @property
    def per_usable_pair(self) -> float:
        """Dollars; nan while no pair can be used (then nothing was bought yet, at whatever price)."""
        return self.total / self.num_usable if self.num_usable else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """How far a budget goes."""

    spent: float
    left: float
    """Dollars; never below 0."""
    may_spend: bool
    """Does the next vote fit?"""
    usable_pairs_left: float
    """Further usable pairs that the rest buys at the price so far; nan while that is unknown."""


def count_usable(p_chosen: Sequence[float], *, is_tie: Sequence[bool] | None = None, least: float = USABLE_P) -> int:
    """Pairs whose chosen side is probable enough; ties are not usable for training on pairs."""
    ties = is_tie if is_tie is not None else [False] * len(p_chosen)
    return sum(p >= least and not tie for p, tie in zip(p_chosen, ties, strict=True))


def budget_state(ledger: Ledger, *, budget: float | None, next_cost: float = DOLLARS_PER_PAIR) -> BudgetState:
    """Hold the ledger against a budget; None never stops."""
    if budget is None:
        return BudgetState(spent=ledger.total, left=math.inf, may_spend=True, usable_pairs_left=math.inf)
    left = max(budget - ledger.total, 0.0)
    price = ledger.per_usable_pair
    return BudgetState(spent=ledger.total, left=left, may_spend=ledger.total + next_cost <= budget + 1e-9,
                       usable_pairs_left=left / price if price and math.isfinite(price) else math.nan)  # fmt: skip
