"""The recipe: one YAML file that says everything about a run. Sections that are absent are stages that are skipped.

Example:
    recipe = load("recipes/tiny_cpu.yaml", sets=["seed=1"])
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from fairlead.completions.stage import CompletionsConfig
from fairlead.core.config import Config, load_recipe, parse_config
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.sections import Scope, TextSection
from fairlead.core.tool_section import ToolsSection
from fairlead.evals.criteria import default_behaviours
from fairlead.evals.stage import EvalsConfig
from fairlead.feedback.stage import FeedbackConfig
from fairlead.pipeline.composing import check_own_model, check_section, section_of, trains_on_own_model
from fairlead.policies.dpo_config import PAIR_METHODS, DpoConfig
from fairlead.policies.kto_config import BATCH_METHODS, KtoConfig
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.online_methods import ONLINE_METHODS
from fairlead.policies.sft import SftConfig
from fairlead.preferences.stage import PreferencesConfig
from fairlead.prompts.stage import PromptsConfig
from fairlead.releases.stage import ReleasesConfig
from fairlead.rewards.gold import GoldConfig
from fairlead.rewards.process import ProcessConfig
from fairlead.rewards.stage import RewardsConfig

_POLICIES: dict[str, type[Config]] = {
    **dict.fromkeys(ONLINE_METHODS, OnlineConfig),
    **dict.fromkeys(PAIR_METHODS, DpoConfig),
    **dict.fromkeys(BATCH_METHODS, KtoConfig),
}
_RUNS_PROGRAMS = ("code", "python")
"""Kinds of sections that run programs of a policy; each has a key allow_unsandboxed."""
PolicyConfig = Annotated[OnlineConfig | DpoConfig | KtoConfig, Field(union_mode="smart")]


class TelemetrySection(Config):
    """Where metrics go besides the run's own files. Nothing is sent anywhere unless it is named here."""

    sinks: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """tensorboard: event files in the run's folder. wandb: offline runs there. mlflow: its file store there. Each needs the extra of its name."""
    project: str = "fairlead"
    """Project of W&B, experiment of MLflow."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """online sends to the account that wandb is logged in to."""
    mlflow_uri: str = ""
    """Tracking server of MLflow; empty writes files in the run's folder."""


