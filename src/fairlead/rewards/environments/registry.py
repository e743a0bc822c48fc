"""Every kind of environment by name.

A kind is its section in core/tool_section.py, a class with `answer`, and a line in ENVIRONMENTS.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fairlead.core.config import Config, parse_config
from fairlead.core.errors import ConfigError, explain
from fairlead.core.protocols import Observation, Turn
from fairlead.core.tool_section import CustomEnvironmentSection, EnvironmentSection
from fairlead.rewards.environments.calculator import Calculator
from fairlead.rewards.environments.python import PythonTool


class Answerer(Protocol):
    """Answers one turn. Stateless; made anew in every worker process."""

    def answer(self, turn: Turn) -> Observation | None:
        """What it makes of the turn; None when it has nothing to say. May hang, crash or raise: the pool sees to that."""
        ...


def _build_custom(section: CustomEnvironmentSection) -> Answerer:
    module, _, name = section.build.partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(explain("build", section.build, f"cannot be imported ({error})", expected="module:function of an importable module",
                                  remedy="Install the module or fix the name")) from error  # fmt: skip
    return build(section.options)


ENVIRONMENTS: Mapping[str, Callable[[Any], Answerer]] = {
    "calculator": Calculator,
    "python": PythonTool,
    "custom": _build_custom,
}


class _Holder(Config):
    environment: EnvironmentSection


def build_answerer(section: EnvironmentSection) -> Answerer:
    """The bare environment of a section, without a worker process around it.

    Raises:
        ConfigError: what it needs is not there.
    """
    return ENVIRONMENTS[section.kind](section)


def read_environment(data: Mapping[str, Any], *, where: str) -> EnvironmentSection:
    """Check `{kind: ..., options}` as `model_dump` wrote it for a worker process."""
    return parse_config(_Holder, {"environment": data}, where=where).environment
