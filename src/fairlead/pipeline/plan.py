"""From a recipe to a graph of stages: what runs, on what, in which order. Nothing is computed here.

    criteria   prompts   gold      sft
                  \\        \\        /  \
                completions -> feedback -> preferences -> rewards -> policies.* -> evals -> releases

Example:
    for node in build_plan(recipe):
        print(node.name, dict(node.inputs))
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairlead.completions import stage as completions
from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.evals import criteria_stage
from fairlead.evals import stage as evals
from fairlead.feedback import stage as feedback
from fairlead.pipeline.composing import START, named_models, trains_on_own_model, trains_on_own_process
from fairlead.pipeline.recipe import Recipe, evals_of
from fairlead.policies import dpo, kto, online, sft
from fairlead.policies.dpo_config import DpoConfig
from fairlead.policies.kto_config import KtoConfig
from fairlead.policies.online_config import OnlineConfig
from fairlead.preferences import stage as preferences
from fairlead.prompts import stage as prompts
from fairlead.releases import stage as releases
from fairlead.rewards import gold, process
from fairlead.rewards import stage as rewards

BASE_MODEL = "@base"
"""Input that stands for the recipe's own model rather than an artifact."""
ALL_POLICIES = "train"
"""Target that stands for everything that trains a policy, SFT included."""

