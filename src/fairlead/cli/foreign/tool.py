"""What a tool's configuration means: its vocabulary as tables, one file a tool beside this one.

Left in a table: the tool's key. Right: the meaning that `translating` turns into recipe keys, or why it is left out. Names with `*` are
patterns.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fairlead.cli.foreign.files import Foreign
from fairlead.core.errors import ConfigError, explain

Kind = Literal["sft", "rewards", "dpo", "orpo", "simpo", "cpo", "kto", "bco", "ppo"]
Category = Literal["unknown to us", "not needed here", "no counterpart yet"]


@dataclass(frozen=True, slots=True)
class Left:
    """Why a key is not translated."""

    category: Category
    reason: str


Leaving = Left | Callable[[Any], Left]


def needless(reason: str) -> Left:
    """Fairlead does it anyway, or elsewhere."""
    return Left("not needed here", reason)


def lacking(reason: str) -> Left:
    """Fairlead cannot do it."""
    return Left("no counterpart yet", reason)


def off_or(reason: str) -> Callable[[Any], Left]:
    """Lacking when it is switched on; an empty, false or zero value asks for nothing."""
    return lambda value: lacking(reason) if value else needless("switched off there, absent here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool's vocabulary."""

    name: str
    program: re.Pattern[str] | None
    """Finds the trainer on a command line; None where scripts are not its configurations."""
    takes_tables: bool
    kind: Callable[[Foreign, Path], Kind]
    meanings: Mapping[str, str]
    by_kind: Mapping[Kind, Mapping[str, str]] = field(default_factory=dict[Kind, Mapping[str, str]])
    """Meanings that differ in one kind of run."""
    left: Mapping[str, Leaving]
    datasets_are: str = "hub data set"
    """What a name of a data set is that is no file."""
    defaults: Mapping[Kind | Literal["all"], Mapping[str, Any]]
    """Meaning -> the tool's own default, where Fairlead's differs and results would."""

    def meaning(self, key: str, kind: Kind) -> str:
        """Empty for a key without one."""
        return self.by_kind.get(kind, {}).get(key) or self.meanings.get(key, "")

    def leaving(self, key: str, value: Any) -> Left:
        """Why `key` is left out."""
        name = key if key in self.left else next((p for p in self.left if "*" in p and fnmatch.fnmatchcase(key, p)), "")
        if not name:
            return Left("unknown to us", "not in our table of this tool")
        entry = self.left[name]
        return entry if isinstance(entry, Left) else entry(value)

    def num_known(self, keys: Mapping[str, Any], kind: Kind) -> int:
        """How many of the keys are this tool's."""
        return sum(
            bool(self.meaning(k, kind)) or self.leaving(k, v).category != "unknown to us" for k, v in keys.items()
        )


MACHINE = needless("a matter of the machine; changes no result")
SAVING = needless("saving, logging and resuming are the store's")
EVALUATION = needless("the evaluation is declared in evals")
MEMORY = needless("max_tokens_per_microbatch bounds memory")
ADAPTER_DROPOUT = off_or("adapters have no dropout")
QUANTISED = off_or("no quantised weights: adapters on full-precision weights instead")
PRETRAINING = off_or("no pretraining mix (PPO-ptx)")
CRITIC_RATE = lacking("policy and value model share one optimiser run")
REWARD_MODEL = lacking(
    "the recipe trains its reward model from preferences; name an existing one in policies.NAME.rewards (docs/stages/rewards.md)"
)
COLUMNS = needless("the format of the file says which columns; see docs/formats.md")
MIXING = lacking("files are used whole, once an epoch")
PACKED = needless("rows are always packed, and sequences in a row never see each other")
RECOMPUTES = needless("how layers are computed again is not a choice here; the results are the same")
TOKENIZER = off_or("the tokenizer is taken as it is; change it in the model's folder")


_BY_HAND = "Choose one of them, or write the recipe by hand: policies.NAME.algorithm also takes grpo, rloo and others (docs/stages/online.md)"


def refuse(tool: str, key: str, value: Any, *, remedy: str = _BY_HAND) -> ConfigError:
    """The error for a method that is not translated."""
    return ConfigError(explain(f"{tool}: {key}", value, "is a method that is not translated yet",
    expected="SFT, a reward model, DPO and its links, ORPO, SimPO, CPO, KTO, BCO or PPO", remedy=remedy))  # fmt: skip
