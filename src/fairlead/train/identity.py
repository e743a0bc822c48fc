"""What a checkpoint belongs to: the model that training started from, the data, the method with its settings, and the version.

A checkpoint goes on only where all of it is the same; else the resumed run would be neither the old one nor the new one.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fairlead import __version__
from fairlead.core.errors import shorten
from fairlead.text.packing import Tree

FORMAT = 2
"""Version of the files; raised when their meaning changes."""
_NUM_TREES = 4096  # of a large set so many are hashed, evenly spread: a changed template, length or file shows in them
_NUM_WEIGHTS = 64  # a parameter


def identity(
    algorithm: str, *, settings: Mapping[str, Any], parameters: Mapping[str, nn.Parameter], data: str
) -> dict[str, Any]:
    """Plain values for a checkpoint's state.

    Args:
        settings: what decides the numbers besides, as texts.
        parameters: all of them, by name, as they are before the first step.
        data: see `data_fingerprint`.
    """
    return {
        "format": FORMAT, "fairlead": __version__, "algorithm": algorithm, "settings": dict(settings), "data": data,
        "parameters": {name: list(p.shape) for name, p in parameters.items() if p.requires_grad},
        "start": _weights_fingerprint(parameters),
    }  # fmt: skip


def as_settings(*configs: Any, **others: object) -> dict[str, str]:
    """The fields of dataclasses, and further values, as texts that can be compared and shown."""
    found: dict[str, str] = {}
    for config in configs:
        found |= {field.name: repr(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return found | {name: repr(value) for name, value in others.items()}


def difference(found: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What a checkpoint belongs to that this run is not, in words; empty when they agree."""
    for name, what in (("format", "format"), ("fairlead", "version of fairlead"), ("algorithm", "algorithm")):
        if found.get(name) != own[name]:
            return f"its {what} is {shorten(found.get(name))}, that of this run is {own[name]}"
    if told := _parameters_difference(found["parameters"], own["parameters"]):
        return told
    if found["start"] != own["start"]:
        return "training started from a model with other weights"
    for name in sorted({*found["settings"], *own["settings"]}):
        old, new = found["settings"].get(name, "absent"), own["settings"].get(name, "absent")
        if old != new:
            return f"it was made with {name}={shorten(old)}, this run has {name}={shorten(new)}"
    return "it was trained on other data" if found["data"] != own["data"] else ""


def _parameters_difference(found: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]]) -> str:
    lost, added = [n for n in found if n not in own], [n for n in own if n not in found]
    for names, what in ((lost, "trains here no more"), (added, "trains here and not there")):
        if names:
            return f"{len(names)} of its parameters differ: {names[0]} {what}"
    for name, shape in found.items():
        if list(shape) != list(own[name]):
            return f"its parameter {name} has shape {list(shape)}, that of this run {list(own[name])}"
    return ""


def _weights_fingerprint(parameters: Mapping[str, nn.Parameter]) -> str:
    """A hash over some weights of every parameter, frozen ones too: other models have others, and large ones take no time."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        flat = parameter.detach().reshape(-1)
        few = flat[:: max(1, len(flat) // _NUM_WEIGHTS)].to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(few.numpy().data)
    return digest.hexdigest()[:32]


def data_fingerprint(trees: Sequence[Tree]) -> str:
    """A hash over the number of trees and the tokens, masks, ranks and weights of at most 4096 of them, evenly spread.

    What models computed for them (`ref_logprobs`) is left out: it follows from the rest.
    """
    digest = hashlib.sha256(str(len(trees)).encode())
    for i in np.linspace(0, len(trees) - 1, min(len(trees), _NUM_TREES)).round().astype(int).tolist():
        tree = trees[i]
        digest.update(
            f"tree {len(tree.prompt_ids)} {tree.ranks} {tree.targets} {sorted(tree.numbers.items())}".encode()
        )
        digest.update(np.ascontiguousarray(tree.prompt_ids).data)
        for branch in tree.branches:
            digest.update(f"branch {len(branch.token_ids)} {branch.weight}".encode())
            digest.update(np.ascontiguousarray(branch.token_ids).data)
            if branch.kept is not None:
                digest.update(np.packbits(branch.kept).data)
    return digest.hexdigest()[:32]


def text_fingerprint(texts: Iterable[str]) -> str:
    """The same for data that is a list of texts (prompts to sample from)."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()[:32]
