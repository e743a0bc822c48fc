"""Logprobs of a frozen reference, computed once for good: kept on disk by what they depend on, in shards, so that another run, another
beta or a killed run does not compute them again.

A shard's name is a hash of the model's weights, the tokens and masks of its rows, the temperature, the kind of device and the torch
version: a changed template, length, tokenizer or model changes the name. Files may be deleted at any time.

Example:
    trees = with_reference(trees, model, cache=home / "cache", max_tokens=8192, services=services, title="dpo: reference")
"""

import array
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fairlead.core.cache import mark_used, trim_folder
from fairlead.core.io import atomic_path
from fairlead.core.services import Services
from fairlead.models.load import CausalModel
from fairlead.text.columns import TreeView, hash_tree
from fairlead.text.packing import Tree
from fairlead.train.forward import PolicyLogprobs, annotate, with_array

SHARD_TREES = 256
"""Trees a file: a killed run loses at most the forward of these."""
_NAME = "ref_logprobs"


def with_reference(
    trees: Sequence[Tree], model: CausalModel, *, cache: Path | None, max_tokens: int, services: Services, title: str,
    temperature: float = 1.0,
) -> TreeView:  # fmt: skip
    """A view in which every branch has the `ref_logprobs` [K] (nats) of the model as it is.

    The values lie in one file of the work folder that has no name and ends with the process, mapped into memory, so that a data set of
    any size takes 8 bytes a tree.

    Args:
        cache: folder of shards; None computes everything.
    """
    values = _compute(trees, model, cache, max_tokens, services, title, temperature)
    return TreeView(trees, change=lambda tree, place: with_array(tree, _NAME, values.of(place)))


def with_mismatched_reference(
    trees: Sequence[Tree], model: CausalModel, *, cache: Path | None, max_tokens: int, services: Services, title: str
) -> TreeView:
    """A view in which the `mismatched` completions have `ref_logprobs`, computed and kept as those of `with_reference` are."""
    asides = TreeView(trees, change=lambda tree, _: _aside(tree))
    values = _compute(asides, model, cache, max_tokens, services, title, 1.0)

    def attach(tree: Tree, place: int) -> Tree:
        return replace(tree, mismatched=with_array(_aside(tree), _NAME, values.of(place)).branches)

    return TreeView(trees, change=attach)


def _aside(tree: Tree) -> Tree:
    """The prompt with its mismatched completions in place of its own."""
    return replace(tree, branches=tree.mismatched, ranks=(), mismatched=())


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """Numbers of many trees, one after the other."""

    numbers: np.ndarray
    starts: Sequence[int]

    def of(self, place: int) -> np.ndarray:
        """The numbers of one tree, a copy."""
        return np.array(self.numbers[self.starts[place] : self.starts[place + 1]])


def _compute(
    trees: Sequence[Tree], model: CausalModel, cache: Path | None, max_tokens: int, services: Services, title: str, temperature: float
) -> _Values:  # fmt: skip
    """Values of all branches, from the cache where it has them."""
    shards = _Shards(model, temperature, cache, max_tokens=max_tokens, heed=lambda: services.heed(title))
    starts = array.array("q", [0])
    services.work.mkdir(parents=True, exist_ok=True)
    with services.progress(title, len(trees)) as bar, tempfile.TemporaryFile(dir=services.work) as file:
        for start in range(0, len(trees), SHARD_TREES):
            services.heed(title)
            shard = list(trees[start : start + SHARD_TREES])
            file.write(shards.values(shard).data)
            for tree in shard:
                starts.append(starts[-1] + sum(b.num_kept for b in tree.branches))
            bar.advance(len(shard))
        file.flush()
        numbers = np.memmap(file, dtype=np.float32, mode="r") if starts[-1] else np.zeros(0, dtype=np.float32)
    shards.close()
    return _Values(numbers, starts)


class _Shards:
    """Values of shards of trees, kept on disk. Single-use."""

    def __init__(
        self, model: CausalModel, temperature: float, folder: Path | None, *, max_tokens: int, heed: Callable[[], None]
    ) -> None:
        self.folder, self.max_tokens, self.heed = folder, max_tokens, heed
        self.compute = PolicyLogprobs(model, temperature)
        self.salt = "" if folder is None else _salt(model, temperature)
        self.used: set[Path] = set()
        self.has_written = False

    def values(self, trees: Sequence[Tree]) -> np.ndarray:
        """[K] float32 of all branches, found or computed."""
        if self.folder is None:
            return self._forward(trees)
        path = self.folder / f"{_fingerprint(trees, self.salt)}.safetensors"
        self.used.add(path)
        found = _read(path, trees)
        if found is None:
            found = self._forward(trees)
            _write(path, found)
            self.has_written = True
        return found

    def _forward(self, trees: Sequence[Tree]) -> np.ndarray:
        found = annotate(trees, _NAME, self.compute, max_tokens=self.max_tokens, heed=self.heed)
        return np.concatenate([b.arrays[_NAME] for t in found for b in t.branches]).astype(np.float32)

    def close(self) -> None:
        """Make room for what was written."""
        if self.folder is not None and self.has_written:
            trim_folder(self.folder, "*.safetensors", keep=self.used)


def _salt(model: CausalModel, temperature: float) -> str:
    digest = hashlib.sha256(
        f"{temperature!r} {model.device.type} {model.arithmetic.precision} {torch.__version__}".encode()
    )
    for name, tensor in model.module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fingerprint(trees: Sequence[Tree], salt: str) -> str:
    digest = hashlib.sha256(salt.encode())
    for tree in trees:
        hash_tree(tree, digest.update)
    return digest.hexdigest()[:32]


def _read(path: Path, trees: Sequence[Tree]) -> np.ndarray | None:
    """The shard's values; None when it is not there, damaged, or of another size."""
    try:
        values = load_file(path)["logprobs"]
    except (OSError, SafetensorError, KeyError):
        return None
    if values.shape != (sum(b.num_kept for t in trees for b in t.branches),) or not np.isfinite(values).all():
        return None
    mark_used(path)
    return values


def _write(path: Path, values: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(save({"logprobs": values}))
