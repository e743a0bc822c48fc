"""Weight averaging of reward models that started from one policy.

Models fine-tuned from the same start are linearly mode connected: the mean of their weights is a model too, as cheap as one of them,
and it remembers fewer wrong labels than the mean of their scores (Rame et al. 2024, WARM, arXiv:2401.12187).

Example:
    model = average_reward_models([first, second, third], device="cpu")
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fairlead.core.errors import ModelError, explain
from fairlead.models.heads import ScalarModel, load_head
from fairlead.models.load import load_policy


def average_reward_models(folders: Sequence[Path], *, device: str) -> ScalarModel:
    """The mean of trunks and heads, summed in float64; normalisation and facts are to be measured anew.

    Raises:
        ModelError: a model is an ensemble, or their weights differ in name or shape.
    """
    sums: dict[str, Tensor] = {}
    model: ScalarModel | None = None
    for folder in folders:
        model = load_head(load_policy(str(folder), device=device), folder)
        weights = _weights(model)
        if model.members or (sums and _shapes(weights) != _shapes(sums)):
            wrong = "is an ensemble" if model.members else f"differs in its weights from {folders[0]}"
            raise ModelError(explain(folder, None, wrong, expected="single reward models trained from one policy",
                                     remedy="Average models of one architecture and start"))  # fmt: skip
        for name, value in weights.items():
            sums[name] = sums[name] + value.double() if name in sums else value.double()
    assert model is not None, "there is nothing to average"
    with torch.no_grad():
        for name, value in _weights(model).items():
            value.copy_(sums[name] / len(folders))
    model.mean, model.std, model.facts = 0.0, 1.0, {}
    return model


def _weights(model: ScalarModel) -> dict[str, Tensor]:
    trunk = {
        f"base.{name}": value for name, value in model.base.module.state_dict().items() if value.is_floating_point()
    }
    return {**trunk, "head": model.head.weight}


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
