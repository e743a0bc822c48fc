"""The thresholds of the guides, and why they cannot all hold at once.

"65 % agreement", "70 to 75 %" and "kappa above 0.6" sit on two scales. With K labels of shares q_c chance agreement is sum_c q_c^2, and
kappa = (p - chance) / (1 - chance): without ties and with balanced sides that is 2 p - 1, so the gate of 65 % is kappa .30 and .6 asks for
80 %. A screen that shows one colour for both must say so; `light` gives the colour, `explain_conflict` the sentence.

Example:
    light(alpha)                                  # 'amber'
    explain_conflict(agreement, alpha)            # '68 % agreement passes the gate of 65 %; ...'
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fairlead.core.errors import DataError, explain
from fairlead.core.gates import declared
from fairlead.stats.intervals import Interval
from fairlead.stats.published import REFERENCE_ROWS, ReferenceRow

Light = Literal["red", "amber", "green", "grey"]

GATE = 0.65
"""Agreement on 50 shared pairs below which the guides call a guideline vague."""
NOISE_KAPPA = 0.4
GOOD_KAPPA = 0.6

__all__ = ["REFERENCE_ROWS", "ConflictRow", "ReferenceRow", "agreement_from_kappa", "chance_agreement", "conflict_table", "explain_conflict",
           "kappa_at", "light"]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRow:
    """One agreement on both scales."""

    agreement: float
    kappa: float
    """Without ties, balanced sides."""
    kappa_with_ties: float
    """With the given share of ties, the rest balanced."""


def chance_agreement(shares: Sequence[float]) -> float:
    """Agreement of raters who draw labels with these shares, blindly.

    Raises:
        DataError: the shares do not add up to 1.
    """
    if any(not share >= 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-9):
        raise DataError(explain("shares", f"{list(shares)}", "are not shares of labels", expected="numbers >= 0 that add up to 1",
                                remedy="Divide the counts by their sum"))  # fmt: skip
    return sum(share * share for share in shares)


def kappa_at(agreement: float, *, tie_share: float = 0.0) -> float:
    """Kappa of an agreement when sides are balanced and `tie_share` of the verdicts are ties."""
    side = (1 - tie_share) / 2
    chance = chance_agreement((side, side, tie_share))
    return (agreement - chance) / (1 - chance)


def agreement_from_kappa(kappa: float, *, tie_share: float = 0.0) -> float:
    """The agreement that a kappa asks for: the inverse of `kappa_at`."""
    side = (1 - tie_share) / 2
    chance = chance_agreement((side, side, tie_share))
    return chance + kappa * (1 - chance)


def conflict_table(
    agreements: Sequence[float] = (0.60, 0.63, 0.65, 0.657, 0.70, 0.726, 0.75, 0.773, 0.80, 0.85),
    *,
    tie_share: float = 0.15,
) -> tuple[ConflictRow, ...]:
    """Agreements beside their kappas, without ties and with some: what the page shows under the thresholds."""
    return tuple(
        ConflictRow(agreement=p, kappa=kappa_at(p), kappa_with_ties=kappa_at(p, tie_share=tie_share))
        for p in agreements
    )


def light(alpha: Interval, agreement: Interval | None = None, *, gate: float = GATE) -> Light:
    """Colour of a project: red below 0.4 or when the whole interval of agreement lies under the gate, amber to 0.6, green above.

    Amber is normal for preferences: nearly every published figure is there. Grey is not measured.
    """
    if not math.isfinite(alpha.value):
        return "grey"
    if alpha.value < NOISE_KAPPA or (agreement is not None and agreement.high < gate):
        return "red"
    return "green" if alpha.value > GOOD_KAPPA else "amber"


def explain_conflict(agreement: Interval, alpha: Interval, *, gate: float = GATE, tie_share: float = 0.0) -> str:
    """One or two sentences on what both scales say of the same votes, and where the other's limits lie on each.

    Args:
        tie_share: share of the verdicts that are ties.
    """
    if not (math.isfinite(agreement.value) and math.isfinite(alpha.value)):
        return f"Not measured: {(agreement if not math.isfinite(agreement.value) else alpha).note}."
    passes = "passes" if agreement.value >= gate else "misses"
    reading = (
        "noise" if alpha.value < NOISE_KAPPA else "normal for preferences" if alpha.value <= GOOD_KAPPA else "good"
    )
    ties = f"with {_per_cent(tie_share)} ties" if tie_share else "without ties"
    noise, good = (_per_cent(agreement_from_kappa(limit, tie_share=tie_share)) for limit in (NOISE_KAPPA, GOOD_KAPPA))
    return (
        f"{_per_cent(agreement.value)} agreement {passes} the gate of {_per_cent(gate)}; kappa {alpha.value:.2f} is {reading} on the scale of "
        f"the guides. Both speak of the same votes: {ties} and with balanced sides the gate of {_per_cent(gate)} is kappa "
        f"{kappa_at(gate, tie_share=tie_share):.2f}, kappa {NOISE_KAPPA} is {noise} and kappa {GOOD_KAPPA} is {good} "
        f"agreement, which few published data sets reach."
    )


def _per_cent(share: float) -> str:
    """To whole per cents."""
    return declared(round(share, 2))
