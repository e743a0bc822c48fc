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
from decimal import ROUND_HALF_EVEN, Context, Decimal
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
    """The rule in words, for example `stop < 60 %, warn < 65 %`."""
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
        low, high = amount(self.low, self.unit), amount(self.high, self.unit)
        has_interval = self.low != self.high and math.isfinite(self.low) and math.isfinite(self.high)
        interval = f" [{low}, {high}]" if has_interval else ""
        text = f"{self.outcome} {self.gate} {measure(self.value, self.unit)}{interval} (n={self.n}; {self.threshold})"
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
            f"{word} {sign} {declared(v, self.unit)}"
            for word, v in (("stop", self.stop), ("warn", self.warn))
            if v is not None
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


_THREE_DIGITS = Context(prec=3, rounding=ROUND_HALF_EVEN)
_TENTH = Decimal("0.1")


def figure(value: float) -> str:
    """Render a number with three significant digits, thousands separated; halves of the decimal number go to the even digit."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(_THREE_DIGITS.create_decimal(repr(float(value))))
    if abs(value) >= 1000 or value == int(value) or abs(rounded) >= 1000:
        return f"{value + 0.0:,.0f}"  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:#.3g}".rstrip(".")


def percent(value: float, *, is_signed: bool = False) -> str:
    """Render a share as `71.2 %`: the one form of rates, with one decimal; halves go to the even digit, as in `figure`."""
    if not math.isfinite(value):
        return str(value)
    rounded = (Decimal(repr(float(value))) * 100).quantize(_TENTH, rounding=ROUND_HALF_EVEN) + 0  # no -0.0
    return f"{rounded:{'+' if is_signed and rounded else ''},} %"


def some(number: int, one: str, many: str = "") -> str:
    """A count of things in words: `1 vote`, `1,200 votes`; `many` where it is not `one` with an s, also of more words (`pair has`, `pairs have`)."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent_interval(low: float, high: float) -> str:
    """Render the usual interval of a share: `95 % interval 64.6 % to 77.1 %`."""
    return f"95 % interval {percent(low)} to {percent(high)}"


def amount(value: float, unit: str) -> str:
    """Render a value on the scale of its unit: a share (`share`, `share of prompts`) in per cent, anything else as a figure."""
    return percent(value) if unit.partition(" ")[0] == "share" else figure(value)


def unit_words(unit: str) -> str:
    """What is said of the unit behind `amount`: `share of prompts` is `of prompts`, the per cent sign being there already."""
    first, _, rest = unit.partition(" ")
    return rest if first == "share" else unit


def measure(value: float, unit: str) -> str:
    """Render a value with its unit: `71.2 % of prompts`, `0.450 kappa`."""
    if not math.isfinite(value):
        return "not measured"
    return f"{amount(value, unit)} {unit_words(unit)}".rstrip()


def declared(value: float, unit: str = "share") -> str:
    """Render a number that somebody wrote (a limit, a setting): a share as `65 %`, without decimals that were not written."""
    if unit.partition(" ")[0] != "share":
        return figure(value)
    return f"{(Decimal(repr(float(value))) * 100).normalize() + 0:f} %"
