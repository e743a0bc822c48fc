"""Saving a policy as a plain transformers folder, and naming weights. What training goes on from is in `train.checkpoints`."""

import hashlib
from pathlib import Path
from typing import Any

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
