"""Recipe sections that several stages share: how text becomes tokens, how a model is trained, how it is sampled."""

from typing import Literal

from pydantic import Field

from fairlead.core.config import Config

Scope = Literal["toy", "narrow", "general"]


class TextSection(Config):
    """How conversations become tokens."""

    template: str | None = None
    """null (the tokenizer's own chat template), `plain` (texts joined, for continuation), `chatml`, or a Jinja file."""
    max_length: int = Field(default=512, ge=8)
    """Longest prompt plus completion, tokens."""


class LoraSection(Config):
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = Field(default=16, ge=1)
    """Inner width of the adapters."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the update is multiplied by alpha / rank."""
    target_modules: str = "all-linear"
    """Which linear layers get an adapter; a regular expression or all-linear."""


class TrainSection(Config):
    """One optimiser run."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak rate of AdamW; the band of the guides is 1e-5 to 3e-5 for full fine-tuning of models above 1B parameters, about ten
    times that for LoRA, and 1e-4 to 3e-3 for models below 100M."""
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
    max_tokens_per_microbatch: int = Field(default=8192, ge=16)
    """Token budget of one forward; changes memory, never results."""
    lora: LoraSection | None = None
    """null trains all weights."""


def learning_rate_note(rate: float, *, num_parameters: int, is_lora: bool) -> str:
    """A sentence when the rate lies outside the band for this size of model; empty when it lies inside."""
    low, high = (1e-5, 3e-5) if num_parameters >= 1e9 else (1e-5, 1e-3) if num_parameters >= 1e8 else (1e-6, 5e-3)
    if is_lora:
        low, high = low * 5, max(high * 10, 3e-4)
    if low <= rate <= high:
        return ""
    side = "below" if rate < low else "above (forgetting is likely)"
    return f"learning_rate={rate:g} is {side} the usual band {low:g} to {high:g} for {num_parameters:,} parameters{' with LoRA' if is_lora else ''}"
