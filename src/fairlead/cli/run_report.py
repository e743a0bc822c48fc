"""From a finished (or stopped) run to its report and to the last lines in the terminal."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead.core.errors import StoreError, explain
from fairlead.core.gates import measure
from fairlead.core.io import read_json, write_text
from fairlead.core.summary import Figure, summary_from_dict
from fairlead.pipeline.plan import build_plan
from fairlead.pipeline.run import Pipeline, StageRecord
from fairlead.report import LineageNode, RunReport, StageReport, build_report
from fairlead.report.live import read_live
from fairlead.store.artifacts import Artifact
from fairlead.telemetry import PHASES


def write_report(pipeline: Pipeline) -> Path:
    """Draw the run's page; returns its path."""
    path = pipeline.folder / "report.html"
    write_text(path, build_report(run_report(pipeline)))
    return path


def run_report(pipeline: Pipeline) -> RunReport:
    """Everything that the page shows."""
    records = list(pipeline.records.values())
    stages = tuple(
        StageReport(title=r.node.title, summary=r.summary, seconds=r.seconds, cached=r.is_cached, artifact_id=r.artifact.id,
                    memory_mb=r.summary.facts.get("peak_memory_mb"), is_memory_of_process=r.summary.facts.get("peak_memory_of") != "stage",
                    tokens_per_s=r.summary.facts.get("tokens_per_s"), step_s=r.summary.facts.get("step_s"),
                    phases={p: r.summary.facts[f"{p}_tokens_per_s"] for p in PHASES if f"{p}_tokens_per_s" in r.summary.facts})
        for r in records if r.summary is not None and r.artifact is not None
    )  # fmt: skip
    unfinished = _unfinished(pipeline)
    stages += tuple(dataclasses.replace(live.stages[0], title=f"{title}, not finished") for title, live in unfinished)
    answer = unfinished[-1][1].answer if unfinished else _answer(pipeline)
    return RunReport(
        name=pipeline.recipe.name, created=datetime.now(UTC).isoformat(timespec="seconds"), scope=pipeline.recipe.scope,
        model=pipeline.model_name, answer=answer, key_figures=_key_figures(pipeline), stages=stages, lineage=_lineage(records),
        command=pipeline.command,
    )  # fmt: skip


def _unfinished(pipeline: Pipeline) -> list[tuple[str, RunReport]]:
    """Trainings of the recipe that were stopped, by a rule or by the user, with their alerts: title of the stage, and what it logged."""
    done = {name for name, record in pipeline.records.items() if record.artifact is not None}
    found = ((node, read_live(pipeline.home, run=f"{pipeline.recipe.name}/{node.name}")) for node in build_plan(pipeline.recipe)
             if node.name not in done)  # fmt: skip
    return [(node.title, live) for node, live in found if live is not None]


def _answer(pipeline: Pipeline) -> str:
    """One sentence for the head of the page: what the best policy changed, else what was released or what stopped."""
    evaluation = evaluation_of(pipeline)
    if evaluation and evaluation["ranking"]:
        return str(evaluation["ranking"][0]["answer"])
    return [*_changes(pipeline), *_stops(pipeline), *_newest(pipeline)][0]


def evaluation_of(pipeline: Pipeline) -> dict[str, Any] | None:
    """What the evaluation stage wrote, if it ran."""
    record = pipeline.records.get("evals")
    if record is None or record.artifact is None:
        return None
    return read_json(record.artifact.path / "evaluation.json")


def ending_lines(pipeline: Pipeline) -> list[str]:
    """Plain words: for each policy what went up, what went down, with intervals, at what KL. What was stopped is the command's error."""
    return _changes(pipeline) or ([] if _stops(pipeline) else _newest(pipeline))


def _changes(pipeline: Pipeline) -> list[str]:
    """A line for each policy that was evaluated, and one for what was released."""
    evaluation = evaluation_of(pipeline)
    lines = [f"{row['policy']}: {row['headline']}" for row in (evaluation["ranking"] if evaluation else [])]
    release = pipeline.records.get("releases")
    if release and release.summary and not release.stopped_by and release.artifact:
        lines.append(f"Released {release.summary.facts['policy']}: {release.artifact.path}")
    return lines


def _stops(pipeline: Pipeline) -> list[str]:
    """A line for each stage that was stopped."""
    found = [record.stopped_by for record in pipeline.records.values() if record.stopped_by]
    return [text if text.startswith("STOP ") else f"STOP: {text}" for text in found]


def _newest(pipeline: Pipeline) -> list[str]:
    """What the last stage has to say."""
    done = [record.summary for record in pipeline.records.values() if record.summary]
    return [done[-1].headline if done else "Nothing was run."]


def _key_figures(pipeline: Pipeline) -> tuple[Figure, ...]:
    """Three figures: the best policy's first behaviour, its KL, and how far the reward model is right."""
    evaluation = evaluation_of(pipeline)
    figures = [
        Figure(**row)
        for row in (evaluation["ranking"][0]["key_figures"] if evaluation and evaluation["ranking"] else [])
        if row["value"] is not None
    ]
    rewards = pipeline.records.get("rewards")
    if rewards and rewards.summary and rewards.summary.figures:
        first = rewards.summary.figures[0]
        figures.append(dataclasses.replace(first, name=f"reward model: {first.name}"))
    for record in reversed(list(pipeline.records.values())):
        if len(figures) >= 3:
            break
        if record.summary and record.node.name not in ("rewards", "evals"):
            figures += [f for f in record.summary.figures if f not in figures][: 3 - len(figures)]
    return tuple(figures[:3])


def _lineage(records: list[StageRecord]) -> tuple[LineageNode, ...]:
    return tuple(
        LineageNode(id=r.artifact.id, kind=r.artifact.kind, title=r.node.title, parents=tuple(sorted(set(r.artifact.inputs.values()))),
                    note="reused" if r.is_cached else f"{r.seconds:.1f} s")
        for r in records if r.artifact is not None
    )  # fmt: skip


def newest_run(home: Path) -> str:
    """Name of the run that was written last."""
    runs = sorted(home.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise StoreError(
            explain(home, None, "has no run yet", expected="a run", remedy="Start one with: fairlead quickstart")
        )
    return runs[-1].parent.name


def describe_artifact(artifact: Artifact) -> str:
    """One artifact as text."""
    verdicts = artifact.summary.get("verdicts", [])
    when = datetime.fromisoformat(artifact.created)
    lines = [
        f"{artifact.id} ({artifact.stage}, {when:%Y-%m-%d %H:%M} UTC, {artifact.seconds:.1f} s)",
        artifact.summary.get("headline", ""),
    ]
    lines += [f"  {role}: {name}" for role, name in artifact.inputs.items()]
    lines += [f"  {row.line()}" for row in summary_from_dict(artifact.summary).figures]
    lines += [f"  {v['outcome']} {v['gate']} {measure(v['value'], v['unit'])} (n={v['n']})" for v in verdicts]
    return "\n".join([*lines, f"  {artifact.path}", f"  config {json.dumps(artifact.config)}"])
