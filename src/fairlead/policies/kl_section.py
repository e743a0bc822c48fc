"""Section `kl` of the on-policy methods: what leaving the reference costs.

Example:
    KlSection(kl_coef=0.05, target=None).largest    # 0.05
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain


class KlScheduleSection(Config):
    """A KL coefficient (or a bound of one) by optimiser step."""

    shape: Literal["linear", "cosine", "step"]
    """How it goes from start to end."""
    start: float = Field(ge=0)
    """Coefficient at the first step, reward units a nat."""
    end: float = Field(ge=0)
    """Coefficient at the last step, reward units a nat."""


class KlSection(Config):
    """The price of leaving the reference. A coefficient means something only on normalised scores."""

    kl_coef: float = Field(default=0.2, ge=0)
    """First coefficient, reward units a nat; ppo 0.2, grpo 0.04, rloo and remax 0.05, reinforce_pp and
    reinforce_pp_baseline 0.01, the others 0."""
    where: Literal["reward", "loss"] = "reward"
    """reward: taken off the reward of each token (estimator k1), so that advantages know it. loss: a term of the loss (value of k3, gradient of
    k2), which methods that learn from pairs or imitate do not have."""
    target: float | None = Field(default=6.0, gt=0)
    """KL that the adaptive controller holds, nats a sequence; null keeps the coefficient fixed (or scheduled), as all but ppo do."""
    horizon: int = Field(default=10_000, ge=1)
    """Episodes over which an error of 20 % moves the coefficient by a factor of about 1.2."""
    schedule: KlScheduleSection | None = None
    """Coefficient by step instead of the controller; null is off."""
    low: Annotated[float, Field(ge=0)] | KlScheduleSection = 0.0
    """Smallest coefficient of the adaptive controller, or a schedule of it."""
    high: Annotated[float, Field(gt=0)] | KlScheduleSection = 10.0
    """Largest coefficient of the adaptive controller, or a schedule of it."""

    @property
    def largest(self) -> float:
        """Largest coefficient that this section gives by itself, reward units a nat; 0 where divergence costs nothing."""
        if self.schedule is not None:
            return max(self.schedule.start, self.schedule.end)
        return max(self.kl_coef, *_ends(self.low))

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.schedule is not None and self.target is not None:
            raise ValueError(
                explain(
                    "target", self.target, "contradicts schedule", expected="one of the two", remedy="Set target: null"
                )
            )
        return self

    @model_validator(mode="after")
    def _bounds_hold(self) -> Self:
        fields = type(self).model_fields
        for name in ("low", "high") if self.target is None else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(explain(name, _words(getattr(self, name)), "bounds the adaptive controller, and there is none",
                                         expected="a target", remedy=f"Set target, or remove {name}"))  # fmt: skip
        if self.target is None:
            return self
        for when, low, high in zip(("first", "last"), _ends(self.low), _ends(self.high), strict=True):
            if low > high:
                raise ValueError(explain("low", low, f"is above high at the {when} step", expected=f"<= {high:g}",
                                         remedy="Change one of them"))  # fmt: skip
        if not _ends(self.low)[0] <= self.kl_coef <= _ends(self.high)[0]:
            raise ValueError(explain("kl_coef", self.kl_coef, "is outside its own bounds",
                                     expected=f"{_ends(self.low)[0]:g} (low) to {_ends(self.high)[0]:g} (high)",
                                     remedy="Change one of them"))  # fmt: skip
        return self


def _ends(bound: float | KlScheduleSection) -> tuple[float, float]:
    """A bound at the first and at the last step."""
    return (bound.start, bound.end) if isinstance(bound, KlScheduleSection) else (bound, bound)


def _words(bound: float | KlScheduleSection) -> str:
    """A bound as an error names it."""
    return f"{bound.shape} {bound.start:g} to {bound.end:g}" if isinstance(bound, KlScheduleSection) else f"{bound:g}"
