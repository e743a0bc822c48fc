"""The optimiser run of a foreign configuration: batches, schedules, adapters, precision, what is frozen.

Example:
    training(account, foreign, "sft.training")
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from fairlead.cli.foreign.accounting import Account, Fact, Untranslated
from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.tool import lacking, needless

_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_OPTIMISERS = {  # the beginning of the name there, longest first; a paged state has the same numbers
    "adamw_torch_4bit": "", "adamw_torch_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_8bit", "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit", "paged_adamw": "adamw", "adamw": "adamw", "fusedadam": "adamw", "fused_adam": "adamw",
    "adafactor": "adafactor", "muon": "muon",
}  # fmt: skip
_PRECISIONS = {
    "true": "bf16", "full": "bf16", "bf16": "bf16", "bfloat16": "bf16", "torch.bfloat16": "bf16", "auto": "auto",
    "false": "fp32", "fp32": "fp32", "float32": "fp32", "torch.float32": "fp32",
}  # fmt: skip
_DSCHAT_EMA = 0.992


def training(account: Account, foreign: Foreign, train: str) -> None:
    """The optimiser run of the section that this kind trains."""
    _optimizer(account, train)
    account.move("learning_rate", f"{train}.learning_rate", float)
    if account.kind != "ppo":
        account.move("epochs", f"{train}.num_epochs", whole)
        _batch(account, foreign, train)
    _schedule(account, train)
    for meaning in ("warmup_share", "weight_decay", "beta1", "beta2", "adam_eps", "max_grad_norm"):
        account.move(meaning, f"{train}.{meaning}", float)
    betas = account.facts.pop("betas", None)
    if betas is not None:
        values = {name: (float(betas.value[index]), betas.source) for index, name in enumerate(("beta1", "beta2"))}
        account.combine(train, values, betas)
    account.move("recompute", f"{train}.activation_checkpointing", _switch)
    account.move("has_ema", f"{train}.ema_decay", _ema)
    _precision(account, train)
    _packing(account)
    _lora(account, train)
    account.move("unfrozen", f"{train}.freeze", _complement)


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
    share = account.facts.get("warmup_share")
    if share is not None and not share.key:  # a default must not undo what the file says
        account.take("warmup_share")
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


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise Untranslated(lacking("a whole number is needed"))
    return int(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A product of facts."""

    value: int
    why: str
    facts: tuple[Fact, ...]


def times(account: Account, *meanings: str, foreign: Foreign | None = None) -> Size | None:
    """The first meaning times those of the others that are there, times devices where sizes are a device's; None without the first."""
    if meanings[0] not in account.facts:
        return None
    facts = tuple(account.facts.pop(meaning) for meaning in meanings if meaning in account.facts)
    value, why = (
        math.prod(fact.value for fact in facts),
        " x ".join(f"{fact.key or fact.source} ({fact.value})" for fact in facts),
    )
    if foreign is None:
        return Size(value, why, facts)
    devices = f"{foreign.num_devices} devices" if foreign.num_devices else "1 device, for the file names none"
    return Size(value * (foreign.num_devices or 1), f"{why} x {devices}", facts)


def _batch(account: Account, foreign: Foreign, train: str) -> None:
    size = times(account, "batch") or times(account, "device_batch", "accumulation", foreign=foreign)
    if size is not None:
        account.combine(train, {"batch_size": (size.value, size.why)}, *size.facts)


def _lora(account: Account, train: str) -> None:
    adapter, rank = account.facts.pop("adapter", None), account.facts.get("lora_rank")
    is_wanted = bool(rank and rank.key and rank.value)
    if adapter is not None:
        is_wanted = bool(adapter.value) and adapter.value not in ("full", "freeze")
    if not is_wanted:
        for fact in (
            adapter,
            *(
                account.facts.pop(n, None)
                for n in (
                    "lora_rank",
                    "lora_alpha",
                    "lora_targets",
                    "lora_linear",
                    "lora_module",
                    "is_rslora",
                    "is_dora",
                )
            ),
        ):
            if fact is not None:
                account.leave(fact, needless("no adapter is switched on there"))
        return
    if adapter is not None and adapter.value == "qlora":
        account.leave(adapter, lacking("adapters are taken, on full-precision weights; 4-bit weights are not"))
    for meaning, kind in (("is_dora", "dora"), ("is_rslora", "rslora")):
        fact = account.facts.pop(meaning, None)
        if fact is None:
            continue
        if fact.value and f"{train}.lora.kind" not in account.keys:
            account.put(f"{train}.lora.kind", kind, fact.source)
        else:
            account.leave(
                fact, lacking("one kind of adapter at a time") if fact.value else needless("off there, as here")
            )
    if account.tool.name == "llamafactory" and rank is not None and "lora_alpha" not in account.facts:
        account.facts["lora_alpha"] = Fact(2 * rank.value, "", "default of llamafactory: twice the rank")
    account.move("lora_rank", f"{train}.lora.rank", whole)
    account.move("lora_alpha", f"{train}.lora.alpha", float)
    every = account.facts.pop("lora_linear", None)
    if every is not None and every.value:
        account.put(f"{train}.lora.target_modules", "all-linear", every.source)
    account.move("lora_targets", f"{train}.lora.target_modules", _targets)
    account.move("lora_module", f"{train}.lora.target_modules", lambda value: ".*" + re.escape(str(value)) + ".*")


