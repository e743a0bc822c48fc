"""Options of a scorer that a recipe describes as a mapping `{kind: ..., ...}`: taken one by one, checked, and nothing left over."""

from collections.abc import Mapping
from typing import Any

from fairlead.core.errors import ConfigError, explain, nearest


class Options:
    """Takes options out of a mapping; what is left at the end is unknown. Single-use."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._left = dict(config)
        self._known: list[str] = []
        self.where = where

    def take(self, key: str, kind: type | tuple[type, ...], words: str, *, default: Any = None) -> Any:
        """One option; `default` of None means required."""
        self._known.append(key)
        value = self._left.pop(key, default)
        if value is None:
            raise ConfigError(explain(f"{self.where}.{key}", None, "is missing", expected=words, remedy="Add it"))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(
                explain(f"{self.where}.{key}", value, "has a wrong value", expected=words, remedy="Change it")
            )
        return value

    def end(self) -> None:
        """Refuse what nobody asked for."""
        for key, value in self._left.items():
            raise ConfigError(explain(f"{self.where}.{key}", value, f"is not a known key{nearest(key, self._known)}",
                                      expected="one of " + ", ".join(self._known), remedy="Rename or remove it"))  # fmt: skip
