"""The optimisers by name, the groups that they treat apart, and their learning-rate schedule.

adamw        torch, fused
adamw_8bit   torchao: both moments of large tensors in 8 bits by blocks of 256 (Dettmers et al. 2022, arXiv:2110.02861)
muon         torch: weights of linear layers by orthogonalised momentum (Jordan et al. 2024), the rest by AdamW
adafactor    torch: second moments of a matrix as one row and one column (Shazeer and Stern 2018, arXiv:1804.04235)
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fairlead.core.errors import ConfigError, explain

OptimizerKind = Literal["adamw", "adamw_8bit", "muon", "adafactor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """An optimiser with a warm-up and a decay of its rate."""

    learning_rate: float
    optimizer: OptimizerKind = "adamw"
    muon_learning_rate: float | None = None
    """Peak rate of the matrices that Muon steps; None takes learning_rate."""
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


@dataclass(slots=True, eq=False)
class OptimizerSet:
    """One optimiser, or several that share a model's parameters, under one schedule. Not thread-safe."""

    settings: OptimizerSettings
    parts: tuple[torch.optim.Optimizer, ...]
    rate_factor: float = 1.0
    """Every rate of the schedule is multiplied by it; part of a checkpoint."""

    def step(self, number: int, *, num_steps: int) -> float:
        """Make step `number` (from 0) of `num_steps`; returns the rate of it (of Muon's companion where there are two)."""
        settings = self.settings
        rate = learning_rate(settings, number, num_steps) * self.rate_factor
        for part in self.parts:
            own = rate
            if isinstance(part, torch.optim.Muon) and settings.muon_learning_rate is not None:
                muon = replace(settings, learning_rate=settings.muon_learning_rate)
                own = learning_rate(muon, number, num_steps) * self.rate_factor
            for group in part.param_groups:
                _set_rate(group, own)
            with _stance(part, settings):
                part.step()
            # Fused optimisers write without telling autograd, by which low-precision copies know that they are old.
            torch.autograd.graph.increment_version([p for group in part.param_groups for p in group["params"]])
        return rate

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)


def make_optimizers(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings, *, hidden: Collection[int] = ()
) -> OptimizerSet:
    """The optimiser over what is trainable; matrices decay, vectors (norms, biases) do not.

    Args:
        hidden: `id` of the parameters that Muon may step; see `hidden_matrices`.
    Raises:
        ConfigError: the package of this optimiser is not installed, or Muon finds no matrix.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if settings.optimizer == "adamw":
        return OptimizerSet(settings, (_adamw(trainable, settings),))
    if settings.optimizer == "adamw_8bit":
        return OptimizerSet(settings, (_adamw_8bit(trainable, settings),))
    if settings.optimizer == "adafactor":
        return OptimizerSet(settings, (torch.optim.Adafactor(_groups(trainable, settings), lr=settings.learning_rate),))
    matrices = [p for p in trainable if id(p) in hidden]
    others = [p for p in trainable if id(p) not in hidden]
    if not matrices:
        raise ConfigError(explain("training.optimizer", "muon", "finds no hidden matrix that is trained", expected="a linear layer",
                                  remedy="Use adamw, or freeze less"))  # fmt: skip
    # Updates have the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2), so that one rate fits both.
    muon = torch.optim.Muon(
        matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return OptimizerSet(settings, (muon, _adamw(others, settings)) if others else (muon,))


def hidden_matrices(causal_lm: Any) -> set[int]:
    """`id` of the weights of a transformers model's linear layers, the language-model head (and an embedding tied to one) left out.

    Only what multiplies hidden states counts. Other 2-D parameters are tables (Mamba's A_log, the biases of stacked experts), and
    routers that are no linear layer and stacked experts stay with AdamW too.
    """
    tables = [m for m in causal_lm.modules() if isinstance(m, nn.Embedding)]
    outer = {id(p) for module in (*tables, causal_lm.get_output_embeddings()) for p in module.parameters()}
    layers = [m for m in causal_lm.modules() if isinstance(m, (nn.Linear, Conv1D))]
    return {id(m.weight) for m in layers} - outer


def _groups(parameters: list[nn.Parameter], settings: OptimizerSettings) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def _adamw(parameters: list[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(parameters, settings), lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                             eps=settings.eps, fused=True)  # fmt: skip


def _adamw_8bit(parameters: list[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    try:
        with _quiet():
            from torchao.optim import AdamW8bit  # pyright: ignore[reportMissingImports] # optional, 1 s to import
    except ImportError as error:
        raise ConfigError(explain("training.optimizer", "adamw_8bit", "needs the package torchao", expected="an installed torchao",
                                  remedy='Run pip install "fairlead[eight-bit]", or use adafactor, which is as small')) from error  # fmt: skip
    return AdamW8bit(_groups(parameters, settings), lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                     eps=settings.eps, weight_decay=0.0)  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torchao tells of kernels for other machines while it is imported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):  # torchao's, whose compiled step would else be compiled again for each rate
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _stance(part: torch.optim.Optimizer, settings: OptimizerSettings) -> contextlib.AbstractContextManager[Any]:
    """torchao compiles its step. On a CPU that takes a C++ compiler and 15 s, gains nothing, and results would depend on the compiler."""
    is_compiled = settings.optimizer == "adamw_8bit" and part.param_groups[0]["params"][0].is_cuda
    if settings.optimizer != "adamw_8bit" or is_compiled:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


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
