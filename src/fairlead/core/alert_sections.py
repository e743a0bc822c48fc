"""Recipe sections of the rules that watch a training run and act. What the rules are is telemetry's; here is what a recipe may say of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain


class AlertActionSection(Config):
    """What a rule does besides saying it."""

    kind: Literal["snapshot", "raise_kl", "lower_kl", "scale_rate", "roll_back", "stop"]
    """snapshot: keep a checkpoint. raise_kl, lower_kl: move the KL coefficient; refused where there is none to move. scale_rate: multiply the
    learning rate. roll_back: the weights and the optimiser of the last good checkpoint. stop: save and end the stage with the reason."""
    factor: float | None = Field(default=None, gt=0)
    """Of raise_kl, lower_kl and scale_rate; null goes to `bound` at once."""
    bound: float | None = Field(default=None, gt=0)
    """The KL coefficient (for scale_rate: the product of all factors) is not moved beyond this; null is no bound."""

    @model_validator(mode="after")
    def _moves(self) -> Self:
        is_move = self.kind in ("raise_kl", "lower_kl", "scale_rate")
        given = self.factor is not None or (self.bound is not None and self.kind != "scale_rate")
        if is_move != given or (not is_move and self.bound is not None):
            raise ValueError(explain("factor", self.factor, f"does not fit {self.kind}", expected="a factor or a bound for raise_kl and lower_kl, "
                                     "a factor for scale_rate, none for the others", remedy="Change it"))  # fmt: skip
        wrong = self.factor is not None and (
            (self.kind == "raise_kl" and self.factor <= 1) or (self.kind == "lower_kl" and self.factor >= 1)
        )
        if wrong:
            raise ValueError(explain("factor", self.factor, f"is the wrong way round for {self.kind}",
                                     expected="> 1 to raise, < 1 to lower", remedy="Change it"))  # fmt: skip
        return self


class AlertConditionSection(Config):
    """A limit on one metric over its last rows."""

    metric: str
    """A name of docs/metrics.md."""
    side: Literal["above", "below"]
    """Where trouble lies."""
    limit: float
    """In the metric's unit, or as relative_to and scale say."""
    window: int = Field(default=3, ge=1)
    """Logged rows that are looked at."""
    over: Literal["each", "mean", "rise"] = "each"
    """each: every row is beyond the limit. mean: their mean. rise: what a straight line through them gains."""
    relative_to: Literal["start", "start_added"] | None = None
    """start: the limit is a multiple of the mean of the first 5 rows. start_added: it is added to that. null: as it stands."""
    scale: str | None = None
    """Metric whose mean over the same rows multiplies the limit; null is none."""


class AlertChangeSection(Config):
    """What a recipe changes of a rule that is there."""

    mode: Literal["act", "propose", "off"] | None = None
    """act: carry its actions out. propose: only say them. off: silent. null leaves it as it is."""
    limits: dict[str, float] = Field(default_factory=dict)
    """New limits, by metric."""
    window: int | None = Field(default=None, ge=1)
    """Rows that each of its conditions looks at; null leaves them."""
    warmup: int | None = Field(default=None, ge=0)
    """Rows of the run before which it is silent; null leaves it."""
    actions: tuple[AlertActionSection, ...] | None = None
    """What it does besides saying it; null leaves it."""


class AlertRuleSection(Config):
    """A rule of the recipe's own."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Its name in messages, and in `allow` as alert.ID."""
    when: tuple[AlertConditionSection, ...] = Field(min_length=1)
    """All must hold, or `need` of them."""
    need: int | None = Field(default=None, ge=1)
    """So many of the conditions must hold; null is all."""
    actions: tuple[AlertActionSection, ...] = ()
    """Besides saying it."""
    mode: Literal["act", "propose"] = "act"
    """propose: only say what would be done."""
    warmup: int = Field(default=0, ge=0)
    """Rows of the run before which it is silent."""
    again_after: int | None = Field(default=None, ge=1)
    """Rows after which it speaks again while it still holds; null waits until it came back."""
    max_times: int | None = Field(default=None, ge=1)
    """It acts so often at most; null is no limit."""
    remedy: str
    """What a person should do."""

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        if self.need is not None and self.need > len(self.when):
            raise ValueError(explain("need", self.need, "is more than there are conditions, so that the rule could never speak",
                                     expected=f"<= {len(self.when)}", remedy="Lower it, or add conditions to when"))  # fmt: skip
        return self


class AlertsSection(Config):
    """Rules that watch the metrics of this training and act."""

    mode: Literal["act", "propose", "off"] = "act"
    """For all rules together: act as each rule says; propose: say everything, do nothing; off: silent."""
    rules: dict[str, AlertChangeSection] = Field(default_factory=dict)
    """Changes of the rules that are there, by id; docs/troubleshooting.md lists them."""
    more: tuple[AlertRuleSection, ...] = ()
    """Rules besides those."""
