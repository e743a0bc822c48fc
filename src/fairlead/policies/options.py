"""`options` of a policy's section: the settings of its method's loss that are no keys of their own.

Example:
    PPOConfig(**read_settings("ppo", PPOConfig, {"clip_low": 0.2}, {"dual_clip": 3.0}, beside={"clip_low": "clip_low"}))
"""

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fairlead.core.errors import ConfigError, explain, nearest


def read_settings(
    method: str, cls: type[Any], own: Mapping[str, Any], options: Mapping[str, object], *, beside: Mapping[str, str]
) -> Any:
    """The settings of a method.

    Args:
        cls: their dataclass.
        own: values of those that are keys of the section.
        beside: setting -> its key, for all that are keys of some method's section.
    Raises:
        ConfigError: an option that the method does not have, or a value that it refuses.
    """
    hints = get_type_hints(cls)
    found = {name: _read(method, name, value, hints, beside) for name, value in options.items()}
    try:
        return cls(**own, **found)
    except ConfigError as error:
        is_option = str(error).partition("=")[0] in found
        raise ConfigError(f"options.{error}" if is_option else str(error)) from error


def _read(method: str, name: str, value: object, hints: Mapping[str, Any], beside: Mapping[str, str]) -> Any:
    path, known = f"options.{name}", sorted(hints.keys() - beside.keys())
    if name in beside:
        expected = f"{beside[name]} beside algorithm"
        raise ConfigError(explain(path, value, "is a key of its own", expected=expected, remedy="Move it there"))
    if name not in known:
        raise ConfigError(explain(path, value, f"is not a setting of {method}{nearest(name, known)}",
                                  expected="one of " + ", ".join(known) if known else "no options", remedy="Rename or remove it"))  # fmt: skip
    try:
        return TypeAdapter(hints[name]).validate_python(value)
    except ValidationError as error:
        rule = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
        raise ConfigError(explain(path, value, "has a wrong value", expected=rule, remedy="Change it")) from error
