"""Composed rewards and environments in a run: what a section stands on, whether the recipe has it, and the functions that build the composer
and the environment for a policy."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.engine_section import EngineSection
from fairlead.core.errors import ConfigError, StoreError, explain, nearest
from fairlead.core.io import read_records
from fairlead.core.protocols import Environment, Judge
from fairlead.core.records import Completion, Prompt
from fairlead.core.reward_section import (
    ComposeSection,
    JudgeComponent,
    ModelComponent,
    ProcessComponent,
    RuleComponent,
    VerifierComponent,
)
from fairlead.core.services import Services
from fairlead.core.tool_section import ToolsSection
from fairlead.engine.http import check_server
from fairlead.engine.opening import check_vllm
from fairlead.feedback.simulated import RaterTraits, SimulatedRater
from fairlead.models.heads import HEAD_FILE
from fairlead.rewards.build import Samples, Surroundings, build_composer, check_prompts
from fairlead.rewards.composer import Composer
from fairlead.rewards.config import RewardsConfig
from fairlead.rewards.environments import make_environment
from fairlead.rewards.gold import load_gold
from fairlead.rewards.rules import make_rule
from fairlead.rewards.verifiers import build_verifier, read_section
from fairlead.store.artifacts import Artifact, ArtifactStore

SIMULATED = "simulated"
START = "start"
"""Role of the reward model that an update goes on from; the preferences that it was made from are `replay`."""


def section_of(config: object) -> ComposeSection | None:
    """The composed reward of a policy's config; None where it has none."""
    found = getattr(config, "rewards", None)
    return found if isinstance(found, ComposeSection) else None


def trains_on_own_model(section: ComposeSection) -> bool:
    """Does a component take the reward model that the recipe trains?"""
    return any(isinstance(part, ModelComponent) and part.model is None for part in section.components.values())


def trains_on_own_process(section: ComposeSection) -> bool:
    """Does a component take the process-reward model that the recipe trains?"""
    return any(isinstance(part, ProcessComponent) and part.model is None for part in section.components.values())


def named_models(section: ComposeSection) -> dict[str, str]:
    """Role -> folder or artifact id of the reward models that components name."""
    found: dict[str, str] = {}
    for name, part in section.components.items():
        if isinstance(part, ModelComponent | ProcessComponent) and part.model is not None:
            found[f"rewards.{name}"] = part.model
        if isinstance(part, ModelComponent):
            found |= {f"rewards.{name}.{step}": path for step, path in part.swaps.items()}
    return found


def check_section(section: ComposeSection, *, where: str, has: Mapping[str, bool]) -> None:
    """Rules across stages, and rules that can be built.

    Args:
        where: recipe path of the section.
        has: recipe section -> is it there?
    Raises:
        ConfigError: a component, and what it misses.
    """
    for name, part in section.components.items():
        place = f"{where}.components.{name}"
        if isinstance(part, ModelComponent) and part.model is None and not has["rewards"]:
            raise ConfigError(explain(f"{place}.model", None, "is missing, and the recipe trains no reward model",
                                      expected="a section rewards, or the folder or artifact id of one", remedy="Add one of them"))  # fmt: skip
        if isinstance(part, ProcessComponent) and part.model is None and not has["process"]:
            raise ConfigError(explain(f"{place}.model", None, "is missing, and the recipe trains no process-reward model",
                                      expected="a section process, or the folder or artifact id of one", remedy="Add one of them"))  # fmt: skip
        if isinstance(part, RuleComponent) and part.rule.get("kind") != "lexicon":  # its file is looked for later
            make_rule(part.rule, where=f"{place}.rule")
        if isinstance(part, VerifierComponent):
            read_section(part.verifier, where=place)
        if isinstance(part, JudgeComponent) and part.endpoint is not None:
            check_server(part.endpoint.url, where=f"{place}.endpoint", has_key=part.endpoint.key_env is not None)
        if isinstance(part, JudgeComponent) and part.endpoint is None and (part.judge != SIMULATED or not has["gold"]):
            raise ConfigError(explain(f"{place}.judge", part.judge, "is not there", expected=f"{SIMULATED}, with a section gold, or an endpoint",
                                      remedy="Add gold, name an endpoint, or remove the component"))  # fmt: skip
    if section.normalisation == "reference" and not has["completions"]:
        raise ConfigError(explain(f"{where}.normalise_by", "reference", "has no reference samples", expected="a section completions",
                                  remedy="Add it, or use running"))  # fmt: skip


def check_own_model(section: ComposeSection, rewards: RewardsConfig | None, *, where: str) -> None:
    """Components that take the recipe's reward model ask for what it will have.

    Raises:
        ConfigError: an aggregate of members, or the weight of an attribute, that it has not.
    """
    for name, part in section.components.items():
        if rewards is None or not isinstance(part, ModelComponent) or part.model is not None:
            continue
        place, names = f"{where}.components.{name}", tuple(rewards.attributes)
        if part.aggregate != "mean" and not rewards.ensemble.has_disagreement:
            raise ConfigError(explain(f"{place}.aggregate", part.aggregate, "has no members to aggregate", expected="mean, or rewards.ensemble with "
                                      "a kind other than none and combine: scores", remedy="Train an ensemble, or set aggregate: mean"))  # fmt: skip
        for attribute in part.attributes:
            if attribute not in names:
                wrong = f"is none of the recipe's reward model{nearest(attribute, names)}"
                expected = "one of " + (", ".join(names) or "none: it has one score")
                raise ConfigError(
                    explain(
                        f"{place}.attributes.{attribute}", None, wrong, expected=expected, remedy="Correct the name"
                    )
                )


