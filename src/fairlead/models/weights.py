"""The trainer's weights for an engine with parameters of its own: one tensor after another, adapters added in on the way.

Example:
    engine.update_weights(PolicyWeights(policy), version=7)
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairlead.core.errors import EngineError, explain
from fairlead.models.adapters import has_adapter
from fairlead.models.load import CausalModel

_BASE = ".base_layer."
"""What peft puts into the names of the layers that it wraps."""


class PolicyWeights:
    """Implements WeightSource. Reads the model as it is when it is iterated; the model's own tensors are never written."""

    def __init__(self, model: CausalModel) -> None:
        self.model = model

    @torch.no_grad()
    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights by the names of the plain model, in layer order; of an adapted layer what it amounts to, made anew each time.

        Raises:
            EngineError: an adapter sits on something else than a layer with one weight (experts stacked in one tensor).
        """
        layers = {name: layer for name, layer in self.model.causal_lm.named_modules() if hasattr(layer, "base_layer")}
        for name, parameter in self.model.causal_lm.named_parameters():
            owner, is_wrapped, rest = name.partition(_BASE)
            if not is_wrapped:
                if not any(name.startswith(f"{layer}.") for layer in layers):  # else it belongs to an adapter
                    yield name, parameter.detach()
                continue
            if rest not in ("weight", "bias"):
                raise EngineError(explain("training.lora.target_modules", owner, "is no layer of one weight, so the engine cannot be given what it "
                                          "amounts to", expected="linear layers", remedy="Name the layers of attention alone, or use the "
                                          "local engine"))  # fmt: skip
            yield f"{owner}.{rest}", _amounts_to(layers[owner]) if rest == "weight" else parameter.detach()

    def write_adapter(self, folder: Path) -> bool:
        """Write the adapter alone as peft does, and say whether there is one."""
        if not has_adapter(self.model):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice on tied heads, of which the adapter holds nothing
            module: Any = self.model.module
            module.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        return True


def _amounts_to(layer: Any) -> Tensor:
    """[out, in] of an adapted layer, by peft's own rule for its kind, worked out on a copy."""
    weight = layer.base_layer.weight
    own = weight.data
    weight.data = own.clone()
    try:
        layer.merge()
        return weight.data
    finally:
        weight.data = own
        layer.merged_adapters.clear()
