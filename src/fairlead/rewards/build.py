"""From a recipe's section to the composer: every component with what it stands on.

The pipeline says what there is (`Surroundings`); policies get a function from it and never see this module.

Example:
    composer = build_composer(config.rewards, surroundings, policy=chat, budget=learner, heed=session.heed)
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.protocols import Judge
from fairlead.core.records import Completion, Prompt, content_hash
from fairlead.core.reward_section import (
    ComposeSection,
    JudgeComponent,
    JudgeEndpoint,
    ModelComponent,
    ProcessComponent,
    RuleComponent,
    VerifierComponent,
)
from fairlead.engine.chat import ChatEndpoint
from fairlead.models.arithmetic import Precision
from fairlead.models.frozen import LoadScalar, load_frozen
from fairlead.rewards.composer import Composer
from fairlead.rewards.endpoint import EndpointJudge
from fairlead.rewards.judged import JudgedSource, OneByOne
from fairlead.rewards.models import ModelSource, load_scorer
from fairlead.rewards.pool import ScoreCache, WorkerPool
from fairlead.rewards.process_model import ProcessSource, StepReader, load_steps
from fairlead.rewards.rules import make_rule
from fairlead.rewards.scored import ScoredLog
from fairlead.rewards.sources import Direct, Pooled, Source
from fairlead.rewards.verifiers import make_verifier, read_section, validate_prompts
from fairlead.text import ChatText
from fairlead.train.budget import Budget

Samples = Callable[[], tuple[Sequence[Prompt], Sequence[Completion]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surroundings:
    """What the components of a run may stand on."""

    find_model: Callable[[str], tuple[str, Path]]
    """Folder or artifact id -> (artifact id or folder name, folder); raises where there is none."""
    find_file: Callable[[str], Path]
    trained: tuple[str, Path] | None = None
    """Artifact id and folder of the reward model that the recipe trains."""
    process: tuple[str, Path] | None = None
    """The same of the process-reward model."""
    judges: Mapping[str, Judge] = field(default_factory=dict[str, Judge])
    reference: Samples | None = None
    """Samples of the completions stage."""
    template: str | None = None
    device: str = "cpu"
    machine_file: Path | None = None
    """Where this machine's speeds are kept."""
    cache: Path | None = None
    """Folder of results of verifiers that are found again; None keeps them in memory."""
    work: Path | None = None
    """Where the log of scored samples grows; None keeps none."""
    say: Callable[[str], None] = lambda _text: None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """Surroundings and what the policy hands in."""

    around: Surroundings
    policy: ChatText
    budget: Budget
    heed: Callable[[], None]
    precision: Precision
    pool: WorkerPool = field(default_factory=WorkerPool)


def build_composer(
    section: ComposeSection, around: Surroundings, *, policy: ChatText, budget: Budget, heed: Callable[[], None],
    precision: Precision = "fp32",
) -> Composer:  # fmt: skip
    """Build every component.

    Args:
        policy: how the policy's tokens are made.
        budget: of a reward model's forward.
        heed: called before each forward; raises to stop.
        precision: of the policy; reward models follow it where that pays.
    Raises:
        ConfigError: a component names what is not there.
        ModelError, StoreError: a reward model that cannot be read.
    """
    if section.normalisation == "reference" and around.reference is None:
        raise ConfigError(explain("rewards.normalise_by", "reference", "has no reference samples", expected="a section completions in the recipe",
                                  remedy="Add it, or use running"))  # fmt: skip
    ground = _Ground(around=around, policy=policy, budget=budget, heed=heed, precision=precision)
    sources = {name: _source(name, part, ground) for name, part in section.components.items()}
    log = None if around.work is None else ScoredLog(around.work, num_samples=section.log_samples)
    return Composer(section, sources, say=around.say, reference=around.reference, log=log)


