"""Runs a plan: reuses finished stages, runs the others, judges gates, keeps the record. The one place that wires things together.

A stage whose inputs, config, files and code are unchanged is taken from the store. A STOP that nobody allowed keeps later stages
from using that artifact; stages that do not need it go on, and the run ends with the verdict.
"""

import dataclasses
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.core.config import resolved, write_resolved
from fairlead.core.errors import GateStopped
from fairlead.core.gates import GateResult, allow
from fairlead.core.io import read_json, write_json
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary, summary_from_dict
from fairlead.formats import read_prompts
from fairlead.models.device import choose_device
from fairlead.models.load import resolve_model
from fairlead.pipeline.files import FileFinder, folder_hash
from fairlead.pipeline.plan import BASE_MODEL, Node, build_plan, select
from fairlead.pipeline.recipe import Recipe
from fairlead.preferences.counts import rl_count_gate
from fairlead.rewards.gold import load_gold
from fairlead.store.artifacts import Artifact, ArtifactStore, cache_key
from fairlead.store.code_version import code_version
from fairlead.store.registry import Registry


@dataclass(slots=True, eq=False)
class StageRecord:
    """What became of one stage in this run."""

    node: Node
    artifact: Artifact | None
    summary: StageSummary | None
    seconds: float
    """Of the run that made the artifact, also when it was reused."""
    is_cached: bool = False
    stopped_by: str = ""
    """Why the stage was not run, or which gate stopped it."""

    @property
    def verdicts(self) -> tuple[GateResult, ...]:
        """Gate results, overrides included."""
        return self.summary.verdicts if self.summary else ()


@dataclass(slots=True, eq=False)
class Interface:
    """How the run speaks to its user; the command line passes its own."""

    progress: Callable[..., Any]
    say: Callable[[str], None]
    should_stop: Callable[[], bool] = lambda: False
    on_stage: Callable[[StageRecord], None] = lambda _record: None


