"""A sequential test of a share: how soon may a rater's calibration end, and how sure is what it then says?

Wald's test adds the evidence of every answer for p >= p1 against p <= p0 and ends at one of two bounds, or undecided at the cap.
Because an answer is right or wrong, the sum is known from the number of answers and of right ones, so every property of the test
(chance to pass, mean length, interval after the stop) follows from one exact recursion over these two numbers; nothing is simulated.

Wald's bounds keep both errors below what was asked for at any cap, because a test that reaches the cap passes nobody: it is
`undecided`, and the remedy is another round.

Legend:
    N  answers, n of them seen, x right
    P  true shares of which the curves are wanted

Example:
    test = Sprt(p0=0.60, p1=0.75)
    reading = read_sequence(test, outcomes)        # outcomes from agreement.leave_one_out_outcomes
    reading.decision, reading.share                # pass, Interval(value=.81, low=.62, high=.93, n=38)
    operating_curve(test, [0.60, 0.75]).passes     # [.042, .842]
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import FloatArray, IntArray
from fairlead.stats.intervals import Interval, undefined

SequentialDecision = Literal["pass", "fail", "continue", "undecided"]
"""`undecided`: the cap was reached between the bounds."""

_Rising = Callable[[float], float]
_BISECTIONS = 50
"""Halvings of the unit interval; 2^-50 is beyond every figure that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprt:
    """Wald's sequential test of a share: p <= p0 (fail) against p >= p1 (pass), of at most `cap` answers.

    Source: Wald 1945, Annals of Mathematical Statistics 16.
    """

    p0: float = 0.60
    p1: float = 0.75
    alpha: float = 0.05
    """Chance to pass at p0, at most."""
    beta: float = 0.10
    """Chance to fail at p1, at most."""
    cap: int = 100
    """Answers after which the test ends undecided."""

    def __post_init__(self) -> None:
        if not (
            0 < self.p0 < self.p1 < 1 and 0 < self.alpha < 0.5 and 0 < self.beta < 0.5 and 1 <= self.cap <= 100_000
        ):
            raise DataError(explain("sequential test", f"{self.p0} against {self.p1}, alpha {self.alpha}, beta {self.beta}, cap {self.cap}",
                                    "is no test", expected="0 < p0 < p1 < 1, errors in (0, 0.5), cap >= 1",
                                    remedy="Give the share that fails as p0 and the share that passes as p1"))  # fmt: skip

    @property
    def bounds(self) -> tuple[float, float]:
        """Evidence at which the test fails and passes, nats."""
        return math.log(self.beta / (1 - self.alpha)), math.log((1 - self.beta) / self.alpha)

    @property
    def steps(self) -> tuple[float, float]:
        """Evidence of a right and of a wrong answer, nats."""
        return math.log(self.p1 / self.p0), math.log((1 - self.p1) / (1 - self.p0))

    def decide(self, outcomes: Sequence[bool]) -> SequentialDecision:
        """Follow the outcomes in order up to the first bound."""
        return read_sequence(self, outcomes).decision

    def expected_items(self, *, at_p1: bool) -> float:
        """Wald's mean length at p1 (or p0), without cap and overshoot; `operating_curve` gives the exact one."""
        right, wrong = self.steps
        low, high = self.bounds
        p, chance_to_pass = (self.p1, 1 - self.beta) if at_p1 else (self.p0, self.alpha)
        return (chance_to_pass * high + (1 - chance_to_pass) * low) / (p * right + (1 - p) * wrong)

    def limits(self) -> tuple[IntArray, IntArray]:
        """Right answers among n = 0 ... cap at or below which the test fails, and at or above which it passes, [cap + 1] each."""
        right, wrong = self.steps
        low, high = self.bounds
        n = np.arange(self.cap + 1)
        unit = right - wrong
        # A sum that equals a bound but for rounding has reached it.
        fails_at = np.floor((low - n * wrong) / unit + 1e-9)
        passes_at = np.ceil((high - n * wrong) / unit - 1e-9)
        return fails_at.astype(np.int64), passes_at.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequentialReading:
    """Where a test stands."""

    decision: SequentialDecision
    num_used: int
    """Answers up to the decision; later ones do not count."""
    num_right: int
    share: Interval
    """True share with an interval that allows for the stopping rule."""
    path: FloatArray
    """[num_used] evidence after each answer, nats."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OperatingCurve:
    """What a test does to raters of each true share, exactly."""

    shares: FloatArray
    """[P]"""
    passes: FloatArray
    """[P] chance to pass: the operating characteristic."""
    fails: FloatArray
    """[P]"""
    undecided: FloatArray
    """[P] chance to reach the cap."""
    mean_items: FloatArray
    """[P] average sample number."""


def read_sequence(test: Sprt, outcomes: Sequence[bool], *, confidence: float = 0.95) -> SequentialReading:
    """Follow answers in order up to the decision.

    While the test goes on the interval holds at every look at once (`anytime_interval`); after a decision it is exact for the
    stopping rule (`interval_after_stop`).
    """
    fails_at, passes_at = test.limits()
    right, wrong = test.steps
    num_right, used = 0, 0
    path: list[float] = []
    decision: SequentialDecision = "continue"
    for used, is_right in enumerate(outcomes[: test.cap], start=1):
        num_right += bool(is_right)
        path.append(num_right * right + (used - num_right) * wrong)
        if num_right <= fails_at[used] or num_right >= passes_at[used]:
            decision = "fail" if num_right <= fails_at[used] else "pass"
            break
    else:
        decision = "undecided" if used == test.cap else "continue"
    share = (
        anytime_interval(num_right, used, confidence=confidence)
        if decision == "continue"
        else interval_after_stop(test, num_right, used, confidence=confidence)
    )
    return SequentialReading(
        decision=decision, num_used=used, num_right=num_right, share=share, path=np.array(path, dtype=np.float64)
    )


def operating_curve(test: Sprt, shares: ArrayLike) -> OperatingCurve:
    """Chances and mean length at each true share, by recursion over (answers, right answers).

    f_{n+1}(x) = q f_n(x - 1) + (1 - q) f_n(x) over the x that no bound has stopped; what reaches a bound leaves f. This is done once a
    test; the ends found at one share q give the chances at every other.
    """
    p = np.atleast_1d(np.asarray(shares, dtype=np.float64))
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError(explain("shares", None, "are not true shares", expected="numbers in [0, 1]", remedy="Pass such shares"))  # fmt: skip
    stops = _stopping(test, p)
    return OperatingCurve(shares=p, passes=stops.passes.sum(1), fails=stops.fails.sum(1), undecided=stops.undecided.sum(1),
                          mean_items=stops.mean_items)  # fmt: skip


def interval_after_stop(test: Sprt, num_right: int, num_used: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of the share after the test ended, ordering its ends from the earliest pass to the earliest failure.

    A share counted as if n had been fixed is too high after a pass and too low after a failure. The ends of the interval are the
    shares at which an end as high (as low) as the one seen has probability (1 - confidence) / 2; the value is median-unbiased.

    Raises:
        DataError: the test does not end at these numbers.
    Source: Armitage 1958, Biometrika 45; the order by stages is that of Siegmund 1978 and of Jennison and Turnbull 2000, section 8.4.
    """
    kind = _end(test, num_right, num_used)
    tail = (1 - confidence) / 2

    def chances(p: float) -> tuple[float, float]:
        """Of ends strictly higher than the one seen, and of the same."""
        stops = _stopping(test, np.array([p]))
        passes, fails, open_ends = stops.passes[0], stops.fails[0], stops.undecided[0]
        if kind == "pass":
            return float(passes[:num_used].sum()), float(passes[num_used])
        if kind == "undecided":
            return float(passes.sum() + open_ends[num_right + 1 :].sum()), float(open_ends[num_right])
        above = float(passes.sum() + open_ends.sum() + fails[num_used + 1 :].sum())
        return above, float(fails[num_used])

    low = _solve(lambda p: sum(chances(p)), tail)
    high = _solve(lambda p: chances(p)[0], 1 - tail)
    middle = _solve(lambda p: chances(p)[0] + chances(p)[1] / 2, 0.5)
    return Interval(middle, min(low, middle), max(high, middle), num_used,
                    f"{num_right} of {num_used}; value and interval allow for the stopping rule")  # fmt: skip


