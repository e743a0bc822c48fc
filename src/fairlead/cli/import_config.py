"""`fairlead import-config`: another tool's configuration as a recipe, with every key that has no place in it listed and explained.

Flow: foreign.files reads keys, a table a tool says what they mean, foreign.translating turns meanings into recipe keys; here the recipe is
written and the account is given.

Example:
    for line in translate_file("axolotl", Path("dpo.yml"), Path("recipe.yaml"), force=False):
        print(line)
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead.cli.foreign import TOOLS
from fairlead.cli.foreign.accounting import Account
from fairlead.cli.foreign.files import Unresolved, read_foreign
from fairlead.cli.foreign.tool import Category, Kind, Tool
from fairlead.cli.foreign.translating import translate
from fairlead.cli.recipe_text import Key, Section, Tree, render
from fairlead.core.config import parse_config, parse_yaml
from fairlead.core.errors import ConfigError, explain, nearest, shorten
from fairlead.core.io import write_text

_KINDS: Mapping[Kind, str] = {
    "sft": "SFT", "rewards": "reward model", "dpo": "DPO", "orpo": "ORPO", "simpo": "SimPO", "cpo": "CPO", "kto": "KTO", "bco": "BCO", "ppo": "PPO",
}  # fmt: skip
_CATEGORIES: tuple[Category, ...] = ("unknown to us", "no counterpart yet", "not needed here")
_SECTIONS = {
    "text": "how conversations become tokens", "prompts": "what PPO answers", "completions": "what the policy writes before training",
    "sft": "supervised fine-tuning", "preferences": "what was preferred",
    "rewards": "the reward model", "policies": "what is trained", "policies.dpo": "direct preference optimisation",
    "policies.orpo": "in place of SFT and DPO together", "policies.simpo": "without a reference", "policies.cpo": "without a reference",
    "policies.kto": "on single labels", "policies.bco": "on single labels",
    "kl": "penalty for leaving the reference",
    "policies.ppo": "PPO against the reward model", "training": "one optimiser run", "lora": "adapters instead of all weights",
}  # fmt: skip


def translate_file(source: str, file: Path, out: Path, *, force: bool) -> list[str]:
    """Translate and write; nothing is written when the file cannot be read as that tool's.

    Returns:
        Lines to print: how much was translated, every key that was not, the next command.
    Raises:
        ConfigError: an unknown tool, a wrong kind of file, a method without counterpart, or `out` exists without `force`.
    """
    if source not in TOOLS:
        raise ConfigError(explain("source", source, f"is not a known tool{nearest(source, TOOLS)}", expected="one of " + ", ".join(TOOLS),
                                  remedy="Choose one of them"))  # fmt: skip
    tool = TOOLS[source]
    foreign = read_foreign(file, program=tool.program, takes_tables=tool.takes_tables)
    kind = tool.kind(foreign, file)
    _require_own_file(tool, foreign.keys, kind, file)
    account = translate(tool, kind, foreign, name=_slug(file.stem))
    text = render(
        _tree(account.keys),
        head=_head(account, source, file, kind),
        tail=["Not translated:", *_left_lines(account, is_short=False)],
    )
    _require_parses(text)
    _write(text, out, force=force)
    return [
        f"{source}, {_KINDS[kind]}: {account.num_translated} of {len(foreign.keys)} keys of {file.name} translated, {len(account.left)} not:",
        *_left_lines(account, is_short=True), *account.notes, f"Written: {out}", f"Next: fairlead plan {out}",
    ]  # fmt: skip


def _require_own_file(tool: Tool, keys: Mapping[str, Any], kind: Kind, file: Path) -> None:
    """Refuse a file that is mostly foreign to the tool and that another tool knows better: the recipe would be empty."""
    known = {other.name: other.num_known(keys, kind) for other in TOOLS.values()}
    best = max(known, key=lambda name: known[name])
    if 2 * known[tool.name] < len(keys) and known[best] > known[tool.name]:
        raise ConfigError(explain(file, None, f"has {len(keys)} keys, of which {tool.name} has {known[tool.name]} and {best} has {known[best]}",
                                  expected=f"a configuration of {tool.name}",
                                  remedy=f"If it is {best}'s: fairlead import-config {best} {file}"))  # fmt: skip


def _head(account: Account, source: str, file: Path, kind: Kind) -> Iterable[str]:
    return [
        f"Translated from {source}, {file.name}: a {_KINDS[kind]} run. Behind each key stands where its value is from.",
        *account.notes,
    ]


def _left_lines(account: Account, *, is_short: bool) -> Iterator[str]:
    """Every key that was not translated; short: those not needed share a line and leave their reasons to the recipe."""
    if not account.left:
        yield "  nothing"
    for category in _CATEGORIES:
        entries = [(key, left) for key, left in account.left if left.category == category]
        if not entries:
            continue
        if is_short and category != "no counterpart yet":
            yield f"  {category}: {', '.join(key for key, _ in entries)}"
            continue
        for key, left in entries:
            yield f"  {category}: {key}={_shown(account.values[key])} ({left.reason})"


def _shown(value: Any) -> str:
    return shorten(
        value.text if isinstance(value, Unresolved) else value if isinstance(value, str) else repr(value), max_chars=40
    )


def _tree(keys: Mapping[str, Key]) -> Tree:
    """Flat paths as sections, in the order in which they first occur."""
    nested: dict[str, Any] = {}
    for path, key in keys.items():
        *parents, last = path.split(".")
        at = nested
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = key
    return _sections(nested, prefix="")


def _sections(nested: Mapping[str, Any], *, prefix: str) -> Tree:
    found: dict[str, Key | Section] = {}
    for name, node in nested.items():
        path = f"{prefix}{name}"
        found[name] = (
            node
            if isinstance(node, Key)
            else Section(_SECTIONS.get(path, _SECTIONS.get(name, "")), _sections(node, prefix=f"{path}."))
        )
    return found


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[A-Za-z0-9]+", text))[:40] or "imported"


def _require_parses(text: str) -> None:
    from fairlead.pipeline.recipe import Recipe  # imports torch

    parse_config(Recipe, parse_yaml(text, where="recipe"))


def _write(text: str, out: Path, *, force: bool) -> None:
    if out.is_dir():
        raise ConfigError(explain(out, None, "is a folder", expected="a file", remedy="Name the recipe to write"))
    if out.exists() and not force:
        raise ConfigError(
            explain(
                out,
                None,
                "exists already",
                expected="a new path",
                remedy="Name another --out, or pass --force to replace it",
            )
        )
    write_text(out, text)
