"""Policies of a foreign configuration: DPO and its links, methods without a reference, methods on single labels, PPO."""

import math
from collections.abc import Callable
from typing import Any

from fairlead.cli.foreign.accounting import Account, Untranslated
from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.optimiser import Size, times, training, whole
from fairlead.cli.foreign.sources import data_sources, preferences, prompt_sources, share
from fairlead.cli.foreign.tool import lacking, needless, refuse

_LINKS = {  # TRL's name -> ours; flips decide between dpo and cdpo
    "sigmoid": "dpo", "robust": "robust", "ipo": "ipo", "hinge": "hinge", "exo_pair": "exo", "nca_pair": "nca", "sppo_hard": "sppo",
    "apo_zero": "apo_zero", "apo_down": "apo_down", "discopop": "discopop",
}  # fmt: skip
_DIVERGENCES = {
    "reverse_kl": "reverse_kl",
    "forward_kl": "forward_kl",
    "js_divergence": "js",
    "alpha_divergence": "alpha",
}


def pair_policy(account: Account, foreign: Foreign) -> None:
    """DPO and its links, and the methods without a reference."""
    preferences(account)
    section = f"policies.{account.kind}"
    method, loss = account.take("method"), account.take("loss")
    if account.kind == "dpo":
        _link(account, "ipo" if account.take("ipo") or method == "ipo" else loss or "sigmoid")
    else:
        if account.kind == "cpo" and loss not in (None, "sigmoid"):
            raise refuse(
                account.tool.name, "loss_type", loss, remedy="Take DPO with that link, or CPO without loss_type"
            )
        account.put(f"{section}.algorithm", account.kind, "name of the method")
    account.move("beta", f"{section}.beta", float)
    account.drop("label_smoothing", lacking("only cdpo, robust and exo read how many labels are wrong"))
    for meaning, name, convert in _PAIR_OPTIONS:
        account.option(meaning, section, name, convert)
    _refresh(account, section)
    training(account, foreign, f"{section}.training")


def _link(account: Account, loss: str) -> None:
    """The link of DPO, with the share of flips that some read."""
    smoothing, section = account.facts.get("label_smoothing"), "policies.dpo"
    if loss not in _LINKS:
        remedy = "aot is paired in newer versions and unpaired in older ones; name policies.NAME.algorithm by hand"
        raise refuse(account.tool.name, "loss_type", loss, **({"remedy": remedy} if loss.startswith("aot") else {}))
    flips = smoothing is not None and smoothing.value > 0
    link = {"sigmoid": "cdpo" if flips else "dpo", "robust": "robust" if flips else "dpo"}.get(loss, _LINKS[loss])
    source = f"loss {loss}{' with' if flips else ' without'} label smoothing there"
    if smoothing is not None and flips and link in ("cdpo", "robust"):
        account.take("label_smoothing")
        values = {"algorithm": (link, source), "flip_rate": (float(smoothing.value), smoothing.source)}
        account.combine(section, values, smoothing)
    else:
        account.put(f"{section}.algorithm", link, source)
    if f"{section}.algorithm" not in account.keys:
        account.put(f"{section}.algorithm", "dpo", f"loss {loss} there, whose label smoothing was refused")
    if link == "exo" and flips:
        account.option("label_smoothing", section, "smoothing", float)
    if link == "discopop":
        account.option("tau", section, "tau", float)
    if link == "ipo" and account.tool.name == "openrlhf":
        account.put(f"{section}.options", {"average": False}, "average: OpenRLHF sums over tokens")
    _divergence(account, section)


def _divergence(account: Account, section: str) -> None:
    coefficient = account.facts.get("divergence_coef")
    fact = account.facts.get("divergence")
    if fact is None or _DIVERGENCES.get(fact.value) == "reverse_kl":
        account.drop("divergence", needless("reverse KL, as here"))
        account.drop("divergence_coef", needless("only the alpha divergence reads it"))
        return
    account.option("divergence", section, "divergence", lambda value: _known(value, _DIVERGENCES, "f-divergence"))
    if coefficient is not None and fact.value == "alpha_divergence":
        account.option("divergence_coef", section, "divergence_alpha", lambda value: 1 - float(value))


