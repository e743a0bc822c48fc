"""What happens after each step: metrics to a file, the progress line, checkpoints that a killed run goes on from.

Example:
    session = Session(learner, services=services, title="sft", metric="sft/loss", metrics_path=out / "metrics.jsonl")
    with session:
        run_loop(learner, source, hooks=[session.after_step])
"""

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from fairlead.core.errors import FairleadError, Interrupted
from fairlead.core.gates import figure
from fairlead.core.io import write_json, write_jsonl
from fairlead.core.services import ProgressBar, Services
from fairlead.telemetry.alert_table import STOPPED
from fairlead.telemetry.alerts import Action, Decision, Rule, Watch, move_kl_coef
from fairlead.telemetry.metrics import is_live
from fairlead.telemetry.pace import Pace
from fairlead.telemetry.rules import DEFAULT_RULES, without_metrics
from fairlead.telemetry.sinks import FanOut, JsonlSink
from fairlead.train.checkpoints import CheckpointRule, Checkpoints
from fairlead.train.loop import Hook, Learner
from fairlead.train.shelf import FOLDER, Shelf
from fairlead.train.state import load_parameters, random_state, restore_random_state
from fairlead.train.steering import Steering

_EXTRA = "extra/"
_UNFINISHED = "unfinished_step"


@dataclass(slots=True, eq=False)
class Session:
    """One training run as its surroundings see it: resumable, visible, interruptible. Single-use context manager.

    A checkpoint holds the learner's state (weights, optimiser, step, statistics), the extras and the random generators, all of one
    moment. Sources of batches are pure functions of the seed, so the step is also the position in the data. Hooks that keep state in
    the extras come before `after_step`, which saves; those that take long give `heed` the step's metrics and change nothing before they
    are done.
    """

    learner: Learner
    services: Services
    title: str
    metric: str
    """Metric shown on the progress line."""
    metrics_path: Path
    rules: tuple[Rule, ...] = DEFAULT_RULES
    """Watch the metrics and act; see `train.setup.alert_rules`."""
    muted: tuple[str, ...] = ()
    """Metrics that no rule sees, because the config says that their values are meant."""
    rule: CheckpointRule = field(default_factory=CheckpointRule)
    data: str = ""
    """Fingerprint of what is trained on; a checkpoint of other data is refused."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """Plain values that the checkpoint keeps besides (measurements); what a resumed run finds. Rules move `kl_coef` and
    `kl_scale` (of what a schedule says), where a method keeps them here: it reads them after each `record`."""
    extra_tensors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    """The same for tensors (a moving reference); on the CPU after a resume."""
    resumed_from: int = 0
    has_lost_best: bool = False
    """The best weights of before were damaged: a hook that measures takes those of now for the best and goes on from there."""
    _sink: FanOut | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _bar: ProgressBar | None = None
    _saved: float = field(default_factory=time.monotonic)
    _metrics: dict[str, float] = field(default_factory=dict[str, float])
    _is_best: bool = False
    _is_snapshot: bool = False
    _is_good: bool = False
    _steering: Steering = field(init=False)
    _saved_step: int = 0
    _checkpoints: Checkpoints = field(init=False)
    _pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        shelf = Shelf(self.services.work / FOLDER)
        self._checkpoints = Checkpoints(shelf, self.rule, self.learner.identity(data=self.data))
        self._steering = Steering(Watch(without_metrics(self.rules, self.muted)), self.title, self.services)

    def __enter__(self) -> Self:
        self._resume()
        self._steering.show()
        write_json(
            self.services.work / "live.json",
            {"title": self.title, "run": self.services.extras.get("run", ""), "num_steps": self.learner.num_steps},
        )
        kept = self.services.work / "metrics.jsonl"
        rows = JsonlSink(kept)
        rows.resume(self.learner.step_number)
        open_more = self.services.extras.get("trackers")
        self._sink = FanOut(rows) if open_more is None else FanOut(rows, open_more(self.title))
        self.learner.say = lambda text: self.services.say(f"{self.title}: {text}")
        for note in self.learner.models.notes():
            self.services.say(f"{self.title}: {note}")
        self._bar = self._stack.enter_context(self.services.progress(self.title, self.learner.num_steps))
        if self.resumed_from:
            self._bar.advance(self.resumed_from)
            self.services.say(f"{self.title}: going on at step {self.resumed_from} of {self.learner.num_steps}")
        self._pace.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as stack:  # each part is closed, whatever goes wrong in another
            stack.callback(self._stack.close)
            if self._sink is not None:
                stack.callback(self._sink.close)
            self._join(error)
        if kind is None:
            self.learner.finish()
            self._keep_metrics()

    def _join(self, error: BaseException | None) -> None:
        """Wait for the writer; what went wrong there is added to an error that is on its way already."""
        try:
            self._checkpoints.join()
        except FairleadError as fault:
            if error is None:
                raise
            error.add_note(str(fault))
            self.services.say(f"{self.title}: {fault}")

    def _keep_metrics(self) -> None:
        """Copy the metrics to where they stay, without what the clock decides: equal runs must leave equal files."""
        rows = (
            json.loads(line) for line in (self.services.work / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        )
        write_jsonl(self.metrics_path, ({k: v for k, v in row.items() if not is_live(k)} for row in rows))
        self._steering.keep(self.metrics_path)

    def _resume(self) -> None:
        found = self._checkpoints.resume()
        if found is None:
            return
        for fault in found.damaged:
            self.services.say(f"{self.title}: {fault} Going on from {found.entry.name}.")
        self.has_lost_best = bool(found.lost_best)
        if self.has_lost_best:
            self.services.say(
                f"{self.title}: {found.lost_best} It held the best weights; the best are those of after {found.entry.name}."
            )
        tensors, state = found.tensors(), found.state
        self._steering.watch.load(state["watch"])
        self._steering.refuse()
        self.learner.load_state(tensors, state["learner"])
        restore_random_state(tensors, state["random"])
        self._tell_threads(state["threads"])
        self.resumed_from = self._saved_step = self.learner.step_number
        self.extra = dict(state["extra"])
        self.extra_tensors = {k.removeprefix(_EXTRA): v for k, v in tensors.items() if k.startswith(_EXTRA)}

    def _tell_threads(self, before: int) -> None:
        """Sums over threads are rounded in another order when there are more or fewer of them."""
        now = torch.get_num_threads()
        if now != before and self.services.device == "cpu":
            self.services.say(f"{self.title}: going on with {now} threads after {before}: from here on the last digits of every number differ from "
                              f"those of an undisturbed run. OMP_NUM_THREADS={before} keeps them.")  # fmt: skip

    def save(self) -> None:
        """Write a checkpoint of this moment and wait until it is on disk.

        Raises:
            StoreError: it cannot be written.
        """
        self._start_saving()
        self._checkpoints.join()

    def _start_saving(self) -> None:
        tensors, learner = self.learner.state()
        more, random = random_state()
        extra = {_EXTRA + name: tensor for name, tensor in self.extra_tensors.items()}
        # Hooks go on changing the extras while this is written.
        plain = {"learner": learner, "random": random, "extra": self.extra, "watch": self._steering.watch.state(),
                 "threads": torch.get_num_threads()}  # fmt: skip
        state = json.loads(json.dumps(plain, allow_nan=False))
        self._checkpoints.save(
            {**tensors, **more, **extra}, {**state, "step": self.learner.step_number, "title": self.title,
             "run": self.services.extras.get("run", ""), "metrics": self._metrics},
            is_best=self._is_best, is_good=self._is_good, is_snapshot=self._is_snapshot, also=(self.services.work / "metrics.jsonl",),
        )  # fmt: skip
        self._is_best = self._is_snapshot = self._is_good = False
        self._saved_step, self._saved = self.learner.step_number, time.monotonic()

    def mark_best(self) -> None:
        """Of a hook that measured: what was trained up to this step is the best so far. Kept until there is a better one."""
        self._is_best = True

    def restore_best(self) -> None:
        """Put back the weights that were best (those of the last step when none was marked).

        Raises:
            ModelError: their checkpoint was damaged meanwhile.
        """
        prefix = self.learner.result_prefix
        tensors = self._checkpoints.read_best(prefix)
        if tensors:
            load_parameters(self.learner.trainable, tensors, prefix=prefix)

    def log(self, metrics: Mapping[str, float]) -> Decision:
        """Record metrics of the current step, and do what the rules decide.

        Raises:
            TrainError: a rule stopped the run; everything is saved.
        """
        assert self._sink is not None, "a session is used as a context manager"
        self._sink.log(self.learner.step_number, metrics)
        decision = self._steering.decide(self.learner.step_number, metrics)
        if decision.actions:
            self._act(decision)
        return decision

    def _act(self, decision: Decision) -> None:
        self.learner.optimizer.rate_factor *= decision.rate_factor
        self._is_snapshot |= decision.wants_snapshot
        went_back = self._roll_back() if decision.wants_roll_back else ""
        is_over = False
        if decision.stop is not None:
            self._steering.watch.stopped = decision.stop.to_dict()
            is_over = not self._steering.goes_on()
        results: dict[str, list[str]] = {}
        for alert in decision.alerts:
            kinds = {action.kind for action in alert.actions}
            results[alert.rule] = [
                *([f"checkpoint of step {self.learner.step_number} kept"] if "snapshot" in kinds else ()),
                *([self._move_kl(alert.actions)] if kinds & {"raise_kl", "lower_kl"} else ()),
                *([_rate_words(decision.rate_factor)] if "scale_rate" in kinds else ()),
                *([went_back] if "roll_back" in kinds else ()),
                *(([STOPPED] if is_over else ["allowed on record"]) if "stop" in kinds else ()),
            ]
        self._steering.note(results)
        if is_over:
            self.save()
            self._steering.refuse()

    def _move_kl(self, actions: Sequence[Action]) -> str:
        """Move the coefficient where the method has one; says from where to where."""
        if "kl_coef" not in self.extra:
            return "no KL coefficient here"
        before = float(self.extra["kl_coef"])
        after = self.extra["kl_coef"] = move_kl_coef(before, actions)
        if before > 0 and "kl_scale" in self.extra:
            self.extra["kl_scale"] *= after / before
        return (
            f"KL coefficient {figure(before)} to {figure(after)}"
            if after != before
            else f"KL coefficient stays at {figure(before)}"
        )

    def _roll_back(self) -> str:
        """Weights, optimiser and statistics of the last good checkpoint; steps, data, seeds and controllers go on, so that nothing repeats."""
        found, learner = self._checkpoints.read_good(), self.learner
        if found is None:
            self._steering.say("there is no good checkpoint to go back to; training goes on from here.")
            return "no good checkpoint to go back to"
        now = {"step": learner.step_number, "rate_factor": learner.optimizer.rate_factor}
        learner.load_state(found.tensors(), {**found.state["learner"], **now})
        self._steering.watch.forget()
        self._steering.say(f"back to the weights of step {found.entry.step}; steps, prompts and seeds go on.")
        return f"back to the weights of step {found.entry.step}"

    def after_step(self, learner: Learner, metrics: dict[str, float]) -> bool:
        """Hook of the loop for methods whose batches come from data."""
        self.record(metrics)
        return False

    def record(self, metrics: dict[str, float], *, num_steps: int = 1) -> Decision:
        """Log the steps since the last call with their pace, do what the rules decide, move the progress line, save when it is time.

        Args:
            metrics: with `num_tokens`, the tokens of these steps.
        Returns:
            What was done already: after a roll back an engine needs the weights again.
        Raises:
            TrainError: a rule stopped the run; everything is saved.
        """
        assert self._bar is not None, "a session is used as a context manager"
        metrics |= self._pace.lap(num_tokens=metrics.pop("num_tokens"), num_steps=num_steps)
        decision = self.log(metrics)
        self._is_good = self._steering.watch.may_keep
        self._metrics = {k: float(v) for k, v in metrics.items() if not is_live(k) and math.isfinite(v)}
        shown = f"{self.metric.split('/')[-1]} {metrics[self.metric]:.3f}, " if self.metric in metrics else ""
        self._bar.advance(num_steps, note=shown + self._pace.words())
        self.checkpoint_if_due()
        self._pace.restart()
        return decision

    def checkpoint_if_due(self) -> None:
        """Save when it is time, or when the user pressed ctrl-C (then stop).

        Raises:
            StoreError: the checkpoint before could not be written.
        """
        self._checkpoints.check()
        self.heed()
        every = self.rule.every_steps
        is_step = every is not None and self.learner.step_number // every > self._saved_step // every
        if (
            self._is_best
            or self._is_snapshot
            or self._is_good
            or is_step
            or (time.monotonic() - self._saved > self.services.checkpoint_every_s and not self._checkpoints.is_writing)
        ):
            self._start_saving()

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


def _rate_words(factor: float) -> str:
    return f"learning rate x {figure(factor)} from here on" if factor != 1.0 else "learning rate stays, at its bound"
