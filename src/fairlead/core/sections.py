"""Recipe sections that several stages share: how text becomes tokens, how a model is trained, how it is sampled."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from fairlead.core.alert_sections import AlertsSection
from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.gates import Gate, GateResult, allow

Scope = Literal["toy", "narrow", "general"]


class TextSection(Config):
    """How conversations become tokens."""

    template: str | None = None
    """null (the tokenizer's own chat template), `plain` (texts joined, for continuation), `chatml`, or a Jinja file."""
    max_length: int = Field(default=512, ge=8)
    """Longest prompt plus completion, tokens."""


class LoraSection(Config):
    """Low-rank adapters instead of full fine-tuning."""

    kind: Literal["lora", "rslora", "dora"] = "lora"
    """lora: the update is scaled by alpha / rank. rslora: by alpha / sqrt(rank), so that large ranks learn as fast. dora: lora for the
    direction of each weight and a trained length beside it; slower."""
    rank: int = Field(default=16, ge=1)
    """Inner width of the adapters."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale of the update; see kind."""
    target_modules: str = "all-linear"
    """Which linear layers get an adapter; a regular expression or all-linear."""


class TrainSection(Config):
    """One optimiser run."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak rate of AdamW. Usual for SFT of models above 1B parameters: 1e-5 to 3e-5; for DPO a tenth of that or less; ten times as much
    with LoRA, more for small models. The bands by kind of training are in docs/defaults.md."""
    optimizer: Literal["adamw", "adamw_8bit", "muon", "adafactor"] = "adamw"
    """adamw: fused. adamw_8bit: its state in a quarter of the memory (needs torchao). muon: orthogonalised momentum for the matrices of the
    layers, adamw for the rest. adafactor: almost no state; its rate is relative to the size of each tensor, so usual ones are 1e-4 to 1e-2, and it
    reads none of beta1, beta2 and adam_eps."""
    muon_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of muon's matrices; null takes learning_rate, for its steps are scaled to the size of adamw's."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=16, ge=1)
    """Examples (pairs, conversations) an optimiser step."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises from 0."""
    final_share: float = Field(default=0.1, ge=0, le=1)
    """Rate of the last step as a share of the peak."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of matrices; vectors never decay."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Adam's memory of the gradient."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Adam's memory of the squared gradient."""
    adam_eps: float = Field(default=1e-8, gt=0)
    """Adam's epsilon."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient is scaled down to this L2 norm."""
    max_tokens_per_microbatch: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Token budget of one forward; changes memory, never results. auto: 8192, or a half, a quarter, ... of it, as an estimate from the
    shapes of the model says for the memory that is free."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products; weights, their gradients and the optimiser are fp32 always. bf16 is several times faster where the processor has
    it. auto: bf16 on a GPU that has it, and on a CPU where it pays (`fairlead doctor`) for models of hidden size 256 and more.
    On-policy the same on a CPU where the engine can sample in bf16 too, and fp32 on a GPU."""
    activation_checkpointing: bool = False
    """Compute the inside of each layer again in the backward instead of keeping it: a fraction of the memory for about a third more time,
    the same results. For models or texts that do not fit otherwise."""
    lora: LoraSection | None = None
    """null trains all weights."""
    freeze: tuple[str, ...] = ()
    """Parameters that are not trained: regular expressions for whole names, such as 'model\\.layers\\.[0-3]\\..*'. Not with lora, which
    trains nothing but its adapters."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is measured and saved; smaller in the first steps. null keeps none."""
    keep_checkpoints: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    """So many of the newest checkpoints stay while the stage runs, and the best by its own held-out measure, where it measures along the way;
    `all` keeps every one, also when the stage is done. Changes no result."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """A checkpoint every so many optimiser steps, besides those that are due by the clock; null leaves it to the clock. Changes no result."""
    alerts: AlertsSection = AlertsSection()
    """Rules that watch the metrics and act: warn, keep a snapshot, move the KL coefficient or the learning rate, go back, stop."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.muon_learning_rate is not None and self.optimizer != "muon":
            raise ValueError(explain("muon_learning_rate", self.muon_learning_rate, f"is not read by optimizer={self.optimizer}",
                                     expected="optimizer muon", remedy="Change optimizer or remove it"))  # fmt: skip
        adams = {n: getattr(self, n) for n in ("beta1", "beta2", "adam_eps")}
        for name, value in adams.items() if self.optimizer == "adafactor" else ():
            if value != type(self).model_fields[name].default:
                raise ValueError(explain(name, value, "is not read by optimizer=adafactor, whose decay follows the step",
                                         expected="an optimiser of Adam's kind", remedy="Change optimizer or remove it"))  # fmt: skip
        if self.freeze and self.lora is not None:
            raise ValueError(explain("freeze", ", ".join(self.freeze), "is not read with lora", expected="one of the two",
                                     remedy="Choose layers by lora.target_modules"))  # fmt: skip
        return self

    @field_validator("freeze")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(explain("freeze", pattern, f"is no regular expression ({error})", expected="one for whole names",
                                         remedy="Put a backslash before brackets and dots that are meant")) from error  # fmt: skip
        return patterns


HOUSEKEEPING = frozenset({"keep_checkpoints", "checkpoint_every_steps"})
"""Settings of `TrainSection` that change no result: a run whose settings differ in these alone is the same run."""


def deciding(config: Any) -> Any:
    """A section's plain data without what decides nothing."""
    if isinstance(config, Mapping):
        items = cast(Mapping[str, Any], config).items()
        return {name: deciding(value) for name, value in items if name not in HOUSEKEEPING}
    return [deciding(value) for value in cast(list[Any], config)] if isinstance(config, list) else config


Training = Literal["sft", "reward", "preference", "policy_gradient"]
"""Kinds of training that take different learning rates."""
LEARNING_RATES: dict[Training, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "sft": ((1e-5, 3e-5), (1e-5, 1e-3), (1e-6, 5e-3)),
    "reward": ((3e-6, 3e-5), (3e-6, 5e-4), (1e-6, 5e-3)),
    "preference": ((2e-7, 5e-6), (5e-7, 1e-4), (1e-6, 1e-3)),
    "policy_gradient": ((3e-7, 3e-5), (1e-6, 3e-4), (1e-6, 1e-3)),
}
"""Usual bands for all weights of models with 1B parameters and more, 100M and more, and fewer. Sources: docs/defaults.md."""
_TOO_HIGH: dict[Training, str] = {
    "sft": "forgetting is likely",
    "reward": "it may learn the pairs by heart",
    "preference": "both replies of a pair may become unlikely",
    "policy_gradient": "the policy may run away from its reference",
}


LEARNING_RATE_GATES: dict[str, Gate] = {
    stage: Gate(name=f"{stage}.learning_rate", question="Is the learning rate one that this training usually takes?",
                unit="x the end of the usual band", direction="at_most", stop=100, warn=1,
                remedy="Set training.learning_rate inside the band, or say that it is meant", guide="bands by kind of training and size of model",
                reason="ten times more is tried in earnest; a hundred times more is a slip, most often of an exponent")
    for stage in ("sft", "rewards", "dpo", "kto", "rl")
}  # fmt: skip
"""By stage; judged before the first step."""


def judge_learning_rate(
    training: TrainSection, *, stage: str, kind: Training, num_parameters: int, reasons: Mapping[str, str]
) -> GateResult | None:
    """How far the rate lies from its band. A rate that is too low warns and never stops: it wastes time alone.

    The bands are AdamW's and hold for what steps as far; Adafactor's rate is relative to the weights, and None is returned.

    Args:
        stage: a key of `LEARNING_RATE_GATES`.
        reasons: gates that a person passed on record.
    """
    if training.optimizer == "adafactor":
        return None
    is_lora = training.lora is not None
    low, high = _band(kind, num_parameters, is_lora=is_lora)
    rate, gate = training.learning_rate, LEARNING_RATE_GATES[stage]
    if rate < low:
        gate = dataclasses.replace(gate, stop=None)
    note = learning_rate_note(rate, training=kind, num_parameters=num_parameters, is_lora=is_lora)
    return allow(gate.judge(max(low / rate, rate / high, 1.0), n=1, note=note.removesuffix(".")), dict(reasons))


def _band(training: Training, num_parameters: int, *, is_lora: bool) -> tuple[float, float]:
    low, high = LEARNING_RATES[training][0 if num_parameters >= 1e9 else 1 if num_parameters >= 1e8 else 2]
    return (low * 5, high * 10) if is_lora else (low, high)


def learning_rate_note(rate: float, *, training: Training, num_parameters: int, is_lora: bool) -> str:
    """A sentence when the rate lies outside the band for this training and size of model; empty when it lies inside."""
    low, high = _band(training, num_parameters, is_lora=is_lora)
    if low <= rate <= high:
        return ""
    size = f"{num_parameters:,} parameters{' with LoRA' if is_lora else ''}"
    side, ending = ("below", "") if rate < low else ("above", f": {_TOO_HIGH[training]}")
    return f"learning_rate={rate:g} is {side} the usual band, {low:g} to {high:g} for {size}{ending}."
