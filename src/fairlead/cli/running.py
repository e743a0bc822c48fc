"""The commands that run stages: plan, run, one line per finished stage, the report, and an ending in plain words."""

import contextlib
import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fairlead.cli import terminal
from fairlead.core.errors import ConfigError, GateStopped, TrainError, explain
from fairlead.core.gates import GateResult, measure
from fairlead.core.services import Services, silent_progress


def parse_allow(items: Sequence[str] | None) -> dict[str, str]:
    """`gate=reason` options as a mapping; a reason is required."""
    reasons: dict[str, str] = {}
    for item in items or ():
        gate, _, reason = item.partition("=")
        if not gate.strip() or not reason.strip():
            raise ConfigError(
                explain(
                    "--allow", item, "has no reason", expected="gate=reason", remedy="Write why the gate may be passed"
                )
            )
        reasons[gate.strip()] = reason.strip()
    return reasons


def as_typed(
    command: str, *, sets: Sequence[str] | None, allow: Sequence[str] | None = None, allow_unsandboxed: bool = False
) -> str:
    """A command with the options that decide what it does, ready to be pasted into a shell."""
    options = [("--set", item) for item in sets or ()] + [("--allow", item) for item in allow or ()]
    words = [command, *(f"{name} {shlex.quote(item)}" for name, item in options)]
    return " ".join([*words, "--allow-unsandboxed"] if allow_unsandboxed else words)


