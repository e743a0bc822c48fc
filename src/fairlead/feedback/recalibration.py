"""When a rater, or the project, is to be calibrated again, and what may go on until then.

Example:
    due = recalibration_due(RecalibrationRule(), items_since=520, days_since=3, alarm=None, guideline_changed=False)
    due.reasons     # ('520 items since the last round, at most 500',)
"""

import math
from dataclasses import dataclass

from fairlead.core.errors import ConfigError, explain
from fairlead.stats.intervals import Interval
from fairlead.stats.rolling import PAUSE_BELOW, SCALE_ABOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalibrationRule:
    """How often."""

    every_items: int = 500
    every_days: float = 14.0

    def __post_init__(self) -> None:
        if self.every_items < 1 or not self.every_days > 0:
            raise ConfigError(explain("recalibration", f"{self.every_items} items, {self.every_days} days", "is no schedule",
                                      expected="every_items >= 1, every_days > 0", remedy="Use 500 items and 14 days"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Why a rater is to be calibrated again; nobody is when there is no reason."""

    reasons: tuple[str, ...]
    rerate_from: int | None = None
    """First of the rater's items that is to be rated by somebody else too, after an alarm on anchors; None without one."""

    @property
    def is_due(self) -> bool:
        """Is there any reason?"""
        return bool(self.reasons)


def recalibration_due(
    rule: RecalibrationRule,
    *,
    items_since: int,
    days_since: float,
    changed_at: int | None = None,
    guideline_changed: bool = False,
) -> Due:
    """Reasons to calibrate a rater again.

    Args:
        items_since: items of the rater since the last round.
        days_since: days since then.
        changed_at: the rater's item at which the anchors say the change began (drift.Cusum.change_point, as a number of an item); None
            without an alarm.
        guideline_changed: a new version is in force since the last round.
    """
    reasons: list[str] = []
    if items_since >= rule.every_items:
        reasons.append(f"{items_since} items since the last round, at most {rule.every_items}")
    if days_since >= rule.every_days:
        reasons.append(f"{days_since:.0f} days since the last round, at most {rule.every_days:.0f}")
    if changed_at is not None:
        reasons.append(f"hidden anchors say that something changed at item {changed_at}; rate again what came since")
    if guideline_changed:
        reasons.append("the guideline has a new version")
    return Due(reasons=tuple(reasons), rerate_from=changed_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """May production go on, and why not."""

    is_granted: bool
    reason: str


def may_rate(*, gate: str, num_production: int, cap_before_gate: int) -> Permission:
    """May a rater get production items? Only after the gate; a project may grant a few before it, counted.

    Args:
        gate: decision of `stats.sequential.read_sequence`.
        cap_before_gate: production items allowed before the gate is passed; 0 allows none.
    """
    if gate == "pass":
        return Permission(is_granted=True, reason="calibration is passed")
    if num_production < cap_before_gate:
        return Permission(
            is_granted=True,
            reason=f"calibration goes on; item {num_production + 1} of the {cap_before_gate} allowed before it ends",
        )
    return Permission(is_granted=False, reason=f"calibration is not passed ({gate})")


def may_scale(alpha: Interval, *, override: str = "") -> Permission:
    """May more votes be bought? Kappa above 0.6, or an override with its reason, which is kept."""
    if math.isfinite(alpha.value) and alpha.value > SCALE_ABOVE:
        return Permission(is_granted=True, reason=f"kappa {alpha.value:.2f} is above {SCALE_ABOVE}")
    found = f"kappa {alpha.value:.2f}" if math.isfinite(alpha.value) else "kappa is not measured"
    if override.strip():
        return Permission(is_granted=True, reason=f"{found}; overridden: {override.strip()}")
    return Permission(is_granted=False, reason=f"{found}; expected above {SCALE_ABOVE}")


def may_go_on(alpha: Interval) -> Permission:
    """Does the project go on? It pauses when the whole interval of the rolling kappa lies below 0.4."""
    if math.isfinite(alpha.high) and alpha.high < PAUSE_BELOW:
        return Permission(
            is_granted=False,
            reason=f"rolling kappa {alpha.value:.2f} [{alpha.low:.2f}, {alpha.high:.2f}] lies below {PAUSE_BELOW}",
        )
    return Permission(is_granted=True, reason="rolling kappa does not lie below the limit")
