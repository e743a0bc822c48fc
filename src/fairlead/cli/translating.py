"""Meanings to recipe keys: shared by all tools, so that each rule (batches, schedules, adapters, losses) stands once.

A value that the recipe's own schema refuses is left out and accounted for, like a key without counterpart.

Example:
    account = translate(TOOLS["trl"], "dpo", foreign, name="first")
    account.keys["policies.dpo.beta"].value
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.cli.accounting import Account, Fact, Untranslated
from fairlead.cli.foreign_files import Foreign, Unresolved
from fairlead.cli.foreign_tools import Kind, Tool, lacking, needless, refuse
from fairlead.cli.recipe_text import Key

_TRAIN = {
    "sft": "sft.training",
    "rewards": "rewards.training",
    "dpo": "policies.dpo.training",
    "ppo": "policies.ppo.training",
}
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_NUMBERS = frozenset({"learning_rate", "warmup_steps", "max_steps", "prompt_epochs", "label_smoothing", "clip", "beta"})
_COUNTS = frozenset({
    "device_batch", "accumulation", "batch", "rollout_batch", "device_rollout", "device_minibatch", "minibatch", "num_minibatches", "episodes",
    "prompts_a_round", "samples_a_prompt", "max_samples", "max_length", "max_prompt", "max_new", "epochs", "ppo_epochs",
})  # fmt: skip
_MAX_COUNT = 10**12
_PAIRS = frozenset({"betas", "clips"})
_TEXTS = frozenset({"schedule", "model", "sft_model", "template", "loss"})
_FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".ndjson")
_AXOLOTL_FORMATS = (  # beginning of `type` -> format of docs/formats.md
    ("alpaca", "alpaca"), ("sharegpt", "sharegpt"), ("completion", "trl_text"), ("chatml.ultra", "ultrafeedback_binarized"),
    ("ultra_apply", "ultrafeedback_binarized"), ("llama3.ultra", "ultrafeedback_binarized"), ("chatml.argilla", "argilla_binarized"),
    ("llama3.argilla", "argilla_binarized"), ("chat_template.default", "trl"), ("bradley_terry", "trl"), ("chat_template", "trl_messages"),
)  # fmt: skip


def translate(tool: Tool, kind: Kind, foreign: Foreign, *, name: str) -> Account:
    """Account for every key of `foreign`."""
    account = Account(tool=tool, kind=kind, values=foreign.keys)
    _collect(account, foreign)
    account.put("name", name, "folder of the run under FAIRLEAD_HOME")
    account.put("scope", "narrow", "toy, narrow (one task) or general; gates ask for data accordingly")
    account.move("seed", "seed", _whole)
    _model(account)
    _text(account)
    {"sft": _sft, "rewards": _rewards, "dpo": _dpo, "ppo": _ppo}[kind](account, foreign)
    for fact in account.facts.values():
        account.leave(fact, needless(f"has no meaning for a run of this kind ({kind})"))
    return account


def _collect(account: Account, foreign: Foreign) -> None:
    for key, value in foreign.keys.items():
        meaning = account.tool.meaning(key, account.kind)
        if not meaning:
            account.left.append((key, account.tool.leaving(key, value)))
        elif isinstance(value, Unresolved):
            account.left.append((key, lacking("depends on a variable that the file does not set; add it by hand")))
        elif value is None or value == "":
            account.left.append((key, needless("empty in the file")))
        elif not _has_form(meaning, value):
            account.left.append((key, lacking(f"{_form(meaning)} is needed")))
        elif meaning in account.facts:
            account.left.append((key, needless(f"says the same as {account.facts[meaning].key}, which was taken")))
        else:
            account.facts[meaning] = Fact(int(value) if meaning in _COUNTS else value, key, f"{key} there")
    for scope in (account.kind, "all"):
        for meaning, value in account.tool.defaults.get(scope, {}).items():
            account.facts.setdefault(meaning, Fact(value, "", f"default of {account.tool.name}"))


def _form(meaning: str) -> str:
    if meaning in _COUNTS:
        return "a whole number above 0"
    return "a number" if meaning in _NUMBERS else "a text" if meaning in _TEXTS else "a pair of numbers"


def _has_form(meaning: str, value: Any) -> bool:
    if meaning in _PAIRS:
        return isinstance(value, list) and len(value) == 2 and all(_has_form("beta", v) for v in value)
    if meaning in _TEXTS:
        return isinstance(value, str)
    if meaning not in _NUMBERS | _COUNTS:
        return True
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return is_number and (meaning in _NUMBERS or (value == int(value) and 1 <= value <= _MAX_COUNT))


def _model(account: Account) -> None:
    better = account.facts.pop("sft_model", None)
    if better is not None:
        former = account.facts.pop("model", None)
        if former is not None:
            account.leave(former, needless("the policy begins at sft_model_path"))
        account.facts["model"] = better
    if "model" in account.facts:
        account.move("model", "model", str)
    else:
        account.put("model", "path/to/model", "not in the file: a transformers folder or a hub id")
        account.notes.append("The file names no model: set `model` in the recipe.")


def _text(account: Account) -> None:
    prompt, new = account.facts.get("max_prompt"), account.facts.get("max_new")
    account.move("template", "text.template", _template)
    if "inline_template" in account.facts:
        account.leave(
            account.facts.pop("inline_template"), lacking("save the template as a file and name it in text.template")
        )
    if account.take("own_template"):
        account.put("text.template", None, "the tokenizer's own chat template, as there")
    if account.tool.name == "dschat":
        account.put(
            "text.template",
            "chatml",
            "there, Human: and Assistant: stand in the text; its base models have no template",
        )
    if "max_length" in account.facts:
        account.move("max_length", "text.max_length", _whole)
        if account.kind == "ppo":
            account.take("max_prompt")
    elif prompt and new and account.kind == "ppo":
        account.take("max_prompt")
        total = prompt.value + new.value
        account.combine("text", {"max_length": (total, f"{prompt.source} and {new.source}, together; tokens")}, prompt)


def _template(value: Any) -> str | None:
    text = str(value)
    if text in ("chatml", "plain") or text.endswith((".jinja", ".jinja2")):
        return text
    if text == "jinja":
        raise Untranslated(needless("the template itself is what counts"))
    return None  # llama3, mistral, ...: the tokenizer of such a model brings that template


def _training(account: Account, foreign: Foreign) -> None:
    """The optimiser run of the section that this kind trains."""
    train = _TRAIN[account.kind]
    account.move("learning_rate", f"{train}.learning_rate", float)
    if account.kind != "ppo":
        account.move("epochs", f"{train}.num_epochs", _whole)
        _batch(account, foreign, train)
    _schedule(account, train)
    for meaning in ("warmup_share", "weight_decay", "beta1", "beta2", "adam_eps", "max_grad_norm"):
        account.move(meaning, f"{train}.{meaning}", float)
    betas = account.facts.pop("betas", None)
    if betas is not None:
        values = {name: (float(betas.value[index]), betas.source) for index, name in enumerate(("beta1", "beta2"))}
        account.combine(train, values, betas)
    _lora(account, train)


def _schedule(account: Account, train: str) -> None:
    fact, last, steps = (
        account.facts.get("schedule"),
        account.facts.get("final_share"),
        account.facts.get("warmup_steps"),
    )
    account.move("schedule", f"{train}.schedule", _known_schedule)
    if last is not None:
        account.move("final_share", f"{train}.final_share", float)
    elif fact is not None and fact.value == "cosine_with_min_lr":
        account.put(f"{train}.final_share", 0.1, "default of that schedule; share of the peak")
    elif fact is not None and _SCHEDULES.get(fact.value) in ("linear", "cosine"):
        account.put(f"{train}.final_share", 0.0, f"{fact.value} there decays to 0")
    total = account.facts.pop("max_steps", None)
    if total is not None:
        account.leave(
            total,
            needless("not limited")
            if total.value <= 0
            else lacking("training is counted in passes over the data (num_epochs)"),
        )
    if steps is None:
        return
    account.take("warmup_steps")
    if 0 <= steps.value < 1:  # newer versions take a share under this name
        account.combine(train, {"warmup_share": (float(steps.value), steps.source)}, steps)
    elif total is not None and total.value >= steps.value > 0:
        account.combine(
            train, {"warmup_share": (round(steps.value / total.value, 4), f"{steps.source}, of {total.key}")}, steps
        )
    else:
        account.leave(
            steps,
            lacking("warm-up is a share of the steps, and the file does not say how many there are; set warmup_share"),
        )


def _known_schedule(value: Any) -> str:
    if value not in _SCHEDULES:
        raise Untranslated(lacking("linear, cosine and constant are the schedules"))
    return _SCHEDULES[value]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise Untranslated(lacking("a whole number is needed"))
    return int(value)


@dataclass(frozen=True, slots=True)
class _Size:
    """A product of facts."""

    value: int
    why: str
    facts: tuple[Fact, ...]


def _times(account: Account, *meanings: str, foreign: Foreign | None = None) -> _Size | None:
    """The first meaning times those of the others that are there, times devices where sizes are a device's; None without the first."""
    if meanings[0] not in account.facts:
        return None
    facts = tuple(account.facts.pop(meaning) for meaning in meanings if meaning in account.facts)
    value, why = (
        math.prod(fact.value for fact in facts),
        " x ".join(f"{fact.key or fact.source} ({fact.value})" for fact in facts),
    )
    if foreign is None:
        return _Size(value, why, facts)
    devices = f"{foreign.num_devices} devices" if foreign.num_devices else "1 device, for the file names none"
    return _Size(value * (foreign.num_devices or 1), f"{why} x {devices}", facts)


