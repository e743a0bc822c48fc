"""All that a reward model says of completions: every output, the score that they make, and how far an ensemble's members disagree.

Legend: B completions in tree and branch order, M outputs.

Example:
    raw, spread = score_with_disagreement(model, trees, max_tokens=8192, heed=session.heed)
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairlead.models.heads import ScalarModel
from fairlead.text.packing import Layout, Tree
from fairlead.train.forward import score_trees

Outputs = npt.NDArray[np.float32]


class _AllOutputs:
    """A model that answers with all its outputs where its score is asked for."""

    def __init__(self, model: ScalarModel) -> None:
        self.model = model

    def scores(self, layout: Layout) -> Tensor:
        """[B, M]"""
        return self.model.outputs(layout)


def read_outputs(model: ScalarModel, trees: Sequence[Tree], *, max_tokens: int, heed: Callable[[], None]) -> Outputs:
    """[B, M] raw outputs without gradient; [0, M] without trees. `heed` as in `score_trees`."""
    if not trees:
        return np.zeros((0, model.head.out_features), dtype=np.float32)
    return score_trees(cast(ScalarModel, _AllOutputs(model)), trees, max_tokens=max_tokens, heed=heed)


def score_with_disagreement(
    model: ScalarModel, trees: Sequence[Tree], *, max_tokens: int, heed: Callable[[], None]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """[B] raw scores, and [B] disagreement in standard deviations of the members; None when the model is no ensemble."""
    readout = model.readout
    if readout is None or not readout.is_ensemble:
        return score_trees(model, trees, max_tokens=max_tokens, heed=heed), None
    outputs = torch.from_numpy(read_outputs(model, trees, max_tokens=max_tokens, heed=heed))
    scores = readout.scores(outputs, uncertainty_coef=model.uncertainty_coef)
    return scores.numpy(), readout.disagreement(outputs).numpy()