@dataclass(slots=True, eq=False)
class Pipeline:
    """One recipe in one home folder. Single-use.

    Args:
        home: FAIRLEAD_HOME; artifacts, registries and run folders live here.
        recipe_folder: relative paths of the recipe start here.
        allowed: gates that the user passes on record, name -> reason.
    """

    recipe: Recipe
    home: Path
    recipe_folder: Path
    interface: Interface
    allowed: Mapping[str, str] = field(default_factory=dict[str, str])
    command: str = ""
    records: dict[str, StageRecord] = field(default_factory=dict[str, StageRecord])
    store: ArtifactStore = field(init=False)
    finder: FileFinder = field(init=False)
    device: str = field(init=False)
    _model: str = ""
    _model_hash: str = ""

    def __post_init__(self) -> None:
        self.store = ArtifactStore(self.home)
        self.finder = FileFinder(self.recipe_folder)
        self.device = choose_device(self.recipe.device)
        self.allowed = {**self.recipe.allow, **self.allowed}

    @property
    def folder(self) -> Path:
        """Folder of this run: its resolved recipe, its record, its report."""
        return self.home / self.recipe.name

    @property
    def model_name(self) -> str:
        """The base model as the recipe names it (of several, the one that is there)."""
        return self.recipe.model if isinstance(self.recipe.model, str) else self.finder.find_model(self.recipe.model)

    def plan(self, target: str | None = None) -> list[tuple[Node, Artifact | None]]:
        """Nodes to be run with the artifact that would be reused, None where work remains (or an input does)."""
        found: list[tuple[Node, Artifact | None]] = []
        ids: dict[str, Artifact | None] = {}
        for node in self._nodes(target):
            inputs = {role: ids.get(name) for role, name in node.inputs.items() if name != BASE_MODEL}
            artifact = None
            if all(inputs.values()):
                artifact = self.store.find(self._key(node, {role: a.id for role, a in inputs.items() if a}))
            ids[node.name] = artifact
            found.append((node, artifact))
        return found

    def _nodes(self, target: str | None) -> list[Node]:
        nodes = build_plan(self.recipe)
        return nodes if target is None else select(nodes, target)

    def run(self, target: str | None = None) -> dict[str, StageRecord]:
        """Run (to the end, or up to `target`).

        Raises:
            GateStopped: after everything that could still be done, when a gate stopped a stage of the plan.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_resolved(self.folder / "recipe.json", self.recipe)
        for node in self._nodes(target):
            record = self._stage(node)
            self.records[node.name] = record
            self.interface.on_stage(record)
            self._write_record()
        stopped = [r for r in self.records.values() if r.stopped_by]
        if stopped:
            raise GateStopped("; ".join(r.stopped_by for r in stopped))
        return self.records

    def load_records(self) -> None:
        """Take the records of this run's last execution from disk (to draw its report again)."""
        written = read_json(self.folder / "run.json")
        self.command = written["command"]
        nodes = {node.name: node for node in build_plan(self.recipe)}
        self.records = {
            name: _record_from(self, nodes[name], row) for name, row in written["stages"].items() if name in nodes
        }

    def _stage(self, node: Node) -> StageRecord:
        inputs, missing = self._inputs(node)
        if missing:
            return StageRecord(node, None, None, 0.0, stopped_by=f"{node.name} was not run: {missing}")
        ids = {role: artifact.id for role, artifact in inputs.items()}
        key = self._key(node, ids)
        artifact = self.store.find(key)
        is_cached = artifact is not None
        if artifact is None:
            early = self._pre_gates(node)
            if early and early[0].is_blocking:
                return StageRecord(node, None, None, 0.0, stopped_by=f"{node.name} was not run: {early[0].line()}")
            artifact = self._execute(node, inputs, ids, key)
        summary = summary_from_dict(artifact.summary)
        verdicts = tuple(allow(v, dict(self.allowed)) for v in (*self._pre_gates(node), *summary.verdicts))
        summary = dataclasses.replace(summary, verdicts=verdicts)
        blocking = [v.line() for v in verdicts if v.is_blocking]
        return StageRecord(node, artifact, summary, artifact.seconds, is_cached, "; ".join(blocking))

    def _inputs(self, node: Node) -> tuple[dict[str, Artifact], str]:
        """Artifacts by role, and why the stage cannot run (empty when it can)."""
        found: dict[str, Artifact] = {}
        for role, name in node.inputs.items():
            if name == BASE_MODEL:
                continue
            record = self.records[name]
            if record.artifact is None or record.stopped_by:
                if role in node.optional:
                    continue
                return found, f"{name} was stopped"
            found[role] = record.artifact
        if node.optional and not any(role.startswith("policy.") for role in found):
            return found, "no policy was trained"
        return found, ""

    def _pre_gates(self, node: Node) -> tuple[GateResult, ...]:
        if not node.needs_reward:
            return ()
        record = self.records["rewards"]
        num_pairs = int((record.summary.facts if record.summary else {}).get("num_train_pairs", 0))
        gate = rl_count_gate(self.recipe.scope)
        return (allow(gate.judge(num_pairs, n=num_pairs), dict(self.allowed)),)

    def _key(self, node: Node, input_ids: Mapping[str, str]) -> str:
        config = {
            "config": resolved(node.config),
            "files": self.finder.fingerprints(resolved(node.config)),
            **self._shared(node),
        }
        return cache_key(node.name, config, dict(input_ids), code_version())

    def _shared(self, node: Node) -> dict[str, Any]:
        """Settings outside its section that a stage depends on."""
        shared: dict[str, Any] = {"seed": self.recipe.seed, "scope": self.recipe.scope, "device": self.device}
        shared["text"] = resolved(self.recipe.text)
        if node.name == "sft" or BASE_MODEL in node.inputs.values():
            shared["model"] = self._base_model()[1]
        return shared

    def _base_model(self) -> tuple[str, str]:
        """Where the base model is, and the hash of its files (its name, when it comes from a hub)."""
        if not self._model:
            self._model = resolve_model(self.finder.find_model(self.recipe.model))
            self._model_hash = folder_hash(Path(self._model)) if Path(self._model).is_dir() else self._model
        return self._model, self._model_hash

    def _execute(self, node: Node, inputs: Mapping[str, Artifact], ids: Mapping[str, str], key: str) -> Artifact:
        started = time.monotonic()
        work = self.home / "work" / key
        work.mkdir(parents=True, exist_ok=True)
        paths = {role: artifact.path for role, artifact in inputs.items()}
        for role, name in node.inputs.items():
            if name == BASE_MODEL:
                paths[role] = Path(self._base_model()[0])
        with self.store.draft(node.kind, stage=node.name) as draft:
            summary = node.run(node.config, paths, draft.path, self._services(work, paths))
            summary = dataclasses.replace(
                summary, facts={**summary.facts, **self._criteria(), "peak_memory_mb": peak_memory_mb()}
            )
            artifact = draft.commit(config=resolved(node.config), inputs=dict(ids), summary=summary.to_dict(), code_version=code_version(),
                                    seconds=time.monotonic() - started, cache_key=key, name=f"{self.recipe.name}/{node.name}")  # fmt: skip
        shutil.rmtree(work, ignore_errors=True)
        self._register(node, artifact)
        return artifact

    def _criteria(self) -> dict[str, str]:
        """Hash of the criteria in force; a policy carries the one it was trained under."""
        record = self.records.get("criteria")
        return {"criteria_sha256": record.summary.facts["criteria_sha256"]} if record and record.summary else {}

    def _register(self, node: Node, artifact: Artifact) -> None:
        """Policies and reward models are registered as candidates; a release promotes its policy."""
        if node.kind in ("policy", "reward_model"):
            registry = Registry(self.store, "policies" if node.kind == "policy" else "reward_models")
            registry.register(artifact.id, name=f"{self.recipe.name}/{node.name}")

    def _services(self, work: Path, paths: Mapping[str, Path]) -> Services:
        extras: dict[str, Any] = {
            "text": self.recipe.text, "scope": self.recipe.scope, "allow": dict(self.allowed), "find_file": self.finder.find,
            "folders": self.finder.folders,
            "read_prompts": read_prompts,
            "base_model": self._base_model()[0] if self.recipe.model else "",
        }  # fmt: skip
        if "gold" in paths:
            extras["gold_scorer"] = load_gold(paths["gold"])
        return Services(work=work, seed=self.recipe.seed, device=self.device, progress=self.interface.progress, say=self.interface.say,
                        should_stop=self.interface.should_stop, extras=extras)  # fmt: skip

    def _write_record(self) -> None:
        rows = {
            name: {"artifact": r.artifact.id if r.artifact else None, "seconds": r.seconds, "cached": r.is_cached, "stopped_by": r.stopped_by,
                   "verdicts": [dataclasses.asdict(v) for v in r.verdicts]}
            for name, r in self.records.items()
        }  # fmt: skip
        record = {
            "name": self.recipe.name,
            "scope": self.recipe.scope,
            "seed": self.recipe.seed,
            "command": self.command,
            "stages": rows,
        }
        write_json(self.folder / "run.json", record)


def _record_from(pipeline: Pipeline, node: Node, row: Mapping[str, Any]) -> StageRecord:
    if row["artifact"] is None:
        return StageRecord(node, None, None, row["seconds"], row["cached"], row["stopped_by"])
    artifact = pipeline.store.get(row["artifact"])
    verdicts = tuple(GateResult(**v) for v in row["verdicts"])
    summary = dataclasses.replace(summary_from_dict(artifact.summary), verdicts=verdicts)
    return StageRecord(node, artifact, summary, row["seconds"], row["cached"], row["stopped_by"])


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far (stages run inside it)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
