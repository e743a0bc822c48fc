"""Commands over the store: list, show, promote, roll back, clean up."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, cast

from rich.table import Table

from fairlead.cli import terminal
from fairlead.cli.run_report import describe_artifact
from fairlead.cli.running import as_data
from fairlead.core.errors import ConfigError, StoreError, explain, nearest
from fairlead.pipeline.run_file import read_run
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.code_version import code_version
from fairlead.store.gc import apply_gc, plan_gc
from fairlead.store.manifest import Artifact
from fairlead.store.registry import Registry, RegistryName
from fairlead.store.work import stale_work

_NUM_SHOWN = 5
NAMES: tuple[RegistryName, ...] = ("reward_models", "policies")


def registries(store: ArtifactStore) -> list[Registry]:
    """Reward models and policies, which are kept apart."""
    return [Registry(store, name, say=terminal.say) for name in NAMES]


def resolve(home: Path, store: ArtifactStore, name: str) -> Artifact:
    """An artifact by id or its beginning; a run's name stands for the last artifact of that run."""
    record = home / name / "run.json"
    if record.is_file():
        stages = read_run(record)["stages"]
        made = [row["artifact"] for row in stages.values() if row["artifact"]]
        if made:
            return store.get(made[-1])
    try:
        return store.get(name)
    except StoreError as error:
        runs = sorted(p.parent.name for p in home.glob("*/run.json"))
        if not nearest(name, runs):
            raise
        raise StoreError(explain("artifact", name, f"is not in {home}, and no run has this name{nearest(name, runs)}",
                                 expected="an id, a unique beginning of one, or one of the runs: " + ", ".join(runs),
                                 remedy="Correct the name")) from error  # fmt: skip


def list_entries(home: Path, *, as_json: bool) -> None:
    """Both registries."""
    rows: list[dict[str, Any]] = []
    store = ArtifactStore(home)
    for registry, name in zip(registries(store), NAMES, strict=True):
        current = registry.current()
        rows += [{"registry": name, **dataclasses.asdict(e), "is_current": current is not None and e.artifact_id == current.artifact_id}
                 for e in registry.entries()]  # fmt: skip
    if as_json:
        terminal.say(as_data(rows))
        return
    if not rows:
        terminal.say(
            f"Nothing is registered in {home} yet. Policies and reward models appear here once trained: fairlead quickstart"
        )
        return
    table = Table(box=None)  # an id begins with its registry: reward_model- or policy-
    for column in ("artifact", "name", "state"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["artifact_id"], row["name"], row["state"] + (" (current)" if row["is_current"] else ""))
    terminal.show_table(table)
    terminal.say("Next: fairlead registry show ARTIFACT, fairlead registry promote ARTIFACT --reason WHY")


def show_artifact(home: Path, name: str, *, as_json: bool) -> None:
    """One artifact, checked against its hashes."""
    store = ArtifactStore(home)
    artifact = store.verify(resolve(home, store, name).id)
    terminal.say(as_data(artifact.manifest) if as_json else describe_artifact(artifact))


def promote(home: Path, name: str, *, to: str, reason: str) -> None:
    """Move to approved or released."""
    if to not in ("approved", "released"):
        raise ConfigError(explain("--to", to, "is not a state", expected="approved or released", remedy="Choose one"))
    store = ArtifactStore(home)
    artifact = resolve(home, store, name)
    index = 0 if artifact.kind == "reward_model" else 1
    entry = registries(store)[index].promote(
        artifact.id, to=cast(Literal["approved", "released"], to), reason=reason or "no reason given"
    )
    terminal.say(f"{entry.artifact_id} is now {entry.state}.")


def roll_back(home: Path, kind: str, *, reason: str) -> None:
    """The previous release is current again."""
    if kind not in NAMES:
        raise ConfigError(
            explain("--kind", kind, "is not a registry", expected=" or ".join(NAMES), remedy="Choose one")
        )
    entry = registries(ArtifactStore(home))[NAMES.index(cast(RegistryName, kind))].rollback(reason=reason)
    terminal.say(f"{entry.artifact_id} ({entry.name}) is current again.")


def collect_garbage(home: Path, *, keep_last: int, takes_work: bool, is_dry: bool, as_json: bool) -> None:
    """Say what would go, or let it go."""
    store = ArtifactStore(home)
    books = registries(store)
    plan = plan_gc(store, books, keep_last=keep_last)
    stale = stale_work(store, code=code_version())
    apply_gc(store, books, plan, dry_run=is_dry)
    if takes_work and not is_dry:
        stale = [folder for folder in stale if folder.remove()]
    if as_json:
        work = [{**dataclasses.asdict(folder), "path": str(folder.path)} for folder in stale]
        terminal.say(as_data({**dataclasses.asdict(plan), "work": work}))
        return
    verb = "would be deleted" if is_dry else "deleted"
    terminal.say(f"{len(plan.delete)} artifacts ({plan.bytes / 2**20:.1f} MB) {verb}, {len(plan.keep)} kept.")
    for artifact_id in list(plan.delete)[:_NUM_SHOWN]:
        terminal.say(f"  {artifact_id}")
    if stale:
        size = sum(folder.num_bytes for folder in stale) / 2**20
        what = f"{len(stale)} work folders of other versions of Fairlead ({size:.1f} MB), from which no run goes on"
        terminal.say(f"{what}, {verb}." if takes_work else f"{what}, are kept; --work takes them too.")
        for folder in stale[:_NUM_SHOWN]:
            terminal.say(f"  {folder.path.name}: {folder.stage}, {folder.code_version}")
    if is_dry and (plan.delete or (stale and takes_work)):
        terminal.say("Next: the same command with --apply.")