Run = Callable[..., StageSummary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One stage of a run."""

    name: str
    """As in the recipe: `rewards`, `policies.ppo`."""
    title: str
    kind: str
    """Kind of the artifact."""
    config: Config
    run: Callable[[Config, Mapping[str, Path], Path, Services], StageSummary]
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Role -> node name (or BASE_MODEL)."""
    optional: frozenset[str] = frozenset()
    """Roles that the stage can do without when their node was stopped."""
    needs_reward: bool = False
    """Optimises a learned reward, which is refused below 2,000 pairs outside scope toy."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """Role -> artifact id or folder of a model that the config names; an artifact is an input like those of nodes."""
    samples: bool = False
    """Has the model write completions; a policy that does while it is trained needs the local engine."""


_TITLES = {"dpo": "DPO", "cdpo": "cDPO", "ipo": "IPO", "orpo": "ORPO", "simpo": "SimPO", "cpo": "CPO"}


def build_plan(recipe: Recipe) -> list[Node]:
    """Nodes in an order in which each comes after its inputs."""
    nodes: list[Node] = []
    policy = "sft" if recipe.sft else BASE_MODEL
    prompted = {"prompts": "prompts"} if recipe.prompts else {}
    sampled = {**prompted, "completions": "completions"} if recipe.completions else {}
    if recipe.prompts:
        nodes.append(_node("prompts", "Prompts", "prompts", recipe.prompts, prompts.run))
    if recipe.evals:
        nodes.append(_node("criteria", "Criteria of success", "criteria", evals_of(recipe), criteria_stage.run,
                           inputs={} if recipe.evals.prompts else prompted))  # fmt: skip
    if recipe.gold:
        nodes.append(_node("gold", "Gold reward", "gold", recipe.gold, gold.run))
    if recipe.sft:
        nodes.append(_node("sft", "Supervised fine-tuning", "policy", recipe.sft, sft.run))
    if recipe.completions:
        nodes.append(
            _node(
                "completions",
                "Completions",
                "completions",
                recipe.completions,
                completions.run,
                inputs={**prompted, "policy": policy},
                samples=True,
            )
        )
    if recipe.feedback:
        nodes.append(
            _node("feedback", "Feedback", "feedback", recipe.feedback, feedback.run,
                  inputs={} if recipe.feedback.path else {**sampled, "gold": "gold"})
        )  # fmt: skip
    if recipe.preferences:
        given = {"feedback": "feedback", **sampled} if recipe.feedback else prompted
        if recipe.feedback and recipe.feedback.path:  # votes of people come with their own texts
            given = {"feedback": "feedback", "prompts": "feedback", "completions": "feedback"}
        nodes.append(
            _node("preferences", "Preferences", "preferences", recipe.preferences, preferences.run, inputs=given)
        )
    if recipe.rewards:
        node = _node("rewards", "Reward model", "reward_model", recipe.rewards, rewards.run,
                     inputs={"preferences": "preferences", "policy": policy, **sampled})  # fmt: skip
        update = recipe.rewards.update
        nodes.append(node if update is None else dataclasses.replace(node, models={START: update.model}))
    if recipe.process:
        nodes.append(
            _node(
                "process",
                "Process-reward model",
                "reward_model",
                recipe.process,
                process.run,
                inputs={"policy": policy},
            )
        )
    for name, config in recipe.policies.items():
        nodes.append(_policy_node(name, config, policy, prompted))
    if recipe.evals:
        nodes.append(_evals_node(recipe, policy, prompted))
    if recipe.releases:
        trained = {f"policy.{name}": f"policies.{name}" for name in recipe.policies}
        nodes.append(_node("releases", "Release", "release", recipe.releases, releases.run, inputs={"evals": "evals", **trained},
                           optional=frozenset(trained) - {f"policy.{recipe.releases.policy}"}))  # fmt: skip
    return nodes


def _policy_node(name: str, config: Config, policy: str, prompted: Mapping[str, str]) -> Node:
    if isinstance(config, OnlineConfig):
        return _online_node(name, config, policy, prompted)
    if isinstance(config, KtoConfig):
        given = prompted if config.data else {"preferences": "preferences"}
        title = f"Policy {name} ({config.algorithm.partition('_')[0].upper()})"
        return _node(f"policies.{name}", title, "policy", config, kto.run, inputs={"policy": policy, **given})
    assert isinstance(config, DpoConfig)
    return _node(
        f"policies.{name}",
        f"Policy {name} ({_TITLES.get(config.algorithm, f'DPO, {config.algorithm}')})",
        "policy",
        config,
        dpo.run,
        inputs={"policy": policy, "preferences": "preferences"},
    )


def _online_node(name: str, config: OnlineConfig, policy: str, prompted: Mapping[str, str]) -> Node:
    """Its inputs are what scores: the recipe's reward model, or whatever the components of a composed reward stand on."""
    composed = config.rewards
    needs_reward = composed is None or trains_on_own_model(composed)
    inputs = {"policy": policy, **({"rewards": "rewards"} if needs_reward else {}), **prompted}
    inputs |= {"base": BASE_MODEL} if config.perplexity_model == "base" else {}
    if composed is not None:
        inputs |= {"completions": "completions"} if composed.normalisation == "reference" else {}
        inputs |= {"process": "process"} if trains_on_own_process(composed) else {}
        inputs |= (
            {"gold": "gold"}
            if any(part.type == "judge" and part.endpoint is None for part in composed.components.values())
            else {}
        )
    node = _node(f"policies.{name}", f"Policy {name} ({config.method.title})", "policy", config, online.run, needs_reward=needs_reward,
                 samples=True, inputs=inputs)  # fmt: skip
    return node if composed is None else dataclasses.replace(node, models=named_models(composed))


def _evals_node(recipe: Recipe, policy: str, prompted: Mapping[str, str]) -> Node:
    trained = {f"policy.{name}": f"policies.{name}" for name in recipe.policies}
    if not trained and recipe.sft:  # what SFT made is then the policy, and the model that it started from the start
        policy, trained = BASE_MODEL, {"policy.sft": "sft"}
    optional = {**({"rewards": "rewards"} if recipe.rewards else {}), **trained}
    gold_input = {"gold": "gold"} if recipe.gold else {}
    return _node("evals", "Evaluation", "evaluation", evals_of(recipe), evals.run, optional=frozenset(optional), samples=True,
                 inputs={"criteria": "criteria", "before": policy, **prompted, **gold_input, **optional})  # fmt: skip


def _node(
    name: str, title: str, kind: str, config: object, run: Run, *, inputs: Mapping[str, str] | None = None,
    optional: frozenset[str] = frozenset(), needs_reward: bool = False, samples: bool = False,
) -> Node:  # fmt: skip
    assert isinstance(config, Config), f"{name} has no config"

    def call(config: Config, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
        return run(config, inputs=inputs, out=out, services=services)

    return Node(
        name=name,
        title=title,
        kind=kind,
        config=config,
        run=call,
        inputs=inputs or {},
        optional=optional,
        needs_reward=needs_reward,
        samples=samples,
    )


def select(nodes: list[Node], target: str) -> list[Node]:
    """The nodes that `target` (a node name, a prefix such as `policies`, ALL_POLICIES) stands on, itself included, in order.

    Training stands on the criteria too, though it never reads them: they are frozen before it.
    """
    chosen = [n for n in nodes if n.name == target or n.name.startswith(target + ".")]
    if target == ALL_POLICIES:
        chosen = [n for n in nodes if n.kind == "policy"]
    if not chosen:
        known = [n.name for n in nodes]
        raise ConfigError(explain("stage", target, f"is not part of this recipe{nearest(target, known)}", expected="one of " + ", ".join(known),
                                  remedy="Add its section to the recipe"))  # fmt: skip
    by_name = {n.name: n for n in nodes}
    wanted: set[str] = set()
    queue = [n.name for n in chosen]
    while queue:
        name = queue.pop()
        if name in wanted or name == BASE_MODEL:
            continue
        wanted.add(name)
        queue += by_name[name].inputs.values()
        queue += ["criteria"] if by_name[name].kind in ("policy", "reward_model") and "criteria" in by_name else []
    return [n for n in nodes if n.name in wanted]