class Recipe(Config):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; its folder under FAIRLEAD_HOME."""
    scope: Scope = "narrow"
    """What the model is for: toy (to see the loop run), narrow (one task), general. Gates ask for that many data; of quality they ask the same."""
    seed: int = Field(default=0, ge=0)
    """Everything random derives from it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run; auto takes cuda, then mps, then cpu."""
    model: str | tuple[str, ...] = "bundled"
    """Base model: a transformers folder, a hub id, or `bundled`; of a list the first that is there."""
    text: TextSection = TextSection()
    """Template and lengths."""
    gold: GoldConfig | None = None
    """Gold reward of a controlled experiment; simulated raters need one."""
    prompts: PromptsConfig | None = None
    """Prompts of the run."""
    sft: SftConfig | None = None
    """Supervised fine-tuning; absent when the model is instruction-tuned already."""
    completions: CompletionsConfig | None = None
    """Completions to be judged, and reference samples for the reward model."""
    feedback: FeedbackConfig | None = None
    """Judgments of completions."""
    preferences: PreferencesConfig | None = None
    """Aggregated judgments, or preferences from a file."""
    rewards: RewardsConfig | None = None
    """The reward model."""
    process: ProcessConfig | None = None
    """The process-reward model."""
    policies: dict[str, PolicyConfig] = Field(default_factory=dict)
    """Policies to train from the SFT model, by name."""
    evals: EvalsConfig | None = None
    """What is measured before and after, with the criteria of success."""
    releases: ReleasesConfig | None = None
    """Which policy is released."""
    telemetry: TelemetrySection = TelemetrySection()
    """Dashboards beside the metrics file; changes no result."""
    allow: dict[str, str] = Field(default_factory=dict)
    """Gates that are passed on record: name -> reason."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        """Rules across stages, before anything is computed."""
        simulated = self.feedback if self.feedback and not self.feedback.path else None
        needs = [
            ("completions", self.completions, "prompts", self.prompts), ("feedback", simulated, "completions", self.completions),
            ("feedback", simulated, "gold", self.gold), ("rewards", self.rewards, "preferences", self.preferences),
            ("releases", self.releases, "evals", self.evals),
        ]  # fmt: skip
        for name, section, need, other in needs:
            if section is not None and other is None:
                raise ValueError(
                    explain(
                        name,
                        None,
                        f"is there without {need}",
                        expected=f"a section {need}",
                        remedy=f"Add {need} or remove {name}",
                    )
                )
        if self.preferences is not None and self.feedback is None and not self.preferences.path:
            raise ValueError(explain("preferences.path", None, "is missing and there is no feedback section", expected="one source of preferences",
                                     remedy="Add feedback, or name a file of preferences"))  # fmt: skip
        for name, policy in self.policies.items():
            _check_policy(name, policy, self)
        self._check_lengths()
        declared = self.evals.criteria.behaviours if self.evals else ()
        if declared == default_behaviours():
            declared = ()  # its score is for recipes that have one
        for i, behaviour in enumerate(declared):
            if behaviour.metric == "score" and self.gold is None:
                raise ValueError(explain(f"evals.criteria.behaviours.{i}.metric", "score", "needs a scorer", expected="a section gold",
                                         remedy="Add it, or measure words, phrases or a pattern"))  # fmt: skip
        evals_of(self)
        if self.releases is not None and self.releases.policy not in (*self.policies, "best"):
            raise ValueError(explain("releases.policy", self.releases.policy, "is not trained by this recipe",
                                     expected="best, or one of " + ", ".join(self.policies), remedy="Change it"))  # fmt: skip
        return self

    def _check_lengths(self) -> None:
        """A reply of the longest kind, and what environments say between its turns, leaves room for a prompt."""
        writes = {"completions": self.completions, "evals": evals_of(self)} | {
            f"policies.{name}": policy for name, policy in self.policies.items() if isinstance(policy, OnlineConfig)
        }
        for name, section in writes.items():
            if section is None:
                continue
            tools = getattr(section, "tools", None)
            added = 0 if tools is None else tools.max_added_tokens
            if section.max_new_tokens + added >= self.text.max_length:
                others = f", of which observations take {added}" if added else ""
                remedy = (
                    "Lower it"
                    if tools is None or not added
                    else _make_room(section.max_new_tokens, tools, self.text.max_length)
                )
                raise ValueError(explain(f"{name}.max_new_tokens", section.max_new_tokens, "leaves no room for a prompt",
                                         expected=f"< text.max_length ({self.text.max_length}{others})",
                                         remedy=f"{remedy}, or raise text.max_length if the model can"))  # fmt: skip


def _make_room(max_new_tokens: int, tools: ToolsSection, max_length: int) -> str:
    """Which single key to lower, and to what, so that prompts have three eighths of `max_length`, as with all defaults."""
    room, num = max_length - max_length * 3 // 8, tools.max_turns - 1
    left = max(0, room - max_new_tokens)
    options = {
        "max_new_tokens": room - tools.max_added_tokens,
        "tools.max_observation_tokens": left // num,
        "tools.max_turns": left // tools.max_observation_tokens + 1,
    }
    least = {"tools.max_turns": 2}
    ways = [f"{key} to {number}" for key, number in options.items() if number >= least.get(key, 1)]
    if not ways:
        ways = [f"max_new_tokens to {room // 2} and tools.max_observation_tokens to {max(1, room // 2 // num)}"]
    return "Lower " + " or ".join(ways)


def evals_of(recipe: Recipe) -> EvalsConfig | None:
    """The section evals with what replies are written under: what it names itself, else what the policies were trained with.

    Raises:
        ValueError: the policies differ in it, and the section names none; or stop texts and tools come together.
    """
    evals = recipe.evals
    if evals is None:
        return None
    none: dict[str, Any] = {"tools": None, "stop": (), "repetition_penalty": 1.0}
    given = {key: getattr(evals, key) for key in none}
    found = {key: _of_policies(recipe, key, none[key]) if value is None else value for key, value in given.items()}
    if found["stop"] and found["tools"] is not None:
        raise ValueError(explain("evals.stop", found["stop"][0], "ends a turn before its end of turn, so that no tool would answer it",
                                 expected="no stop texts with tools", remedy="Set evals.stop: []"))  # fmt: skip
    return evals.model_copy(update=found)


def _of_policies(recipe: Recipe, key: str, none: Any) -> Any:
    """What the policies that have it have alike; `none` where none does."""
    policies = {name: policy for name, policy in recipe.policies.items() if isinstance(policy, OnlineConfig)}
    found = {name: getattr(policy, key) for name, policy in policies.items() if getattr(policy, key) != none}
    first = next(iter(found.values()), none)
    if any(value != first for value in found.values()):
        raise ValueError(explain(f"evals.{key}", None, f"is left out, and {key} of {', '.join(found)} differs",
                                 expected="what all policies are compared under",
                                 remedy="Name it"))  # fmt: skip
    return first


def _check_policy(name: str, policy: OnlineConfig | DpoConfig | KtoConfig, recipe: Recipe) -> None:
    """What a policy learns from must be there."""
    if isinstance(policy, KtoConfig) and policy.data:
        return
    is_online = isinstance(policy, OnlineConfig)
    composed = section_of(policy)
    needed: dict[str, object] = (
        {} if composed else {"rewards": recipe.rewards} if is_online else {"preferences": recipe.preferences}
    )
    needed |= {"prompts": recipe.prompts} if is_online else {}
    for need, section in needed.items():
        if section is None:
            also = ", or name files of labels in data" if isinstance(policy, KtoConfig) else ""
            raise ValueError(explain(f"policies.{name}.algorithm", policy.algorithm, f"needs {need}", expected=f"a section {need}",
                                     remedy=f"Add {need}{also}"))  # fmt: skip
    if not isinstance(policy, OnlineConfig):
        return
    own = composed is None or trains_on_own_model(composed)
    if own and recipe.completions is None:
        raise ValueError(explain(f"policies.{name}.algorithm", policy.algorithm, "needs completions to normalise its scores on",
                                 expected="a section completions", remedy="Add it: a KL penalty on raw scores is arbitrary"))  # fmt: skip
    if composed is not None:
        has = {key: getattr(recipe, key) is not None for key in ("rewards", "process", "gold", "completions")}
        check_section(composed, where=f"policies.{name}.rewards", has=has)
        check_own_model(composed, recipe.rewards, where=f"policies.{name}.rewards")
    _check_uncertainty(name, policy, recipe.rewards)


def _check_uncertainty(name: str, policy: OnlineConfig, rewards: RewardsConfig | None) -> None:
    if policy.uncertainty_coef and (rewards is None or not rewards.ensemble.has_disagreement):
        raise ValueError(explain(f"policies.{name}.uncertainty_coef", policy.uncertainty_coef, "has no ensemble whose members could disagree",
                                 expected="rewards.ensemble with a kind other than none and combine: scores",
                                 remedy="Train an ensemble, or set it to 0"))  # fmt: skip


def load(path: Path | str, *, sets: tuple[str, ...] = (), allow_unsandboxed: bool = False) -> Recipe:
    """Read and validate a recipe.

    Args:
        allow_unsandboxed: as if `allow_unsandboxed: true` stood in every section that runs programs of a policy.
    Raises:
        ConfigError: it is not valid, or runs no such program.
    """
    data = load_recipe(path, sets=sets)
    if allow_unsandboxed and not _unsandbox(data):
        raise ConfigError(explain("--allow-unsandboxed", None, "has nothing to allow: the recipe runs no programs of a policy",
                                  expected="a verifier of kind code or tools of kind python", remedy="Leave it out"))  # fmt: skip
    _check_policies(data.get("policies"))
    return parse_config(Recipe, data)


def _unsandbox(data: object) -> int:
    """Allow it in every section that runs programs, in place; how many there are."""
    if isinstance(data, dict):
        section = cast(dict[str, object], data)
        is_runner = section.get("kind") in _RUNS_PROGRAMS
        if is_runner:
            section["allow_unsandboxed"] = True
        return is_runner + sum(_unsandbox(value) for value in section.values())
    return sum(_unsandbox(item) for item in cast(list[object], data)) if isinstance(data, list) else 0


def _check_policies(policies: object) -> None:
    """Validate each policy as what its `algorithm` says, so that a fault is located in that class and not in all of them."""
    for name, section in policies.items() if isinstance(policies, dict) else ():
        if not isinstance(section, dict):
            continue
        algorithm = section.get("algorithm")
        if not isinstance(algorithm, str) or algorithm not in _POLICIES:
            raise ConfigError(explain(f"policies.{name}.algorithm", algorithm, f"is not an algorithm{nearest(str(algorithm), _POLICIES)}",
                                      expected="one of " + ", ".join(_POLICIES), remedy="Name one"))  # fmt: skip
        parse_config(_POLICIES[algorithm], section, where=f"policies.{name}")
