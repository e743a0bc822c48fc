"""What an artifact is: a folder of files with a manifest, named by a hash of everything that decides its content.

    <root>/artifacts/<kind>/<kind>-<16 hex>/
        manifest.json    id, stage, config, inputs, code version, files with hashes; what the id is made of is all in here
        summary.json     what the stage said about itself; hashed, but no part of the id (it may hold times)
        ...              the stage's files

Example:
    artifact = read_artifact(folder)
    artifact.inputs                  # {'prompts': 'prompts-5e0c...'}
    find_fault(artifact)             # '' when every file is as it was committed
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fairlead.core.errors import DataError, StoreError, explain
from fairlead.core.io import read_json
from fairlead.core.records import content_hash

SCHEMA_VERSION = 1
MANIFEST, SUMMARY = "manifest.json", "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One committed artifact. Cheap to make: files are opened only when asked for. Picklable, immutable."""

    id: str
    kind: str
    stage: str
    path: Path
    """Folder of the files; never write into it."""
    manifest: Mapping[str, Any]

    @property
    def inputs(self) -> Mapping[str, str]:
        """Role -> artifact id."""
        return self.manifest["inputs"]

    @property
    def config(self) -> Mapping[str, Any]:
        """The stage's resolved config."""
        return self.manifest["config"]

    @property
    def created(self) -> str:
        """When it was committed, UTC, ISO 8601; sorts as text."""
        return self.manifest["created"]

    @property
    def seconds(self) -> float:
        """Wall-clock time that the stage took."""
        return self.manifest["seconds"]

    @property
    def name(self) -> str:
        """Label given by the user; empty when none."""
        return self.manifest["name"]

    @property
    def step(self) -> int | None:
        """Optimiser step of a model; None for other kinds."""
        return self.manifest.get("step")

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Relative path -> {sha256, bytes}."""
        return self.manifest["files"]

    @property
    def num_bytes(self) -> int:
        """Size of the files."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the stage said about itself (`StageSummary.to_dict`), read from disk at each call."""
        try:
            return cast(Mapping[str, Any], read_json(self.path / SUMMARY))
        except DataError as error:
            raise StoreError(str(error)) from error


def artifact_id(
    kind: str, *, files: Mapping[str, Any], inputs: Mapping[str, str], config: Mapping[str, Any], code_version: str
) -> str:
    """Name of an artifact: everything that decides its content, nothing that depends on time, machine or folder."""
    payload = {"kind": kind, "files": files, "inputs": inputs, "config": config, "code_version": code_version}
    return f"{kind}-{content_hash(payload)}"


def cache_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], code_version: str) -> str:
    """Name of a computation before it is done: the same stage, config, inputs and code give the same key."""
    payload = {"stage": stage, "config": config, "inputs": inputs, "code_version": code_version}
    return content_hash(payload, num_chars=32)


def iterate_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative posix path, path) of all files, sorted.

    Raises:
        StoreError: a link, device or name that another machine could not read.
    """
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(explain(path, None, "is a link or a device", expected="plain files",
                                     remedy="Copy the content instead"))  # fmt: skip
        if path.is_file():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError as error:
                raise StoreError(
                    explain(ascii(name), None, "is not UTF-8", expected="a UTF-8 name", remedy="Rename it")
                ) from error
            yield name, path


def hash_file(path: Path, *, sync: bool = False) -> dict[str, Any]:
    """Return {sha256, bytes} of a file; `sync` also waits until it is on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
        return {"sha256": digest, "bytes": os.fstat(file.fileno()).st_size}


def read_artifact(folder: Path) -> Artifact:
    """Read the manifest of an artifact's folder.

    Raises:
        StoreError: it is missing, damaged, or written by a newer version.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except DataError as error:
        raise StoreError(str(error)) from error
    if not isinstance(manifest, dict):
        raise _damaged(path, "is not an object")
    values = cast(dict[str, Any], manifest)
    schema = values.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise StoreError(explain(f"{path}.schema", schema, "is newer than this version of Fairlead",
                                 expected=f"<= {SCHEMA_VERSION}", remedy="Upgrade fairlead"))  # fmt: skip
    if values.get("seal") != seal(values):
        raise _damaged(path, "was changed after the commit")
    if values["id"] != folder.name or values["kind"] != folder.parent.name:
        raise _damaged(path, f"belongs to {values['id']}, not to its folder")
    return Artifact(id=values["id"], kind=values["kind"], stage=values["stage"], path=folder, manifest=values)


def seal(manifest: Mapping[str, Any]) -> str:
    """Hash of all fields but the seal itself: an edited manifest is noticed before anything in it is believed."""
    return content_hash({k: v for k, v in manifest.items() if k != "seal"})


def _damaged(path: Path, wrong: str) -> StoreError:
    return StoreError(explain(path, None, wrong, expected="a manifest that Fairlead wrote",
                              remedy="Delete the folder and run the stage again"))  # fmt: skip


def find_fault(artifact: Artifact) -> str:
    """Compare every file with the manifest; return what is wrong with the first bad one, or an empty string."""
    present = {name: path for name, path in iterate_files(artifact.path) if name not in (MANIFEST, SUMMARY)}
    for name in sorted(set(present) | set(artifact.files)):
        if name not in present:
            return f"{name} is missing"
        if name not in artifact.files:
            return f"{name} was added"
        if hash_file(present[name]) != artifact.files[name]:
            return f"{name} was changed"
    summary = artifact.path / SUMMARY
    if not summary.is_file() or hash_file(summary)["sha256"] != artifact.manifest["summary_hash"]:
        return f"{SUMMARY} was changed"
    named = artifact_id(artifact.kind, files=artifact.files, inputs=artifact.inputs, config=artifact.config,
                        code_version=artifact.manifest["code_version"])  # fmt: skip
    return "" if named == artifact.id else f"{MANIFEST} was changed"
