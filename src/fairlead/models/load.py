"""Loading a causal language model and its tokenizer from a folder or by hub id, with located errors.

Weights are safetensors only and are held in the dtype that is asked for, never in what the checkpoint happened to be.

Example:
    model = load_policy("my-model", dtype=torch.float32)
    hidden = model.hidden(layout)                      # [N, H]
    logprobs = model.logprobs(layout).logprobs         # [K]
"""

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from fairlead.core.errors import ModelError, explain
from fairlead.models import attention, padded, probe, varlen
from fairlead.models.arithmetic import Arithmetic, Precision, is_direct_better, use_arithmetic
from fairlead.models.layers import use_layers
from fairlead.models.locate import TOKENIZER_FILES, check_folder, has_tokenizer, hub_folder, locate_model, read_object
from fairlead.models.logprobs import OutputHead, TokenLogprobs, token_logprobs
from fairlead.models.norms import use_norms
from fairlead.text.packing import Layout

_HARMLESS = re.compile(r"(rotary_emb\.inv_freq|\.masked_bias|\.attn\.bias|num_batches_tracked|^lm_head\.weight)$")
"""Weights that a checkpoint may hold beyond its architecture: buffers that are computed, and a tied head saved beside its embeddings."""


@dataclass(slots=True, eq=False)
class CausalModel:
    """A transformers causal model seen through trees: hidden states, logprobs, and where its parts are.

    Lifecycle: owned by one stage; not thread-safe. `module` is what the optimiser trains (a PEFT wrapper with LoRA).
    """

    module: nn.Module
    config: Any
    name: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    """Precision of its products, and the library that computes them."""
    why_padded: str | None = None
    """What keeps its sequences from sharing a row, so that each is a padded row of its own; None where they share one."""
    entry: Callable[..., Any] | None = None
    """Runs the backbone with the hooks of a sharded model (`sharding.shard`); None calls it directly."""

    def set_precision(self, precision: Precision) -> None:
        """Compute so from now on. Also after layers were added or weights changed behind autograd's back (an adapter merged in)."""
        on_cpu = self.device.type == "cpu"
        self.arithmetic = Arithmetic(
            precision="fp32" if self.why_padded else precision, is_direct=on_cpu and is_direct_better()
        )
        if on_cpu and not self.why_padded:
            use_arithmetic(self.module, self.arithmetic)
            use_norms(self.module, self.arithmetic)
            use_layers(self.module)

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
    def num_parameters(self) -> int:
        """Of all weights, trained or not."""
        return sum(p.numel() for p in self.module.parameters())

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
                          softcap=getattr(text, "final_logit_softcapping", None), scale=scale, arithmetic=self.arithmetic)  # fmt: skip

    def hidden(self, layout: Layout) -> Tensor:
        """[N, H] hidden states of a flat row of trees, or of the same tokens on padded rows."""
        if self.why_padded is not None:
            rows = padded.plan_rows(layout)
            found = [self._forward(input_ids=torch.from_numpy(ids)).flatten(0, 1) for ids in rows.token_ids]
            return torch.cat(found).index_select(0, torch.from_numpy(rows.home).to(self.device))
        plan = varlen.plan_attention(layout, device=self.device)
        return self.run(torch.from_numpy(layout.token_ids)[None], torch.from_numpy(layout.position_ids)[None], plan)[0]

    def run(self, token_ids: Tensor, position_ids: Tensor, plan: attention.AttentionPlan) -> Tensor:
        """[B, T, H] hidden states under an attention plan. `use_cache=False` always: a cache would undo the isolation."""
        return self._forward(input_ids=token_ids, position_ids=position_ids, fairlead=plan)

    def _forward(self, *, fairlead: attention.AttentionPlan | None = None, **inputs: Tensor) -> Tensor:
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        extra = {} if fairlead is None else {"fairlead": fairlead}
        with torch.autocast(
            "cuda", torch.bfloat16, enabled=self.arithmetic.precision == "bf16" and self.device.type == "cuda"
        ):
            output = (self.entry or self.backbone)(**inputs, **extra, use_cache=False)
        self.arithmetic.forget()
        caches = (getattr(output, name, None) for name in ("past_key_values", "cache_params"))
        assert all(cache is None for cache in caches), "a cache was made in a training forward"
        return output.last_hidden_state

    def logprobs(
        self, layout: Layout, *, temperature: float = 1.0, needs: Collection[str] = (), choices: Tensor | None = None
    ) -> TokenLogprobs:
        """[K] logprobs of the kept tokens; with entropy and mean_logprobs when `needs` names them; `choices` as in `token_logprobs`."""
        return self.read_logprobs(
            self.kept_hidden(layout), layout, temperature=temperature, needs=needs, choices=choices
        )

    def kept_hidden(self, layout: Layout) -> Tensor:
        """[K, H] the states in which the kept tokens are chosen: one forward for everything that is read in them."""
        return self.hidden(layout)[torch.from_numpy(layout.kept_source).to(self.device, non_blocking=True)]

    def read_logprobs(
        self, hidden: Tensor, layout: Layout, *, temperature: float = 1.0, needs: Collection[str] = (), choices: Tensor | None = None,
    ) -> TokenLogprobs:  # fmt: skip
        """`logprobs` from the layout's `kept_hidden`."""
        targets = torch.from_numpy(layout.kept_target).to(self.device, non_blocking=True)
        choices = None if choices is None else choices.to(self.device, non_blocking=True)
        return token_logprobs(
            hidden, self.output_head(), targets, temperature=temperature, needs=needs, choices=choices
        )


