"""Rollouts that wait to be trained on: the rounds that were sampled, the one that is partly consumed, and how old they may become.

    engine --(max_staleness + 1 rounds at once)--> buffer --(oldest first)--> epochs of optimiser steps

A round that was sampled at policy version v is trained on at version v + max_staleness at the latest; with 0 every round is sampled by the
policy that it trains. The buffer is part of every checkpoint, so a killed run goes on in the middle of a round.

Example:
    buffer = RolloutBuffer(max_staleness=0)
    buffer.add(rounds)
    plain, tensors = buffer.state()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.text.packing import Branch, Tree, join_choices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """One round's completions, ready to train on."""

    trees: list[Tree]
    """A prompt with its completions each, all completions the policy's own."""
    metrics: dict[str, float]
    kl_per_sequence: float
    """Mean nats, what the adaptive controller looks at."""
    policy_version: int
    """Of the policy that wrote them."""

    @property
    def num_completions(self) -> int:
        """Of all prompts."""
        return sum(len(tree.branches) for tree in self.trees)


@dataclass(slots=True, eq=False)
class RolloutBuffer:
    """Rounds in the order in which they are trained on. Not thread-safe."""

    max_staleness: int = 0
    rounds: list[Round] = field(default_factory=list[Round])

    @property
    def num_wanted(self) -> int:
        """Rounds to sample now, all by one policy: none while some wait, else as many as may wait."""
        return 0 if self.rounds else self.max_staleness + 1

    def add(self, rounds: Sequence[Round]) -> None:
        """Put new rounds behind those that wait."""
        self.rounds += rounds

    def first(self, *, policy_version: int) -> Round:
        """The round to train on now; it stays until `drop_first`.

        Args:
            policy_version: of the policy that is trained.
        """
        staleness = policy_version - self.rounds[0].policy_version
        assert 0 <= staleness <= self.max_staleness, (
            f"a round of staleness {staleness} where {self.max_staleness} is allowed"
        )
        return self.rounds[0]

    def drop_first(self) -> None:
        """That round is consumed."""
        del self.rounds[0]

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Plain values (JSON) and tensors by name for a checkpoint."""
        plain: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for i, waiting in enumerate(self.rounds):
            tensors |= {f"buffer.{i}.{name}": torch.from_numpy(x) for name, x in _flatten(waiting.trees).items()}
            plain.append(
                {
                    "metrics": waiting.metrics,
                    "kl_per_sequence": waiting.kl_per_sequence,
                    "policy_version": waiting.policy_version,
                }
            )
        return plain, tensors

    def load_state(self, plain: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.rounds = []
        for i, row in enumerate(plain):
            prefix = f"buffer.{i}."
            flat = {name.removeprefix(prefix): x.numpy() for name, x in tensors.items() if name.startswith(prefix)}
            self.rounds.append(Round(trees=_unflatten(flat), metrics=dict(row["metrics"]), kl_per_sequence=float(row["kl_per_sequence"]),
                                     policy_version=int(row["policy_version"])))  # fmt: skip


def even_parts(trees: Sequence[Tree], *, size: int) -> list[list[Tree]]:
    """Consecutive parts of about `size` completions each, as even as whole trees allow; as many as full ones would be."""
    total = sum(len(tree.branches) for tree in trees)
    num_parts = -(-total // size)
    parts: list[list[Tree]] = [[] for _ in range(num_parts)]
    before = 0
    for tree in trees:
        num = len(tree.branches)
        parts[(2 * before + num) * num_parts // (2 * total)].append(tree)  # the part that holds its middle
        before += num
    return [part for part in parts if part]


_Arrays = dict[str, npt.NDArray[Any]]
_ARRAY = "array."


def _flatten(trees: Sequence[Tree]) -> _Arrays:
    """Trees as a few long arrays. Branches keep all their tokens or name those that they keep; ranks and ratings have no place here."""
    branches = [branch for tree in trees for branch in tree.branches]
    kept = [np.ones(len(b.token_ids), dtype=np.bool_) if b.kept is None else b.kept for b in branches]
    found: _Arrays = {
        "prompt_sizes": np.array([len(tree.prompt_ids) for tree in trees], dtype=np.int64),
        "prompt_ids": np.concatenate([tree.prompt_ids for tree in trees]).astype(np.int64),
        "num_branches": np.array([len(tree.branches) for tree in trees], dtype=np.int64),
        "sizes": np.array([len(b.token_ids) for b in branches], dtype=np.int64),
        "token_ids": np.concatenate([b.token_ids for b in branches]).astype(np.int64),
        "kept": np.concatenate(kept).astype(np.uint8),
        "weights": np.array([b.weight for b in branches], dtype=np.float64),
    }
    choices = [b.choices for b in branches if b.choices is not None]
    if choices:
        found["choices"] = join_choices(choices)
    for name in branches[0].arrays:
        found[_ARRAY + name] = np.concatenate([b.arrays[name] for b in branches]).astype(np.float32)
    return found


def _unflatten(flat: Mapping[str, npt.NDArray[Any]]) -> list[Tree]:
    prompts = np.split(flat["prompt_ids"], np.cumsum(flat["prompt_sizes"])[:-1])
    cuts = np.cumsum(flat["sizes"])[:-1]
    token_ids, kept = np.split(flat["token_ids"], cuts), np.split(flat["kept"].astype(np.bool_), cuts)
    ends = np.cumsum([int(k.sum()) for k in kept])[:-1]
    choices = np.split(flat["choices"], ends) if "choices" in flat else [None] * len(token_ids)
    arrays = {name.removeprefix(_ARRAY): np.split(x, ends) for name, x in flat.items() if name.startswith(_ARRAY)}
    branches = [
        Branch(token_ids=token_ids[i], kept=None if kept[i].all() else kept[i], weight=float(flat["weights"][i]), choices=choices[i],
               arrays={name: pieces[i] for name, pieces in arrays.items()})
        for i in range(len(token_ids))
    ]  # fmt: skip
    starts = np.concatenate([[0], np.cumsum(flat["num_branches"])]).tolist()
    return [
        Tree(prompt_ids=prompt, branches=tuple(branches[start:end]))
        for prompt, start, end in zip(prompts, starts[:-1], starts[1:], strict=True)
    ]
