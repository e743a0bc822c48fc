"""Logprobs of a frozen reference, computed once for good: kept on disk by what they depend on, in shards, so that another run, another
beta or a killed run does not compute them again.

A shard's name is a hash of the model's weights, the tokens and masks of its rows, the temperature, the kind of device and the torch
version: a changed template, length, tokenizer or model changes the name. Files may be deleted at any time.

Example:
    trees = with_reference(trees, model, cache=home / "cache", max_tokens=8192, services=services, title="dpo: reference")
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fairlead.core.io import atomic_path
from fairlead.core.services import Services
from fairlead.models.load import CausalModel
from fairlead.text.packing import Tree
from fairlead.train.forward import PolicyLogprobs, annotate, with_array

SHARD_TREES = 256
"""Trees a file: a killed run loses at most the forward of these."""
MAX_BYTES = 2 << 30
"""Oldest files beyond this are deleted after a run has written new ones."""


def with_reference(
    trees: Sequence[Tree], model: CausalModel, *, cache: Path | None, max_tokens: int, services: Services, title: str,
    temperature: float = 1.0,
) -> list[Tree]:  # fmt: skip
    """Attach `ref_logprobs` [K] (nats) of the model as it is to every branch.

    Args:
        cache: folder of shards; None computes everything.
    """
    compute = PolicyLogprobs(model, temperature)
    salt = "" if cache is None else _salt(model, temperature)
    done: list[Tree] = []
    num_written = 0
    with services.progress(title, len(trees)) as bar:
        for start in range(0, len(trees), SHARD_TREES):
            services.heed(title)
            shard = trees[start : start + SHARD_TREES]
            path = None if cache is None else cache / f"{_fingerprint(shard, salt)}.safetensors"
            values = None if path is None else _read(path, shard)
            if values is None:
                found = annotate(
                    shard, "ref_logprobs", compute, max_tokens=max_tokens, heed=lambda: services.heed(title)
                )
                if path is not None:
                    _write(path, found)
                    num_written += 1
                done += found
            else:
                ends = np.cumsum([sum(b.num_kept for b in t.branches) for t in shard])
                done += [
                    with_array(t, "ref_logprobs", part)
                    for t, part in zip(shard, np.split(values, ends[:-1]), strict=True)
                ]
            bar.advance(len(shard))
    if cache is not None and num_written:
        _trim(cache)
    return done


def _salt(model: CausalModel, temperature: float) -> str:
    digest = hashlib.sha256(f"{temperature!r} {model.device.type} {torch.__version__}".encode())
    for name, tensor in model.module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fingerprint(trees: Sequence[Tree], salt: str) -> str:
    digest = hashlib.sha256(salt.encode())
    for tree in trees:
        digest.update(f"tree {len(tree.prompt_ids)} {len(tree.branches)}".encode())
        digest.update(np.ascontiguousarray(tree.prompt_ids).data)
        for branch in tree.branches:
            kept = np.ones(len(branch.token_ids), dtype=bool) if branch.kept is None else branch.kept
            digest.update(f"branch {len(branch.token_ids)}".encode())
            digest.update(np.ascontiguousarray(branch.token_ids).data)
            digest.update(np.packbits(kept).data)
    return digest.hexdigest()[:32]


def _read(path: Path, trees: Sequence[Tree]) -> np.ndarray | None:
    """The shard's values; None when it is not there, damaged, or of another size."""
    try:
        values = load_file(path)["logprobs"]
    except (OSError, SafetensorError, KeyError):
        return None
    if values.shape != (sum(b.num_kept for t in trees for b in t.branches),) or not np.isfinite(values).all():
        return None
    path.touch()
    return values


def _write(path: Path, trees: Sequence[Tree]) -> None:
    values = np.concatenate([b.arrays["ref_logprobs"] for t in trees for b in t.branches]).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save({"logprobs": values}))


def _trim(folder: Path) -> None:
    """Delete the files that were used least recently until the folder is small enough."""
    files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob("*.safetensors"))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= MAX_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
