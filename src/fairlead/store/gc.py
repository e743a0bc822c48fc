"""Delete what nothing needs any more, and keep a record of it.

Kept: the current and earlier releases, approved entries, artifacts of kind `release`, the newest few of every kind, reward models that
a policy was trained against (also one that was deleted since: what it was paid for can then still be measured), and whatever those were
made from. Everything else may go, descendants before what they were made from, so that a run that is killed half-way leaves no
artifact without its lineage.

Example:
    plan = plan_gc(store, registries, keep_last=3)
    apply_gc(store, registries, plan, dry_run=False)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from fairlead.core.errors import StoreError, explain
from fairlead.core.records import content_hash
from fairlead.store.artifacts import Artifact, ArtifactStore, in_order
from fairlead.store.registry import REGISTRIES, Registry

_REASON = "nothing needed it"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPlan:
    """What may go and why the rest stays."""

    delete: tuple[str, ...]
    """Artifact ids, each before what it was made from."""
    keep: Mapping[str, str]
    """Artifact id -> reason."""
    bytes: int
    """Size of what may go."""
    keep_last: int


def plan_gc(store: ArtifactStore, registries: Sequence[Registry], *, keep_last: int) -> GcPlan:
    """Decide what to delete; nothing is touched.

    Args:
        registries: one that is left out is read from the store all the same, so that no release can be forgotten.
        keep_last: how many of the newest artifacts of every kind stay in any case.
    Raises:
        StoreError: a manifest cannot be read (what it needs is then unknown), or `keep_last` is negative.
    """
    if keep_last < 0:
        raise StoreError(explain("keep_last", keep_last, "is negative", expected=">= 0", remedy="Raise it"))
    if damaged := store.damaged():
        raise StoreError(f"{len(damaged)} artifact(s) cannot be read, so what they need is unknown: {damaged[0]}")
    artifacts = store.list()
    given = {registry.name for registry in registries}
    everyone = [*registries, *(Registry(store, name) for name in REGISTRIES if name not in given)]
    keep = _closure(
        _roots(artifacts, everyone, keep_last) | _used_rewards(store, artifacts), {a.id: a for a in artifacts}
    )
    delete = tuple(a for a in reversed(in_order(artifacts)) if a.id not in keep)
    return GcPlan(
        delete=tuple(a.id for a in delete), keep=keep, bytes=sum(a.num_bytes for a in delete), keep_last=keep_last
    )


def _roots(artifacts: Sequence[Artifact], registries: Iterable[Registry], keep_last: int) -> dict[str, str]:
    """Artifact id -> why it stays for its own sake."""
    roots: dict[str, str] = {}
    for registry in registries:
        for entry in registry.entries():
            if entry.state in ("approved", "released"):
                roots[entry.artifact_id] = f"{entry.state} in {registry.name} as {entry.name}"
    for artifact in artifacts:
        if artifact.kind == "release":
            roots.setdefault(artifact.id, "a release")
    for kind in sorted({a.kind for a in artifacts}):
        newest = [a for a in artifacts if a.kind == kind][::-1][:keep_last]
        for artifact in newest:
            roots.setdefault(artifact.id, f"one of the last {keep_last} of kind {kind}")
    return roots


def _used_rewards(store: ArtifactStore, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Reward models among the inputs of a policy that is there, or of one whose deletion is on record."""
    policies = [(a.id, a.inputs) for a in artifacts if a.kind == "policy"]
    policies += [(row["id"], row["inputs"]) for row in store.deleted.read() if row["kind"] == "policy"]
    used = {id: policy for policy, inputs in policies for id in inputs.values()}
    return {
        a.id: f"the policy {used[a.id]} was trained against it"
        for a in artifacts
        if a.kind == "reward_model" and a.id in used
    }


def _closure(roots: Mapping[str, str], artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Add everything that the roots were made from."""
    keep: dict[str, str] = {}
    waiting = [(id, reason) for id, reason in roots.items() if id in artifacts]
    while waiting:
        id, reason = waiting.pop(0)
        if id in keep:
            continue
        keep[id] = reason
        needed = [*artifacts[id].inputs.values(), *_texts(artifacts[id].config)]
        waiting += [(other, f"needed by {id}") for other in needed if other in artifacts]
    return keep


def _texts(value: Any) -> Iterator[str]:
    """All strings in a config: one that equals an artifact's id is a reference to it, though not declared as an input."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[str, Any], value).values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _texts(item)


def apply_gc(store: ArtifactStore, registries: Sequence[Registry], plan: GcPlan, *, dry_run: bool = True) -> GcPlan:
    """Carry out a plan, after checking under the lock that it still holds; a dry run only checks.

    Raises:
        StoreError: somebody is writing a draft, or something in the plan is needed by now.
    """
    if num_drafts := store.live_drafts():
        raise StoreError(explain("drafts", num_drafts, "are being written", expected="no running stage",
                                 remedy="Wait for the run to end"))  # fmt: skip
    with store.exclusive():
        fresh = plan_gc(store, registries, keep_last=plan.keep_last)
        _check_still_holds(plan, fresh, store)
        for id in () if dry_run else fresh.delete:
            if id in plan.delete:
                _delete(store, registries, store.get(id))
    return plan


def _check_still_holds(plan: GcPlan, fresh: GcPlan, store: ArtifactStore) -> None:
    reasons = {id: fresh.keep[id] for id in plan.delete if id in fresh.keep}
    for later in set(fresh.delete) - set(plan.delete):
        reasons |= {id: f"{later} was made from it" for id in store.get(later).inputs.values() if id in plan.delete}
    for id, reason in sorted(reasons.items()):
        raise StoreError(explain("artifact", id, f"is needed by now: {reason}", expected="a plan that still holds",
                                 remedy="Plan again"))  # fmt: skip


def _delete(store: ArtifactStore, registries: Iterable[Registry], artifact: Artifact) -> None:
    """Record first, then delete: killed in between, a record too many is harmless, a missing one is not."""
    with store.deleted.exclusive():
        store.deleted.append({
            "id": artifact.id, "kind": artifact.kind, "name": artifact.name, "hash": content_hash(artifact.files, num_chars=64),
            "created": artifact.created, "time": datetime.now(UTC).isoformat(timespec="microseconds"), "reason": _REASON,
            "step": artifact.step, "metrics": _metrics(artifact), "inputs": artifact.inputs, "bytes": artifact.num_bytes,
        })  # fmt: skip
    for registry in registries:
        if any(e.artifact_id == artifact.id and e.state != "removed" for e in registry.entries()):
            registry.remove(artifact.id, reason=f"deleted: {_REASON}")
    store.remove(artifact)


def _metrics(artifact: Artifact) -> dict[str, Any]:
    """Name -> value of the figures in the summary; empty when the summary is damaged."""
    try:
        figures = artifact.summary.get("figures", ())
        return {row["name"]: row["value"] for row in figures}
    except (StoreError, AttributeError, KeyError, TypeError):
        return {}