def _source(name: str, part: Any, ground: _Ground) -> Source:
    where = f"rewards.components.{name}"
    if isinstance(part, ModelComponent):
        return _model(name, part, ground)
    if isinstance(part, ProcessComponent):
        return _process(name, part, ground)
    if isinstance(part, RuleComponent):
        return Direct(make_rule(_with_file(part.rule, ground.around.find_file), where=f"{where}.rule"))
    if isinstance(part, JudgeComponent) and part.endpoint is not None:
        return JudgedSource(
            _endpoint(part.endpoint, ground.around, where=f"{where}.endpoint"), num_opponents=part.num_opponents
        )
    if isinstance(part, JudgeComponent):
        judges = ground.around.judges
        if part.judge not in judges:
            raise ConfigError(explain(f"{where}.judge", part.judge, f"is not there{nearest(part.judge, judges)}",
                                      expected="one of " + ", ".join(judges) if judges else "a recipe with feedback, which has raters",
                                      remedy="Name another judge or add what it needs"))  # fmt: skip
        return JudgedSource(OneByOne(judges[part.judge]), num_opponents=part.num_opponents)
    assert isinstance(part, VerifierComponent), part
    around = ground.around
    cache = ScoreCache(None if around.cache is None else around.cache / f"{content_hash(part.verifier)}.jsonl")
    return Pooled(make_verifier(read_section(part.verifier, where=where), pool=ground.pool, cache=cache))


def _endpoint(section: JudgeEndpoint, around: Surroundings, *, where: str) -> EndpointJudge:
    """A judge model; its answers are kept beside the results of verifiers.

    Raises:
        ConfigError: the address is none, or the key is not there.
    """
    key = "" if section.key_env is None else os.environ.get(section.key_env, "")
    if section.key_env is not None and not key:
        raise ConfigError(explain(f"{where}.key_env", section.key_env, "is not set", expected="an environment variable with the server's key",
                                  remedy=f"Set {section.key_env}, or leave key_env out"))  # fmt: skip
    chat = ChatEndpoint(url=section.url, model=section.model, key=key, timeout_s=section.timeout_s, retries=section.retries,
                        max_tokens=section.max_tokens, temperature=section.temperature, where=where)  # fmt: skip
    named = content_hash([section.url, section.model])
    return EndpointJudge(
        chat, section, ScoreCache(None if around.cache is None else around.cache / f"judge-{named}.jsonl")
    )


def check_prompts(composer: Composer, prompts: Sequence[Prompt]) -> None:
    """Before anything is sampled: every prompt is scored by something, and carries what its verifiers read.

    Raises:
        DataError: a prompt that nothing scores, a component that scores none, or a reference that cannot be used.
        ConfigError: a verifier finds no reference in any of its prompts.
    """
    composer.router.check(prompts)
    applies = composer.router.applies(prompts)
    for name, part in composer.section.components.items():
        if isinstance(part, VerifierComponent):
            section = read_section(part.verifier, where=f"rewards.components.{name}")
            validate_prompts(
                section, [prompt for prompt, it_does in zip(prompts, applies[name], strict=True) if it_does]
            )


def _model(name: str, part: ModelComponent, ground: _Ground) -> ModelSource:
    around = ground.around
    first = around.trained if part.model is None else around.find_model(part.model)
    if first is None:
        raise ConfigError(explain(f"rewards.components.{name}.model", None, "is missing, and the recipe trains no reward model",
                                  expected="a section rewards, or the folder or artifact id of one", remedy="Add one of them"))  # fmt: skip
    places = {0: first, **{step: around.find_model(path) for step, path in part.swaps.items()}}

    def load(folder: Path) -> Any:
        return load_scorer(folder, name=name, part=part, policy=ground.policy, template=around.template, load=_loading(ground),
                           budget=ground.budget, heed=ground.heed)  # fmt: skip

    return ModelSource(places, load)


def _process(name: str, part: ProcessComponent, ground: _Ground) -> ProcessSource:
    around = ground.around
    place = around.process if part.model is None else around.find_model(part.model)
    if place is None:
        raise ConfigError(explain(f"rewards.components.{name}.model", None, "is missing, and the recipe trains no process-reward model",
                                  expected="a section process, or the folder or artifact id of one", remedy="Add one of them"))  # fmt: skip

    def load(folder: Path) -> StepReader:
        return load_steps(folder, policy=ground.policy, template=around.template, load=_loading(ground), budget=ground.budget,
                          heed=ground.heed)  # fmt: skip

    return ProcessSource(place, load, part)


def _loading(ground: _Ground) -> LoadScalar:
    around = ground.around
    return partial(load_frozen, device=around.device, policy=ground.precision, machine_file=around.machine_file)


def _with_file(rule: Mapping[str, Any], find_file: Callable[[str], Path]) -> dict[str, Any]:
    """A rule with its file where it is."""
    path = rule.get("path")
    return {**rule, "path": str(find_file(path))} if isinstance(path, str) else dict(rule)
