"""Recipe section of PPO."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.sections import TrainSection


class KlScheduleSection(Config):
    """A KL coefficient (or a bound of one) by optimiser step."""

    shape: Literal["linear", "cosine", "step"]
    """How it goes from start to end."""
    start: float = Field(ge=0)
    """Coefficient at the first step, reward units a nat."""
    end: float = Field(ge=0)
    """Coefficient at the last step, reward units a nat."""


class KlSection(Config):
    """The KL penalty, which is part of the reward (estimator k1). A coefficient means something only on normalised scores."""

    kl_coef: float = Field(default=0.2, ge=0)
    """First coefficient, reward units a nat."""
    target: float | None = Field(default=6.0, gt=0)
    """KL that the adaptive controller holds, nats a sequence; null keeps the coefficient fixed (or scheduled)."""
    horizon: int = Field(default=10_000, ge=1)
    """Episodes over which an error of 20 % moves the coefficient by a factor of about 1.2."""
    low: float = Field(default=0.0, ge=0)
    """Smallest coefficient of the adaptive controller."""
    high: float = Field(default=10.0, gt=0)
    """Largest coefficient of the adaptive controller."""
    schedule: KlScheduleSection | None = None
    """Coefficient by step instead of the controller; null is off."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.schedule is not None and self.target is not None:
            raise ValueError(
                explain(
                    "target", self.target, "contradicts schedule", expected="one of the two", remedy="Set target: null"
                )
            )
        return self


class PpoConfig(Config):
    """Proximal policy optimisation against a learned reward. Starting values of the guides; see docs/algorithms/ppo.md."""

    algorithm: Literal["ppo"] = "ppo"
    """Name of the method."""
    num_iterations: int = Field(default=100, ge=1)
    """Rounds of sampling and training."""
    batch_size: int = Field(default=64, ge=2)
    """Completions sampled a round."""
    minibatch_size: int = Field(default=16, ge=1)
    """Completions an optimiser step; the guides' 4 is for large models."""
    num_epochs: int = Field(default=4, ge=1)
    """Passes over each round's completions."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest completion, tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling; all compared logits are divided by it."""
    kl: KlSection = KlSection()
    """Penalty for leaving the reference."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount a token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the value loss."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """Largest move of a value away from the rollout's; null is off."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Bonus a nat of entropy."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken off the reward of a completion that was cut off, in reference standard deviations."""
    score_clip: float | None = Field(default=5.0, gt=0)
    """Normalised scores are clipped to plus and minus this; null is off."""
    uncertainty_coef: float = Field(default=0.0, ge=0)
    """Score taken off a unit of the reward ensemble's disagreement (sd of its members' normalised scores); needs rewards.ensemble."""
    length_coef: float | None = Field(default=None, ge=0)
    """score - length_coef * tokens / max_new_tokens; null takes max(0.1, the reward model's measured length slope)."""
    training: TrainSection = TrainSection(
        learning_rate=1.41e-5, schedule="linear", warmup_share=0.0, adam_eps=1e-5, beta2=0.999
    )
    """Optimiser run of policy and value model (batch_size and num_epochs of this section are not used)."""
    max_slots: int = Field(default=128, ge=1)
    """Sequences decoded together."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.training.precision == "bf16":
            raise ValueError(explain("training.precision", "bf16", "is not used by ppo, whose engine and trainer must agree on every logprob",
                                     expected="fp32 or auto", remedy="Leave it out"))  # fmt: skip
        if self.minibatch_size > self.batch_size:
            raise ValueError(explain("minibatch_size", self.minibatch_size, "is larger than a round", expected=f"<= batch_size ({self.batch_size})",
                                     remedy="Lower it"))  # fmt: skip
        return self
