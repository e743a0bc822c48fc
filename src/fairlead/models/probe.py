"""A few tokens through a freshly loaded model: does it look back only, and does a plan of ours compute what the model computes?

A plan replaces what each layer's attention does, so it is right for the models that leave that to the attention function alone. What a
class and a config say about it is read first (`padded.why_padded`); what they do not say shows here, in six tokens.

    p0 p1 a0 a1      the model's own attention, a row for each completion: p0 and p1 must not depend on what follows
    p0 p1 b0 b1
    p0 p1 a0 a1 b0 b1      the same under a plan, in one row: must be the same numbers
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlead.text.packing import Branch, Layout, Tree, pack_trees

_PROMPT, _BRANCH = 2, 2


class Probe(NamedTuple):
    """The same six tokens twice."""

    rows: Tensor
    """[2, 4] token ids of padded rows."""
    layout: Layout
    """The tree in one row."""

    def is_causal(self, own: Tensor) -> bool:
        """Whether the prompt comes out the same before either completion, in [2, 4, H] hidden states."""
        return _is_near(own[0, :_PROMPT], own[1, :_PROMPT], tolerance=1e-4)

    def agrees(self, own: Tensor, planned: Tensor) -> bool:
        """Whether [6, H] hidden states of the one row are those of the two rows."""
        return _is_near(planned, torch.cat([own[0], own[1, _PROMPT:]]), tolerance=1e-3)


def make_probe(vocabulary: int) -> Probe:
    """Ordinary tokens, away from the special ones at either end."""
    ids = (vocabulary // 2 + np.arange(_PROMPT + 2 * _BRANCH)) % vocabulary
    prompt, first, second = ids[:_PROMPT], ids[_PROMPT : _PROMPT + _BRANCH], ids[_PROMPT + _BRANCH :]
    layout = pack_trees([Tree(prompt_ids=prompt, branches=(Branch(token_ids=first), Branch(token_ids=second)))])
    return Probe(torch.from_numpy(np.stack([np.r_[prompt, first], np.r_[prompt, second]])), layout)


def _is_near(found: Tensor, expected: Tensor, *, tolerance: float) -> bool:
    """In norm; in 16 bits kernels differ by percents over many layers, where a wrong mask is off by much of the whole."""
    if found.dtype not in (torch.float32, torch.float64):
        tolerance = 0.1
    found, expected = found.double(), expected.double()
    return bool((found - expected).norm() <= tolerance * expected.norm())