def anytime_interval(num_right: int, num_used: int, *, confidence: float = 0.95) -> Interval:
    """Interval of a share that covers it at every n at once, so that it may be looked at after each answer.

    It holds the p at which B(x + 1, n - x + 1) / (p^x (1 - p)^(n - x)) stays below 1 / (1 - confidence): that ratio is a martingale
    at the true p, and passes this height with at most the chance 1 - confidence.

    Source: Robbins 1970, Annals of Mathematical Statistics 41, with the uniform mixture.
    """
    if not 0 <= num_right <= num_used:
        raise DataError(explain("num_right", num_right, f"does not fit {num_used} answers", expected="from 0 to num_used",
                                remedy="Check which count is which"))  # fmt: skip
    if num_used == 0:
        return undefined("no observations", n=0)
    wrong, share = num_used - num_right, num_right / num_used
    mixture = math.lgamma(num_right + 1) + math.lgamma(wrong + 1) - math.lgamma(num_used + 2)
    height = -math.log(1 - confidence)

    def excess(p: float) -> float:
        against = (num_right * math.log(p) if num_right else 0.0) + (wrong * math.log1p(-p) if wrong else 0.0)
        return mixture - against - height

    low = 0.0 if num_right == 0 else _edge(excess, 0.0, share)
    high = 1.0 if wrong == 0 else _edge(excess, 1.0, share)
    return Interval(share, low, high, num_used, "holds at every look")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stopping:
    """Where the test ends, for each true share."""

    passes: FloatArray
    """[P, cap + 1] by answers used."""
    fails: FloatArray
    """[P, cap + 1] by answers used."""
    undecided: FloatArray
    """[P, cap + 1] by right answers at the cap."""
    mean_items: FloatArray
    """[P]"""