def _batch(account: Account, foreign: Foreign, train: str) -> None:
    size = _times(account, "batch") or _times(account, "device_batch", "accumulation", foreign=foreign)
    if size is not None:
        account.combine(train, {"batch_size": (size.value, size.why)}, *size.facts)


def _lora(account: Account, train: str) -> None:
    adapter, rank = account.facts.pop("adapter", None), account.facts.get("lora_rank")
    is_wanted = bool(adapter.value) if adapter is not None else bool(rank and rank.key and rank.value)
    if not is_wanted:
        for fact in (
            adapter,
            *(
                account.facts.pop(n, None)
                for n in ("lora_rank", "lora_alpha", "lora_targets", "lora_linear", "lora_module")
            ),
        ):
            if fact is not None:
                account.leave(fact, needless("no adapter is switched on there"))
        return
    if adapter is not None and adapter.value == "qlora":
        account.leave(adapter, lacking("adapters are taken, on full-precision weights; 4-bit weights are not"))
    account.move("lora_rank", f"{train}.lora.rank", _whole)
    account.move("lora_alpha", f"{train}.lora.alpha", float)
    every = account.facts.pop("lora_linear", None)
    if every is not None and every.value:
        account.put(f"{train}.lora.target_modules", "all-linear", every.source)
    account.move("lora_targets", f"{train}.lora.target_modules", _targets)
    account.move("lora_module", f"{train}.lora.target_modules", lambda value: ".*" + re.escape(str(value)) + ".*")


