"""Loading a causal language model and its tokenizer from a folder (or, with a network, by hub id), with located errors.

Weights are safetensors only and are held in the dtype that is asked for, never in what the checkpoint happened to be.

Example:
    model = load_policy("my-model", dtype=torch.float32)
    hidden = model.hidden(layout)                      # [N, H]
    logprobs = model.logprobs(layout).logprobs         # [K]
"""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from fairlead.core.errors import ModelError, explain
from fairlead.models import attention
from fairlead.models.logprobs import OutputHead, TokenLogprobs, token_logprobs
from fairlead.text.packing import Layout

BUNDLED = "bundled"
_STATEFUL = (
    "mamba",
    "rwkv",
    "jamba",
    "zamba",
    "bamba",
    "falcon_h1",
    "recurrent_gemma",
    "qwen3_next",
    "lfm2",
    "nemotron_h",
)


@dataclass(slots=True, eq=False)
class CausalModel:
    """A transformers causal model seen through trees: hidden states, logprobs, and where its parts are.

    Lifecycle: owned by one stage; not thread-safe. `module` is what the optimiser trains (a PEFT wrapper with LoRA).
    """

    module: nn.Module
    config: Any
    name: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def causal_lm(self) -> Any:
        """The transformers model, inside a PEFT wrapper or not."""
        base = getattr(self.module, "base_model", None)
        is_peft = base is not None and hasattr(self.module, "peft_config")
        return base.model if is_peft else self.module  # pyright: ignore[reportOptionalMemberAccess]

    @property
    def backbone(self) -> nn.Module:
        """The transformer without its language-model head."""
        lm = self.causal_lm
        return getattr(lm, lm.base_model_prefix)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def max_positions(self) -> int:
        """Longest prompt plus completion that the model was made for."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", 1 << 20))

    def output_head(self) -> OutputHead:
        """The language-model head as tensors."""
        head = self.causal_lm.get_output_embeddings()
        text = self.config.get_text_config()
        scale = 1.0
        if (multiplier := getattr(text, "logit_scale", None)) is not None:
            scale = float(multiplier)
        elif (divisor := getattr(text, "logits_scaling", None)) is not None:
            scale = 1.0 / float(divisor)
        return OutputHead(weight=head.weight, bias=getattr(head, "bias", None),
                          softcap=getattr(text, "final_logit_softcapping", None), scale=scale)  # fmt: skip

    def hidden(self, layout: Layout) -> Tensor:
        """[N, H] hidden states of a flat row of trees."""
        plan = attention.TreeAttention(layout, device=self.device)
        return self.run(torch.from_numpy(layout.token_ids)[None], torch.from_numpy(layout.position_ids)[None], plan)[0]

    def run(self, token_ids: Tensor, position_ids: Tensor, plan: attention.AttentionPlan) -> Tensor:
        """[B, T, H] hidden states under an attention plan. `use_cache=False` always: a cache would undo the isolation."""
        output = self.backbone(
            input_ids=token_ids.to(self.device),
            position_ids=position_ids.to(self.device),
            use_cache=False,
            fairlead=plan,
        )
        assert getattr(output, "past_key_values", None) is None, "a cache was made in a packed forward"
        return output.last_hidden_state

    def logprobs(self, layout: Layout, *, temperature: float = 1.0, needs: Collection[str] = ()) -> TokenLogprobs:
        """[K] logprobs of the kept tokens; with entropy and mean_logprobs when `needs` names them."""
        hidden = self.hidden(layout)[torch.from_numpy(layout.kept_source).to(self.device)]
        targets = torch.from_numpy(layout.kept_target).to(self.device)
        return token_logprobs(hidden, self.output_head(), targets, temperature=temperature, needs=needs)


def bundled_model() -> Path:
    """Folder of the model that ships with the package."""
    return Path(__file__).parents[1] / "bundled" / "model"


def resolve_model(model: str) -> str:
    """Turn `bundled`, a folder, or a hub id into what transformers loads; checks a folder before anything is loaded."""
    if model == BUNDLED:
        return str(bundled_model())
    path = Path(model).expanduser()
    if path.is_dir():
        check_folder(path)
        return str(path)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelError(explain("model", model, "is not a folder", expected="a model folder, a hub id (org/name), or `bundled`",
                                 remedy="Check the path"))  # fmt: skip
    return model


def check_folder(path: Path) -> None:
    """Refuse a model folder that is incomplete or holds weights only as pickles."""
    if not (path / "config.json").is_file():
        raise ModelError(
            explain(path, None, "has no config.json", expected="a transformers model folder", remedy="Check the path")
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                explain(index, None, "is damaged", expected="an index with a weight_map", remedy="Copy it again")
            ) from error
        missing = [name for name in shards if not (path / name).is_file()]
        if missing:
            raise ModelError(explain(path, None, f"lacks {len(missing)} of {len(shards)} weight shards (first: {missing[0]})",
                                     expected="every shard that the index names", remedy="Copy the missing files"))  # fmt: skip
    elif not (path / "model.safetensors").is_file() and not (path / "adapter_model.safetensors").is_file():
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        found = f" (found {pickles[0]}, a pickle, which is never loaded)" if pickles else ""
        raise ModelError(explain(path, None, f"has no model.safetensors{found}", expected="safetensors weights",
                                 remedy="Convert the weights to safetensors or copy the missing file"))  # fmt: skip


def load_tokenizer(model: str) -> Any:
    """The fast tokenizer of a model."""
    _quiet()
    try:
        return AutoTokenizer.from_pretrained(resolve_model(model), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _load_error(model, error, "a tokenizer") from error


def load_policy(model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> CausalModel:
    """Load a causal LM with fairlead attention, dropout off.

    Raises:
        ModelError: not found, incomplete, damaged, or an architecture whose sequences cannot be isolated in one row.
    """
    _quiet()
    attention.register()
    source = resolve_model(model)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _check_architecture(config, model)
        module, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation=attention.NAME,
            output_loading_info=True,
        )  # fmt: skip
    except ModelError:
        raise
    except Exception as error:  # safetensors and transformers raise many kinds for a damaged file
        raise _load_error(model, error, "a causal language model") from error
    missing = sorted(info.get("missing_keys") or [])
    if missing:
        raise ModelError(explain(model, None, f"lacks {len(missing)} weights (first: {missing[0]})", expected="a complete checkpoint",
                                 remedy="Copy the missing files"))  # fmt: skip
    return CausalModel(module=module.to(device).eval(), config=module.config, name=model, device=torch.device(device))


def _check_architecture(config: Any, model: str) -> None:
    if any(config.model_type.startswith(name) for name in _STATEFUL):
        raise ModelError(explain(model, config.model_type, "keeps state across a row, so sequences cannot share one", expected="an attention model",
                                 remedy="Choose a transformer with plain attention"))  # fmt: skip


def _load_error(model: str, error: Exception, what: str) -> ModelError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(explain("model", model, f"cannot be loaded ({first[:160]})", expected=f"{what} in a folder or on the hub",
                              remedy="Check the path; without a network name a local folder"))  # fmt: skip


def _quiet() -> None:
    """transformers' own progress bars and advice would tear our one progress line."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
