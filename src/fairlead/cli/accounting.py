"""The account of a translation: what each foreign key became, or why it became nothing.

Example:
    account.move("beta", "policies.dpo.beta", float)     # the fact `beta` becomes this recipe key, if the recipe takes its value
    account.left                                         # [("lora_dropout", Left("no counterpart yet", "..."))]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.cli.foreign_tools import Kind, Left, Tool, lacking
from fairlead.cli.recipe_text import Key
from fairlead.core.config import Config, parse_config
from fairlead.core.errors import ConfigError
from fairlead.core.sections import LoraSection, TextSection, TrainSection


class Untranslated(Exception):
    """A value has no counterpart."""

    def __init__(self, left: Left) -> None:
        super().__init__(left.reason)
        self.left = left


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that the configuration says."""

    value: Any
    key: str
    """Where it says so; empty for a default of the tool."""
    source: str


@dataclass(slots=True)
class Account:
    """What became of every key. Single-use; `translate` fills it."""

    tool: Tool
    kind: Kind
    values: Mapping[str, Any]
    facts: dict[str, Fact] = field(default_factory=dict[str, Fact])
    keys: dict[str, Key] = field(default_factory=dict[str, Key])
    """Recipe path -> value with its source."""
    left: list[tuple[str, Left]] = field(default_factory=list[tuple[str, Left]])
    notes: list[str] = field(default_factory=list[str])

    @property
    def num_translated(self) -> int:
        """Keys of the file that are in the recipe."""
        return len(self.values) - len({key for key, _ in self.left if key in self.values})

    def leave(self, fact: Fact, left: Left) -> None:
        """Account for a key that is not translated; a default of the tool needs no account."""
        if fact.key:
            self.left.append((fact.key, left))

    def take(self, meaning: str, default: Any = None) -> Any:
        """Use up a fact whose value goes into a combined key."""
        fact = self.facts.pop(meaning, None)
        return default if fact is None else fact.value

    def put(self, path: str, value: Any, why: str) -> None:
        """Add a key of our own making."""
        self.keys[path] = Key(value, why)

    def move(self, meaning: str, path: str, convert: Callable[[Any], Any] = lambda value: value) -> None:
        """Translate one fact into one key, if the recipe takes its value."""
        fact = self.facts.pop(meaning, None)
        if fact is None:
            return
        try:
            value = convert(fact.value)
            self._check(path, value)
        except Untranslated as error:
            self.leave(fact, error.left)
        except ConfigError as error:
            self.leave(fact, lacking(f"refused: {error}"))
        except (TypeError, ValueError):
            self.leave(fact, lacking("another kind of value is needed"))
        else:
            self.keys[path] = Key(value, fact.source)

    def _check(self, path: str, value: Any) -> None:
        section, _, name = path.rpartition(".")
        cls = _section_class(section)
        if cls is not None:
            beside = {p.rpartition(".")[2]: k.value for p, k in self.keys.items() if p.rpartition(".")[0] == section}
            parse_config(cls, {**beside, name: value})


def _section_class(section: str) -> type[Config] | None:
    from fairlead.policies.dpo import DpoConfig  # imports torch
    from fairlead.policies.ppo_config import KlSection, PpoConfig
    from fairlead.preferences.stage import PreferencesConfig
    from fairlead.rewards.stage import RewardsConfig

    named: dict[str, type[Config]] = {"text": TextSection, "policies.dpo": DpoConfig, "policies.ppo": PpoConfig, "policies.ppo.kl": KlSection,
                                      "rewards": RewardsConfig, "preferences": PreferencesConfig}  # fmt: skip
    if section in named:
        return named[section]
    return TrainSection if section.endswith(".training") else LoraSection if section.endswith(".lora") else None
