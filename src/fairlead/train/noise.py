"""NEFTune (Jain et al. 2023, arXiv:2310.05914): uniform noise on the input embeddings while a policy is fine-tuned.

    x + alpha / sqrt(L d) * u,    u ~ U(-1, 1) for each of the L tokens and d dimensions of a conversation

The noise of a conversation is a function of (run seed, step, its tokens): micro-batches, their order and a resume do not change it. Two
equal conversations of one batch get the same.
"""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlead.models import padded
from fairlead.models.load import CausalModel
from fairlead.text.packing import Layout, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Neftune:
    """Settings of the noise."""

    alpha: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingNoise:
    """The noise of one step."""

    settings: Neftune
    step: int

    def of(self, tree: Tree, *, width: int, device: torch.device) -> Tensor:
        """[L, d] for the tokens of a tree in the order of a row, fp32."""
        ids = np.concatenate([tree.prompt_ids, *(b.token_ids for b in tree.branches)])
        words = (self.settings.seed, self.step, zlib.crc32(np.ascontiguousarray(ids).tobytes()))
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator(device).manual_seed(seed)
        uniform = torch.empty(len(ids), width, device=device).uniform_(-1, 1, generator=generator)
        return uniform * (self.settings.alpha / (len(ids) * width) ** 0.5)


@contextlib.contextmanager
def noisy_embeddings(
    model: CausalModel, noise: EmbeddingNoise | None, *, trees: Sequence[Tree], layout: Layout
) -> Iterator[None]:
    """One forward over these trees with noise on what the embedding layer gives; without noise nothing happens."""
    if noise is None:
        yield
        return
    table = model.causal_lm.get_input_embeddings()
    flat = torch.cat([noise.of(t, width=table.weight.shape[1], device=model.device) for t in trees])
    if model.why_padded is not None:
        rows = padded.plan_rows(layout)
        places = flat.new_zeros(sum(ids.size for ids in rows.token_ids), flat.shape[1])
        flat = places.index_copy_(0, torch.from_numpy(rows.home).to(flat.device), flat)
    start = 0

    def add(_table: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        nonlocal start
        part = flat[start : start + output[..., 0].numel()]
        start += len(part)
        return output + part.view(output.shape).to(output.dtype)

    handle = table.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    assert start == len(flat), f"noise for {len(flat)} tokens, of which {start} were embedded"
