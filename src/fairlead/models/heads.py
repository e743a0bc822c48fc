"""Scalar models: a transformer with one linear output, read at a completion's last token (rewards) or at every token (values).

Initialised N(0, 1/sqrt(hidden + 1)) for rewards (Huang et al. 2024, arXiv:2403.17031) and zero for values, no bias. A reward model
keeps the normalisation that was measured on reference samples; `score` applies it, training does not.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairlead.core.errors import ModelError, explain
from fairlead.models.load import CausalModel
from fairlead.text.packing import Layout

HEAD_FILE = "fairlead_head.safetensors"
CONFIG_FILE = "fairlead_head.json"


@dataclass(slots=True, eq=False)
class ScalarModel:
    """A causal model's backbone with a scalar head. Lifecycle as CausalModel."""

    base: CausalModel
    head: nn.Linear
    mean: float = 0.0
    """Of raw scores on reference samples."""
    std: float = 1.0
    facts: dict[str, float] = field(default_factory=dict[str, float])
    """Measured properties that later stages read: length_slope, accuracy, ..."""

    def values(self, layout: Layout) -> Tensor:
        """[K] value of the state in which each kept token is chosen (read at the position before it)."""
        hidden = self.base.hidden(layout)[torch.from_numpy(layout.kept_source).to(self.base.device)]
        return self._read(hidden)

    def scores(self, layout: Layout) -> Tensor:
        """[B] raw score of each completion, with gradient."""
        hidden = self.base.hidden(layout)[torch.from_numpy(layout.last_index).to(self.base.device)]
        return self._read(hidden)

    def _read(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.to(self.head.weight.dtype))[:, 0]

    def normalised(self, raw: Tensor) -> Tensor:
        """Scores in units of the reference samples' standard deviation, mean zero there."""
        return (raw - self.mean) / self.std

    def parameters(self) -> list[nn.Parameter]:
        """Everything that may be trained."""
        return [*self.base.module.parameters(), *self.head.parameters()]


def new_reward_head(base: CausalModel, *, seed: int) -> ScalarModel:
    """A fresh head whose scores start with unit variance per unit hidden norm."""
    return _new_head(base, std=(base.hidden_size + 1) ** -0.5, seed=seed)


def new_value_head(base: CausalModel) -> ScalarModel:
    """A head that starts at zero, so that the first advantages are the rewards."""
    return _new_head(base, std=0.0, seed=0)


def _new_head(base: CausalModel, *, std: float, seed: int) -> ScalarModel:
    weight = next(base.backbone.parameters())
    head = nn.Linear(base.hidden_size, 1, bias=False, device=weight.device, dtype=torch.float32)
    with torch.no_grad():
        noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight.copy_(noise * std)
    return ScalarModel(base=base, head=head)


def freeze_embeddings(base: CausalModel) -> int:
    """Take the input embeddings out of training; return how many parameters that are."""
    weight = base.causal_lm.get_input_embeddings().weight
    weight.requires_grad_(False)
    return weight.numel()


def save_head(model: ScalarModel, folder: Path) -> None:
    """Write head and normalisation beside the base model's files."""
    save_file({"weight": model.head.weight.detach().contiguous()}, folder / HEAD_FILE)
    config = {"mean": model.mean, "std": model.std, "facts": model.facts}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_head(base: CausalModel, folder: Path) -> ScalarModel:
    """Read back what `save_head` wrote."""
    if not (folder / HEAD_FILE).is_file():
        raise ModelError(
            explain(
                folder,
                None,
                f"has no {HEAD_FILE}",
                expected="a reward model made by fairlead",
                remedy="Name another folder",
            )
        )
    model = new_value_head(base)
    try:
        with torch.no_grad():
            model.head.weight.copy_(load_file(folder / HEAD_FILE)["weight"])
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        model.mean, model.std, model.facts = float(config["mean"]), float(config["std"]), dict(config["facts"])
    except (SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise ModelError(
            explain(
                folder,
                None,
                f"has a damaged head ({error})",
                expected="files written by fairlead",
                remedy="Train it again",
            )
        ) from error
    return model
