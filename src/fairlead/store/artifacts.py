"""Content-addressed artifacts: made in a draft, committed whole or not at all, found again by content or by cache key.

    draft folder --hash, fsync--> manifest --rename--> artifacts/<kind>/<id>     (one rename makes it visible)

    <root>/artifacts/   committed, never changed       <root>/drafts/    being written, each with a lock of its owner
    <root>/cache/       cache key -> id                <root>/store.lock held while something is published or deleted

Example:
    store = ArtifactStore(Path("runs"))
    with store.draft("prompts", stage="prompts") as draft:
        write_jsonl(draft.path / "prompts.jsonl", prompts)
        artifact = draft.commit(config={}, inputs={}, summary={}, code_version=code_version())
"""

import contextlib
import graphlib
import re
import secrets
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, StoreError, explain, nearest, shorten
from fairlead.core.io import dump_json, parse_json, sync_folder, write_json, write_text
from fairlead.core.records import content_hash
from fairlead.store import manifest
from fairlead.store.locks import FileLock, locked
from fairlead.store.log import AppendLog
from fairlead.store.manifest import MANIFEST, SUMMARY, Artifact, cache_key
from fairlead.store.weights import MODEL_KINDS, check_model_file

__all__ = ["Artifact", "ArtifactStore", "Draft", "cache_key", "in_order"]

_NAME = re.compile(r"[a-z][a-z0-9_.]*")
_MIN_PREFIX_CHARS = 4