@contextmanager
def computing_in(model: CausalModel, precision: Precision) -> Iterator[None]:
    """The model computes in this precision inside, and in its own afterwards."""
    before = model.arithmetic.precision
    if before == precision:
        yield
        return
    model.set_precision(precision)
    try:
        yield
    finally:
        model.set_precision(before)


def load_tokenizer(model: str) -> Any:
    """The fast tokenizer of a model."""
    _quiet()
    source = locate_model(model)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exceptions for a damaged file
        _check_tokenizer_files(Path(source))
        raise _load_error(model, error, "a tokenizer") from error


def _check_tokenizer_files(folder: Path) -> None:
    """Name the file of a folder that keeps its tokenizer from loading, where that can be told."""
    if not folder.is_dir():
        return
    if not has_tokenizer(folder):
        raise ModelError(explain(folder, None, "has no tokenizer.json", expected=f"one of {', '.join(TOKENIZER_FILES)}",
                                 remedy="Copy the tokenizer's files from where the model came from"))  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_object(folder / name)
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            Tokenizer.from_file(str(path))
        except Exception as error:  # the only kind that tokenizers raises
            raise ModelError(
                explain(path, None, f"is damaged ({error})", expected="a tokenizer", remedy="Copy or download it again")
            ) from error


def load_policy(
    model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu", precision: Precision = "fp32"
) -> CausalModel:
    """Load a causal LM, dropout off: with fairlead attention, or with its own where its sequences cannot share a row.

    Args:
        precision: of its products; what runs on padded rows stays fp32.
    Raises:
        ModelError: not found, incomplete, damaged, weights that are not finite or that the architecture has no place for, or an
            architecture that is no decoder.
    """
    _quiet()
    attention.register()
    source = locate_model(model)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _check_architecture(config, model)
        module, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # safetensors and transformers raise many kinds for a damaged file
        _check_download(source)
        raise _load_error(model, error, "a causal language model") from error
    _check_download(source)
    _require_complete(info, model)
    module = module.to(device).eval()
    _require_finite(module, model)
    policy = CausalModel(module=module, config=module.config, name=model, device=torch.device(device))
    policy.why_padded = attach_plans(policy)
    policy.set_precision(precision)
    return policy


