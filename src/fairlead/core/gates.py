"""Gates between stages: a measured value with its interval against a threshold, a verdict, and a remedy.

A stage declares its gates as constants and returns `GateResult`s; the pipeline decides whether to go on. The rule is the same
everywhere: STOP when the whole interval lies on the wrong side of the stop value (so that chance alone rarely stops a run),
WARN when the point estimate lies on the wrong side of the warn (or stop) value, PASS otherwise. n is always shown.

Example:
    ACCURACY = Gate(name="reward.accuracy", question="Does the reward model predict held-out preferences?", unit="share",
                    direction="at_least", stop=0.60, warn=0.65, remedy="Collect more or cleaner preferences")
    ACCURACY.judge(0.71, low=0.66, high=0.75, n=400).line()
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["PASS", "WARN", "STOP"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate said. `allowed` carries the reason when a person passed a STOP or WARN on record."""

    gate: str
    outcome: Outcome
    value: float
    low: float
    """Lower end of the interval; equals `value` when the value is exact."""
    high: float
    n: int
    """Observations behind the value."""
    unit: str
    threshold: str
    """The rule in words, for example `stop < 0.60, warn < 0.65`."""
    remedy: str
    question: str = ""
    allowed: str = ""
    note: str = ""
    """Why there is no interval, or what the value refers to."""

    @property
    def is_blocking(self) -> bool:
        """True when the run must not go on."""
        return self.outcome == "STOP" and not self.allowed

    def line(self) -> str:
        """One line for the terminal: verdict, gate, value, interval, n, threshold, remedy."""
        interval = f" [{figure(self.low)}, {figure(self.high)}]" if self.low != self.high else ""
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.outcome} {self.gate} {figure(self.value)}{unit}{interval} (n={self.n}; {self.threshold})"
        if self.note:
            text += f" {self.note}."
        if self.outcome != "PASS":
            text += f" {self.remedy.rstrip('.')}."
        if self.allowed:
            text += f" Allowed on record: {self.allowed}."
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A threshold with a name. `None` for `stop` or `warn` means that this verdict cannot occur."""

    name: str
    question: str
    unit: str
    direction: Literal["at_least", "at_most"]
    stop: float | None
    warn: float | None
    remedy: str
    guide: str = ""
    """What the common guides say; shown in docs/defaults.md."""
    reason: str = ""
    """Why ours differs from the guides'; empty when it does not."""

    def threshold(self) -> str:
        """The rule in words."""
        sign = "<" if self.direction == "at_least" else ">"
        parts = [
            f"{word} {sign} {figure(v)}" for word, v in (("stop", self.stop), ("warn", self.warn)) if v is not None
        ]
        return ", ".join(parts) if parts else "shown only"

    def judge(
        self, value: float, *, low: float | None = None, high: float | None = None, n: int, note: str = ""
    ) -> GateResult:
        """Compare a value with the thresholds.

        Args:
            value: point estimate.
            low: lower end of its interval; None when the value is exact.
            high: upper end of its interval; None when the value is exact.
            n: observations behind it. With n = 0 or a value that is not finite nothing was measured, and the gate stops
               (or warns when it has no stop value).
        """
        low, high = (value if low is None else low), (value if high is None else high)
        if n == 0 or not math.isfinite(value):
            outcome: Outcome = "STOP" if self.stop is not None else "WARN"
            note = note or "Nothing was measured"
        else:
            outcome = self._outcome(value, low, high)
        return GateResult(gate=self.name, outcome=outcome, value=value, low=low, high=high, n=n, unit=self.unit,
                          threshold=self.threshold(), remedy=self.remedy, question=self.question, note=note)  # fmt: skip

    def _outcome(self, value: float, low: float, high: float) -> Outcome:
        best = high if self.direction == "at_least" else low
        if self._is_wrong(best, self.stop):
            return "STOP"
        return "WARN" if self._is_wrong(value, self.warn) or self._is_wrong(value, self.stop) else "PASS"

    def _is_wrong(self, value: float, limit: float | None) -> bool:
        if limit is None:
            return False
        return value < limit if self.direction == "at_least" else value > limit


def allow(result: GateResult, reasons: dict[str, str]) -> GateResult:
    """Attach the reason that a person gave with `--allow gate=reason`, if any; the verdict itself stays."""
    reason = reasons.get(result.gate, "")
    return dataclasses.replace(result, allowed=reason) if reason and result.outcome != "PASS" else result


def figure(value: float) -> str:
    """Render a number with three significant digits, thousands separated."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000 or value == int(value) or abs(float(f"{value:.3g}")) >= 1000:
        return f"{value + 0.0:,.0f}"  # + 0.0 turns -0.0 into 0.0
    return f"{value:#.3g}".rstrip(".")
