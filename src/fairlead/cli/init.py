"""`fairlead init`: a few questions, then a commented recipe (or a small project) with the rule that decided.

Example:
    for line in write_project(Answers(goal="kinder support mails", pairs=1500), Path("recipe.yaml"), force=False, ask=None):
        print(line)
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead.cli import choosing
from fairlead.cli.choosing import HARDWARE, NEEDS, Choice, Hardware, Situation
from fairlead.cli.composing import Plan, compose
from fairlead.cli.recipe_text import render
from fairlead.cli.starters import STARTERS, Starter
from fairlead.core.config import parse_config, parse_yaml
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.io import read_json, write_text
from fairlead.core.sections import Scope

Ask = Callable[[str, str], str]
_MODELS = {"laptop": "Qwen/Qwen2.5-0.5B-Instruct", "one-gpu": "Qwen/Qwen2.5-1.5B-Instruct", "node": "Qwen/Qwen2.5-7B-Instruct",
           "cluster": "Qwen/Qwen2.5-7B-Instruct"}  # fmt: skip
_DEFAULTS = {
    "goal": "better replies on one narrow task",
    "hardware": "laptop",
    "pairs": "1000",
    "agreement": "unknown",
    "needs": "none",
}
_QUESTIONS = {
    "goal": "What should change, in a sentence?",
    "hardware": "Hardware (laptop, one-gpu, node, cluster)?",
    "model": "Model (folder or hub id)?",
    "pairs": "Preference pairs that you have or can pay for?",
    "agreement": "Share of pairs on which two raters agree (0.5 to 1, or unknown)?",
    "needs": "Needs (verifiable, online, reranking, dimensions; comma-separated, or none)?",
}
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", re.IGNORECASE)
_INSTRUCT = re.compile(r"instruct|chat|-it\b", re.IGNORECASE)
_ASSUMED_PARAMETERS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the user said; None is asked for, or takes its default."""

    goal: str | None = None
    model: str | None = None
    hardware: str | None = None
    pairs: int | None = None
    agreement: float | None = None
    needs: str | None = None
    narrow: str | None = None


def write_project(answers: Answers, out: Path, *, force: bool, ask: Ask | None) -> list[str]:
    """Write a recipe, or with `narrow` a project folder; nothing is written when anything is wrong.

    Returns:
        Lines to print: what decided, what was assumed, what to type next.
    Raises:
        ConfigError: an answer that is not understood, or a file that exists without `force`.
    """
    starter = _starter(answers.narrow)
    if starter is not None and out == Path("recipe.yaml"):
        out = Path(starter.name)
    path = out if starter is None else out / "recipe.yaml"
    beside = {} if starter is None else {out / name: text for name, text in starter.files().items()}
    _require_free([path, *beside], force=force)  # before anybody types answers
    said = _complete(answers, starter, ask)
    plan, assumed = _plan(said, starter, unstated=[] if ask else [n for n in _QUESTIONS if getattr(answers, n) is None])
    recipe = _render(plan, goal=said["goal"], assumed=assumed)
    _require_parses(recipe)
    files = {path: recipe, **beside}
    for place, text in files.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, text)
    return [*_decision(plan.choice), *plan.choice.advice, *assumed, f"Written: {', '.join(str(f) for f in files)}" if starter is None
            else f"Written: {len(files)} files in {out}; README.md says what to fill in.", f"Next: fairlead run {path} --dry-run"]  # fmt: skip


def _starter(name: str | None) -> Starter | None:
    if name is None:
        return None
    if name not in STARTERS:
        raise ConfigError(explain("--narrow", name, f"is not a starter{nearest(name, STARTERS)}", expected="one of " + ", ".join(STARTERS),
                                  remedy="Choose one of them"))  # fmt: skip
    return STARTERS[name]


def _complete(answers: Answers, starter: Starter | None, ask: Ask | None) -> dict[str, str]:
    """Every answer as text: what was said, what is asked for, what is assumed."""
    defaults = {**_DEFAULTS, **({"goal": starter.goal} if starter else {})}
    said: dict[str, str] = {}
    for name in _QUESTIONS:
        given = getattr(answers, name)
        default = defaults.get(name) or _MODELS.get(said.get("hardware", ""), _MODELS["laptop"])
        said[name] = str(given) if given is not None else _ask_until_understood(ask, name, default) if ask else default
    return said


def _ask_until_understood(ask: Ask, name: str, default: str) -> str:
    """Ask, and ask again with what was wrong above the question."""
    question = _QUESTIONS[name]
    while True:
        text = ask(question, default).strip() or default
        try:
            _CHECKS.get(name, str)(text)
        except ConfigError as error:
            question = f"{str(error).removeprefix('--')}\n{_QUESTIONS[name]}"
        else:
            return text


