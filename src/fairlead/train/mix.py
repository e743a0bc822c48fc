"""A second objective in every step, on tokens: pretraining or SFT text beside the policy's own samples (PPO-ptx).

    gradient of a step = gradient of loss(batch) / count(batch)  +  coef * gradient of mix.loss(texts) / mix.count(texts)

Each batch has a divisor of its own, so `coef` means the same whatever the sizes of the two: nats a token of text against reward units.

Example:
    learner = Learner(..., mix=Mix(coef=0.5))
    learner.step(rollouts, mixed=texts)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.algos.sft import SFT, SFTConfig
from fairlead.algos.spec import Algorithm
from fairlead.core.errors import ConfigError, explain
from fairlead.text.packing import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What is mixed into every step of a learner."""

    coef: float
    """Weight of its mean loss against that of the main batch, > 0."""
    algo: Algorithm = SFT
    """A method that learns tokens and asks for no statistics."""
    algo_config: Any = field(default_factory=SFTConfig)

    def __post_init__(self) -> None:
        if self.coef <= 0:
            raise ConfigError(
                explain("coef", self.coef, "mixes nothing in", expected="> 0", remedy="Leave the mix out")
            )
        if self.algo.batch != "tokens" or self.algo.statistics is not None:
            raise ConfigError(explain("mix.algo", self.algo.name, f"learns {self.algo.batch}", expected="a method that learns tokens",
                                      remedy="Use sft"))  # fmt: skip

    def settings(self) -> dict[str, object]:
        """What decides the numbers of a run, for what its checkpoints belong to."""
        return {"mix_coef": self.coef, "mix_algorithm": self.algo.name, "mix_config": self.algo_config}


def check_mixed(mix: Mix | None, mixed: Sequence[Tree]) -> None:
    """Every step of a learner with a mix has trees for it, and no other step has.

    Raises:
        ValueError: one without the other.
    """
    if (mix is None) != (not mixed):
        raise ValueError(f"a learner {'without a' if mix is None else 'with a'} mix got {len(mixed)} trees to mix in")
