"""From a recipe's training section to a learner: the settings, the reference inside an adapter, the trainable parts."""

from typing import Any, Protocol

from fairlead.algos.spec import Algorithm
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.load import CausalModel
from fairlead.models.recompute import recompute_activations
from fairlead.train.checkpoints import CheckpointRule
from fairlead.train.forward import Models
from fairlead.train.loop import Learner
from fairlead.train.optim import OptimizerSettings


class _Lora(Protocol):
    rank: int
    alpha: float
    target_modules: str


class TrainingSettings(Protocol):
    """What `core.sections.TrainSection` holds, named here because training never imports recipe classes."""

    learning_rate: float
    optimizer: Any
    muon_learning_rate: float | None
    schedule: Any
    warmup_share: float
    final_share: float
    weight_decay: float
    beta1: float
    beta2: float
    adam_eps: float
    max_grad_norm: float
    max_tokens_per_microbatch: int
    activation_checkpointing: bool
    keep_checkpoints: Any
    checkpoint_every_steps: int | None


def optimizer_settings(training: TrainingSettings) -> OptimizerSettings:
    """The optimiser part of a training section."""
    return OptimizerSettings(learning_rate=training.learning_rate, optimizer=training.optimizer,
                             muon_learning_rate=training.muon_learning_rate, schedule=training.schedule, warmup_share=training.warmup_share,
                             final_share=training.final_share, weight_decay=training.weight_decay, beta1=training.beta1,
                             beta2=training.beta2, eps=training.adam_eps, max_grad_norm=training.max_grad_norm)  # fmt: skip


def checkpoint_rule(training: TrainingSettings) -> CheckpointRule:
    """The checkpoint part of a training section."""
    return CheckpointRule(keep=training.keep_checkpoints, every_steps=training.checkpoint_every_steps)


def make_learner(
    models: Models, algo: Algorithm, algo_config: Any, training: TrainingSettings, *, num_steps: int
) -> Learner:
    """A learner for `num_steps` optimiser steps."""
    if training.activation_checkpointing:
        for model in models.trunks():
            recompute_activations(model)
    return Learner(models=models, algo=algo, algo_config=algo_config, optim=optimizer_settings(training), num_steps=num_steps,
                   max_tokens=training.max_tokens_per_microbatch)  # fmt: skip


def with_adapter(model: CausalModel, lora: _Lora | None, *, seed: int) -> CausalModel:
    """Add a LoRA adapter when the recipe asks for one."""
    if lora is None:
        return model
    return add_lora(
        model, LoraSettings(rank=lora.rank, alpha=lora.alpha, target_modules=lora.target_modules), seed=seed
    )
