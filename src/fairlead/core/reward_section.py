"""Recipe section of a composed reward: which components score the completions of a policy, for which prompts, and what they make together.

It stands with the policy that optimises it (`policies.NAME.rewards`) and is read by `rewards/composer.py`; here, because neither may
import the other.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("total", "dropped", "score")


class _Component(Config):
    """What every component has."""

    weight: float = 1.0
    """Of its score in the sum; negative turns it into a penalty, 0 only logs it."""
    slices: tuple[str, ...] = ()
    """Slices of prompts that it scores; empty: all."""
    except_slices: tuple[str, ...] = ()
    """Slices that it does not score."""
    where: dict[str, str | int | bool | tuple[str | int | bool, ...]] = Field(default_factory=dict)
    """Values of a prompt's meta that it asks for, such as {verifiable: true, language: [en, de]}; all must hold."""
    on_failure: Literal["drop", "skip", "stop"] = "drop"
    """When it fails on a completion. drop: the sample is not trained on. skip: as if it did not apply. stop: the run ends."""

    @model_validator(mode="after")
    def _slices_differ(self) -> Self:
        if both := set(self.slices) & set(self.except_slices):
            raise ValueError(
                explain(
                    "except_slices",
                    sorted(both),
                    "are also in slices",
                    expected="a slice in one of them",
                    remedy="Remove one",
                )
            )
        return self


class ModelComponent(_Component):
    """A reward model, alone or an ensemble."""

    type: Literal["model"]
    """Kind of component."""
    model: str | None = None
    """Folder or artifact id of a reward model; null takes the one that the recipe trains."""
    aggregate: Literal["mean", "min", "uncertainty"] = "mean"
    """Members of an ensemble to one score: their mean, the lowest, or the mean less uncertainty_coef times their standard deviation."""
    uncertainty_coef: float = Field(default=0.5, ge=0)
    """Read by aggregate: uncertainty."""
    attributes: dict[str, float] = Field(default_factory=dict)
    """Weights of a model with several attributes, in place of those it was trained with; empty keeps them."""
    swaps: dict[int, str] = Field(default_factory=dict)
    """Optimiser step -> folder or artifact id of the reward model that scores from there on, such as one made by `reward update`."""

    @field_validator("swaps")
    @classmethod
    def _in_order(cls, swaps: dict[int, str]) -> dict[int, str]:
        if wrong := [step for step in swaps if step < 1]:
            raise ValueError(
                explain(
                    "swaps",
                    wrong[0],
                    "is before the first swap can be",
                    expected="steps >= 1",
                    remedy="Set model for the start",
                )
            )
        return dict(sorted(swaps.items()))


class ProcessComponent(_Component):
    """A process-reward model: scores every step of a reply between 0 and 1."""

    type: Literal["process"]
    """Kind of component."""
    model: str | None = None
    """Folder or artifact id of a process-reward model; null takes the one that the recipe trains."""
    aggregate: Literal["min", "product", "last", "mean", "sum"] = "min"
    """Scores of the steps to one. sum pays for more steps, whatever they say."""
    is_dense: bool = False
    """Pay what each step changes of that score at its end, in place of all of it at the end of the reply; for PPO, whose values spread it."""


class RuleComponent(_Component):
    """A rule on the reply: lexicon, length, length_penalty, repetition, missing_eos, tags."""

    type: Literal["rule"]
    """Kind of component."""
    rule: dict[str, Any]
    """`kind` and its options; see docs/stages/rewards.md."""


class VerifierComponent(_Component):
    """A check of the reply against what its prompt says is right."""

    type: Literal["verifier"]
    """Kind of component."""
    verifier: dict[str, Any]
    """`kind` and its options; see docs/stages/verifiers.md."""


