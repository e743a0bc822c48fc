"""Runs a plan: reuses finished stages, runs the others, judges gates, keeps the record. The one place that wires things together.

A stage whose inputs, config, files and code are unchanged is taken from the store. A STOP that nobody allowed keeps later stages
from using that artifact; stages that do not need it go on, and the run ends with the verdict.
"""

import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from fairlead.core.config import resolved
from fairlead.core.errors import (
    ConfigError,
    FairleadError,
    GateStopped,
    Interrupted,
    ModelError,
    TrainError,
    explain,
    nearest,
)
from fairlead.core.gates import GateResult, allow
from fairlead.core.io import write_json
from fairlead.core.sections import TextSection, deciding
from fairlead.core.services import Services
from fairlead.core.summary import summary_from_dict
from fairlead.engine.local import cannot_write
from fairlead.formats import read_prompts
from fairlead.models.device import choose_device
from fairlead.models.load import foreseen_padding
from fairlead.models.locate import locate_model, resolve_model
from fairlead.models.memory import PeakMemory
from fairlead.pipeline.alerts import check_alerts
from fairlead.pipeline.composing import (
    check_keys,
    check_parts,
    composer_factory,
    environment_factory,
    find_model,
    named_folders,
    section_of,
    stored_models,
)
from fairlead.pipeline.faults import readable_faults
from fairlead.pipeline.files import TEMPLATES, FileFinder, check_context, folder_hash
from fairlead.pipeline.gates import check_names
from fairlead.pipeline.plan import BASE_MODEL, Node, build_plan, select
from fairlead.pipeline.preflight import Checks, ChecksPassed, PreflightResult, trainable_stage
from fairlead.pipeline.recipe import Recipe
from fairlead.pipeline.record import StageRecord, record_from_dict, with_verdicts
from fairlead.pipeline.run_file import read_run
from fairlead.pipeline.slices import foreseen_prompts, has_conditions, made_prompts, slice_faults
from fairlead.preferences.counts import rl_count_gate
from fairlead.rewards.gold import load_gold
from fairlead.store.artifacts import Artifact, ArtifactStore, cache_key
from fairlead.store.code_version import code_version
from fairlead.store.registry import Registry
from fairlead.store.work import work_alone
from fairlead.telemetry import kept_alerts, typical_pace
from fairlead.telemetry.trackers import Place, Trackers, check_installed, open_trackers
from fairlead.train.shelf import LOG, retire

