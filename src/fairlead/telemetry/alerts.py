"""Rules that watch the metrics of a run and act: say it, keep a snapshot, move the KL coefficient or the learning rate, go back, stop.

    metrics of a step -> conditions over their last rows -> a rule speaks -> one Decision -> the loop's owner carries it out

A rule speaks when its conditions have held for their windows, once, and again only after they came back (or after `again_after` rows,
`max_times` at most). Noise of a single step stays silent. What a watch remembers is plain data that a checkpoint keeps, so a resumed run
decides as the whole one would have, and `replay` decides again from a metrics file. Nothing here changes training by itself.

Example:
    watch = Watch(DEFAULT_RULES)
    decision = watch.decide(step, metrics)
    kl_coef = move_kl_coef(kl_coef, decision.actions)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.core.gates import figure
from fairlead.telemetry.metrics import describe

Level = Literal["WARN", "STOP"]
Mode = Literal["act", "propose", "off"]
ActionKind = Literal["snapshot", "raise_kl", "lower_kl", "scale_rate", "roll_back", "stop"]
BASELINE_ROWS = 5  # a mean of five rows is steady enough for rules that only see changes of 5 % and more
KEEP_EVERY_ROWS = (
    20  # RL rows are rounds: a checkpoint costs little beside twenty of them, and more is lost by going back further
)
NOT_FINITE = "not_finite"
"""The rule that watches every metric for NaN and infinity; it has no conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What to do besides saying it."""

    kind: ActionKind
    factor: float | None = None
    """Of raise_kl, lower_kl and scale_rate; None goes to `bound` at once."""
    bound: float | None = None
    """The KL coefficient (or, for scale_rate, the product of all factors so far) is not moved beyond this."""

    def words(self) -> str:
        """As an order to whoever reads it: `KL coefficient x 0.5, not below 0.05`."""
        if self.kind in ("raise_kl", "lower_kl", "scale_rate"):
            what = "learning rate" if self.kind == "scale_rate" else "KL coefficient"
            if self.factor is None:
                return f"{what} to {self.bound or 0.0:g}"
            side = "above" if self.factor > 1 else "below"
            limit = "" if self.bound is None else f", not {side} {self.bound:g}"
            return f"{what} x {self.factor:g}" + (limit if self.kind != "scale_rate" else "")
        return {
            "snapshot": "keep a checkpoint of this moment",
            "roll_back": "back to the last good checkpoint",
            "stop": "stop",
        }[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A limit on one metric over its last rows."""

    metric: str
    side: Literal["above", "below"]
    limit: float
    window: int = 3
    """Rows that are looked at; the condition cannot hold before there are so many."""
    over: Literal["each", "mean", "rise"] = "each"
    """each: every row is beyond the limit. mean: their mean is. rise: what a straight line through them gains from the first to the last is."""
    relative_to: Literal["start", "start_added"] | None = None
    """start: the limit is a multiple of the mean of the first 5 rows. start_added: it is added to it."""
    scale: str | None = None
    """Another metric whose mean over the same rows multiplies the limit (a standard error, a standard deviation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When to speak, and what to do then."""

    id: str
    when: tuple[Condition, ...]
    remedy: str
    """What a person should do, without a full stop."""
    need: int | None = None
    """So many of the conditions must hold; None means all."""
    actions: tuple[Action, ...] = ()
    """Besides saying it, which every rule does."""
    mode: Mode = "act"
    """propose: only say what would be done."""
    warmup: int = 0
    """Rows of the run before which the rule is silent."""
    again_after: int | None = None
    """Rows after which it speaks again while its conditions still hold; None waits until they came back."""
    max_times: int | None = None
    """It acts so often at most."""
    last: tuple[Action, ...] = ()
    """What it does instead once it has acted so often; empty only speaks."""
    spoils: bool = True
    """While its conditions hold, a checkpoint is none to go back to."""
    source: str = ""
    """Where the limits come from."""

    @property
    def level(self) -> Level:
        """STOP for what undoes or ends training, else WARN."""
        return "STOP" if any(a.kind in ("roll_back", "stop") for a in (*self.actions, *self.last)) else "WARN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What broke a condition."""

    metric: str
    value: float
    side: Literal["above", "below"]
    limit: float | None
    """In the unit of the metric, with what it is relative to worked in; None for a value that is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a rule said at a step."""

    step: int
    rule: str
    level: Level
    seen: tuple[Seen, ...]
    """Of the conditions that hold."""
    message: str
    """What was seen, against what limit."""
    remedy: str
    actions: tuple[Action, ...] = ()
    """To be carried out; empty when the rule only speaks."""
    proposed: tuple[Action, ...] = ()
    """What a person may do in their place."""

    def line(self) -> str:
        """One line for the terminal and the log: what, by how much, what is done, what to do."""
        done = f" Doing: {'; '.join(a.words() for a in self.actions)}." if self.actions else ""
        wise = f" Proposed: {'; '.join(a.words() for a in self.proposed)}." if self.proposed else ""
        return f"{self.level} {self.rule} at step {self.step}: {self.message}.{done}{wise} {self.remedy.rstrip('.')}."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data for the log of alerts."""
        seen = [
            {"metric": s.metric, "value": s.value if math.isfinite(s.value) else str(s.value), "side": s.side, "limit": s.limit} for s in self.seen
        ]  # fmt: skip
        return {"step": self.step, "rule": self.rule, "level": self.level, "seen": seen, "message": self.message, "remedy": self.remedy,
                "done": [a.words() for a in self.actions], "proposed": [a.words() for a in self.proposed], "results": [],
                "over_at": None}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the rules want after a step. Alerts stand in the order of the rules."""

    alerts: tuple[Alert, ...] = ()
    rate_factor: float = 1.0
    """All later learning rates are multiplied by it."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """All that is to be carried out."""
        return tuple(action for alert in self.alerts for action in alert.actions)

    @property
    def wants_snapshot(self) -> bool:
        """Keep a checkpoint of this moment."""
        return any(action.kind == "snapshot" for action in self.actions)

    @property
    def wants_roll_back(self) -> bool:
        """Put back the weights of the last good checkpoint."""
        return any(action.kind == "roll_back" for action in self.actions)

    @property
    def stop(self) -> Alert | None:
        """The alert that ends the run."""
        return next((alert for alert in self.alerts for a in alert.actions if a.kind == "stop"), None)


def move_kl_coef(kl_coef: float, actions: Iterable[Action]) -> float:
    """The KL coefficient after these actions, reward units a nat. A bound that it is beyond already leaves it where it is."""
    for action in actions:
        if action.kind == "raise_kl":
            bound = math.inf if action.bound is None else action.bound
            kl_coef = max(kl_coef, min(bound, bound if action.factor is None else kl_coef * action.factor))
        elif action.kind == "lower_kl":
            bound = action.bound or 0.0
            kl_coef = min(kl_coef, max(bound, bound if action.factor is None else kl_coef * action.factor))
    return kl_coef


@dataclass(slots=True)
class _Memory:
    """What a watch remembers of one condition: its last rows, and the first five."""

    recent: list[float] = field(default_factory=list[float])
    scales: list[float] = field(default_factory=list[float])
    start: list[float] = field(default_factory=list[float])


@dataclass(slots=True)
class _State:
    """What a watch remembers of one rule."""

    parts: list[_Memory]
    spoke_at: int | None = None
    """Row at which it spoke last, while its conditions have held since."""
    times: int = 0
    """How often it has acted."""


class Watch:
    """Applies rules to the metrics of one run, row after row. Holds state; one watch a run; not thread-safe."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Take the rules; one that is off is left out, an undeclared metric is a ConfigError."""
        self.rules = tuple(rule for rule in rules if rule.mode != "off")
        for condition in (c for rule in self.rules for c in rule.when):
            describe(condition.metric)
            if condition.scale is not None:
                describe(condition.scale)
        self._states = {rule.id: _State([_Memory() for _ in rule.when]) for rule in self.rules}
        self._not_finite: list[str] = []
        self._rows = 0
        self._rate = 1.0
        self.stopped: dict[str, Any] | None = None
        """The alert that ended the run, as plain data; the owner sets it, and clears it when a person lets the run go on."""
        self.spoken: list[dict[str, Any]] = []
        """Every alert so far, oldest first, as plain data, with what came of it: `results` by `note`, `over_at` when its conditions ended."""

    @property
    def is_calm(self) -> bool:
        """True while no rule that spoils holds: what is trained now may be gone back to."""
        holding = [rule for rule in self.rules if self._states[rule.id].spoke_at is not None]
        return not self._not_finite and not any(rule.spoils for rule in holding)

    @property
    def may_keep(self) -> bool:
        """True at the rows whose checkpoint may be gone back to: a rule that goes back sees its metrics, and nothing speaks against now.

        Rows, not the clock, decide: a run that was killed and went on must go back to where the whole one would have.
        """
        back = [r for r in self.rules if r.mode == "act" and any(a.kind == "roll_back" for a in r.actions)]
        is_watched = any(part.recent for rule in back for part in self._states[rule.id].parts)
        return is_watched and self.is_calm and self._rows % KEEP_EVERY_ROWS == 1

    def decide(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """What the rules say about one more row of metrics, which may lack some of them."""
        self._rows += 1
        alerts: list[Alert] = []
        for rule in self.rules:
            found = (
                self._not_finite_alert(rule, step, metrics)
                if rule.id == NOT_FINITE
                else self._alert(rule, step, metrics)
            )
            if found is not None:
                alerts.append(found)
        self.spoken += [alert.to_dict() for alert in alerts]
        return Decision(alerts=tuple(alerts), rate_factor=self._move_rate(alerts))

    def note(self, rule: str, results: Iterable[str]) -> None:
        """What came of the newest alert of a rule, as whoever carried it out found."""
        next(row for row in reversed(self.spoken) if row["rule"] == rule)["results"] += results

    @property
    def num_open(self) -> int:
        """Alerts whose conditions have held since."""
        return sum(row["over_at"] is None for row in self.spoken)

    def _close(self, rule: str, step: int) -> None:
        for row in self.spoken:
            if row["rule"] == rule and row["over_at"] is None:
                row["over_at"] = step

    def forget(self) -> None:
        """After a roll back: the last rows are of weights that are gone. The first rows, and how often each rule acted, stay."""
        self._not_finite = []
        for state in self._states.values():
            state.spoke_at = None
            for part in state.parts:
                part.recent, part.scales = [], []

    def state(self) -> dict[str, Any]:
        """Plain data that `load` takes, for a checkpoint."""
        rules: dict[str, Any] = {
            name: {"spoke_at": s.spoke_at, "times": s.times, "parts": [[list(p.recent), list(p.scales), list(p.start)] for p in s.parts]}
            for name, s in self._states.items()
        }  # fmt: skip
        return {"rows": self._rows, "rate": self._rate, "not_finite": list(self._not_finite), "spoken": [dict(row) for row in self.spoken],
                "stopped": self.stopped, "rules": rules}  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; a rule that was not there then begins anew."""
        self._rows, self._rate, self._not_finite = state["rows"], state["rate"], list(state["not_finite"])
        self.spoken, self.stopped = [dict(row) for row in state["spoken"]], state["stopped"]
        for rule in self.rules:
            row = state["rules"].get(rule.id)
            if row is not None and len(row["parts"]) == len(rule.when):
                parts = [_Memory(list(a), list(b), list(c)) for a, b, c in row["parts"]]
                self._states[rule.id] = _State(parts, row["spoke_at"], row["times"])

    def _alert(self, rule: Rule, step: int, metrics: Mapping[str, float]) -> Alert | None:
        state = self._states[rule.id]
        is_news = [_remember(part, condition, metrics) for part, condition in zip(state.parts, rule.when, strict=True)]
        if not any(is_news):
            return None
        seen = [(c, _judge(c, part)) for c, part in zip(rule.when, state.parts, strict=True)]
        beyond = [(condition, found) for condition, found in seen if found is not None]
        if len(beyond) < (len(rule.when) if rule.need is None else rule.need):
            state.spoke_at = None
            if all(
                not part.recent or len(part.recent) >= c.window for c, part in zip(rule.when, state.parts, strict=True)
            ):
                self._close(rule.id, step)  # after a roll back not before there are as many new rows
            return None
        if self._rows <= rule.warmup or not self._is_due(rule, state):
            return None
        message = " and ".join(_words(c, v, limit) for c, (v, limit) in beyond)
        seen = tuple(Seen(metric=c.metric, value=value, side=c.side, limit=limit) for c, (value, limit) in beyond)
        return self._speak(rule, state, step, seen=seen, message=message)

    def _is_due(self, rule: Rule, state: _State) -> bool:
        if state.spoke_at is None:
            return True
        return rule.again_after is not None and self._rows - state.spoke_at >= rule.again_after

    def _not_finite_alert(self, rule: Rule, step: int, metrics: Mapping[str, float]) -> Alert | None:
        """Also of metrics that no catalogue names; each once while it stays so, the first by name in the alert."""
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        new = [name for name in bad if name not in self._not_finite]
        self._not_finite = [name for name in self._not_finite if name in bad or name not in metrics] + new
        if not bad:
            self._close(rule.id, step)
        if not new:
            return None
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        message = f"{new[0]}={metrics[new[0]]}{more} is not finite"
        seen = tuple(Seen(metric=name, value=metrics[name], side="above", limit=None) for name in new)
        return self._speak(rule, self._states[rule.id], step, seen=seen, message=message)

    def _speak(self, rule: Rule, state: _State, step: int, *, seen: tuple[Seen, ...], message: str) -> Alert:
        if rule.id != NOT_FINITE:
            state.spoke_at = self._rows
        is_spent = rule.max_times is not None and state.times >= rule.max_times
        actions, is_acting = rule.last if is_spent else rule.actions, rule.mode == "act"
        state.times += is_acting
        return Alert(step=step, rule=rule.id, level=rule.level, seen=seen, message=message, remedy=rule.remedy,
                     actions=actions if is_acting else (), proposed=() if is_acting else actions)  # fmt: skip

    def _move_rate(self, alerts: Iterable[Alert]) -> float:
        before = self._rate
        for action in (a for alert in alerts for a in alert.actions if a.kind == "scale_rate"):
            factor = 1.0 if action.factor is None else action.factor
            wanted = self._rate * factor
            if action.bound is not None:
                wanted = (
                    min(wanted, max(action.bound, self._rate))
                    if factor > 1
                    else max(wanted, min(action.bound, self._rate))
                )
            self._rate = wanted
        return self._rate / before


def replay(rules: Sequence[Rule], rows: Iterable[tuple[int, Mapping[str, float]]]) -> list[Alert]:
    """What the rules would have said about logged metrics, oldest first: to try a rule on a run that is over."""
    watch = Watch(rules)
    return [alert for step, metrics in rows for alert in watch.decide(step, metrics).alerts]


def _remember(part: _Memory, condition: Condition, metrics: Mapping[str, float]) -> bool:
    """Take the row in; False when it has nothing for this condition."""
    value = metrics.get(condition.metric, math.nan)
    scale = 1.0 if condition.scale is None else metrics.get(condition.scale, math.nan)
    if not (math.isfinite(value) and math.isfinite(scale)):
        return False
    if condition.relative_to is not None and len(part.start) < BASELINE_ROWS:
        part.start.append(value)
        return False
    part.recent = [*part.recent, value][-condition.window :]
    part.scales = [*part.scales, scale][-condition.window :]
    return True


def _judge(condition: Condition, part: _Memory) -> tuple[float, float] | None:
    """(what was measured, the limit that it passed), or None."""
    rows = part.recent
    if len(rows) < condition.window:
        return None
    limit = condition.limit * (1.0 if condition.scale is None else sum(part.scales) / len(part.scales))
    if condition.relative_to is not None:
        base = sum(part.start) / len(part.start)
        if condition.relative_to == "start" and base == 0:
            return None
        limit = limit * base if condition.relative_to == "start" else limit + base
    is_above = condition.side == "above"
    if condition.over == "each":
        mildest = min(rows) if is_above else max(rows)
        value = rows[-1]
    else:
        value = mildest = sum(rows) / len(rows) if condition.over == "mean" else _rise(rows)
    return (value, limit) if (mildest > limit if is_above else mildest < limit) else None


def _rise(rows: Sequence[float]) -> float:
    """What a least-squares line gains from the first row to the last."""
    middle, mean = (len(rows) - 1) / 2, sum(rows) / len(rows)
    spread = sum((i - middle) ** 2 for i in range(len(rows)))
    slope = sum((i - middle) * (row - mean) for i, row in enumerate(rows)) / spread if spread else 0.0
    return slope * (len(rows) - 1)


def _words(condition: Condition, value: float, limit: float) -> str:
    unit = describe(condition.metric).unit
    against = "the limit" if condition.relative_to is None else "the limit set by the start of the run,"
    how = {"each": "", "mean": f" (mean of {condition.window} rows)", "rise": f" (rise over {condition.window} rows)"}[
        condition.over
    ]
    return f"{condition.metric} {figure(value)} {unit}{how} is {condition.side} {against} {figure(limit)}"
