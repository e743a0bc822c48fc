"""Scalar models: a transformer with one linear output, read at a completion's last token (rewards) or at every token (values).

A reward model may have several outputs, which a `Readout` turns into one score: attributes, heads of an ensemble on one trunk, or the
members of an ensemble with a trunk each (`member-1`, `member-2`, ... inside the first one's folder).

Initialised N(0, 1/sqrt(hidden + 1)) for rewards (Huang et al. 2024, arXiv:2403.17031) and zero for values, no bias. A reward model
keeps the normalisation that was measured on reference samples; `score` applies it, training does not.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairlead.core.errors import ModelError, explain
from fairlead.models.load import CausalModel, load_policy
from fairlead.text.packing import Layout

HEAD_FILE = "fairlead_head.safetensors"
CONFIG_FILE = "fairlead_head.json"


MEMBER_FOLDER = "member-{}"
"""Where the further trunks of an ensemble lie inside the folder of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """How M outputs become one score: score = sum_m weight_m z_m with z_m = (output_m - mean_m) / std_m.

    Outputs are the members of an ensemble or the attributes of a completion.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    weights: tuple[float, ...]
    is_ensemble: bool
    """True when all outputs estimate the same thing, so that their spread is a disagreement."""

    def normalised(self, outputs: Tensor) -> Tensor:
        """[B, M] outputs in units of their own standard deviation."""
        return (outputs - outputs.new_tensor(self.means)) / outputs.new_tensor(self.stds)

    def scores(self, outputs: Tensor, *, uncertainty_coef: float = 0.0) -> Tensor:
        """[B] weighted sum, less `uncertainty_coef` times the disagreement."""
        total = self.normalised(outputs) @ outputs.new_tensor(self.weights)
        return total - uncertainty_coef * self.disagreement(outputs) if uncertainty_coef else total

    def disagreement(self, outputs: Tensor) -> Tensor:
        """[B] standard deviation of the normalised outputs over the members (divided by their number)."""
        return self.normalised(outputs).std(dim=1, correction=0)


def even_readout(names: Sequence[str]) -> Readout:
    """The mean of the members of an ensemble, before they were normalised."""
    size = len(names)
    return Readout(
        names=tuple(names), means=(0.0,) * size, stds=(1.0,) * size, weights=(1 / size,) * size, is_ensemble=True
    )


@dataclass(slots=True, eq=False)
class ScalarModel:
    """A causal model's backbone with a scalar head. Lifecycle as CausalModel.

    Invariant: without a readout there is one output, and it is the score.
    """

    base: CausalModel
    head: nn.Linear
    mean: float = 0.0
    """Of raw scores on reference samples."""
    std: float = 1.0
    facts: dict[str, float] = field(default_factory=dict[str, float])
    """Measured properties that later stages read: length_slope, accuracy, ..."""
    readout: Readout | None = None
    """None for one output."""
    members: tuple["ScalarModel", ...] = ()
    """Further trunks of an ensemble; their outputs follow this one's."""
    uncertainty_coef: float = 0.0
    """Score taken off a unit of the members' disagreement; set by who reads scores, not saved."""

    def values(self, layout: Layout) -> Tensor:
        """[K] value of the state in which each kept token is chosen (read at the position before it)."""
        return self.read_values(self.base.kept_hidden(layout))

    def read_values(self, hidden: Tensor) -> Tensor:
        """[K] values from `kept_hidden` of its trunk."""
        return self._read(hidden)[:, 0]

    def outputs(self, layout: Layout) -> Tensor:
        """[B, M] what every output says of each completion, with gradient; one column for a plain reward model."""
        hidden = self.base.hidden(layout)[torch.from_numpy(layout.last_index).to(self.base.device, non_blocking=True)]
        own = self._read(hidden)
        return torch.cat([own, *(member.outputs(layout) for member in self.members)], dim=1) if self.members else own

    def scores(self, layout: Layout) -> Tensor:
        """[B] raw score of each completion, with gradient."""
        outputs = self.outputs(layout)
        if self.readout is None:
            return outputs[:, 0]
        return self.readout.scores(outputs, uncertainty_coef=self.uncertainty_coef)

    def _read(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.to(self.head.weight.dtype))

    def normalised(self, raw: Tensor) -> Tensor:
        """Scores in units of the reference samples' standard deviation, mean zero there."""
        return (raw - self.mean) / self.std

    def parameters(self) -> list[nn.Parameter]:
        """Everything that may be trained."""
        return [*self.base.module.parameters(), *self.head.parameters()]


def new_reward_head(base: CausalModel, *, seed: int, num_outputs: int = 1) -> ScalarModel:
    """A fresh head whose outputs start with unit variance per unit hidden norm. With several, set `readout`."""
    return _new_head(base, std=(base.hidden_size + 1) ** -0.5, seed=seed, num_outputs=num_outputs)


def new_value_head(base: CausalModel) -> ScalarModel:
    """A head that starts at zero, so that the first advantages are the rewards. On the policy's own trunk where that is `base`."""
    return _new_head(base, std=0.0, seed=0, num_outputs=1)


def _new_head(base: CausalModel, *, std: float, seed: int, num_outputs: int) -> ScalarModel:
    weight = next(base.backbone.parameters())
    head = nn.Linear(base.hidden_size, num_outputs, bias=False, device=weight.device, dtype=torch.float32)
    with torch.no_grad():
        noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight.copy_(noise * std)
    return ScalarModel(base=base, head=head)


def save_head(model: ScalarModel, folder: Path) -> None:
    """Write head and normalisation beside the base model's files. Members are saved by themselves, in MEMBER_FOLDER."""
    save_file({"weight": model.head.weight.detach().contiguous()}, folder / HEAD_FILE)
    config: dict[str, Any] = {"mean": model.mean, "std": model.std, "facts": model.facts}
    if model.readout is not None:
        num_members = 1 + len(model.readout.names) - model.head.out_features
        config |= {"readout": dataclasses.asdict(model.readout), "num_members": num_members}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_head(base: CausalModel, folder: Path) -> ScalarModel:
    """Read back what `save_head` wrote, with the members of an ensemble."""
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
    try:
        weight = load_file(folder / HEAD_FILE)["weight"]
        model = _new_head(base, std=0.0, seed=0, num_outputs=weight.shape[0])
        with torch.no_grad():
            model.head.weight.copy_(weight)
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        model.mean, model.std, model.facts = float(config["mean"]), float(config["std"]), dict(config["facts"])
        if "readout" in config:
            model.readout = _readout(config["readout"])
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        raise ModelError(
            explain(
                folder,
                None,
                f"has a damaged head ({error})",
                expected="files written by fairlead",
                remedy="Train it again",
            )
        ) from error
    model.members = tuple(_member(base, folder, i) for i in range(1, int(config.get("num_members", 1))))
    return model


def _readout(data: dict[str, Any]) -> Readout:
    lists = {name: tuple(data[name]) for name in ("names", "means", "stds", "weights")}
    if len({len(values) for values in lists.values()}) != 1:
        raise ValueError("readout names, means, stds and weights differ in length")
    return Readout(**lists, is_ensemble=bool(data["is_ensemble"]))


def _member(base: CausalModel, folder: Path, number: int) -> ScalarModel:
    place = folder / MEMBER_FOLDER.format(number)
    dtype = next(base.backbone.parameters()).dtype
    member = load_head(load_policy(str(place), dtype=dtype, device=str(base.device)), place)
    member.base.module.requires_grad_(False)
    return member
