"""What happens after each step: metrics to a file, the progress line, checkpoints that a killed run goes on from.

Example:
    session = Session(learner, services=services, title="sft", metric="sft/loss", metrics_path=out / "metrics.jsonl")
    with session:
        run_loop(learner, source, hooks=[session.after_step])
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from fairlead.core.errors import Interrupted
from fairlead.core.io import write_jsonl
from fairlead.core.services import ProgressBar, Services
from fairlead.models.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from fairlead.telemetry.alerts import RULES, Alert, AlertSink
from fairlead.telemetry.metrics import METRICS
from fairlead.telemetry.pace import Pace
from fairlead.telemetry.sinks import FanOut, JsonlSink
from fairlead.train.loop import Hook, Learner

CHECKPOINT = "checkpoint"
_UNFINISHED = "unfinished_step"
_LIVE = frozenset(metric.name for metric in METRICS if metric.is_live)


@dataclass(slots=True, eq=False)
class Session:
    """One training run as its surroundings see it: resumable, visible, interruptible. Single-use context manager.

    The checkpoint holds trainable weights, optimiser state, the step, the learner's statistics, and the extras. Sources of batches are
    pure functions of the seed, so the step is also the position in the data. Hooks that keep state in the extras come before
    `after_step`, which saves; those that take long give `heed` the step's metrics and change nothing before they are done.
    """

    learner: Learner
    services: Services
    title: str
    metric: str
    """Metric shown on the progress line."""
    metrics_path: Path
    muted: tuple[str, ...] = ()
    """Metrics that no alert is raised about, because the config says that their values are meant."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """Plain values that the checkpoint keeps besides (KL coefficient, measurements); what a resumed run finds."""
    extra_tensors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    """The same for tensors (best weights so far); on the CPU after a resume."""
    resumed_from: int = 0
    _sink: FanOut | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _bar: ProgressBar | None = None
    _saved: float = field(default_factory=time.monotonic)
    _pace: Pace = field(default_factory=Pace)

    def __enter__(self) -> Self:
        self._resume()
        kept = self.services.work / "metrics.jsonl"
        rows = JsonlSink(kept)
        rows.resume(self.learner.step_number)
        rules = tuple(rule for rule in RULES if rule.metric not in self.muted)
        self._sink = FanOut(rows, AlertSink(self._alert, rules=rules))
        for note in self.learner.models.notes():
            self.services.say(f"{self.title}: {note}")
        self._bar = self._stack.enter_context(self.services.progress(self.title, self.learner.num_steps))
        if self.resumed_from:
            self._bar.advance(self.resumed_from)
            self.services.say(f"{self.title}: going on at step {self.resumed_from} of {self.learner.num_steps}")
        self._pace.restart()
        return self

    def _alert(self, alert: Alert) -> None:
        """An alert informs; only gates and ctrl-C end a run."""
        self.services.say(f"{self.title}: alert, {alert.line()} The run goes on.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._sink is not None:
            self._sink.close()
        if kind is None:
            self._keep_metrics()

    def _keep_metrics(self) -> None:
        """Copy the metrics to where they stay, without what the clock decides: equal runs must leave equal files."""
        rows = (
            json.loads(line) for line in (self.services.work / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        )
        write_jsonl(self.metrics_path, ({k: v for k, v in row.items() if k not in _LIVE} for row in rows))

    def _names(self) -> dict[str, torch.nn.Parameter]:
        return {f"p/{i}": p for i, p in enumerate(self.learner.parameters)}

    def _resume(self) -> None:
        found = load_checkpoint(self.services.work / CHECKPOINT)
        if found is None:
            return
        tensors, state = found
        with torch.no_grad():
            for name, parameter in self._names().items():
                parameter.copy_(tensors[name])
        restore_optimizer(self.learner.optimizer, {k[2:]: v for k, v in tensors.items() if k.startswith("o/")})
        self.learner.step_number = self.resumed_from = int(state["step"])
        self.learner.statistics = dict(state.get("statistics", {}))
        self.extra = dict(state["extra"])
        self.extra_tensors = {k[2:]: v for k, v in tensors.items() if k.startswith("x/")}

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        optimiser = {f"o/{k}": v for k, v in optimizer_tensors(self.learner.optimizer).items()}
        extra = {f"x/{k}": v for k, v in self.extra_tensors.items()}
        tensors = {**{name: p.detach() for name, p in self._names().items()}, **optimiser, **extra}
        save_checkpoint(
            self.services.work / CHECKPOINT,
            tensors=tensors,
            state={"step": self.learner.step_number, "statistics": self.learner.statistics, "extra": self.extra},
        )
        self._saved = time.monotonic()

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record metrics of the current step."""
        assert self._sink is not None, "a session is used as a context manager"
        self._sink.log(self.learner.step_number, metrics)

    def after_step(self, learner: Learner, metrics: dict[str, float]) -> bool:
        """Hook of the loop for methods whose batches come from data."""
        self.record(metrics)
        return False

    def record(self, metrics: dict[str, float], *, num_steps: int = 1) -> None:
        """Log the steps since the last call with their pace, move the progress line, save when it is time.

        Args:
            metrics: with `num_tokens`, the tokens of these steps.
        """
        assert self._bar is not None, "a session is used as a context manager"
        metrics |= self._pace.lap(num_tokens=metrics.pop("num_tokens"), num_steps=num_steps)
        self.log(metrics)
        shown = f"{self.metric.split('/')[-1]} {metrics[self.metric]:.3f}, " if self.metric in metrics else ""
        self._bar.advance(num_steps, note=shown + self._pace.words())
        self.checkpoint_if_due()
        self._pace.restart()

    def checkpoint_if_due(self) -> None:
        """Save when it is time, or when the user pressed ctrl-C (then stop)."""
        self.heed()
        if time.monotonic() - self._saved > self.services.checkpoint_every_s:
            self.save()

    def heed(self, unfinished: Mapping[str, float] | None = None) -> None:
        """Between the parts of a long computation: save and stop once the user pressed ctrl-C.

        Args:
            unfinished: metrics of a step whose hooks are not done yet; `finish_step` goes on with them.
        Raises:
            Interrupted: says how to go on.
        """
        if not self.services.should_stop():
            return
        if unfinished is not None:  # as text, for JSON has no NaN
            self.extra[_UNFINISHED] = {name: repr(float(value)) for name, value in unfinished.items()}
        self.save()
        raise Interrupted(
            f"{self.title} was interrupted at step {self.learner.step_number} and saved. Run the same command to go on."
        )

    def finish_step(self, hooks: Sequence[Hook]) -> bool:
        """Call the hooks of the step in whose hooks an earlier run was interrupted, if any; True when one of them stops the run."""
        texts: dict[str, str] | None = self.extra.pop(_UNFINISHED, None)
        if texts is None:
            return False
        metrics = {name: float(text) for name, text in texts.items()}
        return any([bool(hook(self.learner, metrics)) for hook in hooks])  # noqa: C419 - every hook must run
