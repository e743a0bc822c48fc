"""The optimiser and its learning-rate schedule."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """AdamW with a warm-up and a decay."""

    learning_rate: float
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_share: float = 0.05
    """Share of all steps in which the rate rises linearly from 0."""
    final_share: float = 0.1
    """Rate at the last step as a share of the peak."""
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    """Adam's; 1e-5 in PPO's reference implementations (Huang et al. 2022)."""
    max_grad_norm: float = 1.0


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over what is trainable; matrices decay, vectors (norms, biases) do not."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                             eps=settings.eps, fused=True)  # fmt: skip


def learning_rate(settings: OptimizerSettings, step: int, num_steps: int) -> float:
    """Rate of step `step` (from 0) of `num_steps`."""
    warmup = math.ceil(settings.warmup_share * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, num_steps - 1 - warmup)
    shape = 1 - progress if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.final_share + (1 - settings.final_share) * shape)