def _targets(value: Any) -> str:
    """A list of layer names as the regular expression that matches them; an expression stays as it is."""
    names = [str(v) for v in (value if isinstance(value, list) else [value])]
    if len(names) == 1 and re.fullmatch(r"\w+(,\s*\w+)+", names[0]):
        names = re.split(r",\s*", names[0])
    if names in (["all"], ["all-linear"]):
        return "all-linear"
    if len(names) == 1 and not re.fullmatch(r"\w+", names[0]):
        return names[0]
    return r".*\.(" + "|".join(re.escape(name) for name in names) + ")"


def _optimizer(account: Account, train: str) -> None:
    """First of the section: which other settings are read depends on it."""
    switch = account.facts.pop("is_muon", None)
    if switch is not None and switch.value:
        account.put(f"{train}.optimizer", "muon", switch.source)
        account.drop("optimizer", needless(f"{switch.key} says more"))
    elif switch is not None:
        account.leave(switch, needless("off there, as here"))
    account.move("optimizer", f"{train}.optimizer", _optimiser)
    if train + ".optimizer" in account.keys and account.keys[train + ".optimizer"].value == "adafactor":
        account.notes.append(
            "Adafactor: there a step has the size of learning_rate, here that share of each tensor's size; usual are 1e-4 to 1e-2."
        )


def _optimiser(value: Any) -> str:
    """By the beginning of its name: there are variants for kernels and for where the state lies."""
    name = str(value).lower()
    found = next(
        (ours for there, ours in _OPTIMISERS.items() if name.startswith(there)), "adamw" if name == "adam" else ""
    )
    if not found:
        raise Untranslated(lacking("adamw, adamw_8bit, muon and adafactor are the optimisers"))
    return found


def _switch(value: Any) -> bool:
    """True, or how it is to be done."""
    if value in (False, "false", 0):
        raise Untranslated(needless("off there, as here"))
    return True


def _ema(value: Any) -> float:
    if not value:
        raise Untranslated(needless("switched off there, absent here"))
    return _DSCHAT_EMA


def _precision(account: Account, train: str) -> None:
    """One key of three: bf16 (or fp16) under autocast, and the type of the weights, which stay fp32 here."""
    bf16, fp16, dtype = (account.facts.pop(name, None) for name in ("bf16", "fp16", "dtype"))
    if fp16 is not None:
        account.leave(
            fp16,
            lacking("products are fp32 or bf16; fp16 would need a scaled loss")
            if fp16.value
            else needless("off there, as here"),
        )
    is_off = bf16 is not None and not bf16.value
    fact = dtype if bf16 is None or (is_off and dtype is not None) else bf16
    if fact is None:
        return
    wanted = _PRECISIONS.get(str(fact.value).lower())
    if wanted is None or (is_off and fp16 is not None and fp16.value):
        account.leave(
            fact,
            needless("weights are kept in fp32, whatever their file has")
            if wanted
            else lacking("products are fp32 or bf16"),
        )
    else:
        account.put(f"{train}.precision", wanted, f"{fact.source}; of products, weights stay fp32")
    for other in (bf16, dtype):
        if other is not None and other is not fact:
            account.leave(other, needless(f"{fact.key} says more"))


def _packing(account: Account) -> None:
    fact = account.facts.pop("packing", None)
    if fact is None:
        return
    account.leave(fact, needless("rows are always packed, and sequences in a row never see each other"))
    if fact.value and account.kind == "sft":
        account.notes.append(
            f"{fact.key} there: batch sizes count packed rows; here they count conversations. Multiply batch_size by how many fill a row."
        )


def _complement(value: Any) -> list[str]:
    """Patterns of what is trained as the pattern of what is not. Theirs match the beginning of a name, ours whole names."""
    patterns = [str(v) for v in (value if isinstance(value, list) else [value])]
    if any(re.search(r"\[\d*:\d*\]$", pattern) for pattern in patterns):
        raise Untranslated(lacking("a parameter is frozen as a whole, not some of its rows"))
    if not patterns:
        raise Untranslated(needless("everything is trained, as here"))
    return ["(?!" + "|".join(f"(?:{pattern})" for pattern in patterns) + ").*"]