class JudgeEndpoint(Config):
    """A judge model behind an OpenAI-compatible server. Prompts and completions are sent there, each pair in both orders."""

    url: str
    """Address of the server up to /v1, such as http://127.0.0.1:8000/v1; plain http with a key to this machine only."""
    model: str
    """Its name of the judge model."""
    key_env: str | None = None
    """Environment variable that holds the key; null sends none. The key itself is never written."""
    criteria: str = "Prefer the reply that helps more: it does what was asked, is true, and is clear."
    """What makes a reply better, in sentences that the judge reads."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer of the judge, tokens."""
    temperature: float = Field(default=0.0, ge=0)
    """Of its sampling."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest wait for one answer, seconds."""
    retries: int = Field(default=3, ge=0)
    """Further attempts at a question that was refused for now or not answered."""
    num_parallel: int = Field(default=8, ge=1)
    """Questions asked at a time."""
    dollars_per_million_prompt_tokens: float = Field(default=0.0, ge=0)
    """Price of what is sent."""
    dollars_per_million_completion_tokens: float = Field(default=0.0, ge=0)
    """Price of what it writes."""

    @property
    def has_price(self) -> bool:
        """Whether its tokens cost anything."""
        return self.dollars_per_million_prompt_tokens > 0 or self.dollars_per_million_completion_tokens > 0


class JudgeComponent(_Component):
    """A judge that compares each reply with others of its group: the share of comparisons won, ties half."""

    type: Literal["judge"]
    """Kind of component."""
    judge: str = "simulated"
    """Name of the judge; simulated: a rater that sees the recipe's gold reward through noise."""
    endpoint: JudgeEndpoint | None = None
    """A judge model behind a server, in place of `judge`."""
    num_opponents: int = Field(default=2, ge=1)
    """Comparisons a reply, at most the others of its group."""


Component = Annotated[
    ModelComponent | ProcessComponent | RuleComponent | VerifierComponent | JudgeComponent, Field(discriminator="type")
]


class ComposeSection(Config):
    """Several scores to one reward."""

    components: dict[str, Component] = Field(min_length=1)
    """By name; each is logged as reward/NAME_mean, NAME_std, NAME_share (of the samples that it applies to) and NAME_failed."""
    combine: Literal["weight_then_normalise", "normalise_then_sum"] = "weight_then_normalise"
    """weight_then_normalise: the weighted sum, then one normalisation. normalise_then_sum: each component by itself, then the weighted
    sum, so that none is drowned by one with a wider spread (GDPO)."""
    normalise_by: Literal["method", "running", "reference", "group"] | None = None
    """method: not here (group methods divide by the spread of the group). running: mean and standard deviation of all so far. reference:
    of the samples in the completions stage. group: of the completions of a prompt. null: method, or group for normalise_then_sum."""
    log_samples: int = Field(default=16, ge=0)
    """Completions a round that are kept in scored.jsonl with every score, the model that gave it and their tokens; 0 keeps none."""
    max_failed_rounds: int = Field(default=5, ge=1)
    """Rounds in a row without one usable sample after which the run ends."""

    @field_validator("components")
    @classmethod
    def _names_fit(cls, components: dict[str, Component]) -> dict[str, Component]:
        for name in components:
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise ValueError(explain("components", name, "is no name for a component", expected="a-z, 0-9 and _; not " + ", ".join(_TAKEN),
                                         remedy="Rename it"))  # fmt: skip
        if not any(component.weight for component in components.values()):
            raise ValueError(
                explain(
                    "components", list(components), "weigh nothing", expected="a weight other than 0", remedy="Set one"
                )
            )
        return components

    @property
    def normalisation(self) -> Literal["method", "running", "reference", "group"]:
        """`normalise_by` with null filled in."""
        return self.normalise_by or ("group" if self.combine == "normalise_then_sum" else "method")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        is_first = self.combine == "normalise_then_sum"
        if self.normalisation == ("method" if is_first else "group"):
            expected = "group, running or reference" if is_first else "method, running or reference"
            raise ValueError(explain("normalise_by", self.normalise_by, f"is not possible with combine={self.combine}", expected=expected,
                                     remedy="Change one of them"))  # fmt: skip
        for name, component in self.components.items():
            if isinstance(component, ProcessComponent) and component.is_dense and is_first:
                raise ValueError(explain(f"components.{name}.is_dense", True, "is paid at the ends of steps, where nothing is normalised",
                                         expected="combine: weight_then_normalise", remedy="Set is_dense: false or change combine"))  # fmt: skip
        return self
