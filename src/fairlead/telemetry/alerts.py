"""Rules that watch metrics while a run goes on and say, in one line, what is wrong and what to do.

A rule compares a metric, or its change since the start of the run, with a WARN and a STOP value. It speaks when the value has been
beyond for `patience` logged steps in a row, once, and again only after the metric came back or became worse; noise of a single step
stays silent. NaN and infinity always speak. Alerts never change training: the loop's owner decides.

Example:
    watch = Watch(RULES)
    for alert in watch.check(step, metrics):
        print(alert.line())
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fairlead.core.gates import figure
from fairlead.telemetry.metrics import describe

Level = Literal["WARN", "STOP"]
BASELINE_STEPS = 5  # a mean of five steps is steady enough for rules that only see changes of 25 % and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A limit on one metric. `None` for `warn` or `stop` means that this level cannot occur."""

    metric: str
    side: Literal["above", "below"]
    warn: float | None
    stop: float | None
    remedy: str
    is_relative: bool = False
    """True: the limits are multiples of the mean of the first 5 logged values (a negative start doubles downwards)."""
    patience: int = 3
    """Logged steps in a row beyond the limit before the rule speaks."""
    source: str = ""
    """Where the limits come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a rule said at a step."""

    step: int
    metric: str
    level: Level
    value: float
    message: str

    def line(self) -> str:
        """Render as one line for the terminal and the log."""
        return f"{self.level} step {self.step}: {self.message}"


RULES: tuple[Rule, ...] = (
    Rule(metric="rl/kl_k1", side="above", warn=0.5, stop=1.0, remedy="Raise kl_coef or lower the learning rate",
         source="guide band 0.1 to 0.5 nats/token; collapse seen at 0.94 to 1.6 in arXiv 2403.17031"),
    Rule(metric="rl/kl_k1", side="below", warn=-0.01, stop=None, patience=5,
         remedy="A KL cannot be negative: check that policy and reference use the same temperature, mask and template"),
    Rule(metric="rl/entropy", side="below", warn=0.5, stop=0.15, is_relative=True,
         remedy="Lower the learning rate, raise kl_coef, or sample at temperature 1", source="floor relative to the start of the run"),
    Rule(metric="rl/clip_fraction", side="above", warn=0.3, stop=None, remedy="Lower the learning rate or make fewer epochs a batch"),
    Rule(metric="rl/approx_kl", side="above", warn=0.1, stop=None, remedy="Lower the learning rate or make fewer epochs a batch"),
    Rule(metric="rl/missing_eos_share", side="above", warn=0.05, stop=0.2,
         remedy="Raise max_new_tokens or the penalty for a missing end of turn"),
    Rule(metric="rl/length_tokens", side="above", warn=1.25, stop=2.0, is_relative=True,
         remedy="Add a length penalty or retrain the reward model on pairs of equal length"),
    Rule(metric="rl/score_std", side="below", warn=0.25, stop=0.05, is_relative=True,
         remedy="The reward no longer tells completions apart: refresh prompts or the reward model"),
    Rule(metric="rl/sampling_gap", side="above", warn=0.05, stop=None,
         remedy="Recompute old_logprobs in the trainer or correct by importance weights"),
    Rule(metric="rl/explained_variance", side="below", warn=-0.5, stop=None, patience=10,
         remedy="Train the value model longer before the policy, or use a method without one"),
    Rule(metric="dpo/chosen_logprobs", side="below", warn=1.5, stop=None, is_relative=True, patience=5,
         remedy="Chosen completions lose probability: raise beta, add an SFT term, or stop earlier"),
)  # fmt: skip


@dataclass(slots=True)
class _State:
    """What a watch remembers of one rule."""

    recent: deque[Level | None]
    start: list[float] = field(default_factory=list[float])
    said: Level | None = None


class Watch:
    """Applies rules to the metrics of one run, step after step. Holds state; one watch a run."""

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        """Take the rules; an undeclared metric is a ConfigError."""
        self._rules = tuple((rule, describe(rule.metric)) for rule in rules)
        self._states = [_State(recent=deque(maxlen=rule.patience)) for rule in rules]
        self._not_finite: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float]) -> list[Alert]:
        """Return what the rules say about this step, in the order of the rules, numbers that are not finite first."""
        alerts = [alert for name, value in metrics.items() if (alert := self._check_finite(step, name, value))]
        for (rule, metric), state in zip(self._rules, self._states, strict=True):
            value = metrics.get(rule.metric)
            if value is None or not math.isfinite(value):
                continue
            level, limit = _beyond(rule, state, value)
            state.recent.append(level)
            if speaks := _decide(state, rule.patience):
                state.said = speaks
                message = _message(rule, metric.unit, value, limit)
                alerts.append(Alert(step=step, metric=rule.metric, level=speaks, value=value, message=message))
            elif level is None:
                state.said = None
        return alerts

    def _check_finite(self, step: int, name: str, value: float) -> Alert | None:
        if math.isfinite(value):
            self._not_finite.discard(name)
            return None
        if name in self._not_finite:
            return None
        self._not_finite.add(name)
        message = f"{name}={value} is not finite. Resume from the last checkpoint with a lower learning rate."
        return Alert(step=step, metric=name, level="STOP", value=value, message=message)


class AlertSink:
    """A metric sink that hands alerts to a function, for use beside a file in a FanOut."""

    def __init__(self, say: Callable[[Alert], None], *, rules: Sequence[Rule] = RULES) -> None:
        """Take the function that receives each alert."""
        self._say = say
        self._watch = Watch(rules)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check one step."""
        for alert in self._watch.check(step, metrics):
            self._say(alert)

    def close(self) -> None:
        """Nothing to release."""


def _beyond(rule: Rule, state: _State, value: float) -> tuple[Level | None, float]:
    """Level that the value reaches by itself, and the limit that it passed."""
    base = 1.0
    if rule.is_relative:
        if len(state.start) < BASELINE_STEPS:
            state.start.append(value)
            return None, math.nan
        base = sum(state.start) / len(state.start)
        if base == 0:
            return None, math.nan
    limits: tuple[tuple[Level, float | None], ...] = (("STOP", rule.stop), ("WARN", rule.warn))
    for level, limit in limits:
        if limit is not None and (value > limit * base if rule.side == "above" else value < limit * base):
            return level, limit * base
    return None, math.nan


def _decide(state: _State, patience: int) -> Level | None:
    """Speak when all recent steps were beyond, at the mildest of their levels, unless that was said already."""
    if len(state.recent) < patience or None in state.recent:
        return None
    level: Level = "STOP" if all(seen == "STOP" for seen in state.recent) else "WARN"
    return None if level == state.said or state.said == "STOP" else level


def _message(rule: Rule, unit: str, value: float, limit: float) -> str:
    against = "the limit set by the start of the run," if rule.is_relative else "the limit"
    return f"{rule.metric} {figure(value)} {unit} is {rule.side} {against} {figure(limit)}. {rule.remedy}."