def _targets(value: Any) -> str:
    """A list of layer names as the regular expression that matches them; an expression stays as it is."""
    names = [str(v) for v in (value if isinstance(value, list) else [value])]
    if names == ["all-linear"] or (len(names) == 1 and not re.fullmatch(r"\w+", names[0])):
        return names[0]
    return r".*\.(" + "|".join(re.escape(name) for name in names) + ")"


def _sft(account: Account, foreign: Foreign) -> None:
    sources = _sources(account, "data/demonstrations.jsonl")
    account.put(
        "sft.data",
        [Key({"path": path, **({"format": hint} if hint else {})}, why) for path, hint, why in sources],
        "demonstrations",
    )
    _training(account, foreign)
    account.move("patience", "sft.patience", _whole)
    account.move("sft_smoothing", "sft.label_smoothing", float)
    account.move("heldout", "sft.heldout_share", _share)


def _share(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < 1:
        raise Untranslated(lacking("held-out rows are a share between 0 and 1"))
    return float(value)


def _preferences(account: Account) -> None:
    (path, hint, why), *others = _sources(account, "data/preferences.jsonl")
    account.put("preferences.path", path, why)
    if hint:
        account.put("preferences.format", hint, "format of docs/formats.md")
    if others:
        account.notes.append(
            f"Preferences are read from one file; not taken: {', '.join(other for other, _, _ in others)}. Join them first."
        )
    account.move("heldout", "preferences.heldout", _share)


def _rewards(account: Account, foreign: Foreign) -> None:
    account.take("is_reward")
    _preferences(account)
    _training(account, foreign)
    account.move("center_coef", "rewards.center_coef", float)


def _dpo(account: Account, foreign: Foreign) -> None:
    _preferences(account)
    smoothing = account.facts.get("label_smoothing")
    loss = account.take("loss", "sigmoid")
    method = account.take("method")
    if account.take("ipo") or method == "ipo":
        loss = "ipo"
    if loss not in ("sigmoid", "robust", "ipo"):
        raise refuse(account.tool.name, "loss_type", loss)
    flips = smoothing is not None and smoothing.value > 0
    link = {"sigmoid": "cdpo" if flips else "dpo", "robust": "robust" if flips else "dpo"}.get(loss, loss)
    values: dict[str, tuple[Any, str]] = {
        "algorithm": (link, f"loss {loss}{' with' if flips else ' without'} label smoothing there")
    }
    if smoothing is not None and flips and link in ("cdpo", "robust"):
        account.take("label_smoothing")
        values["flip_rate"] = (float(smoothing.value), smoothing.source)
        account.combine("policies.dpo", values, smoothing)
    else:
        account.put("policies.dpo.algorithm", *values["algorithm"])
    if "policies.dpo.algorithm" not in account.keys:
        account.put("policies.dpo.algorithm", "dpo", f"loss {loss} there, whose label smoothing was refused")
    account.move("beta", "policies.dpo.beta", float)
    _training(account, foreign)


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


_PPO_MOVES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("ppo_epochs", "num_epochs", _whole), ("max_new", "max_new_tokens", _whole), ("temperature", "temperature", float),
    ("gamma", "gamma", float), ("lam", "lam", float), ("value_clip", "value_clip", float), ("value_coef", "value_coef", float),
    ("entropy_coef", "entropy_coef", float), ("missing_eos_penalty", "missing_eos_penalty", float), ("score_clip", "score_clip", float),
    ("kl_coef", "kl.kl_coef", float), ("kl_target", "kl.target", _number_or_none), ("kl_horizon", "kl.horizon", _whole),
)  # fmt: skip