def _stopping(test: Sprt, p: FloatArray) -> _Stopping:
    """Every end has one number of right answers x, so its chance at p is that at the neutral share q times (p/q)^x ((1-p)/(1-q))^(n-x)."""
    q, (passes, fails, undecided) = _neutral_ends(test)
    fails_at, passes_at = test.limits()
    n = np.arange(test.cap + 1)
    with np.errstate(divide="ignore"):
        right, wrong = np.log(p / q)[:, None], np.log((1 - p) / (1 - q))[:, None]

    def chances(at_neutral: FloatArray, num_right: IntArray, num_wrong: IntArray) -> FloatArray:
        with np.errstate(invalid="ignore"):  # 0 * -inf: what p = 0 and p = 1 leave possible
            return np.exp(at_neutral + np.where(num_right > 0, num_right * right, 0) + np.where(num_wrong > 0, num_wrong * wrong, 0))  # fmt: skip

    found = chances(passes, passes_at, n - passes_at), chances(fails, fails_at, n - fails_at)
    at_cap = chances(undecided, n, test.cap - n)
    return _Stopping(passes=found[0], fails=found[1], undecided=at_cap,
                     mean_items=(found[0] + found[1]) @ n + test.cap * at_cap.sum(1))  # fmt: skip


@functools.lru_cache(maxsize=64)
def _neutral_ends(test: Sprt) -> tuple[float, tuple[FloatArray, FloatArray, FloatArray]]:
    """The share at which evidence stays where it is on average, and there the logarithms of the chances to pass and to fail by answers
    used, and to be undecided by right answers, [cap + 1] each.

    At this share the recursion keeps its precision longest: no bound draws the sum away from the other.
    """
    step_right, step_wrong = test.steps
    q = -step_wrong / (step_right - step_wrong)
    fails_at, passes_at = test.limits()
    size = test.cap + 1
    right = np.arange(size)
    reach, passes, fails = np.zeros(size), np.zeros(size), np.zeros(size)
    reach[0] = 1.0
    for n in range(1, size):
        moved = reach * (1 - q)
        moved[1:] += reach[:-1] * q
        is_pass, is_fail = right >= passes_at[n], right <= fails_at[n]
        passes[n], fails[n] = moved[is_pass].sum(), moved[is_fail].sum()
        reach = np.where(is_pass | is_fail, 0.0, moved)
    with np.errstate(divide="ignore"):
        return q, (np.log(passes), np.log(fails), np.log(reach))


def _end(test: Sprt, num_right: int, num_used: int) -> SequentialDecision:
    fails_at, passes_at = test.limits()
    if 0 <= num_right <= num_used and 1 <= num_used <= test.cap:
        if num_right >= passes_at[num_used] and num_right - 1 < passes_at[num_used - 1]:
            return "pass"
        if num_right <= fails_at[num_used] and num_right > fails_at[num_used - 1]:
            return "fail"
        if num_used == test.cap and fails_at[num_used] < num_right < passes_at[num_used]:
            return "undecided"
    raise DataError(explain("sequential test", f"{num_right} of {num_used}", "is no end of this test", expected="the first numbers at a bound",
                            remedy="Read the outcomes with read_sequence"))  # fmt: skip


def _solve(rising: _Rising, target: float) -> float:
    """The share at which a function that rises with it reaches `target`."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _edge(excess: _Rising, outside: float, inside: float) -> float:
    """The share between `outside`, where the excess is positive, and `inside`, where it is not, at which it crosses 0."""
    for _ in range(_BISECTIONS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excess(middle) > 0 else (outside, middle)
    return (outside + inside) / 2