def check_parts(config: object, *, where: str, find_file: Callable[..., Path]) -> None:
    """What a stage would miss when it begins: the file of a lexicon, the packages and the code of a verifier, an engine.

    Args:
        where: recipe path of the stage.
        find_file: path, `key` -> file; raises where there is none.
    Raises:
        ConfigError, DataError, EngineError: the first that is not there.
    """
    engine, composed = getattr(config, "engine", None), section_of(config)
    if isinstance(engine, EngineSection) and engine.kind == "vllm":
        check_vllm()
    for name, part in () if composed is None else composed.components.items():
        place = f"{where}.rewards.components.{name}"
        if isinstance(part, RuleComponent) and part.rule.get("kind") == "lexicon":
            path = part.rule.get("path")
            found = find_file(path, key=f"{place}.rule.path") if isinstance(path, str) else None
            make_rule(part.rule if found is None else {**part.rule, "path": str(found)}, where=f"{place}.rule")
        if isinstance(part, VerifierComponent):
            try:
                build_verifier(read_section(part.verifier, where=place))
            except ConfigError as error:
                raise ConfigError(f"{place}.verifier.{error}") from error


def check_keys(config: object, *, where: str) -> None:
    """The keys of servers that a stage will ask are there.

    Args:
        where: recipe path of the stage.
    Raises:
        ConfigError: the first whose variable is not set.
    """
    named: dict[str, str | None] = {}
    engine, composed = getattr(config, "engine", None), section_of(config)
    if isinstance(engine, EngineSection):
        named[f"{where}.engine"] = engine.key_env
    for name, part in () if composed is None else composed.components.items():
        if isinstance(part, JudgeComponent) and part.endpoint is not None:
            named[f"{where}.rewards.components.{name}.endpoint"] = part.endpoint.key_env
    for place, variable in named.items():
        if variable is not None and not os.environ.get(variable, "").strip():
            raise ConfigError(explain(f"{place}.key_env", variable, "is not set", expected="an environment variable that holds the server's key",
                                      remedy=f"export {variable}=..., or leave key_env out"))  # fmt: skip


def find_model(store: ArtifactStore, name: str, *, folders: Sequence[Path]) -> tuple[str, Path]:
    """Id (or folder) and place of a reward model by artifact id or folder.

    Raises:
        ConfigError: neither.
    """
    try:
        artifact = store.get(name)
        return artifact.id, artifact.path
    except StoreError:
        for folder in (Path(), *folders):
            place = folder / Path(name).expanduser()
            if (place / HEAD_FILE).is_file():
                return str(place), place
    raise ConfigError(explain("reward model", name, "is neither an artifact nor the folder of a reward model",
                              expected="an id of fairlead registry ls, or a folder that holds " + HEAD_FILE, remedy="Check the name"))  # fmt: skip


def stored_models(models: Mapping[str, str], store: ArtifactStore) -> dict[str, Artifact]:
    """Those of a node's models that are artifacts, by role, and the votes behind one that is updated; a folder is none."""
    found: dict[str, Artifact] = {}
    for role, name in models.items():
        with contextlib.suppress(StoreError):
            found[role] = store.get(name)
    if START in found:
        if found[START].kind != "reward_model" or "preferences" not in found[START].inputs:
            raise ConfigError(explain("rewards.update.model", found[START].id, "is no reward model that was trained on preferences",
                                      expected="an id of fairlead registry ls", remedy="Name another artifact"))  # fmt: skip
        found["replay"] = store.get(found[START].inputs["preferences"])
    return found


def named_folders(models: Mapping[str, str], store: ArtifactStore, *, folders: Sequence[Path]) -> dict[str, Path]:
    """Those of a node's models that are folders, by role."""
    names = {role: name for role, name in models.items() if role not in stored_models(models, store)}
    return {role: find_model(store, name, folders=folders)[1] for role, name in names.items()}


def composer_factory(
    *, store: ArtifactStore, folders: Sequence[Path], find_file: Callable[[str], Path], inputs: Mapping[str, Path],
    services: Services, template: str | None,
) -> Callable[..., Composer]:  # fmt: skip
    """What a policy's stage is handed as `compose_rewards`; see policies/online.py."""
    gold = inputs.get("gold")
    judges: dict[str, Judge] = {}
    if gold is not None:
        judges[SIMULATED] = SimulatedRater(RaterTraits(name="judge"), gold=load_gold(gold), seed=services.seed)
    around = Surroundings(
        find_model=lambda name: find_model(store, name, folders=folders), find_file=find_file, trained=_named(inputs.get("rewards")),
        process=_named(inputs.get("process")), judges=judges, reference=_samples(inputs), template=template, device=services.device,
        work=services.work, cache=store.root / "cache" / "verifiers", say=services.say, machine_file=services.extras.get("machine_file"),
    )  # fmt: skip

    def compose(section: ComposeSection, *, prompts: Sequence[Prompt] | None, **given: Any) -> Composer:
        composer = build_composer(section, around, **given)
        if prompts is not None:
            check_prompts(composer, prompts)
        return composer

    return compose


def _named(folder: Path | None) -> tuple[str, Path] | None:
    """Artifact id and folder."""
    return None if folder is None else (folder.name, folder)


def _samples(inputs: Mapping[str, Path]) -> Samples | None:
    """Reads the reference samples, when they are asked for."""
    if "completions" not in inputs or "prompts" not in inputs:
        return None

    def read() -> tuple[Sequence[Prompt], Sequence[Completion]]:
        prompts = {p.id: p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt)}
        found = list(read_records(inputs["completions"] / "completions.jsonl", Completion))
        return [prompts[c.prompt_id] for c in found], found

    return read


def environment_factory(say: Callable[[str], None]) -> Callable[[ToolsSection], Environment]:
    """What a policy's stage is handed as `build_environment`; see policies/online.py."""
    return lambda section: make_environment(section.environments, say=say)
