"""The rules of a training run with a voice: alerts to the user and to a file, and the end of a run that a rule stopped, also when it is
started again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.errors import TrainError
from fairlead.core.io import write_jsonl
from fairlead.core.services import Services
from fairlead.telemetry.alert_table import ALERTS
from fairlead.telemetry.alerts import Decision, Watch


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """A watch, whom it tells, and what a person allowed. What acts on the learner is the session's."""

    watch: Watch
    title: str
    services: Services

    def decide(self, step: int, metrics: Mapping[str, float]) -> Decision:
        """What the rules want after this row; said at once."""
        num_open = self.watch.num_open
        decision = self.watch.decide(step, metrics)
        for alert in decision.alerts:
            self.say(alert.line())
        if decision.alerts or self.watch.num_open != num_open:
            self.show()
        return decision

    def note(self, results: Mapping[str, Sequence[str]]) -> None:
        """What came of the alerts of this step, by rule."""
        for rule, found in results.items():
            self.watch.note(rule, found)
        self.show()

    def say(self, text: str) -> None:
        """One line for the user."""
        self.services.say(f"{self.title}: {text}")

    def show(self) -> None:
        """All alerts so far, for whoever follows the run."""
        path = self.services.work / ALERTS
        if self.watch.spoken or path.exists():
            write_jsonl(path, self.watch.spoken)

    def keep(self, metrics_path: Path) -> None:
        """All alerts of the finished run beside its metrics (metrics-2.jsonl: alerts-2.jsonl); no file when there was none."""
        if self.watch.spoken:
            write_jsonl(metrics_path.with_name(metrics_path.name.replace("metrics", "alerts")), self.watch.spoken)

    def goes_on(self) -> bool:
        """True when no rule has stopped the run, or a person passed that rule on record."""
        stopped = self.watch.stopped
        if stopped is None:
            return True
        reason = self.services.extras.get("allow", {}).get(f"alert.{stopped['rule']}", "")
        if reason:
            self.say(f"{stopped['rule']} is allowed on record: {reason}")
            self.watch.stopped = None
        return bool(reason)

    def refuse(self) -> None:
        """Raise unless the run goes on.

        Raises:
            TrainError: says which rule stopped it, why, and what to do.
        """
        stopped = self.watch.stopped
        if stopped is not None and not self.goes_on():
            raise TrainError(f"{self.title} was stopped at step {stopped['step']} by rule {stopped['rule']}: {stopped['message']}. "
                             f"{stopped['remedy'].rstrip('.')}. Everything is saved; to go on from here pass the rule on record with "
                             f"--allow alert.{stopped['rule']}='why'.")  # fmt: skip
