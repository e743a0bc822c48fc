"""Find a training method by name or by `module:SPEC`.

Example:
    find_algorithm("dpo", ALGORITHMS)
    find_algorithm("my_lab.losses:CAUTIOUS_DPO", ALGORITHMS)
"""

import importlib
from collections.abc import Sequence

from fairlead.algos.spec import Algorithm
from fairlead.core.errors import ConfigError, explain, nearest


def find_algorithm(name: str, algorithms: Sequence[Algorithm]) -> Algorithm:
    """Return the method of that name, or the one that `module:SPEC` names.

    Raises:
        ConfigError: no such name, module or spec.
    """
    if ":" in name:
        return _import_algorithm(name)
    by_name = {algorithm.name: algorithm for algorithm in algorithms}
    if name in by_name:
        return by_name[name]
    raise ConfigError(
        explain(
            "algorithm",
            name,
            "is not known" + nearest(name, by_name),
            expected="one of " + ", ".join(by_name),
            remedy="Name your own as module:SPEC",
        )
    )


def _import_algorithm(name: str) -> Algorithm:
    module_name, _, spec_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), spec_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _refused(name, f"cannot be imported ({error})") from error
    if not isinstance(found, Algorithm):
        raise _refused(name, f"is a {type(found).__name__}")
    return found


def _refused(name: str, wrong: str) -> ConfigError:
    return ConfigError(
        explain(
            "algorithm",
            name,
            wrong,
            expected="module:SPEC naming a fairlead.algos.spec.Algorithm",
            remedy="Check the spelling and that the module is installed",
        )
    )
