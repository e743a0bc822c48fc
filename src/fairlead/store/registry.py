"""Which policy and which reward model is a candidate, approved, released: an append-only log of who decided what, when and why.

    candidate --> approved --> released --(rollback)--> rolled_back --> approved
        |            |            |                          |
        +------------+------------+--------> removed <-------+     (never the current release)

Policies and reward models have separate registries, so that a release names both independently. Promotions check every file.

Example:
    policies = Registry(store, "policies")
    policies.register(artifact.id, "helpful-v2")
    policies.promote(artifact.id, to="approved", reason="win rate 65.5 %, all gates passed")
    policies.promote(artifact.id, to="released", reason="approved by the safety review")
    policies.current().artifact_id
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fairlead.core.errors import StoreError, explain, nearest
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.log import AppendLog

RegistryName = Literal["policies", "reward_models"]
REGISTRIES: tuple[RegistryName, ...] = ("policies", "reward_models")
State = Literal["candidate", "approved", "released", "rolled_back", "removed"]

SCHEMA_VERSION = 1
_KINDS: Mapping[str, str] = {"policies": "policy", "reward_models": "reward_model"}
_ALLOWED: Mapping[str, tuple[State, ...]] = {
    "": ("candidate",),
    "candidate": ("approved", "removed"),
    "approved": ("released", "removed"),
    "released": ("rolled_back", "removed"),
    "rolled_back": ("approved", "removed"),
    "removed": ("candidate",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log."""

    action: State
    artifact_id: str
    name: str
    time: str
    """UTC, ISO 8601."""
    actor: str
    reason: str
    restored: str = ""
    """The release that became current again, for rolled_back."""
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one artifact stands after all events."""

    artifact_id: str
    name: str
    state: State
    time: str
    """When it reached this state."""
    actor: str
    reason: str
    is_current: bool = False


class Registry:
    """One of the two registries of a store. Holds no state but the path, so it may be used by many processes.

    Invariant: `current` is the last release that was neither rolled back nor removed.
    """

    def __init__(self, store: ArtifactStore, name: RegistryName, *, say: Callable[[str], None] | None = None) -> None:
        if name not in _KINDS:
            raise StoreError(
                explain("registry", name, "is unknown", expected=" or ".join(_KINDS), remedy="Use one of them")
            )
        self.name, self.store = name, store
        path = store.root / "registries" / f"{name}.jsonl"
        self._log = AppendLog(path, say=say) if say else AppendLog(path)

    def events(self) -> tuple[Event, ...]:
        """Everything that ever happened, in order."""
        return tuple(self._event(row) for row in self._log.read())

    def _event(self, row: Mapping[str, Any]) -> Event:
        try:
            event = Event(**row)
            _ALLOWED[event.action]
        except (TypeError, KeyError) as error:
            raise StoreError(explain(self._log.path, None, f"holds an event that cannot be read ({error})",
                                     expected=f"schema <= {SCHEMA_VERSION}", remedy="Upgrade fairlead")) from error  # fmt: skip
        return event

    def entries(self) -> tuple[Entry, ...]:
        """The state of every artifact that was ever registered, in order of registration."""
        return _fold(self.events())[0]

    def current(self) -> Entry | None:
        """The release in force, or None."""
        return next((entry for entry in self.entries() if entry.is_current), None)

    def register(self, artifact_id: str, name: str, *, reason: str = "") -> Entry:
        """Enter an artifact as a candidate; one that is already in stays as it is, with its first name: two recipes may make the same artifact.

        A name may be given to several artifacts (the rounds of one recipe); by name only one that is alone is found.
        """
        artifact = self.store.get(artifact_id)
        if artifact.kind != _KINDS[self.name]:
            raise StoreError(explain("artifact", artifact.id, f"is a {artifact.kind}", expected=f"a {_KINDS[self.name]} in {self.name}",
                                     remedy="Register it elsewhere"))  # fmt: skip
        if not name.strip():
            raise StoreError(explain("name", name, "is empty", expected="a name for people", remedy="Give it one"))
        with self._log.exclusive():
            for entry in self.entries():
                if entry.artifact_id == artifact.id and entry.state != "removed":
                    return entry
            return self._append("candidate", artifact.id, name, reason)

    def promote(self, artifact_id: str, *, to: Literal["approved", "released"], reason: str) -> Entry:
        """Move an entry (by artifact id or name) up; its files are checked first.

        Raises:
            StoreError: unknown, damaged, no reason given, or a transition that is not allowed (the message says which are).
        """
        if not reason.strip():
            raise StoreError(
                explain("reason", reason, "is empty", expected="why this decision was taken", remedy="Give a reason")
            )
        entry = self._find(artifact_id)
        self._check(entry.artifact_id, entry.state, to)
        self.store.verify(entry.artifact_id)
        with self.store.exclusive(), self._log.exclusive():  # gc deletes under the first
            self.store.get(entry.artifact_id)
            return self._append(to, entry.artifact_id, entry.name, reason)

    def rollback(self, *, reason: str = "") -> Entry:
        """Withdraw the current release; the one before it becomes current again and is returned.

        Raises:
            StoreError: there is no earlier release, or its files are damaged.
        """
        with self._log.exclusive():
            entries, releases = _fold(self.events())
            if len(releases) < 2:
                raise StoreError(explain(self.name, None, f"has {len(releases)} release(s) in force, so there is nothing to go back to",
                                         expected="at least 2", remedy="Release another one instead"))  # fmt: skip
            self.store.verify(releases[-2])
            withdrawn = next(e for e in entries if e.artifact_id == releases[-1])
            self._append("rolled_back", withdrawn.artifact_id, withdrawn.name, reason, restored=releases[-2])
            return self._find(releases[-2])

    def remove(self, artifact_id: str, *, reason: str) -> Entry:
        """Take an entry out, so that its artifact is no longer protected; the log keeps its history."""
        with self._log.exclusive():
            entry = self._find(artifact_id)
            if entry.is_current:
                raise StoreError(explain(self.name, entry.name, "is the current release", expected="an entry that is not in force",
                                         remedy="Roll back or release another one first"))  # fmt: skip
            return self._append("removed", entry.artifact_id, entry.name, reason)

    def _find(self, name: str) -> Entry:
        """Entry by artifact id, by a unique beginning of it, or by name."""
        entries = self.entries()
        matches = (
            [e for e in entries if e.artifact_id == name]
            or [e for e in entries if e.name == name and e.state != "removed"]
            or [e for e in entries if len(name) > 3 and e.artifact_id.startswith(name)]
        )
        if not matches:
            known = [e.name for e in entries] + [e.artifact_id for e in entries]
            raise StoreError(explain(self.name, name, f"is not registered{nearest(name, known)}", expected="a registered name or id",
                                     remedy="Register it first"))  # fmt: skip
        if len(matches) > 1:
            ids = ", ".join(e.artifact_id for e in matches[-4:])
            raise StoreError(explain(self.name, name, f"means {len(matches)} entries ({ids})", expected="one of them",
                                     remedy="Give the artifact id"))  # fmt: skip
        return matches[0]

    def _check(self, artifact_id: str, state: str, to: State) -> None:
        if to not in _ALLOWED[state]:
            raise StoreError(explain(artifact_id, None, f"is {state or 'not registered'} and cannot become {to}",
                                     expected=" or ".join(_ALLOWED[state]), remedy="Take the allowed step first"))  # fmt: skip

    def _append(self, action: State, artifact_id: str, name: str, reason: str, *, restored: str = "") -> Entry:
        state = next((e.state for e in self.entries() if e.artifact_id == artifact_id), "")
        self._check(artifact_id, state, action)
        self._log.append({
            "action": action, "artifact_id": artifact_id, "name": name, "reason": reason, "restored": restored,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"), "actor": os.environ.get("USER") or "unknown",
            "schema": SCHEMA_VERSION,
        })  # fmt: skip
        return next(e for e in self.entries() if e.artifact_id == artifact_id)


def _fold(events: tuple[Event, ...]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Play the log: the entries, and the ids of the releases in force, the current one last."""
    last: dict[str, Event] = {}
    releases: tuple[str, ...] = ()
    for event in events:
        last[event.artifact_id] = event
        releases = tuple(r for r in releases if r != event.artifact_id)
        if event.action == "released":
            releases = (*releases, event.artifact_id)
    current = releases[-1] if releases else ""
    entries = tuple(
        Entry(artifact_id=e.artifact_id, name=e.name, state=e.action, time=e.time, actor=e.actor,
              reason=e.reason, is_current=e.artifact_id == current)
        for e in last.values()
    )  # fmt: skip
    return entries, releases