def _ppo(account: Account, foreign: Foreign) -> None:
    _prompt_sources(account)
    account.put("completions.num_samples", 4, "ours: a prompt; reference samples on which scores are normalised")
    if "max_new" in account.facts:
        account.put("completions.max_new_tokens", account.facts["max_new"].value, account.facts["max_new"].source)
    account.put("preferences.path", "data/preferences.jsonl", "not in the file: the reward model is trained from these")
    account.put("rewards.freeze_embeddings", True, "ours: rare words cannot be turned into reward")
    account.notes.append("The reward model is trained by the recipe: set preferences.path.")
    account.put("policies.ppo.algorithm", "ppo", "name of the method")
    account.take("method")
    _rounds(account, foreign)
    for meaning, name, convert in _PPO_MOVES:
        account.move(meaning, f"policies.ppo.{name}", convert)
    clips = account.facts.pop("clips", None)
    clip = account.facts.pop("clip", None)
    if clips is not None:
        values = {
            name: (float(clips.value[index]), clips.source) for index, name in enumerate(("clip_low", "clip_high"))
        }
        account.combine("policies.ppo", values, clips)
        if clip is not None:
            account.leave(clip, needless(f"{clips.key} says more"))
    elif clip is not None:
        account.combine(
            "policies.ppo", {name: (float(clip.value), clip.source) for name in ("clip_low", "clip_high")}, clip
        )
    _training(account, foreign)