def _known(value: Any, names: dict[str, str], what: str) -> str:
    if value not in names:
        raise Untranslated(lacking(f"no such {what}"))
    return names[value]


def _when_on(ours: Any) -> Callable[[Any], Any]:
    """Converts a switch to `ours`; one that is off has no key here."""

    def convert(value: Any) -> Any:
        if not value:
            raise Untranslated(needless("switched off there, absent here"))
        return float(value) if ours is None else ours

    return convert


_PAIR_OPTIONS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("simpo_gamma", "gamma", float), ("nll_coef", "nll_coef", _when_on(None)), ("ld_alpha", "ld_alpha", float),
    ("is_weighted", "weighting", _when_on("aligned")), ("is_average", "average", _when_on(True)),
)  # fmt: skip


def _refresh(account: Account, section: str) -> None:
    """A reference that follows the policy; TRL's switch comes with defaults."""
    switch, steps, share_of_policy = (
        account.facts.pop(n, None) for n in ("is_refreshed", "refresh_steps", "refresh_alpha")
    )
    facts = [fact for fact in (switch, steps, share_of_policy) if fact is not None]
    if switch is None or not switch.value:
        for fact in facts:
            account.leave(fact, needless("the reference stays fixed, as there"))
        return
    why = "ref_model_mixup_alpha and ref_model_sync_steps there, or their defaults"
    values = {
        "refresh_every_steps": (steps.value if steps else 512, why),
        "refresh_alpha": (float(share_of_policy.value) if share_of_policy else 0.6, why),
    }
    account.combine(section, values, *facts)


def unpaired_policy(account: Account, foreign: Foreign) -> None:
    """KTO and BCO on files of single labels."""
    section, loss = f"policies.{account.kind}", account.take("loss")
    if loss not in (None, account.kind):
        raise refuse(account.tool.name, "loss_type", loss)
    account.take("method")
    account.put(f"{section}.algorithm", account.kind, "name of the method")
    data_sources(account, f"{section}.data", "data/labels.jsonl", "replies with labels", keeps_formats=False)
    account.move("heldout", f"{section}.heldout", share)
    account.move("beta", f"{section}.beta", float)
    account.move("good_weight", f"{section}.lambda_desirable", float)
    account.move("bad_weight", f"{section}.lambda_undesirable", float)
    account.drop("nll_coef", lacking("no likelihood term beside single labels"))
    training(account, foreign, f"{section}.training")


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


_PPO_MOVES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("ppo_epochs", "num_epochs", whole), ("max_new", "max_new_tokens", whole), ("temperature", "temperature", float),
    ("gamma", "gamma", float), ("lam", "lam", float), ("value_clip", "value_clip", float), ("value_coef", "value_coef", float),
    ("entropy_coef", "entropy_coef", float), ("missing_eos_penalty", "missing_eos_penalty", float), ("score_clip", "score_clip", float),
    ("kl_coef", "kl.kl_coef", float), ("kl_target", "kl.target", _number_or_none), ("kl_horizon", "kl.horizon", whole),
)  # fmt: skip


def ppo_policy(account: Account, foreign: Foreign) -> None:
    prompt_sources(account)
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
    training(account, foreign, "policies.ppo.training")


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


def _round_sizes(account: Account, foreign: Foreign) -> tuple[Size | None, Size | None]:
    """(completions a round, completions a step)."""
    if "prompts_a_round" in account.facts:
        return times(account, "prompts_a_round", "samples_a_prompt"), times(account, "minibatch")
    if "rollout_batch" in account.facts:  # the older TRL names both sizes, and has no size a device
        account.take("device_batch")
        return times(account, "rollout_batch"), times(account, "device_minibatch", "accumulation", foreign=foreign)
    if "device_rollout" in account.facts:
        return times(account, "device_rollout", foreign=foreign), times(
            account, "device_minibatch", "accumulation", foreign=foreign
        )
    minibatch, count = (
        times(account, "device_batch", "accumulation", foreign=foreign),
        account.facts.pop("num_minibatches", None),
    )
    if minibatch is None or count is None:
        return minibatch, minibatch
    return Size(
        minibatch.value * count.value, f"{count.key} ({count.value}) x minibatch_size", (*minibatch.facts, count)
    ), minibatch