def foreseen_padding(folder: str) -> str | None:
    """`why_padded` of the model in a folder, from its config alone; None also where only its weights would tell."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        kind = AutoModelForCausalLM._model_mapping[type(config)]
    except Exception:  # `load_policy` says what is wrong with it
        return None
    return padded.why_padded(kind, config)


@torch.no_grad()
def attach_plans(policy: CausalModel) -> str | None:
    """Put our attention in where a plan computes what the model does; return what is against it, in words."""
    module, config = policy.causal_lm, policy.config
    if getattr(module, module.base_model_prefix, None) is None:
        raise _not_a_decoder(policy, "has no part that gives hidden states")
    tokens = probe.make_probe(config.get_text_config().vocab_size)
    own = policy._forward(input_ids=tokens.rows)
    if not own.isfinite().all():
        return padded.why_padded(type(module), config)  # nothing to compare; preflight meets it
    if not tokens.is_causal(own):
        raise _not_a_decoder(policy, "lets a token see later ones")
    why, name = padded.why_padded(type(module), config), config._attn_implementation
    if why is None:
        module.set_attn_implementation(attention.NAME)
        try:
            planned = policy.hidden(tokens.layout)
            why = None if tokens.agrees(own, planned) else "computes something else under a plan of ours"
        except attention.PlanError as error:
            why = str(error)
        if why is not None:
            module.set_attn_implementation(name)
    return why


def _not_a_decoder(policy: CausalModel, wrong: str) -> ModelError:
    return ModelError(explain(policy.name, policy.config.model_type, wrong, expected="a decoder that looks back only",
                              remedy="Choose a causal language model"))  # fmt: skip


def _require_complete(info: dict[str, Any], model: str) -> None:
    """Every weight of the architecture came from the checkpoint, in its shape; the loader would make up the others."""
    for name, found, wanted in sorted(info.get("mismatched_keys") or []):
        raise ModelError(explain(model, None, f"holds {name} as {list(found)}", expected=f"{list(wanted)}, by its config.json",
                                 remedy="Copy config.json and the weights from one place"))  # fmt: skip
    missing = sorted(info.get("missing_keys") or [])
    if missing:
        raise ModelError(explain(model, None, f"lacks {len(missing)} weights (first: {missing[0]})", expected="a complete checkpoint",
                                 remedy="Copy the missing files"))  # fmt: skip
    extra = sorted(name for name in info.get("unexpected_keys") or [] if not _HARMLESS.search(name))
    if extra:
        raise ModelError(explain(model, None, f"holds {len(extra)} weights that its architecture has no place for (first: {extra[0]})",
                                 expected="a config.json that describes every weight",
                                 remedy="Copy config.json from where the weights came from, or remove these weights"))  # fmt: skip


def _check_download(source: str) -> None:
    """The files of a hub model are here only once it was loaded; those of a folder were checked before."""
    folder = None if Path(source).is_dir() else hub_folder(source)
    if folder is not None:
        check_folder(folder)


def _require_finite(module: nn.Module, model: str) -> None:
    """One pass over the weights without a copy, under 0.1 s a GB: NaN is its own minimum."""
    for name, parameter in module.named_parameters():
        if parameter.numel() and not all(torch.isfinite(x) for x in torch.aminmax(parameter.detach())):
            raise ModelError(explain(model, None, f"holds NaN or infinity in {name}", expected="finite weights",
                                     remedy="Take an earlier checkpoint, or download it again"))  # fmt: skip


def _check_architecture(config: Any, model: str) -> None:
    if config.is_encoder_decoder:
        raise ModelError(explain(model, config.model_type, "is an encoder with a decoder", expected="a decoder alone",
                                 remedy="Choose a causal language model"))  # fmt: skip
    if config.model_type == "rwkv":
        config.rescale_every = (
            0  # its guard of fp16 divides weights in place on the first forward, and a save would keep that
        )


def _load_error(model: str, error: Exception, what: str) -> ModelError:
    text = str(error).strip()
    if "custom code" in text:
        return ModelError(explain("model", model, "brings code of its own (auto_map), which is never run", expected="an architecture of transformers",
                                  remedy="Choose another model, or one that was converted to a class of transformers"))  # fmt: skip
    first = text.splitlines()[0] if text else type(error).__name__
    return ModelError(explain("model", model, f"cannot be loaded ({first[:160]})", expected=f"{what} that transformers can load",
                              remedy="Copy or download the model again, or choose another"))  # fmt: skip


def _quiet() -> None:
    """transformers' own progress bars and advice would tear our one progress line."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
