"""Every kind of verifier by name, and the scorer that runs one in worker processes.

Example:
    section = read_section({"kind": "exact"}, where="rewards.components.right")
    with WorkerPool() as pool:
        scorer = make_verifier(section, pool=pool)        # a core Scorer
        scorer.score(prompts, completions)                # float64[B]; NaN: no reference, or the check failed

A kind is its section in config.py, a class with `validate` and `check`, and a line in VERIFIERS.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fairlead.core.config import Config, parse_config
from fairlead.core.errors import ConfigError, explain
from fairlead.core.records import Completion, Prompt
from fairlead.rewards.pool import PooledScorer, ScoreCache, WorkerPool
from fairlead.rewards.verifiers.code import CodeTests
from fairlead.rewards.verifiers.config import CustomSection, VerifierBase, VerifierSection
from fairlead.rewards.verifiers.instructions import InstructionRules
from fairlead.rewards.verifiers.matching import ExactMatch, FuzzyMatch
from fairlead.rewards.verifiers.math_answers import MathAnswer
from fairlead.rewards.verifiers.patterns import JsonSchema, RegexMatch


class Verifier(Protocol):
    """Checks one completion against what its prompt carries. Stateless; made anew in every worker process."""

    @property
    def version(self) -> str:
        """Changes whenever a score could; part of the cache key."""
        ...

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply to this prompt?

        Raises:
            DataError: the prompt has a reference that cannot be used.
        """
        ...

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """The score; NaN when it does not apply. May hang, crash or raise: the pool sees to that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a verifier is built, and the packages that it imports."""

    build: Callable[[Any], Verifier]
    """Section -> verifier."""
    needs: tuple[str, ...] = ()
    """Modules of the extra `verify`."""


_PARTS = ("version", "validate", "check")
"""What a verifier of somebody's own must have."""


def _build_custom(section: CustomSection) -> Verifier:
    module, _, name = section.build.partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(explain("build", section.build, f"cannot be imported ({error})", expected="module:function of an importable module",
                                  remedy="Install the module or fix the name")) from error  # fmt: skip
    try:
        made = build(section.options)
    except Exception as error:  # somebody else's code: its mistake is named as one of the recipe
        raise ConfigError(explain("build", section.build, f"fails with {type(error).__name__} ({error})", expected="a function of the options",
                                  remedy="Repair it, or what verifier.options gives it")) from error  # fmt: skip
    absent = [part for part in _PARTS if not hasattr(made, part)]
    if absent:
        raise ConfigError(explain("build", section.build, f"returns an object without {', '.join(absent)}", expected="one with " + ", ".join(_PARTS),
                                  remedy="Add what is absent"))  # fmt: skip
    return made


VERIFIERS: Mapping[str, Kind] = {
    "exact": Kind(build=lambda section: ExactMatch(section=section)),
    "fuzzy": Kind(build=lambda section: FuzzyMatch(section=section)),
    "math": Kind(build=lambda section: MathAnswer(section=section), needs=("math_verify",)),
    "regex": Kind(build=lambda section: RegexMatch(section=section)),
    "json_schema": Kind(build=lambda section: JsonSchema(section=section), needs=("jsonschema",)),
    "instructions": Kind(build=lambda section: InstructionRules(section=section), needs=("py3langid",)),
    "code": Kind(build=lambda section: CodeTests(section=section)),
    "custom": Kind(build=_build_custom),
}


def build_verifier(section: VerifierBase) -> Verifier:
    """The bare verifier of a section, without a worker process around it: its `check` has no time limit.

    Raises:
        ConfigError: a package that it needs is not installed.
    """
    name: str = getattr(section, "kind")  # noqa: B009 - every member of VerifierSection has it
    kind = VERIFIERS[name]
    missing = [module for module in kind.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(explain("kind", name, f"needs {', '.join(missing)}, which is not installed", expected="the extra `verify`",
                                  remedy="Run pip install 'fairlead[verify]'"))  # fmt: skip
    return kind.build(section)


class _Holder(Config):
    verifier: VerifierSection


def read_section(data: Mapping[str, Any], *, where: str) -> VerifierBase:
    """Check `{kind: ..., options}` as a recipe gives it, or as `model_dump` wrote it for a worker process.

    Args:
        where: recipe path of what holds `verifier`, used in error messages.
    Raises:
        ConfigError: unknown kind or key, a missing or wrong option.
    """
    return parse_config(_Holder, {"verifier": data}, where=where).verifier


def make_verifier(
    section: VerifierBase, *, pool: WorkerPool, cache: ScoreCache | None = None, name: str | None = None
) -> PooledScorer:
    """The scorer of a section: every check runs in a worker process under the section's time limit, and its result is kept.

    Args:
        name: of the scorer; None takes the kind.
        cache: None keeps results for this scorer's life, in memory.
    Raises:
        ConfigError: a package that it needs is not installed.
    """
    verifier = build_verifier(section)
    spec = section.model_dump(mode="json")
    return PooledScorer(name=name or spec["kind"], spec=spec, version=verifier.version, timeout_s=section.timeout_s, pool=pool,
                        cache=ScoreCache() if cache is None else cache)  # fmt: skip


def validate_prompts(section: VerifierBase, prompts: Iterable[Prompt]) -> int:
    """How many of the prompts the verifier applies to. To be called before anything is sampled.

    Raises:
        DataError: a prompt has a reference that cannot be used.
        ConfigError: it applies to none of them.
    """
    verifier = build_verifier(section)
    applies: Sequence[bool] = [verifier.validate(prompt) for prompt in prompts]
    if not any(applies):
        spec = section.model_dump(mode="json")
        fields = {key: value for key, value in spec.items() if key == "field" or key.endswith("_field")}
        raise ConfigError(explain(f"kind={spec['kind']}", None, f"applies to none of {len(applies)} prompts", expected=f"meta with {fields}",
                                  remedy="Give the prompts that field, or name the field that they have"))  # fmt: skip
    return sum(applies)