class ArtifactStore:
    """The artifacts below one folder. Holds no state, so it may be used by many processes and pickled."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.deleted = AppendLog(self.root / "deleted.jsonl")
        """Record of every artifact that was deleted."""

    @contextlib.contextmanager
    def draft(self, kind: str, *, stage: str) -> Generator["Draft"]:
        """Open a folder to write an artifact's files in; it vanishes unless `commit` is called."""
        for name in (kind, stage):
            if not _NAME.fullmatch(name):
                raise StoreError(
                    explain("name", name, "cannot name a folder", expected="a-z, 0-9, _ and .", remedy="Rename it")
                )
        path = self.root / "drafts" / f"{stage}-{secrets.token_hex(8)}"
        lock = FileLock(_lock_path(path))
        with _store_errors(path):
            lock.acquire()
            path.mkdir()
        try:
            yield Draft(self, kind=kind, stage=stage, path=path)
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock.release(remove=True)

    def clean_drafts(self) -> int:
        """Remove what dead processes left in drafts; return how many."""
        return sum(self._drafts(remove_dead=True).values())

    def live_drafts(self) -> int:
        """How many drafts some process is writing."""
        return sum(not is_dead for is_dead in self._drafts(remove_dead=False).values())

    def _drafts(self, *, remove_dead: bool) -> dict[Path, bool]:
        """Draft folder -> whether its owner is dead: then nobody holds its lock."""
        folder = self.root / "drafts"
        paths = (
            {p if p.suffix != ".lock" else p.with_suffix("") for p in folder.iterdir()}
            if folder.is_dir()
            else set[Path]()
        )
        states: dict[Path, bool] = {}
        for path in sorted(paths):
            lock = FileLock(_lock_path(path))
            states[path] = lock.acquire(wait=False)
            if states[path]:
                if remove_dead:
                    shutil.rmtree(path, ignore_errors=True)
                lock.release(remove=True)
        return states

    def ids(self) -> tuple[str, ...]:
        """Names of all artifacts, sorted."""
        return tuple(sorted(folder.name for folder in self._folders()))

    def _folders(self) -> Iterator[Path]:
        base = self.root / "artifacts"
        for kind in sorted(base.iterdir()) if base.is_dir() else ():
            yield from (p for p in sorted(kind.iterdir()) if p.is_dir())

    def get(self, id: str) -> Artifact:
        """Find an artifact by its id, or by the beginning of the id (or of its hex part) when that is unique.

        Raises:
            StoreError: unknown (with the nearest id, or when it was deleted), ambiguous, or its manifest is damaged.
        """
        folders = {folder.name: folder for folder in self._folders()}
        if id in folders:
            return manifest.read_artifact(folders[id])
        matches = [n for n in folders if n.startswith(id) or n.rpartition("-")[2].startswith(id)]
        if len(id) < _MIN_PREFIX_CHARS or not matches:
            raise StoreError(explain("artifact", id, f"is not in {self.root}{self._fate(id)}{nearest(id, folders)}",
                                     expected="an id or a unique beginning of one", remedy="List the artifacts to see all ids"))  # fmt: skip
        if len(matches) > 1:
            raise StoreError(explain("artifact", id, f"begins {len(matches)} ids ({', '.join(matches[:4])})",
                                     expected="a unique beginning", remedy="Give more characters"))  # fmt: skip
        return manifest.read_artifact(folders[matches[0]])

    def _fate(self, id: str) -> str:
        rows = [row for row in self.deleted.read() if row["id"] == id]
        return f": it was deleted on {rows[-1]['time']} ({rows[-1]['reason']})" if rows else ""

    def find(self, key: str) -> Artifact | None:
        """The intact artifact that a computation with this cache key made, or None."""
        path = self._cache_path(key)
        if not key or not path.is_file():
            return None
        try:
            return self.verify(path.read_text(encoding="utf-8").strip())
        except StoreError:
            return None  # deleted or damaged: the stage runs again, and its commit puts a good copy in place

    def _cache_path(self, key: str) -> Path:
        return self.root / "cache" / content_hash(key, num_chars=32)

    def list(self, kind: str | None = None) -> tuple[Artifact, ...]:
        """All artifacts (of one kind) that have a readable manifest, oldest first; see `damaged` for the others."""
        found = [item for item in self._read_all() if isinstance(item, Artifact) and kind in (None, item.kind)]
        return tuple(sorted(found, key=lambda a: (a.created, a.id)))

    def damaged(self) -> tuple[str, ...]:
        """One sentence for each folder whose manifest cannot be read."""
        return tuple(str(item) for item in self._read_all() if isinstance(item, StoreError))

    def _read_all(self) -> Iterator[Artifact | StoreError]:
        for folder in self._folders():
            try:
                yield manifest.read_artifact(folder)
            except StoreError as error:
                yield error

    def verify(self, id: str) -> Artifact:
        """Check every file of an artifact against its hash.

        Raises:
            StoreError: names the first file that is missing, added or changed.
        """
        artifact = self.get(id)
        if fault := manifest.find_fault(artifact):
            raise StoreError(explain("artifact", artifact.id, f"is damaged: {fault}", expected="the files as they were committed",
                                     remedy="Delete its folder and run the stage again"))  # fmt: skip
        return artifact

    def lineage(self, id: str) -> tuple[Artifact, ...]:
        """The artifact, then everything it was made from, each before its own inputs."""
        found: dict[str, Artifact] = {}
        waiting = [self.get(id)]
        while waiting:
            artifact = waiting.pop()
            if artifact.id in found:
                continue
            found[artifact.id] = artifact
            waiting += [self._input(artifact, role) for role in sorted(artifact.inputs)]
        return tuple(reversed(in_order(found.values())))

    def _input(self, artifact: Artifact, role: str) -> Artifact:
        try:
            return self.get(artifact.inputs[role])
        except StoreError as error:
            raise StoreError(f"{artifact.id} needs its input {role}: {error}") from error

    def descendants(self, id: str) -> tuple[Artifact, ...]:
        """Everything that was made from the artifact, each after its own inputs."""
        made = {self.get(id).id}
        later = [a for a in in_order(self.list()) if a.id not in made]
        for artifact in later:
            if made & set(artifact.inputs.values()):
                made.add(artifact.id)
        return tuple(a for a in later if a.id in made)

    def remove(self, artifact: Artifact) -> None:
        """Delete an artifact's files, invisible at once; `gc` decides whether that is allowed. Call under `exclusive`."""
        aside = self.root / "drafts" / f"removed-{secrets.token_hex(8)}"
        with _store_errors(artifact.path):
            aside.parent.mkdir(parents=True, exist_ok=True)
            artifact.path.rename(aside)
            sync_folder(artifact.path.parent)
            shutil.rmtree(aside, ignore_errors=True)  # what stays is cleaned up with the drafts

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Nothing is published or deleted meanwhile."""
        with locked(self.root / "store.lock"):
            yield

    def publish(self, folder: Path, artifact: Artifact) -> Artifact:
        """Rename a finished draft into place; an intact artifact that is already there wins, a damaged one is replaced."""
        final = artifact.path
        is_damaged = final.exists() and not self._is_intact(artifact.id)
        with self.exclusive():
            for name in artifact.inputs.values():
                self.get(name)
            if final.exists() and is_damaged:
                final.rename(self.root / "drafts" / f"damaged-{secrets.token_hex(8)}")
            if not final.exists():
                final.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(final)
                sync_folder(final.parent)
                sync_folder(final.parent.parent)
        if key := artifact.manifest["cache_key"]:
            write_text(self._cache_path(key), artifact.id + "\n")
        return manifest.read_artifact(final)

    def _is_intact(self, id: str) -> bool:
        try:
            return bool(self.verify(id))
        except StoreError:
            return False


class Draft:
    """A folder inside the store where one artifact is being written. Single use; made by `ArtifactStore.draft`."""

    def __init__(self, store: ArtifactStore, *, kind: str, stage: str, path: Path) -> None:
        self.kind, self.stage, self.path = kind, stage, path
        self._store = store

    def commit(
        self,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        summary: Mapping[str, Any],
        code_version: str,
        step: int | None = None,
        seconds: float = 0,
        cache_key: str = "",
        name: str = "",
    ) -> Artifact:
        """Make the draft an artifact.

        Args:
            config: the stage's resolved config.
            inputs: role -> id of an artifact in this store.
            summary: what the stage says about itself; kept as summary.json.
            step: optimiser step of a model.
            seconds: wall-clock time that the stage took.
            cache_key: see `cache_key`; `ArtifactStore.find` finds the artifact by it.
            name: label for people; no part of the id.
        Raises:
            StoreError: an unknown input, a file that may not be in a model, values that are not JSON, a full disk.
        """
        if not self.path.is_dir():
            raise StoreError(f"The draft of {self.stage} was committed or left; expected one commit. Open a new draft.")
        store = self._store
        full = {role: store.get(given).id for role, given in sorted(inputs.items())}
        with _store_errors(self.path):
            files = {n: manifest.hash_file(p, sync=True) for n, p in self._checked_files()}
            values = _plain({"config": config, "inputs": full})
            write_json(self.path / SUMMARY, _plain(summary))
            id = manifest.artifact_id(self.kind, files=files, code_version=code_version, **values)
            entries = _plain({
                "schema": manifest.SCHEMA_VERSION, "id": id, "kind": self.kind, "stage": self.stage, "name": name,
                "created": datetime.now(UTC).isoformat(timespec="microseconds"), "seconds": seconds, "step": step,
                "code_version": code_version, "cache_key": cache_key, **values, "files": files,
                "summary_hash": manifest.hash_file(self.path / SUMMARY)["sha256"],
            })  # fmt: skip
            entries["seal"] = manifest.seal(entries)
            write_json(self.path / MANIFEST, entries)
            for folder in (p for p in self.path.rglob("*") if p.is_dir()):
                sync_folder(folder)
            final = store.root / "artifacts" / self.kind / id
            return store.publish(
                self.path, Artifact(id=id, kind=self.kind, stage=self.stage, path=final, manifest=entries)
            )

    def _checked_files(self) -> Iterator[tuple[str, Path]]:
        for name, path in manifest.iterate_files(self.path):
            if name in (MANIFEST, SUMMARY):
                raise StoreError(explain(name, None, "is written by the store", expected="another name",
                                         remedy="Return the summary and let the store write it"))  # fmt: skip
            if self.kind in MODEL_KINDS:
                check_model_file(path)
            yield name, path


def in_order(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Sort so that every artifact follows its inputs; inputs that are not among them are ignored."""
    by_id = {a.id: a for a in artifacts}
    graph = {id: [i for i in sorted(a.inputs.values()) if i in by_id] for id, a in sorted(by_id.items())}
    return tuple(by_id[id] for id in graphlib.TopologicalSorter(graph).static_order())


def _lock_path(draft: Path) -> Path:
    return draft.with_name(draft.name + ".lock")


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Bring values to what they will be when read back, so that the id can be computed again from the manifest."""
    try:
        return parse_json(dump_json(value), "manifest")
    except (TypeError, ValueError) as error:
        raise StoreError(explain("manifest", shorten(value), f"is not JSON ({error})", expected="plain finite values",
                                 remedy="Convert the values before committing")) from error  # fmt: skip


@contextlib.contextmanager
def _store_errors(path: Path) -> Generator[None]:
    """Turn faults of the file system into one sentence."""
    try:
        yield
    except DataError as error:
        raise StoreError(str(error)) from error
    except OSError as error:
        raise StoreError(explain(path, None, f"cannot be written ({error.strerror})", expected="a writable folder with free space",
                                 remedy="Make room or fix its mode, then run the same command again")) from error  # fmt: skip
