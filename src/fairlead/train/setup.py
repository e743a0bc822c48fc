"""From a recipe's training section to a learner: the settings, the reference inside an adapter, the trainable parts."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol

from fairlead.algos.spec import Algorithm
from fairlead.core.services import Services
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.freezing import freeze
from fairlead.models.load import CausalModel, load_policy
from fairlead.models.native.heap import has_heap
from fairlead.models.precision import choose_precision
from fairlead.models.recompute import recompute_activations
from fairlead.telemetry.alerts import Rule
from fairlead.telemetry.rules import choose_rules
from fairlead.train.checkpoints import CheckpointRule
from fairlead.train.forward import Models
from fairlead.train.loop import Learner
from fairlead.train.memory import MOST_TOKENS, Need, Way, estimate, estimate_head, shape_of, token_budget
from fairlead.train.noise import Neftune
from fairlead.train.optim import OptimizerSettings


class _Lora(Protocol):
    kind: Any
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
    max_tokens_per_microbatch: int | Literal["auto"]
    precision: Any
    activation_checkpointing: bool
    ema_decay: float | None
    freeze: tuple[str, ...]
    lora: Any
    keep_checkpoints: Any
    checkpoint_every_steps: int | None
    alerts: Any


def optimizer_settings(training: TrainingSettings) -> OptimizerSettings:
    """The optimiser part of a training section."""
    return OptimizerSettings(learning_rate=training.learning_rate, optimizer=training.optimizer,
                             muon_learning_rate=training.muon_learning_rate, schedule=training.schedule, warmup_share=training.warmup_share,
                             final_share=training.final_share, weight_decay=training.weight_decay, beta1=training.beta1,
                             beta2=training.beta2, eps=training.adam_eps, max_grad_norm=training.max_grad_norm)  # fmt: skip


def checkpoint_rule(training: TrainingSettings) -> CheckpointRule:
    """The checkpoint part of a training section."""
    return CheckpointRule(keep=training.keep_checkpoints, every_steps=training.checkpoint_every_steps)


def alert_rules(training: TrainingSettings, *, kl_coef: float | None = None) -> tuple[Rule, ...]:
    """The rules that watch this training.

    Args:
        kl_coef: the largest KL coefficient that its config gives; None where the method has none.
    Raises:
        ConfigError: the recipe names a rule or a metric that is not there.
    """
    return choose_rules(training.alerts.model_dump(), kl_coef=kl_coef)


def result_notes(training: TrainingSettings) -> list[str]:
    """What a summary says of the weights that a training leaves, where these are not those of a step."""
    if training.ema_decay is None:
        return []
    return [f"The saved weights are their moving average over the steps (training.ema_decay={training.ema_decay:g})."]


def make_learner(
    models: Models, algo: Algorithm, algo_config: Any, training: TrainingSettings, *, num_steps: int,
    largest: int, say: Callable[[str], None], neftune: Neftune | None = None,
) -> Learner:  # fmt: skip
    """A learner for `num_steps` optimiser steps, with the token budget that fits the memory.

    Args:
        largest: tokens of the largest tree of all batches.
        say: told when the budget is less than usual.
    Raises:
        ConfigError: memory has no room for the largest tree.
    """
    if training.activation_checkpointing:
        for model in models.trunks():
            recompute_activations(model)
    need, device = training_need(models, training, largest=largest), models.trunks()[0].device
    max_tokens = token_budget(training.max_tokens_per_microbatch, need, device=device, largest=largest)
    if training.max_tokens_per_microbatch == "auto" and max_tokens < MOST_TOKENS:
        say(
            f"{algo.name}: {max_tokens} tokens a forward, as much as fits the free memory (training.max_tokens_per_microbatch)."
        )
    return Learner(models=models, algo=algo, algo_config=algo_config, optim=optimizer_settings(training), num_steps=num_steps,
                   max_tokens=max_tokens, ema_decay=training.ema_decay, neftune=neftune)  # fmt: skip


def training_need(models: Models, training: TrainingSettings, *, largest: int) -> Need:
    """Memory that training takes of all these models together, in rows of trees of up to `largest` tokens."""

    def way(model: CausalModel) -> Way:
        return Way(optimizer=training.optimizer, has_average=training.ema_decay is not None, is_low=model.arithmetic.precision == "bf16",
                   recomputes=training.activation_checkpointing, on_cpu=model.device.type == "cpu", has_heap=has_heap(), longest=largest)  # fmt: skip

    needs = [estimate(shape_of(m, has_logits=m is models.policy), way(m)) for m in models.trunks()]
    scalars = [model for model in (models.value, models.reward) if model is not None]
    needs += [estimate_head(model.head.weight.numel(), way(model.base)) for model in scalars]
    return functools.reduce(Need.__add__, needs)


def reading_budget(
    model: CausalModel, wanted: int | Literal["auto"], *, largest: int, key: str = "training.max_tokens_per_microbatch"
) -> int:
    """Tokens of a forward that trains nothing (a reference pass, an evaluation).

    Args:
        wanted: what the recipe says under `key`.
        largest: tokens of the largest tree.
    Raises:
        ConfigError: `auto`, and memory has no room for the largest tree.
    """
    way = Way(is_low=model.arithmetic.precision == "bf16", on_cpu=model.device.type == "cpu", has_heap=has_heap())
    need = estimate(dataclasses.replace(shape_of(model), num_trained=0), way)
    return token_budget(wanted, need, device=model.device, largest=largest, key=key)


def load_trained(folder: str, training: TrainingSettings, *, services: Services) -> CausalModel:
    """The model that a stage trains, in the precision of its recipe; says when that is not fp32."""
    model = load_policy(folder, device=services.device)
    model.set_precision(choose_precision(training.precision, model, machine_file=services.extras.get("machine_file")))
    if model.arithmetic.precision != "fp32":
        services.say(
            f"Products are computed in {model.arithmetic.precision}, weights are kept in fp32 (training.precision)."
        )
    return model


def prepare_model(model: CausalModel, training: TrainingSettings, *, seed: int) -> CausalModel:
    """What a recipe trains of a model: an adapter beside frozen weights, or all weights but those that it freezes."""
    lora: _Lora | None = training.lora
    if lora is not None:
        settings = LoraSettings(kind=lora.kind, rank=lora.rank, alpha=lora.alpha, target_modules=lora.target_modules)
        return add_lora(model, settings, seed=seed)
    if training.freeze:
        freeze(model, training.freeze)
    return model
