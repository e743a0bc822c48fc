"""The account of a translation: what each foreign key became, or why it became nothing.

Example:
    account.move("beta", "policies.dpo.beta", float)     # the fact `beta` becomes this recipe key, if the recipe takes its value
    account.left                                         # [("lora_dropout", Left("no counterpart yet", "..."))]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from fairlead.cli.foreign.tool import Kind, Left, Tool, lacking, needless
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
        if fact.key and all(key != fact.key for key, _ in self.left):
            self.left.append((fact.key, left))

    def take(self, meaning: str, default: Any = None) -> Any:
        """Use up a fact whose value goes into a combined key."""
        fact = self.facts.pop(meaning, None)
        return default if fact is None else fact.value

    def put(self, path: str, value: Any, why: str) -> None:
        """Add a key of our own making."""
        self.keys[path] = Key(value, why)

    def combine(self, section: str, values: Mapping[str, tuple[Any, str]], *facts: Fact) -> None:
        """Translate several facts into the keys of one section (name -> value and why), if the recipe takes them together."""
        try:
            self._check(section, {name: value for name, (value, _) in values.items()})
        except ConfigError as error:
            for fact in facts:
                self.leave(fact, lacking(f"refused: {error}"))
        else:
            self.keys.update({f"{section}.{name}": Key(value, why) for name, (value, why) in values.items()})

    def move(self, meaning: str, path: str, convert: Callable[[Any], Any] = lambda value: value) -> None:
        """Translate one fact into one key, if the recipe takes its value."""
        fact = self.facts.pop(meaning, None)
        if fact is not None:
            self._place(fact, path, convert, lambda value: value, fact.source)

    def option(
        self, meaning: str, section: str, name: str, convert: Callable[[Any], Any] = lambda value: value
    ) -> None:
        """Translate one fact into one of the method's own settings, which stand together under `options`."""
        fact, path = self.facts.pop(meaning, None), f"{section}.options"
        if fact is not None:
            before = self.keys.get(path, Key({}, ""))
            why = "; ".join(filter(None, (before.why, f"{name}: {fact.source}")))
            self._place(fact, path, convert, lambda value: {**before.value, name: value}, why)

    def drop(self, meaning: str, left: Left) -> None:
        """Account for a fact that this kind of run has no key for; one that is switched off needs none."""
        fact = self.facts.pop(meaning, None)
        if fact is not None:
            self.leave(fact, left if fact.value else needless("switched off there, absent here"))

    def _place(
        self, fact: Fact, path: str, convert: Callable[[Any], Any], whole: Callable[[Any], Any], why: str
    ) -> None:
        try:
            value = whole(convert(fact.value))
            section, _, name = path.rpartition(".")
            self._check(section, {name: value})
        except Untranslated as error:
            self.leave(fact, error.left)
        except ConfigError as error:
            self.leave(fact, lacking(f"refused: {error}"))
        except (TypeError, ValueError):
            self.leave(fact, lacking("another kind of value is needed"))
        else:
            self.keys[path] = Key(value, why)

    def _check(self, section: str, values: Mapping[str, Any]) -> None:
        cls = _section_class(section)
        beside = {
            path.rpartition(".")[2]: _plain(key.value)
            for path, key in self.keys.items()
            if path.rpartition(".")[0] == section
        }
        if section == "sft":
            beside.setdefault("data", [{"path": "any"}])
        parse_config(cls, {**beside, **values})


def _plain(value: Any) -> Any:
    return [item.value if isinstance(item, Key) else item for item in value] if isinstance(value, list) else value


class _Top(Config):
    """Keys outside any section."""

    name: str = "x"
    scope: str = "narrow"
    model: str = Field("bundled", min_length=1)
    seed: int = Field(0, ge=0)


def _section_class(section: str) -> type[Config]:
    from fairlead.policies.dpo_config import PAIR_METHODS, DpoConfig  # imports torch
    from fairlead.policies.kl_section import KlSection
    from fairlead.policies.kto_config import BATCH_METHODS, KtoConfig
    from fairlead.policies.online_config import OnlineConfig
    from fairlead.policies.sft import SftConfig
    from fairlead.preferences.stage import PreferencesConfig
    from fairlead.rewards.stage import RewardsConfig

    named: dict[str, type[Config]] = {
        "": _Top, "text": TextSection, "sft": SftConfig, "policies.ppo": OnlineConfig, "policies.ppo.kl": KlSection, "rewards": RewardsConfig,
        "preferences": PreferencesConfig, **dict.fromkeys((f"policies.{m}" for m in PAIR_METHODS), DpoConfig),
        **dict.fromkeys((f"policies.{m}" for m in BATCH_METHODS), KtoConfig),
    }  # fmt: skip
    return named.get(section) or (LoraSection if section.endswith(".lora") else TrainSection)