def _rounds(account: Account, foreign: Foreign) -> None:
    """Completions a round, completions a step, and how many rounds."""
    facts = account.facts
    prompts = facts.get("prompts_a_round")
    batch, minibatch = _round_sizes(account, foreign)
    if batch is None:
        return
    step = min(minibatch.value, batch.value) if minibatch else min(16, batch.value)
    values = {
        "batch_size": (batch.value, batch.why),
        "minibatch_size": (step, minibatch.why if minibatch else "ours; at most a round"),
    }
    account.combine("policies.ppo", values, *batch.facts, *(minibatch.facts if minibatch else ()))
    total, passes = facts.pop("episodes", None) or facts.pop("max_samples", None), facts.pop("prompt_epochs", None)
    if total is not None:
        share = passes.value if passes is not None and prompts is not None else 1
        rounds = max(1, math.ceil(total.value * share / (prompts.value if prompts is not None else batch.value)))
        account.combine(
            "policies.ppo", {"num_iterations": (rounds, f"{total.source} ({total.value}), a round at a time")}, total
        )
    if passes is not None and (total is None or prompts is None):
        account.leave(passes, lacking("rounds are counted; set num_iterations to prompts / batch_size x passes"))


def _round_sizes(account: Account, foreign: Foreign) -> tuple[_Size | None, _Size | None]:
    """(completions a round, completions a step)."""
    if "prompts_a_round" in account.facts:
        return _times(account, "prompts_a_round", "samples_a_prompt"), _times(account, "minibatch")
    if "rollout_batch" in account.facts:  # the older TRL names both sizes, and has no size a device
        account.take("device_batch")
        return _times(account, "rollout_batch"), _times(account, "device_minibatch", "accumulation", foreign=foreign)
    if "device_rollout" in account.facts:
        return _times(account, "device_rollout", foreign=foreign), _times(
            account, "device_minibatch", "accumulation", foreign=foreign
        )
    minibatch, count = (
        _times(account, "device_batch", "accumulation", foreign=foreign),
        account.facts.pop("num_minibatches", None),
    )
    if minibatch is None or count is None:
        return minibatch, minibatch
    return _Size(
        minibatch.value * count.value, f"{count.key} ({count.value}) x minibatch_size", (*minibatch.facts, count)
    ), minibatch


def _sources(account: Account, placeholder: str) -> list[tuple[str, str, str]]:
    """(path, format, why) of each data set; hub data sets get a place to save them to."""
    fact = account.facts.pop("datasets", None)
    if fact is None:
        return [(placeholder, "", "not in the file: a path, relative to the recipe")]
    found = [_source(account, fact, entry) for entry in _entries(fact.value)]
    return found or [(placeholder, "", "not in the file: a path, relative to the recipe")]


def _entries(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, list) else [value]


def _source(account: Account, fact: Fact, entry: Any) -> tuple[str, str, str]:
    settings = entry if isinstance(entry, dict) else {"path": str(entry)}
    files = settings.get("data_files")
    name = str((files[0] if isinstance(files, list) and files else files) or settings.get("path", ""))
    name = name.partition("@")[2] or name  # OpenRLHF's `json@folder`
    hint = next((ours for start, ours in _AXOLOTL_FORMATS if str(settings.get("type", "")).startswith(start)), "")
    if hint == "trl_messages" and settings.get("field_messages") == "conversations":
        hint = "sharegpt"
    unread = sorted(set(settings) - {"path", "type", "data_files", "ds_type", "field_messages", "split"})
    if unread:
        account.notes.append(
            f"Of {fact.key}, {name}: {', '.join(str(u) for u in unread)} not translated; the format says which columns (docs/formats.md)."
        )
    if is_file(name):
        return name, hint, fact.source
    local = f"data/{Path(name).name}.jsonl"
    account.notes.append(f"{name} is a hub data set: save it as {local} (JSONL), or name your own file.")
    return local, hint, f"{fact.source}: the hub data set {name}, saved as a file"


def is_file(name: str) -> bool:
    """True for what looks like a file rather than a hub id."""
    return name.endswith(_FILE_TYPES) or name.startswith(("/", "./", "../", "~"))


def _prompt_sources(account: Account) -> None:
    fact = account.facts.pop("datasets", None)
    names = (
        [str(entry.get("path", "")) if isinstance(entry, dict) else str(entry) for entry in _entries(fact.value)]
        if fact
        else []
    )
    keys = [
        Key({"path": name} if is_file(name) else {"hub": name}, fact.source if fact else "") for name in names if name
    ]
    account.put(
        "prompts.sources",
        keys or [Key({"path": "data/prompts.jsonl"}, "not in the file: a path, relative to the recipe")],
        "prompts of the run",
    )