_MODEL_KINDS = frozenset({"criteria", "policy", "reward_model", "completions", "evaluation"})
"""Artifacts that take a model (or its tokenizer) to make; the other stages run on machines that do not have it."""


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
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints of a training stage."""
    records: dict[str, StageRecord] = field(default_factory=dict[str, StageRecord])
    store: ArtifactStore = field(init=False)
    finder: FileFinder = field(init=False)
    memory: PeakMemory = field(default_factory=PeakMemory)
    _device: str = ""
    _model: str = ""
    _model_hash: str = ""

    def __post_init__(self) -> None:
        self.store = ArtifactStore(self.home)
        self.finder = FileFinder(self.recipe_folder)
        alerts = check_alerts(self.recipe)
        check_names(self.recipe.allow, where="allow", alerts=alerts)
        check_names(self.allowed, where="--allow", alerts=alerts)
        self.allowed = {**self.recipe.allow, **self.allowed}

    @property
    def device(self) -> str:
        """Where models run; asked for late, for a report is drawn on machines that lack the run's device."""
        self._device = self._device or choose_device(self.recipe.device)
        return self._device

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
            inputs = {role: ids.get(name) for role, name in node.inputs.items() if name != BASE_MODEL} | stored_models(
                node.models, self.store
            )
            artifact = None
            with contextlib.suppress(FairleadError):  # `faults` says what is not there
                if all(inputs.values()):
                    artifact = self.store.find(self._key(node, {role: a.id for role, a in inputs.items() if a}))
            ids[node.name] = artifact
            found.append((node, artifact))
        return found

    def _nodes(self, target: str | None) -> list[Node]:
        nodes = build_plan(self.recipe)
        if not nodes:
            raise ConfigError(explain("recipe", self.recipe.name, "has no stage", expected="a section such as prompts, sft or preferences",
                                      remedy="Add one, or write a recipe with: fairlead init"))  # fmt: skip
        return nodes if target is None else select(nodes, target)

    def run(self, target: str | None = None) -> dict[str, StageRecord]:
        """Run (to the end, or up to `target`).

        Raises:
            ConfigError, DataError: a file, model or device that the recipe names is not there; nothing was run.
            GateStopped: after everything that could still be done, when a gate stopped a stage of the plan.
            Interrupted: the user pressed ctrl-C; finished stages are kept, a training stage has saved a checkpoint.
        """
        wanted = self._nodes(target)
        for fault in self.faults(target):  # what would otherwise end the run after hours
            raise fault
        self.store.clean_drafts()  # a run that was killed while it saved a model leaves half of it
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.recipe.model_copy(update={"allow": dict(self.allowed)})
        write_json(self.folder / "recipe.json", self.finder.standing_alone(kept))
        for node in wanted:
            if self.interface.should_stop():
                raise Interrupted(
                    f"interrupted before {node.name}; finished stages are kept. Run the same command to go on."
                )
            record = self._stage(node)
            self.records[node.name] = record
            self.interface.on_stage(record)
            self._write_record()
        stopped = [r for r in self.records.values() if r.stopped_by]
        self._add_finished(wanted)
        if stopped:
            raise GateStopped(" ".join(f"{r.stopped_by.rstrip('.')}." for r in stopped))
        return self.records

    def faults(self, target: str | None = None) -> list[FairleadError]:
        """Everything that would end the run before its first stage: a device, model, template, key or files that are not there."""
        nodes = self._nodes(target)
        found: list[FairleadError] = []
        keys = [
            functools.partial(check, n.config, where=n.name)
            for n, artifact in self.plan(target)
            if artifact is None
            for check in (check_keys, functools.partial(check_parts, find_file=self.finder.find))
        ]
        sinks = functools.partial(check_installed, self.recipe.telemetry.sinks)
        for check in (lambda: self.device, lambda: self._check_model(nodes), self._text, sinks, *keys):
            try:
                check()
            except FairleadError as error:
                found.append(error)
        found += self._slice_faults(target)
        for name in (name for node in nodes for name in node.models.values()):
            try:
                find_model(self.store, name, folders=self.finder.folders)
            except FairleadError as error:
                found.append(error)
        sections = {node.name.partition(".")[0] for node in nodes}
        return [*found, *self.finder.missing(self.recipe, sections=sections)]

    def _slice_faults(self, target: str | None) -> list[FairleadError]:
        """Of composed rewards that are still to be optimised, on the prompts that are there or will be made."""
        plan = self.plan(target)
        sections = {f"{node.name}.rewards": section_of(node.config) for node, artifact in plan if artifact is None}
        wanted = {
            where: section for where, section in sections.items() if section is not None and has_conditions(section)
        }
        if not wanted or self.recipe.prompts is None:
            return []
        made = next((artifact for node, artifact in plan if node.name == "prompts" and artifact is not None), None)
        prompts = (
            foreseen_prompts(self.recipe.prompts, folders=self.finder.folders)
            if made is None
            else made_prompts(made.path)
        )
        return list(slice_faults(wanted, prompts)) if prompts else []

    def preflight(self, stage: str | None = None) -> PreflightResult:
        """The checks that a training stage makes before its first step, by the stage itself; nothing is trained or kept.

        Args:
            stage: its name; None takes the first whose inputs are there.
        Raises:
            ConfigError: there is no such stage, or what it stands on has not been run.
            DataError, ModelError: as the stage itself.
        """
        node, inputs = trainable_stage(self.plan(), stage)
        for fault in self.faults(node.name):
            raise fault
        work = self.home / "work" / f"preflight-{node.name}"
        paths = {role: artifact.path for role, artifact in inputs.items()}
        paths |= {role: Path(self._base_model()[0]) for role, name in node.inputs.items() if name == BASE_MODEL}
        found = Checks()
        services = dataclasses.replace(self._services(node, work, paths), on_preflight=found)
        try:
            with (
                work_alone(work, stage=node.name, code=code_version()),
                self.store.draft(node.kind, stage=node.name) as draft,
                readable_faults(draft.path),
                contextlib.ExitStack() as stack,
            ):
                stack.callback(shutil.rmtree, work, ignore_errors=True)  # while nobody else may use it
                node.run(node.config, paths, draft.path, services)
            raise AssertionError(f"{node.name} went on after its preflight")
        except ChecksPassed:
            pass
        except TrainError as error:
            if found.table is None:
                raise
            return PreflightResult(node, found.table, error)
        assert found.table is not None, "it ended by its checks"
        return PreflightResult(node, found.table, None)

    def _check_model(self, nodes: list[Node]) -> None:
        if not any(node.kind in _MODEL_KINDS for node in nodes):
            return
        source = locate_model(self._base_model()[0])
        check_context(Path(source), self.recipe.text.max_length)
        writers = [node.name for node in nodes if node.samples and node.kind == "policy"]
        why = foreseen_padding(source) if writers and Path(source).is_dir() else None
        if why is not None:
            raise cannot_write(self.model_name, why, stages=writers)

    def _add_finished(self, wanted: list[Node]) -> None:
        """Add stages that this command did not ask for and that are done all the same, so that the record shows the whole run."""
        names = {node.name for node in wanted}
        for node in build_plan(self.recipe):
            if node.name in names or any(n not in self.records for n in node.inputs.values() if n != BASE_MODEL):
                continue
            with contextlib.suppress(ModelError):  # without the model nobody can say whether it was done with this one
                record = self._stage(node, may_run=False)
                if record is not None:
                    self.records[node.name] = record
        self._write_record()

    def load_records(self) -> None:
        """Take the records of this run's last execution from disk (to draw its report again)."""
        written = read_run(self.folder / "run.json")
        self.command = written["command"]
        nodes = {node.name: node for node in build_plan(self.recipe)}
        self.records = {
            name: record_from_dict(row, node=nodes[name], store=self.store)
            for name, row in written["stages"].items()
            if name in nodes
        }

    @overload
    def _stage(self, node: Node) -> StageRecord: ...

    @overload
    def _stage(self, node: Node, *, may_run: bool) -> StageRecord | None: ...

    def _stage(self, node: Node, *, may_run: bool = True) -> StageRecord | None:
        """Take one stage from the store or run it; None when it is neither there nor to be run."""
        inputs, missing = self._inputs(node)
        if missing:
            return StageRecord(node, None, None, 0.0, stopped_by=f"{node.name} was not run: {missing}")
        ids = {role: artifact.id for role, artifact in inputs.items()}
        key = self._key(node, ids)
        artifact = self.store.find(key)
        is_cached = artifact is not None
        if artifact is None:
            if not may_run:
                return None
            early = self._pre_gates(node)
            if early and early[0].is_blocking:
                return StageRecord(node, None, None, 0.0, stopped_by=f"{node.name} was not run: {early[0].line()}")
            artifact = self._execute(node, inputs, ids, key)
        summary = summary_from_dict(artifact.summary)
        verdicts = tuple(allow(v, dict(self.allowed)) for v in (*self._pre_gates(node), *summary.verdicts))
        summary = with_verdicts(summary, verdicts)
        blocking = [v.line() for v in verdicts if v.is_blocking]
        if node.kind == "release" and not blocking and may_run:
            self._promote(artifact)
        return StageRecord(node, artifact, summary, artifact.seconds, is_cached, " ".join(blocking))

    def _inputs(self, node: Node) -> tuple[dict[str, Artifact], str]:
        """Artifacts by role, and why the stage cannot run (empty when it can)."""
        found = stored_models(node.models, self.store)
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
            "config": self.finder.by_content(deciding(resolved(node.config))),
            **self._shared(node),
        }
        return cache_key(node.name, config, dict(input_ids), code_version())

    def _shared(self, node: Node) -> dict[str, Any]:
        """Settings outside its section that a stage depends on."""
        shared: dict[str, Any] = {"seed": self.recipe.seed, "scope": self.recipe.scope, "device": self.device}
        shared["text"] = self.finder.by_content(resolved(self.recipe.text))
        if folders := named_folders(node.models, self.store, folders=self.finder.folders):
            shared["models"] = {role: folder_hash(place) for role, place in folders.items()}
        if node.kind == "evaluation":
            shared["allow"] = sorted(self.allowed)  # decides which policies may be released
        if node.name in ("sft", "criteria") or BASE_MODEL in node.inputs.values():
            shared["model"] = self._base_model()[1]
        return shared

    def _base_model(self) -> tuple[str, str]:
        """Where the base model is, and the hash of its files (its name, when it comes from a hub)."""
        if not self._model:
            self._model = resolve_model(self.finder.find_model(self.recipe.model), folders=self.finder.folders)
            self._model_hash = folder_hash(Path(self._model)) if Path(self._model).is_dir() else self._model
        return self._model, self._model_hash

    def _execute(self, node: Node, inputs: Mapping[str, Artifact], ids: Mapping[str, str], key: str) -> Artifact:
        started = time.monotonic()
        work = self.home / "work" / key
        paths = {role: artifact.path for role, artifact in inputs.items()}
        for role, name in node.inputs.items():
            if name == BASE_MODEL:
                paths[role] = Path(self._base_model()[0])
        with (
            work_alone(work, stage=node.name, code=code_version()),
            self.store.draft(node.kind, stage=node.name) as draft,
            readable_faults(draft.path),
        ):
            self.memory.start_stage()
            summary = node.run(node.config, paths, draft.path, self._services(node, work, paths))
            summary = dataclasses.replace(
                summary,
                tables=(*summary.tables, *kept_alerts(draft.path)),
                facts={
                    **summary.facts,
                    **self._criteria(),
                    **typical_pace(work / "metrics.jsonl"),
                    "peak_memory_mb": self.memory.of_stage,
                    "peak_memory_of": "stage" if self.memory.is_of_stage else "process",
                },
            )
            artifact = draft.commit(config=resolved(node.config), inputs=dict(ids), summary=summary.to_dict(), code_version=code_version(),
                                    seconds=time.monotonic() - started, cache_key=key, name=f"{self.recipe.name}/{node.name}")  # fmt: skip
        retire(
            work,
            log=self.folder / LOG,
            stage=node.name,
            keep_all=_training(node.config).get("keep_checkpoints") == "all",
        )
        self._register(node, artifact)
        return artifact

    def _criteria(self) -> dict[str, str]:
        """Hash of the criteria in force; a policy carries the one it was trained under."""
        record = self.records.get("criteria")
        return {"criteria_sha256": record.summary.facts["criteria_sha256"]} if record and record.summary else {}

    def _register(self, node: Node, artifact: Artifact) -> None:
        """Policies and reward models are registered as candidates."""
        if node.kind in ("policy", "reward_model"):
            registry = Registry(self.store, "policies" if node.kind == "policy" else "reward_models")
            registry.register(artifact.id, name=f"{self.recipe.name}/{node.name}")

    def _promote(self, release: Artifact) -> None:
        """The policy behind a release that no gate stopped becomes the current one in the registry."""
        registry = Registry(self.store, "policies")
        policy, reason = str(release.summary["facts"]["artifact"]), f"{release.id} of run {self.recipe.name}"
        state = next((e.state for e in registry.entries() if e.artifact_id == policy), "")
        for to in ("approved", "released"):
            if state == "candidate" or (state == "approved" and to == "released"):
                state = registry.promote(policy, to=to, reason=reason).state

    def _trackers(self, node: Node, title: str) -> Trackers:
        """The recipe's dashboards for one training of a stage."""
        section = self.recipe.telemetry
        place = Place(
            folder=self.folder, run=f"{self.recipe.name}/{node.name}" + ("" if title == node.name.split(".")[-1] else f"/{title.replace(' ', '-')}"),
            project=section.project, mlflow_uri=section.mlflow_uri, wandb_mode=section.wandb_mode,
            config={"recipe": self.recipe.name, "stage": node.name, "seed": self.recipe.seed},
        )  # fmt: skip
        return open_trackers(section.sinks, place, self.interface.say)

    def _services(self, node: Node, work: Path, paths: Mapping[str, Path]) -> Services:
        extras: dict[str, Any] = {
            "text": self._text(), "scope": self.recipe.scope, "allow": dict(self.allowed), "find_file": self.finder.find,
            "folders": self.finder.folders, "logprob_cache": self.store.root / "cache" / "logprobs",
            "tree_cache": self.store.root / "cache" / "trees", "machine_file": self.store.root / "cache" / "machine.json",
            "read_prompts": read_prompts, "run": f"{self.recipe.name}/{node.name}",
        }  # fmt: skip
        if self.recipe.telemetry.sinks:
            extras["trackers"] = functools.partial(self._trackers, node)
        if node.kind in _MODEL_KINDS:
            extras["base_model"] = self._base_model()[0]
        if "gold" in paths:
            extras["gold_scorer"] = load_gold(paths["gold"])
        extras["build_environment"] = environment_factory(self.interface.say)
        services = Services(work=work, seed=self.recipe.seed, device=self.device, progress=self.interface.progress, say=self.interface.say,
                            should_stop=self.interface.should_stop, checkpoint_every_s=self.checkpoint_every_s, extras=extras)  # fmt: skip
        if section_of(node.config) is not None:
            extras["compose_rewards"] = composer_factory(store=self.store, folders=self.finder.folders, find_file=self.finder.find, inputs=paths,
                                                         services=services, template=extras["text"].template)  # fmt: skip
        return services

    def _text(self) -> TextSection:
        """The text section with a template file where it is."""
        text = self.recipe.text
        if text.template is None or text.template in TEMPLATES:
            return text
        try:
            path = self.finder.find(text.template, key="text.template")
        except ConfigError as error:
            if near := nearest(text.template, TEMPLATES):
                raise ConfigError(str(error).replace("is not found", f"is not found{near}", 1)) from error
            raise
        return text.model_copy(update={"template": str(path)})

    def _write_record(self) -> None:
        record = {
            "name": self.recipe.name,
            "scope": self.recipe.scope,
            "seed": self.recipe.seed,
            "command": self.command,
            "stages": {name: record.to_dict() for name, record in self.records.items()},
        }
        write_json(self.folder / "run.json", record)


def _training(config: Any) -> dict[str, Any]:
    """The training section of a stage's config as plain data; empty where it trains nothing."""
    return resolved(config).get("training") or {}
