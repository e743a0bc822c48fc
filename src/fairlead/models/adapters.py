"""LoRA through peft. With an adapter the frozen reference policy is the same weights with the adapter switched off."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from fairlead.core.errors import ConfigError, explain
from fairlead.models.load import CausalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Kind and size of the adapter. rank: inner width; alpha: scale of the update.

    lora: update alpha / rank * B A (Hu et al. 2021, arXiv:2106.09685). rslora: alpha / sqrt(rank) * B A (Kalajdzievski 2023,
    arXiv:2312.03732). dora: the lora update of the direction, and a trained length for each output (Liu et al. 2024, arXiv:2402.09353).
    """

    kind: Literal["lora", "rslora", "dora"] = "lora"
    rank: int = 16
    alpha: float = 32.0
    target_modules: str = "all-linear"


def add_lora(model: CausalModel, settings: LoraSettings, *, seed: int) -> CausalModel:
    """Wrap the model; only the adapter is trainable afterwards. It starts as a function of the seed, and changes no output yet.

    Raises:
        ConfigError: no layer has that name, the adapter is wider than the model, or it is dora beside experts that are one tensor.
    """
    _check_fit(model, settings)
    from peft import LoraConfig, get_peft_model  # slow to import, and most runs have no adapter

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=0.0,
        use_rslora=settings.kind == "rslora",
        use_dora=settings.kind == "dora",
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with warnings.catch_warnings(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)  # peft draws from the global generator, whose state depends on what ran before
        # peft advises on tied heads and on save_embedding_layers; both are handled by merging before a release.
        warnings.simplefilter("ignore", UserWarning)
        # Its own rules for stacked experts, which it adds to any config of such a model, whether the target reaches them or not.
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        try:
            module = get_peft_model(model.causal_lm, config).eval()
        except ValueError as error:
            if settings.kind == "dora" and "ParamWrapper" in str(error):  # peft's layer of a stacked tensor
                raise _no_dora() from error
            raise
    return _with_module(model, module)


def _no_dora() -> ConfigError:
    return ConfigError(explain("training.lora.kind", "dora", "has no form for experts that are stacked in one tensor", expected="lora or rslora",
                               remedy="Change it, or let training.lora.target_modules name the layers of attention alone"))  # fmt: skip


def _check_fit(model: CausalModel, settings: LoraSettings) -> None:
    if settings.rank > model.hidden_size:
        raise ConfigError(explain("training.lora.rank", settings.rank, "is wider than the model",
                                  expected=f"at most its hidden size, {model.hidden_size}", remedy="Usual ranks are 8 to 64"))  # fmt: skip
    if settings.target_modules == "all-linear":
        return
    kinds = ("Linear", "Conv1D")  # Conv1D: linear layers of GPT-2, which are no nn.Linear
    names = [name for name, module in model.causal_lm.named_modules() if type(module).__name__ in kinds]
    try:
        is_found = any(re.fullmatch(settings.target_modules, name) for name in names)
    except re.error:
        is_found = False
    if not is_found:
        ends = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
        raise ConfigError(explain("training.lora.target_modules", settings.target_modules, "matches no linear layer",
                                  expected=f"all-linear, or a regular expression for whole names that end in {ends}",
                                  remedy="For example .*(q_proj|v_proj)"))  # fmt: skip


def has_adapter(model: CausalModel) -> bool:
    """True when the model carries a LoRA adapter."""
    return hasattr(model.module, "peft_config")


@contextlib.contextmanager
def reference_mode(model: CausalModel) -> Iterator[CausalModel]:
    """The model with its adapter off: the reference policy."""
    if not has_adapter(model):
        raise ValueError("only a model with an adapter has a reference inside; load a second model")
    with model.module.disable_adapter():  # pyright: ignore[reportCallIssue]
        yield model


def merged(model: CausalModel) -> CausalModel:
    """Weights with the adapter added in, as a plain model (the adapter is gone)."""
    if not has_adapter(model):
        return model
    return _with_module(model, model.module.merge_and_unload().eval())  # pyright: ignore[reportCallIssue]


def _with_module(model: CausalModel, module: Any) -> CausalModel:
    """peft added layers, or wrote into weights where autograd does not see it: low-precision copies must be made anew."""
    found = replace(model, module=module)
    found.set_precision(model.arithmetic.precision)
    return found
