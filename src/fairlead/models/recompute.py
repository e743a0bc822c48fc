"""Activation checkpointing: the inside of a layer is not kept for the backward but computed again there, in about a third more time.

Only the layers themselves are switched to training, where transformers looks for the flag; everything inside them stays as
it was, so dropout stays off and the second forward is the first, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from fairlead.core.errors import ConfigError, explain
from fairlead.models.load import CausalModel


def recompute_activations(model: CausalModel) -> int:
    """Keep only the inputs of each layer from here on; return the number of layers.

    Raises:
        ConfigError: the architecture has no layers that can be computed again.
    """
    layers = [module for module in model.causal_lm.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(explain("training.activation_checkpointing", True, f"has no layers to work on in {model.config.model_type}",
                                  expected="an architecture with checkpointed layers", remedy="Set it to false"))  # fmt: skip
    for layer in layers:
        layer.training = True
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _run_again  # pyright: ignore[reportArgumentType]
        for name, value in vars(layer).items():
            if isinstance(value, float) and "dropout" in name:  # some layers apply it themselves, by this flag
                setattr(layer, name, 0.0)
    return len(layers)


def _run_again(function: Callable[..., Any], *inputs: Any) -> Any:
    """No random numbers are drawn in a layer, so their state is not kept."""
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
