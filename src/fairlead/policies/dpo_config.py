"""The recipe section of the direct methods, and what it says to the method it names.

Example:
    config = DpoConfig.model_validate({"algorithm": "simpo", "options": {"gamma": 1.6}})
    settings_of(config)    # SimPOConfig(beta=2.0, gamma=1.6, ...)
"""

from typing import Any, Literal, Self, cast, get_args, get_type_hints

from pydantic import Field, model_validator

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.sections import TrainSection
from fairlead.policies.options import read_settings

PairMethod = Literal[
    "dpo", "cdpo", "robust", "ipo", "hinge", "exo", "nca", "sppo", "apo_zero", "apo_down", "discopop", "orpo", "simpo", "cpo"
]  # fmt: skip
PAIR_METHODS: tuple[str, ...] = get_args(PairMethod)
_BESIDE = ("beta", "flip_rate")  # settings that have a key of their own


class DpoConfig(Config):
    """Direct preference optimisation, with a reference or (orpo, simpo, cpo) without."""

    algorithm: PairMethod = "dpo"
    """Loss; the page of each says when to use it."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference, as the method defines it; when absent the method's own (simpo 2, discopop 0.05,
    nca 0.01, sppo 0.001, else 0.1)."""
    flip_rate: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of preferences assumed to be flipped; cdpo and robust need one above 0 and the others take none."""
    options: dict[str, bool | float | str] = Field(default_factory=dict)
    """Further settings of the method, by the names on its page (average, nll_coef, weighting, gamma, ...)."""
    refresh_every_steps: int | None = Field(default=None, ge=1)
    """Steps after which the reference moves to the policy (TR-DPO; 512 there); null keeps the reference."""
    refresh_alpha: float = Field(default=1.0, gt=0, le=1)
    """Share of the policy in the new reference: 1 replaces it, less mixes the weights (0.6 in TR-DPO)."""
    use_soft_labels: bool = True
    """Train on the aggregated probability that chosen is better, not on 1."""
    training: TrainSection = TrainSection(
        learning_rate=5e-7, num_epochs=1, batch_size=32, warmup_share=0.1, schedule="linear"
    )
    """Optimiser run; the DPO paper uses 5e-7 to 1e-6 for models above 1B parameters, other methods other rates: see their pages."""

    @model_validator(mode="before")
    @classmethod
    def _beta_of_the_method(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        method = given.get("algorithm", "dpo")
        if "beta" in given or method not in PAIR_METHODS:
            return given
        return {**given, "beta": get_algorithm(method).config().beta}

    @model_validator(mode="after")
    def _flips_where_read(self) -> Self:
        is_read = self.algorithm in ("cdpo", "robust")
        if is_read != (self.flip_rate > 0):
            wrong = "makes this method plain DPO" if is_read else f"is not read by {self.algorithm}"
            raise ValueError(explain("flip_rate", self.flip_rate, wrong, expected="> 0 for cdpo and robust, 0 otherwise",
                                     remedy="Use (1 - sqrt(2A - 1)) / 2 with the raters' agreement A, or change algorithm"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _options_are_the_methods(self) -> Self:
        settings_of(self)
        return self

    @model_validator(mode="after")
    def _refresh_has_something_to_refresh(self) -> Self:
        if self.refresh_every_steps is None:
            if self.refresh_alpha != 1:
                raise ValueError(explain("refresh_alpha", self.refresh_alpha, "is not read without refresh_every_steps",
                                         expected="1", remedy="Set refresh_every_steps, for example 512"))  # fmt: skip
            return self
        if not has_reference(self):
            raise ValueError(explain("refresh_every_steps", self.refresh_every_steps, f"has no meaning for {self.algorithm}, which has no reference",
                                     expected="null", remedy="Remove it"))  # fmt: skip
        if self.refresh_alpha < 1 and self.training.lora is not None:
            raise ValueError(explain("refresh_alpha", self.refresh_alpha, "cannot mix adapters: a mean of products is no product of means",
                                     expected="1 with training.lora", remedy="Set it to 1, or train all weights"))  # fmt: skip
        return self


def settings_of(config: DpoConfig) -> Any:
    """The method's own settings: beta and flip_rate where it reads them, and the options.

    Raises:
        ConfigError: an option that the method does not have, or a value that it refuses.
    """
    cls = get_algorithm(config.algorithm).config
    hints = get_type_hints(cls)
    own = {name: getattr(config, name) for name in _BESIDE if name in hints}
    return read_settings(config.algorithm, cls, own, config.options, beside={name: name for name in _BESIDE})


def has_reference(config: DpoConfig) -> bool:
    """Whether the method compares with a reference policy."""
    return "ref_logprobs" in get_algorithm(config.algorithm).needs