def _plan(said: Mapping[str, str], starter: Starter | None, *, unstated: list[str]) -> tuple[Plan, list[str]]:
    hardware = _hardware(said["hardware"])
    size, size_note = num_parameters(said["model"])
    scope: Scope = "toy" if said["model"] == "bundled" and starter is None else "narrow"
    situation = Situation(pairs=_pairs(said["pairs"]), hardware=hardware, num_parameters=size, agreement=_agreement(said["agreement"]),
                          needs=_needs(said["needs"]), scope=scope)  # fmt: skip
    assumed = [f"Taken as {hardware.says}; {situation.pairs:,} pairs; {_size_text(size)} parameters{size_note}."]
    if unstated:
        assumed.append("Not stated, so assumed: " + ", ".join(f"{name} ({said[name]})" for name in unstated) + ".")
    plan = Plan(name=_slug(starter.name if starter else said["goal"]), model=said["model"], situation=situation, choice=choosing.choose(situation),
                has_sft=starter is not None or not _INSTRUCT.search(said["model"]))  # fmt: skip
    if size < 1e7:  # the bundled model reads 256 tokens
        plan = replace(plan, max_length=256, max_new_tokens=48)
    return (plan if starter is None else starter.shape(plan)), assumed


def _hardware(text: str) -> Hardware:
    if text not in HARDWARE:
        raise ConfigError(explain("--hardware", text, f"is not known{nearest(text, HARDWARE)}", expected="one of " + ", ".join(HARDWARE),
                                  remedy="Choose the nearest"))  # fmt: skip
    return HARDWARE[text]


def _pairs(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(
            explain("--pairs", text, "is not a count", expected="a whole number", remedy="For example 1500")
        )
    return int(text)


def _agreement(text: str) -> float | None:
    if text.lower() in ("unknown", "none", ""):
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(
            explain("--agreement", text, "is not a share", expected="0.5 to 1, or unknown", remedy="For example 0.72")
        )
    return value


def _needs(text: str) -> frozenset[str]:
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    found = {name for name in named if name != "none"}
    for name in sorted(found):
        if name not in NEEDS:
            raise ConfigError(explain("--needs", name, f"is not known{nearest(name, NEEDS)}", expected="some of " + ", ".join(NEEDS) + ", or none",
                                      remedy="Choose from these"))  # fmt: skip
    return frozenset(found)


_CHECKS: Mapping[str, Callable[[str], object]] = {
    "hardware": _hardware, "pairs": _pairs, "needs": _needs,
    "agreement": lambda text: Situation(pairs=1, hardware=HARDWARE["laptop"], num_parameters=1e9, agreement=_agreement(text)),
}  # fmt: skip
"""What refuses an answer, by its name."""


def num_parameters(model: str) -> tuple[float, str]:
    """Size of a model from its name or its folder, with a note on how it is known."""
    if model == "bundled":
        return 1.6e6, " (the bundled model)"
    folder = Path(model).expanduser()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if files:
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
        dtype = str(config.get("dtype", config.get("torch_dtype", "bfloat16")))
        return sum(f.stat().st_size for f in files) / (4 if dtype == "float32" else 2), " (from the size of its files)"
    match = _SIZE.search(Path(model).name.replace("_", "-"))
    if match is None:
        return _ASSUMED_PARAMETERS, " (assumed: the name does not say)"
    return float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6), " (from its name)"


def _size_text(size: float) -> str:
    return f"{size / 1e9:.3g}B" if size >= 1e9 else f"{size / 1e6:.3g}M"


def _slug(text: str) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return "-".join(words)[:40].strip("-") or "first-run"


def _decision(choice: Choice) -> list[str]:
    link = (
        f" with the robust link, flip_rate {choice.flip_rate:g}"
        if choice.link == "robust" and choice.method == "dpo"
        else ""
    )
    return [f"{choice.method.upper()}{link}. Rule {choice.rule.name}: {choice.rule.says}."]


def _render(plan: Plan, *, goal: str, assumed: list[str]) -> str:
    sft = (
        []
        if plan.has_sft
        else ["No sft section: the model's name says that it follows instructions. The readiness gate checks it."]
    )
    head = [f"Goal: {goal}", "", *_decision(plan.choice), *plan.choice.advice, *assumed, *sft,
            "Paths are relative to this file. Learning rates and batches: docs/how-to-choose.md."]  # fmt: skip
    return render(compose(plan), head=head)


def _require_parses(text: str) -> None:
    from fairlead.pipeline.recipe import Recipe  # imports torch

    parse_config(Recipe, parse_yaml(text, where="recipe"))


def _require_free(files: Sequence[Path], *, force: bool) -> None:
    existing = [path for path in files if path.exists()]
    if existing and not force:
        raise ConfigError(
            explain(
                existing[0],
                None,
                "exists already",
                expected="a new path",
                remedy="Name another --out, or pass --force to replace it",
            )
        )
    blocked = next((p for p in files if p.is_dir()), None) or next(
        (p for f in files for p in f.parents if p.exists() and not p.is_dir()), None
    )
    if blocked is not None:
        raise ConfigError(
            explain(
                blocked,
                None,
                "is in the way",
                expected="a file for the recipe in a folder",
                remedy="Name another --out",
            )
        )
