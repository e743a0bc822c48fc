"""How many items are needed before a figure can decide anything, and when to stop collecting.

Example:
    pairs_for_power(0.55)  # 783 pairs tell a win rate of .55 from chance, four times out of five
"""

import math
from typing import Literal

from fairlead.core.errors import DataError, explain
from fairlead.stats.intervals import wilson
from fairlead.stats.numerics import binomial_at_least, normal_quantile, two_sided_z

Decision = Literal["pass", "fail", "continue"]


def pairs_for_power(win_rate: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs that a two-sided test of win rate 1/2 needs to find `win_rate` with this power (normal approximation)."""
    gap = abs(win_rate - 0.5)
    if gap == 0:
        raise DataError(explain("win_rate", win_rate, "cannot be told from chance", expected="a share other than 0.5",
                                remedy="Name the smallest win rate that matters"))  # fmt: skip
    z = two_sided_z(1 - alpha) * 0.5 + float(normal_quantile(power)) * math.sqrt(win_rate * (1 - win_rate))
    return math.ceil((z / gap) ** 2)


def kappa_half_width(agreement: float, num_items: int, *, confidence: float = 0.95) -> float:
    """Half-width of the interval of kappa = 2 p - 1 from two raters' agreement on balanced pairs."""
    return 2 * two_sided_z(confidence) * math.sqrt(agreement * (1 - agreement) / num_items)


def pairs_for_kappa(half_width: float, *, agreement: float, confidence: float = 0.95) -> int:
    """Pairs after which the interval of kappa reaches no further than `half_width` to each side."""
    return math.ceil(kappa_half_width(agreement, 1, confidence=confidence) ** 2 / half_width**2)


def pass_probability(agreement: float, *, num_items: int, threshold: float) -> float:
    """Chance that a rater whose true agreement is `agreement` shows at least `threshold` on `num_items`."""
    return binomial_at_least(math.ceil(threshold * num_items - 1e-9), num_items, agreement)


def calibration_decision(
    successes: int, num_items: int, *, fail_below: float = 0.65, pass_above: float = 0.60, max_items: int = 100
) -> Decision:
    """Whether a rater's calibration can end: pass when the interval is above `pass_above`, fail when below `fail_below`.

    Between the two more items are worth their cost, until `max_items`; then the point estimate against `fail_below` decides.
    """
    share = wilson(successes, num_items)
    if share.low > pass_above:
        return "pass"
    if share.high < fail_below:
        return "fail"
    if num_items < max_items:
        return "continue"
    return "pass" if share.value >= fail_below else "fail"