def run_recipe(
    recipe: Path, *, sets: Sequence[str] | None, allow: Sequence[str] | None, home: Path, dry_run: bool, as_json: bool, command: str,
    target: str | None = None, implied: Sequence[str] = (), allow_unsandboxed: bool = False,
) -> None:  # fmt: skip
    """Run (or only plan) a recipe and say what came of it.

    Args:
        command: what was typed, without the options `--set`, `--allow` and `--allow-unsandboxed`.
        implied: settings that `command` stands for, as in `--set`.
    """
    allowed = parse_allow(allow)  # before the slow imports: a wrong option should fail at once
    command = as_typed(command, sets=sets, allow=allow, allow_unsandboxed=allow_unsandboxed)
    with loading():
        from fairlead.models.memory import keep_freed_memory, keep_imports
        from fairlead.pipeline.recipe import load
        from fairlead.pipeline.run import Interface, Pipeline
    keep_freed_memory()
    keep_imports()
    interruption = terminal.Interruption()
    interface = Interface(
        progress=silent_progress if as_json else terminal.progress,
        say=terminal.note if as_json else terminal.say,
        should_stop=interruption,
        on_stage=_silent if as_json else _print_stage,
    )
    pipeline = Pipeline(
        load(recipe, sets=(*(sets or ()), *implied), allow_unsandboxed=allow_unsandboxed),
        home,
        recipe.resolve().parent,
        interface,
        allowed,
        command,
        checkpoint_seconds(),
    )
    if dry_run:
        _show_plan(pipeline, target, as_json=as_json, command=command)
        return
    if not as_json:
        terminal.say(
            f"{pipeline.recipe.name}: scope {pipeline.recipe.scope}, seed {pipeline.recipe.seed}, device {pipeline.device}, home {home}"
        )
    started, stopped = time.monotonic(), None
    with interruption.watching():
        try:
            pipeline.run(target)
        except GateStopped as error:
            stopped = error
        except TrainError:  # a rule stopped it: what it logged, and why, is in the report
            _report(pipeline)
            raise
        path = _report(pipeline)
    if as_json:
        terminal.say((pipeline.folder / "run.json").read_text(encoding="utf-8"))
    else:
        _print_ending(pipeline, path, time.monotonic() - started)
    if stopped is not None:
        raise stopped


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While torch is imported, which takes seconds, a terminal says so."""
    with terminal.console.status("loading") if terminal.console.is_terminal else contextlib.nullcontext():
        yield


def _silent(_record: object) -> None:
    """Say nothing (JSON output)."""


def checkpoint_seconds() -> float:
    """FAIRLEAD_CHECKPOINT_S: seconds between checkpoints of a training stage, what a killed run loses at most."""
    text = os.environ.get("FAIRLEAD_CHECKPOINT_S", "")
    try:
        seconds = float(text) if text else Services(work=Path()).checkpoint_every_s
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(
            explain(
                "FAIRLEAD_CHECKPOINT_S",
                text,
                "is not a number of seconds",
                expected=">= 0",
                remedy="Change or unset it",
            )
        )
    return seconds


def _show_plan(
    pipeline: "Pipeline",  # pyright: ignore[reportUndefinedVariable]
    target: str | None,
    *,
    as_json: bool,
    command: str,
) -> None:
    """Stages and their state, then everything that would end the run before its first stage, one line each."""
    plan, faults = pipeline.plan(target), pipeline.faults(target)
    if as_json:
        rows = [
            {"stage": n.name, "title": n.title, "inputs": {**n.inputs, **n.models}, "artifact": a.id if a else None}
            for n, a in plan
        ]
        terminal.say(as_data({"name": pipeline.recipe.name, "stages": rows, "missing": [str(f) for f in faults]}))
    else:
        _print_plan(pipeline, plan)
    for fault in faults[:-1]:
        terminal.note(f"fairlead: {fault}")
    if faults:
        terminal.fail(str(faults[-1]), faults[-1].exit_code)
    if not as_json:
        terminal.say(f"Next: {command}. Artifacts go to {pipeline.home}.")


def _print_plan(pipeline: "Pipeline", plan: list[Any]) -> None:  # pyright: ignore[reportUndefinedVariable]
    table = Table(
        title=f"Plan of {pipeline.recipe.name} (scope {pipeline.recipe.scope}, device {pipeline.recipe.device})",
        title_justify="left",
        box=None,
    )
    for column in ("stage", "what", "reads", "state"):
        table.add_column(column)
    for node, artifact in plan:
        reads = ", ".join(
            sorted(
                {name.replace("@base", pipeline.model_name) for name in (*node.inputs.values(), *node.models.values())}
            )
        )
        table.add_row(node.name, node.title, reads, f"done ({artifact.id})" if artifact else "to do")
    terminal.show_table(table)


def _print_stage(record: "StageRecord") -> None:  # pyright: ignore[reportUndefinedVariable]
    """One line a stage, and one for each verdict that is not PASS. What stops is said in full once, by the error that the command ends with."""
    if record.summary is None:
        terminal.say(f"{'stopped':>8}  {record.node.name} was not run; why is said at the end", hang=10)
        return
    took = "reused" if record.is_cached else f"{record.seconds:.1f} s"
    terminal.say(f"{took:>8}  {record.node.name}: {record.summary.headline}", hang=10)
    for note in record.summary.notes if not record.is_cached else ():
        terminal.say(f"{'':8}  {note}")
    for verdict in record.verdicts:
        if verdict.is_blocking:
            found = measure(verdict.value, verdict.unit)
            terminal.say(
                f"{'':8}  STOP {verdict.gate} {found}; what needs {record.node.name} is not run. More at the end."
            )
        elif verdict.outcome != "PASS":
            terminal.say(f"{'':8}  {verdict.line()}")


def _report(pipeline: "Pipeline") -> Path:  # pyright: ignore[reportUndefinedVariable]
    from fairlead.cli.run_report import write_report

    return write_report(pipeline)


def _print_ending(pipeline: "Pipeline", report: Path, seconds: float) -> None:  # pyright: ignore[reportUndefinedVariable]
    """What changed, at what KL, where the report lies, what to do next."""
    from fairlead.cli.run_report import ending_lines

    terminal.say("")
    for line in ending_lines(pipeline):
        terminal.say(line)
    overrides: list[GateResult] = [v for r in pipeline.records.values() for v in r.verdicts if v.allowed]
    for verdict in overrides:
        terminal.say(f"Passed on record: {verdict.gate} ({verdict.allowed}).")
    terminal.say(f"Time {seconds:.0f} s, peak memory {pipeline.memory.of_run / 1024:.2f} GB. Report: {report}")
    terminal.say(f"Next: open the report, or fairlead lineage {pipeline.recipe.name}")


def as_data(value: object) -> str:
    """JSON for --json."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
