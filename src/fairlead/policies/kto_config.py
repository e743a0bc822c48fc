"""The recipe section of the methods that compare with the whole batch: KTO, BCO and AOT.

Example:
    config = KtoConfig.model_validate({"algorithm": "kto", "data": [{"path": "thumbs.jsonl"}]})
    settings_of(config)    # KTOConfig(beta=0.1, ...)
"""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.sections import TrainSection
from fairlead.policies.rows import DataSource

BatchMethod = Literal["kto", "bco", "aot", "aot_unpaired"]
BATCH_METHODS: tuple[str, ...] = get_args(BatchMethod)
_READERS = {"lambda_desirable": ("kto",), "lambda_undesirable": ("kto",), "delta_decay": ("bco",)}


class KtoConfig(Config):
    """KTO, BCO and AOT: direct methods that compare every reply with the whole batch, and (but for aot) need no pairs."""

    algorithm: BatchMethod = "kto"
    """Loss; the page of each says when to use it."""
    data: tuple[DataSource, ...] = ()
    """Files of {prompt, completion, label}; empty takes the preferences: chosen is good, rejected is bad."""
    heldout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the files' prompts held out, by hash; 0 for none. Preferences have splits of their own."""
    beta: float = Field(default=0.1, gt=0)
    """Reward per nat of log-ratio to the reference; larger stays closer to it."""
    lambda_desirable: float = Field(default=1.0, gt=0)
    """kto: weight of good replies; lambda_desirable * good / (lambda_undesirable * bad) belongs into 1 to 1.33."""
    lambda_undesirable: float = Field(default=1.0, gt=0)
    """kto: weight of bad replies."""
    delta_decay: float = Field(default=0.9, ge=0, lt=1)
    """bco: share of the old mean reward that a step keeps."""
    training: TrainSection = TrainSection(
        learning_rate=1e-6, num_epochs=1, batch_size=32, warmup_share=0.1, schedule="linear"
    )
    """Optimiser run; batch_size counts replies, or pairs from preferences. The estimates of these methods want 16 or more."""

    @model_validator(mode="after")
    def _settings_where_read(self) -> Self:
        for name, readers in _READERS.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.algorithm not in readers:
                raise ValueError(explain(name, getattr(self, name), f"is not read by {self.algorithm}", expected=f"algorithm {readers[0]}",
                                         remedy="Remove it or change algorithm"))  # fmt: skip
        if self.algorithm == "aot" and self.data:
            raise ValueError(explain("algorithm", "aot", "needs pairs, and data holds single replies", expected="aot_unpaired, kto or bco with data",
                                     remedy="Change algorithm, or remove data to train on the preferences"))  # fmt: skip
        return self


def settings_of(config: KtoConfig) -> Any:
    """The method's own config."""
    cls = get_algorithm(config.algorithm).config
    return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})
