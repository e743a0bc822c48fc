"""Logprobs of a frozen reference, computed once for good: kept on disk by what they depend on, in shards, so that another run, another
beta or a killed run does not compute them again.

A shard's name is a hash of the model's weights and config, how it computes (code, precision, padded rows, kind of device, versions of torch
and transformers), the temperature, and the tokens and masks of its rows: a changed template, length, tokenizer or model changes the
name. Files may be deleted at any time.

Example:
    reference = Reference(model, cache=home / "cache", max_tokens=8192, services=services, title="dpo: reference")
    trees = reference.annotate(trees)
"""

import array
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fairlead import models
from fairlead.core.cache import mark_used, trim_folder
from fairlead.core.io import atomic_path
from fairlead.core.services import Services
from fairlead.models.load import CausalModel
from fairlead.store.code_version import hash_source
from fairlead.text.columns import TreeView, hash_tree
from fairlead.text.packing import Tree
from fairlead.train.forward import PolicyLogprobs, annotate, with_array

SHARD_TREES = 256
"""Trees a file: a killed run loses at most the forward of these."""
_NAME = "ref_logprobs"
_INERT = frozenset(
    {"_name_or_path", "name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures", "use_cache"}
)
"""Keys of a config that change no number; the dtype of the weights is part of their hash."""


class Reference:
    """A model whose logprobs are kept. It must not change meanwhile, for its weights are hashed once. Not thread-safe.

    Values lie in files of the work folder that have no name and end with the process, mapped into memory, so that a data set of any size
    takes 8 bytes a tree.

    Args:
        cache: folder of shards; None computes everything.
    """

    def __init__(
        self, model: CausalModel, *, cache: Path | None, max_tokens: int, services: Services, title: str, temperature: float = 1.0
    ) -> None:  # fmt: skip
        self._compute = PolicyLogprobs(model, temperature)
        self._cache, self._max_tokens, self._services, self._title = cache, max_tokens, services, title
        self._salt = "" if cache is None else _salt(model, temperature)

    def annotate(self, trees: Sequence[Tree]) -> TreeView:
        """A view in which every branch has its `ref_logprobs` [K] (nats)."""
        values = self._values(trees)
        return TreeView(trees, change=lambda tree, place: with_array(tree, _NAME, values.of(place)))

    def annotate_mismatched(self, trees: Sequence[Tree]) -> TreeView:
        """A view in which the `mismatched` completions have `ref_logprobs`, and the branches are as they were."""
        values = self._values(TreeView(trees, change=lambda tree, _: _aside(tree)))

        def attach(tree: Tree, place: int) -> Tree:
            return replace(tree, mismatched=with_array(_aside(tree), _NAME, values.of(place)).branches)

        return TreeView(trees, change=attach)

    def _values(self, trees: Sequence[Tree]) -> "_Values":
        """Values of all branches, from the cache where it has them."""
        services, title = self._services, self._title
        shards = _Shards(
            self._compute, self._cache, self._salt, max_tokens=self._max_tokens, heed=lambda: services.heed(title)
        )
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


class _Shards:
    """Values of shards of trees, kept on disk. Single-use."""

    def __init__(
        self, compute: PolicyLogprobs, folder: Path | None, salt: str, *, max_tokens: int, heed: Callable[[], None]
    ) -> None:
        self.compute, self.folder, self.salt, self.max_tokens, self.heed = compute, folder, salt, max_tokens, heed
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
    how = (temperature, model.device.type, model.arithmetic.precision, model.why_padded, _config(model), torch.__version__,
           transformers.__version__, _forward_code())  # fmt: skip
    digest = hashlib.sha256(repr(how).encode())
    for name, tensor in model.module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _config(model: CausalModel) -> str:
    """What the config says beyond the weights (rope base, epsilon, window, caps), without where it was loaded from and how it was saved."""
    found = {k: v for k, v in model.config.to_dict().items() if k not in _INERT}
    return json.dumps(found, sort_keys=True, default=repr)


@functools.cache
def _forward_code() -> str:
    """Of the package whose code the forward is."""
    return hash_source(Path(models.__file__).parent)


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
