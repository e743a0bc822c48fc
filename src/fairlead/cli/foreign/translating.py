"""Meanings to recipe keys: shared by all tools, so that each rule (batches, schedules, adapters, losses) stands once.

A value that the recipe's own schema refuses is left out and accounted for, like a key without counterpart.

Example:
    account = translate(TOOLS["trl"], "dpo", foreign, name="first")
    account.keys["policies.dpo.beta"].value
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fairlead.cli.foreign.accounting import Account, Fact, Untranslated
from fairlead.cli.foreign.files import Foreign, Unresolved
from fairlead.cli.foreign.optimiser import training, whole
from fairlead.cli.foreign.policies import pair_policy, ppo_policy, unpaired_policy
from fairlead.cli.foreign.sources import data_sources, preferences, share
from fairlead.cli.foreign.tool import Kind, Tool, lacking, needless

_NUMBERS = frozenset({
    "learning_rate", "warmup_steps", "max_steps", "prompt_epochs", "label_smoothing", "clip", "beta", "neftune", "nll_coef", "simpo_gamma",
    "ld_alpha", "good_weight", "bad_weight", "refresh_alpha", "divergence_coef", "tau",
})  # fmt: skip
_COUNTS = frozenset({
    "device_batch", "accumulation", "batch", "rollout_batch", "device_rollout", "device_minibatch", "minibatch", "num_minibatches", "episodes",
    "prompts_a_round", "samples_a_prompt", "max_samples", "max_length", "max_prompt", "max_new", "epochs", "ppo_epochs", "refresh_steps",
})  # fmt: skip
_MAX_COUNT = 10**12
_PAIRS = frozenset({"betas", "clips"})
_TEXTS = frozenset({"schedule", "model", "sft_model", "template", "loss", "optimizer", "divergence"})


def translate(tool: Tool, kind: Kind, foreign: Foreign, *, name: str) -> Account:
    """Account for every key of `foreign`."""
    account = Account(tool=tool, kind=kind, values=foreign.keys)
    _collect(account, foreign)
    account.put("name", name, "folder of the run under FAIRLEAD_HOME")
    account.put("scope", "narrow", "toy, narrow (one task) or general; gates ask for that many data")
    account.move("seed", "seed", whole)
    _model(account)
    _text(account)
    _KINDS[kind](account, foreign)
    account.drop("neftune", lacking("noise on embeddings is for SFT alone"))
    account.drop("max_samples", lacking("the whole file is used; cut it beforehand"))
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
        account.move("max_length", "text.max_length", whole)
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


def _sft(account: Account, foreign: Foreign) -> None:
    data_sources(account, "sft.data", "data/demonstrations.jsonl", "demonstrations")
    training(account, foreign, "sft.training")
    account.move("neftune", "sft.neftune_alpha", _noise)
    _learn(account)
    account.move("patience", "sft.patience", whole)
    account.move("sft_smoothing", "sft.label_smoothing", float)
    account.move("heldout", "sft.heldout_share", share)


def _rewards(account: Account, foreign: Foreign) -> None:
    account.take("is_reward")
    preferences(account)
    training(account, foreign, "rewards.training")
    account.move("center_coef", "rewards.center_coef", float)


def _noise(value: Any) -> float:
    if not float(value):
        raise Untranslated(needless("switched off there, absent here"))
    return float(value)


def _learn(account: Account) -> None:
    """Which tokens are trained."""
    for meaning, part, usual in (
        ("learns_all", "all", False),
        ("learns_last", "last_reply", False),
        ("learns_replies", "replies", True),
    ):
        fact = account.facts.get(meaning)
        if fact is not None and bool(fact.value) != usual:
            part = "all" if meaning == "learns_replies" else part
            account.move(meaning, "sft.learn", lambda _, part=part: part)
        elif fact is not None:
            account.facts.pop(meaning)
            account.leave(fact, needless("replies are trained, prompts are not, as there"))


_KINDS: Mapping[Kind, Callable[[Account, Foreign], None]] = {
    "sft": _sft, "rewards": _rewards, "ppo": ppo_policy,
    **dict.fromkeys(("dpo", "orpo", "simpo", "cpo"), pair_policy), **dict.fromkeys(("kto", "bco"), unpaired_policy),
}  # fmt: skip
