"""Saving: a policy as a plain transformers folder, and a training checkpoint (weights, optimiser, random state) without pickle.

Tensors go to safetensors, everything else to JSON. A checkpoint appears whole or not at all, after a power cut too: it is written
beside, synced to disk, and renamed.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairlead.core.errors import ModelError, explain
from fairlead.core.io import sync_file, sync_folder
from fairlead.models.adapters import merged
from fairlead.models.load import CausalModel


def save_policy(model: CausalModel, tokenizer: Any, folder: Path) -> None:
    """Write a model folder that transformers loads by itself (an adapter is merged in)."""
    lm = merged(model).causal_lm
    folder.mkdir(parents=True, exist_ok=True)
    own = lm.config._attn_implementation
    lm.config._attn_implementation = None  # a saved folder must load where fairlead is not installed
    try:
        lm.save_pretrained(folder, safe_serialization=True)
    finally:
        lm.config._attn_implementation = own
    tokenizer.save_pretrained(folder)


def weights_name(folder: Path) -> str:
    """A name that says which weights a folder holds, and nothing else: the same weights have it wherever and whenever they were made."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"weights-{digest.hexdigest()[:16]}"


def save_checkpoint(folder: Path, *, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint at `folder` by this one. Killed at any moment, it leaves the old one or the new one.

    Once it returns, the new one is on disk and not only in the system's memory.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):  # drafts of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, draft / "tensors.safetensors")
        (draft / "state.json").write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        for file in draft.iterdir():
            sync_file(file)
        sync_folder(draft)
        old = folder.with_name(folder.name + ".old")
        if folder.exists():  # else `.old` is the only checkpoint there is
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        draft.rename(folder)
        sync_folder(folder.parent)  # before the old one goes
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint at `folder`, the one that was being replaced when the process died, or None."""
    for place in (folder, folder.with_name(folder.name + ".old")):
        if (place / "state.json").is_file():
            try:
                state = json.loads((place / "state.json").read_text(encoding="utf-8"))
                return load_file(place / "tensors.safetensors"), state
            except Exception as error:  # safetensors raises its own kinds for a damaged file
                raise ModelError(explain(place, None, f"is damaged ({error})", expected="a checkpoint written by fairlead",
                                         remedy="Delete the folder to start the stage again")) from error  # fmt: skip
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimiser state as named tensors (`index/name`)."""
    states = optimizer.state_dict()["state"]
    return {f"{i}/{k}": torch.as_tensor(v) for i, row in states.items() for k, v in row.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
