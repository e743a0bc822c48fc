"""Recipe section of the on-policy methods: one class, whose defaults are those of the method it names.

Example:
    config = OnlineConfig.model_validate({"algorithm": "ppo", "options": {"dual_clip": 3.0}})
    settings_of(config)    # PPOConfig(clip_low=0.2, dual_clip=3.0, ...)
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast, get_type_hints

from pydantic import Field, model_validator

from fairlead.algos import get_algorithm
from fairlead.algos.group_advantages import AdvantageName
from fairlead.algos.mismatch import CorrectionConfig
from fairlead.core.config import Config
from fairlead.core.engine_section import EngineSection
from fairlead.core.errors import ConfigError, explain
from fairlead.core.reward_section import ComposeSection, JudgeComponent, RuleComponent
from fairlead.core.sections import TrainSection
from fairlead.core.tool_section import ToolsSection
from fairlead.models.arithmetic import Precision
from fairlead.policies.kl_section import KlSection
from fairlead.policies.online_methods import COMPOSED_DEFAULTS, METHODS, Method, OnlineMethod
from fairlead.policies.options import read_settings
from fairlead.policies.rows import DataSource

_LOSS_KEYS = (
    "clip_low",
    "clip_high",
    "value_coef",
    "value_clip",
    "entropy_coef",
)  # settings of losses that are keys here
_READ_BY = {"gamma": ("gae", "whitened_returns"), "lam": ("gae",)}  # keys that some estimators of advantages read
_BY_GROUP = (
    "group_normalised",
    "group_centered",
    "leave_one_out",
    "whitened_group_centered",
)  # estimators that compare a group
_TAKES_ADVANTAGES = (
    "group_normalised",
    "group_centered",
    "leave_one_out",
)  # estimators that normalised rewards may stand in for


class CorrectionSection(Config):
    """How the engine's probabilities are reconciled with the trainer's, where old_logprobs is trainer or step."""

    way: Literal["off", "token_clip", "token_mask", "sequence_mask"] = "token_clip"
    """off: only shown. token_clip: each token weighs trainer over engine, at most cap. token_mask: tokens outside floor to cap are left out.
    sequence_mask: completions are."""
    cap: float = Field(default=2.0, gt=1)
    """Largest ratio."""
    floor: float = Field(default=0.5, ge=0, lt=1)
    """Smallest ratio that a mask keeps."""
    sequence_ratio: Literal["product", "geometric_mean"] = "geometric_mean"
    """What the ratio of a completion is, for sequence_mask."""


class MixSection(Config):
    """Text mixed into every optimiser step, against what RL unlearns (PPO-ptx)."""

    data: tuple[DataSource, ...] = Field(min_length=1)
    """Demonstrations, or texts of one assistant turn."""
    coef: float = Field(default=1.0, gt=0)
    """Weight of its mean loss, nats a token, against that of the policy, reward units."""
    batch_size: int = Field(default=8, ge=1)
    """Texts a step."""
    learn: Literal["replies", "all"] = "replies"
    """replies: assistant turns; all: every token, for pretraining text."""


class OnlineConfig(Config):
    """Policy gradients on what the policy writes now. Starting values of the guides for ppo; see docs/stages/online.md."""

    algorithm: OnlineMethod = "ppo"
    """Name of the method. Where a default below is none of its own, the method's page says what it sets."""
    num_iterations: int = Field(default=100, ge=1)
    """Rounds of sampling and training."""
    batch_size: int = Field(default=64, ge=2)
    """Completions sampled a round."""
    group_size: int = Field(default=1, ge=1)
    """Completions of each prompt of a round; batch_size and minibatch_size are multiples of it. 8 where they are each other's
    baseline (rloo 4)."""
    minibatch_size: int = Field(default=16, ge=1)
    """Completions an optimiser step; the guides' 4 is for large models. When absent a quarter of batch_size for ppo, dapo, gspo and cispo,
    and all of it for the others, which is one step a round."""
    num_epochs: int = Field(default=4, ge=1)
    """Passes over each round's completions; ppo 4, the others 1."""
    max_resamples: int = Field(default=0, ge=0)
    """Dynamic sampling: prompts whose completions all score alike are replaced by others, so many times a round at most; 0 keeps them. dapo 10."""
    max_staleness: int = Field(default=0, ge=0)
    """Rounds of training that may lie between sampling a completion and training on it; 0 is synchronous. With n the engine samples n + 1
    rounds at once, which keeps more of its slots busy."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest completion, tokens; with tools, all turns of the policy together."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling; all compared logits are divided by it."""
    top_k: int = Field(default=0, ge=0, le=1024)
    """Tokens are drawn from the k most likely ones; 0 draws from all. What each was drawn from is kept (4 bytes a token of it), and policy and
    reference are compared among the same tokens."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of these, the fewest most likely that have this probability together; below 1 with top_k alone, which bounds what is kept."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Of these, those with at least this share of the most likely one's probability; above 0 with top_k alone."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divides the positive logits of tokens that prompt or completion hold already, and multiplies the negative ones; 1 is off. Only for methods
    that learn from pairs or imitate: the others need the probabilities that were sampled from, and the trainer has those without a penalty."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion as an end of turn does; it keeps them. Not with tools, whose turns end with an end of turn."""
    tools: ToolsSection | None = None
    """Rollouts of several turns: environments answer the policy's turns, such as tools that it calls; null is one turn."""
    rewards: ComposeSection | None = None
    """What completions are paid for, composed of reward models, rules, verifiers and judges; null takes the recipe's reward model."""
    kl: KlSection = KlSection()
    """Penalty for leaving the reference."""
    perplexity_model: Literal["reference", "base"] = "reference"
    """Frozen models that are asked how improbable they find the samples, which rises when text turns incoherent: the run's reference, or also
    the recipe's `model` as it was before any training (one more model in memory, one more forward a round)."""
    mix: MixSection | None = None
    """Text learned beside the rewards in every step; null mixes nothing in."""
    min_score: float | None = None
    """Completions of a lower score are not imitated (best_of_n, expert_iteration); expert_iteration 1, which is a right answer; null takes all."""
    old_logprobs: Literal["auto", "engine", "step", "trainer"] = "auto"
    """What the ratio compares with. engine: the log-probabilities that it sampled from; preflight finds them equal to the trainer's, and no
    forward is made for them. trainer: computed again, and what differs is corrected. step: the same from the forward of the step, where a
    round is one step and its KL is not in the reward. auto: engine where both compute in fp32, else step where it can be, else trainer."""
    correction: CorrectionSection = CorrectionSection()
    """Read where the old log-probabilities are the trainer's or the step's."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount a token (ppo, reinforce_pp)."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation (ppo)."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above at 1 + clip_high; dapo 0.28, gspo 4e-4 (below 3e-4), cispo 4 (below 1)."""
    value_model: Literal["separate", "shared"] = "separate"
    """separate: a transformer of its own that starts as the reward model. shared: a head on the policy's trunk, with one forward for both and half
    the memory (ppo)."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of the value loss (ppo)."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """Largest move of a value away from the rollout's (ppo); null is off."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Bonus a nat of entropy."""
    options: dict[str, bool | float | str | None] = Field(default_factory=dict)
    """Further settings of the method's loss, by the names on its page (dual_clip, ...)."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken off the reward of a completion that was cut off, in reference standard deviations; 0 with `rewards`, which has a rule for it."""
    learns_from_cut: bool = True
    """false: completions that were cut off count in their group's baseline and are not trained on."""
    overlong_share: float = Field(default=0.0, ge=0, le=1)
    """Over the last part of max_new_tokens, of this share, the score falls evenly by up to 1 (DAPO's soft punishment); 0 is off, dapo 0.2."""
    score_clip: float | None = Field(default=5.0, gt=0)
    """Normalised scores are clipped to plus and minus this; null is off, as with `rewards`."""
    uncertainty_coef: float = Field(default=0.0, ge=0)
    """Score taken off a unit of the reward ensemble's disagreement (sd of its members' normalised scores); needs rewards.ensemble."""
    length_coef: float | None = Field(default=None, ge=0)
    """score - length_coef * tokens / max_new_tokens; null takes max(0.1, the reward model's measured length slope); 0
    with `rewards`."""
    training: TrainSection = TrainSection(
        learning_rate=1.41e-5, schedule="linear", warmup_share=0.0, adam_eps=1e-5, beta2=0.999
    )
    """Optimiser run of policy and value model (batch_size and num_epochs of this section are not used)."""
    engine: EngineSection = EngineSection()
    """What writes completions: local or vllm, for a remote server's weights do not follow the policy's."""
    max_slots: int = Field(default=128, ge=1)
    """Sequences decoded together."""

    @property
    def method(self) -> Method:
        """What sets this method apart."""
        return METHODS[self.algorithm]

    @property
    def estimator(self) -> AdvantageName | Literal["gae"]:
        """Where advantages come from: `gae`, or a name of algos/group_advantages.py."""
        return getattr(settings_of(self), "advantages", "gae")

    @property
    def has_penalty(self) -> bool:
        """Whether tokens are drawn from other probabilities than the policy's at any temperature, which the trainer does not know."""
        return self.repetition_penalty != 1.0

    @property
    def has_exact_engine(self) -> bool:
        """Whether the engine's logprobs are the trainer's up to rounding in fp32; not while a precision is open that may be another one."""
        if self.has_penalty:
            return False
        may_be_low = ("bf16",) if self.engine.kind == "local" else ("auto", "bf16")
        return self.training.precision != "bf16" and self.engine.precision not in may_be_low

    def resolved(self, precision: Precision) -> "OnlineConfig":
        """With nothing left open that depends on the machine.

        Args:
            precision: that the policy computes in.
        """
        of_engine = self.engine.precision
        if self.engine.kind == "local" and of_engine == "auto":
            of_engine = precision
        training = self.training.model_copy(update={"precision": precision})
        found = self.model_copy(
            update={"training": training, "engine": self.engine.model_copy(update={"precision": of_engine})}
        )
        if found.old_logprobs != "auto":
            return found
        if found.has_exact_engine and found.engine.kind == "local":
            return found.model_copy(update={"old_logprobs": "engine"})
        return found.model_copy(update={"old_logprobs": "trainer" if found.why_read_before else "step"})

    @property
    def step_correction(self) -> CorrectionConfig | None:
        """How the step itself reconciles engine and trainer; None where the round brings the old log-probabilities."""
        if self.old_logprobs != "step" or self.method.learns != "advantages":
            return None
        return CorrectionConfig(**self.correction.model_dump())

    @property
    def why_read_before(self) -> str | None:
        """Why the log-probabilities of a round are read before its first step; None where the step's own serve."""
        if self.has_penalty:
            return f"repetition_penalty: {self.repetition_penalty:g}"
        if self.method.learns != "advantages":
            return None
        if self.kl.where == "reward" and self.kl.largest > 0:
            return "kl.where: reward"
        if self.max_staleness:
            return f"max_staleness: {self.max_staleness}"
        return None if self.num_epochs * -(-self.batch_size // self.minibatch_size) == 1 else "several steps a round"

    @property
    def needs_group(self) -> bool:
        """Whether completions are compared with others of their prompt."""
        return self.method.learns == "pairs" or (self.method.learns == "advantages" and self.estimator in _BY_GROUP)

    @property
    def num_learned(self) -> int:
        """Completions of each prompt that are learned from, at most."""
        return {"pairs": 2, "best": 1}.get(self.method.learns, self.group_size)

    @property
    def max_reply_tokens(self) -> int:
        """Tokens after a prompt, at most: the policy's own, and what environments say."""
        return self.max_new_tokens + (0 if self.tools is None else self.tools.max_added_tokens)

    @property
    def needs_greedy(self) -> bool:
        """Whether the baseline is a greedy completion of each prompt."""
        return self.estimator == "greedy_baseline"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        name = given.get("algorithm", "ppo")
        return with_defaults(given, name) if name in METHODS else given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_k == 0 and (self.top_p < 1 or self.min_p > 0):
            key = "top_p" if self.top_p < 1 else "min_p"
            raise ValueError(explain(key, getattr(self, key), "leaves an unknown number of tokens to draw from, all of which are kept",
                                     expected="top_k beside it", remedy="Set top_k: 256 (little is likely beyond), or leave it out"))  # fmt: skip
        if self.minibatch_size > self.batch_size:
            raise ValueError(explain("minibatch_size", self.minibatch_size, "is larger than a round", expected=f"<= batch_size ({self.batch_size})",
                                     remedy="Lower it"))  # fmt: skip
        if self.needs_group and self.group_size < 2:
            raise ValueError(explain("group_size", self.group_size, f"gives zero advantages with {self.algorithm}", expected=">= 2",
                                     remedy="Raise it, or use algorithm: ppo or reinforce_pp"))  # fmt: skip
        for key in ("batch_size", "minibatch_size"):
            size = getattr(self, key)
            if size % self.group_size:
                raise ValueError(explain(key, size, "cuts a group of completions of one prompt", expected=f"a multiple of group_size "
                                         f"({self.group_size})", remedy=f"Set {size - size % self.group_size or self.group_size}"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _resamples_groups(self) -> Self:
        if self.max_resamples and self.group_size < 2:
            raise ValueError(explain("max_resamples", self.max_resamples, "would take every prompt for one that teaches nothing: a completion that "
                                     "stands alone is like all of its prompt", expected="0, or group_size >= 2",
                                     remedy="Raise group_size, or remove it"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.engine.kind == "remote":
            raise ValueError(explain("engine.kind", "remote", "samples from weights that do not follow the policy's", expected="local or vllm",
                                     remedy="Change it; a remote server may write the section completions"))  # fmt: skip
        if self.engine.kind == "vllm" and self.top_k:
            raise ValueError(explain("top_k", self.top_k, "leaves tokens without a chance, and vllm does not say which",
                                     expected="engine.kind: local",
                                     remedy="Set top_k: 0, top_p: 1 and min_p: 0, or change the engine"))  # fmt: skip
        if self.has_penalty and self.old_logprobs == "engine":
            raise ValueError(explain("old_logprobs", "engine", f"are those of penalised logits (repetition_penalty: {self.repetition_penalty:g})",
                                     expected="trainer", remedy="Leave it out"))  # fmt: skip
        if self.old_logprobs == "step" and self.why_read_before is not None:
            raise ValueError(explain("old_logprobs", "step", f"comes too late for this method ({self.why_read_before})",
                                     expected="one step a round, no staleness, no KL in the reward and no repetition_penalty",
                                     remedy="Leave it out"))  # fmt: skip
        if not self.has_exact_engine and self.old_logprobs == "engine":
            where = f"training.precision: {self.training.precision}, engine.kind: {self.engine.kind}, engine.precision: {self.engine.precision}"
            raise ValueError(explain("old_logprobs", "engine", f"would compare with logprobs that were rounded otherwise ({where})",
                                     expected="trainer, or fp32 in both", remedy="Leave it out"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _sampling_fits(self) -> Self:
        if self.has_penalty and self.method.learns == "advantages":
            raise ValueError(explain("repetition_penalty", self.repetition_penalty, "draws from other probabilities than those whose gradient "
                                     f"{self.algorithm} follows", expected="1, or a method that learns from pairs or imitates",
                                     remedy="Remove it, and pay for repetition instead: a component of kind repetition in rewards"))  # fmt: skip
        if self.stop and self.tools is not None:
            raise ValueError(explain("stop", self.stop[0], "ends a turn before its end of turn, so that no environment would answer it",
                                     expected="no stop texts with tools", remedy="Remove one of them"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _rewards_fit(self) -> Self:
        rewards = self.rewards
        if rewards is None:
            return self
        if self.uncertainty_coef:
            raise ValueError(explain("uncertainty_coef", self.uncertainty_coef, "is not read with rewards", expected="aggregate: uncertainty",
                                     remedy="Set it on the component"))  # fmt: skip
        judges = [name for name, part in rewards.components.items() if isinstance(part, JudgeComponent)]
        if judges and (self.group_size < 2 or self.needs_greedy):
            why = "a greedy baseline, which stands alone" if self.needs_greedy else "one completion a prompt"
            raise ValueError(explain(f"rewards.components.{judges[0]}.type", "judge", f"compares completions of one prompt, and {self.algorithm} has "
                                     f"{why}", expected="a method with groups, group_size >= 2", remedy="Use grpo or rloo"))  # fmt: skip
        if rewards.normalisation == "group" and self.group_size < 2:
            raise ValueError(explain("group_size", self.group_size, "leaves nothing to normalise a reward within", expected=">= 2",
                                     remedy="Raise it, or set rewards.normalise_by: running"))  # fmt: skip
        if (
            rewards.normalisation == "group"
            and self.method.learns == "advantages"
            and self.estimator not in _TAKES_ADVANTAGES
        ):
            raise ValueError(explain("rewards.combine", rewards.combine, f"gives advantages, which {self.algorithm} computes itself "
                                     f"({self.estimator})", expected="normalise_by: running or reference",
                                     remedy="Set it, or use algorithm: grpo"))  # fmt: skip
        for kind, key in (("missing_eos", "missing_eos_penalty"), ("length_penalty", "length_coef")):
            if getattr(self, key) and any(
                isinstance(c, RuleComponent) and c.rule.get("kind") == kind for c in rewards.components.values()
            ):
                raise ValueError(explain(key, getattr(self, key), f"is paid a second time by a component of kind {kind}", expected="one of them",
                                         remedy=f"Set {key}: 0, or remove the component"))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _settings_are_the_methods(self) -> Self:
        settings_of(self)
        if self.min_score is not None and self.method.learns not in ("best", "good"):
            raise ValueError(explain("min_score", self.min_score, f"is not read by {self.algorithm}", expected="best_of_n or expert_iteration",
                                     remedy="Remove it"))  # fmt: skip
        unread = [name for name in _LOSS_KEYS if name not in loss_settings(self.algorithm)]
        if self.method.learns != "advantages" and not self.learns_from_cut:
            raise ValueError(explain("learns_from_cut", False, f"is not read by {self.algorithm}", expected="true", remedy="Remove it"))  # fmt: skip
        unread += [] if self.method.has_values else ["value_model"]
        estimator = self.estimator if self.method.learns == "advantages" else ""
        unread += [name for name, readers in _READ_BY.items() if estimator not in readers]
        for name in unread:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(explain(name, getattr(self, name), f"is not read by {self.algorithm}", expected="a setting of the method",
                                         remedy="Remove it"))  # fmt: skip
        return self


def with_defaults(given: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """A policy's section with the defaults of its method where it says nothing, section by section."""
    method = METHODS[algorithm]
    composed = COMPOSED_DEFAULTS if given.get("rewards") is not None else {}
    found = _merged({**loss_settings(algorithm), **method.defaults, **composed}, given)
    size, group = found.get("batch_size", 64), found.get("group_size", 1)
    if "minibatch_size" not in found and isinstance(size, int) and isinstance(group, int) and group > 0:
        found["minibatch_size"] = max(group, size // method.num_minibatches // group * group)
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        is_section = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(cast(Mapping[str, Any], under), cast(Mapping[str, Any], value)) if is_section else value
    return merged


def settings_of(config: OnlineConfig) -> Any:
    """The settings of the method's loss: keys of the section that it reads, and the options.

    Raises:
        ConfigError: an option that the method does not have, or a value that it refuses.
    """
    cls = get_algorithm(loss_name(config.algorithm)).config
    hints = get_type_hints(cls)
    own = {name: getattr(config, name) for name in loss_settings(config.algorithm)}
    if config.kl.where == "loss":
        if "kl_coef" not in hints:
            raise ConfigError(
                explain("kl.where", "loss", f"is not read by {config.algorithm}", expected="reward", remedy="Change it")
            )
        own["kl_coef"] = config.kl.kl_coef
    is_by_length = config.options.get("aggregation", "constant_length") == "constant_length"
    if config.method.divides_by_limit and is_by_length and "constant_length" not in config.options:
        own["constant_length"] = config.max_new_tokens
    beside = {**{key: key for key in _LOSS_KEYS}, "kl_coef": "kl.kl_coef"}
    return read_settings(config.algorithm, cls, own, config.options, beside=beside)


def loss_name(algorithm: str) -> str:
    """Name of the method's loss in algos/."""
    return METHODS[algorithm].loss or algorithm


def loss_settings(algorithm: str) -> dict[str, Any]:
    """Settings of the method's loss that are keys of the section, with the method's defaults."""
    fields = dataclasses.fields(get_algorithm(loss_name(algorithm)).config)
    return {field.name: field.default for field in fields if field.name in _LOSS_KEYS}
