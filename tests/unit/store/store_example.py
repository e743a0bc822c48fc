"""Small artifacts for the tests of the store."""

import json
from pathlib import Path

from fairlead.store.artifacts import Artifact, ArtifactStore

SUMMARY = {"stage": "s", "figures": [{"name": "accuracy", "value": 0.7}]}


def safetensors(content: bytes = b"\0" * 8) -> bytes:
    """A valid file with one float64 tensor."""
    header = json.dumps(
        {"w": {"dtype": "F64", "shape": [len(content) // 8], "data_offsets": [0, len(content)]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + content


def add(
    store: ArtifactStore, kind: str, content: str = "x", *, inputs: dict[str, str] | None = None, **extra
) -> Artifact:
    """Commit an artifact with one file."""
    with store.draft(kind, stage=extra.pop("stage", "stage")) as draft:
        (draft.path / "data.txt").write_text(content)
        values = {"config": {}, "summary": SUMMARY, "code_version": "1"} | extra
        return draft.commit(inputs=inputs or {}, **values)


def chain(store: ArtifactStore) -> dict[str, Artifact]:
    """prompts -> completions -> preferences -> (reward_model, policy) -> eval -> release."""
    made: dict[str, Artifact] = {}
    steps = {
        "prompts": (), "completions": ("prompts",), "preferences": ("prompts", "completions"), "reward_model": ("preferences",),
        "policy": ("prompts", "reward_model"), "eval": ("policy", "prompts"), "release": ("policy", "reward_model", "eval"),
    }  # fmt: skip
    for kind, needs in steps.items():
        made[kind] = add(store, kind, inputs={need: made[need].id for need in needs})
    return made


def tree(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
