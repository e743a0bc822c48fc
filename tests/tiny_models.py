"""Tiny random transformers, one per attention family, with a tokenizer trained on a few words. Weights come from numpy, so that they
do not change with torch or transformers. Folders live until the process ends.

Example:
    model = tiny_models.load("llama")                  # CausalModel, float32
    plain = tiny_models.load_plain("llama")            # the same weights in plain transformers, eager attention
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    DogeConfig,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    NemotronConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RwkvConfig,
)

from fairlead.models.load import CausalModel, load_policy

SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz .,?!\n[]/<|>_INSTXq7"
VOCABULARY = 96
MAX_POSITIONS = 64
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SIZES = {**_COMMON, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": MAX_POSITIONS}  # fmt: skip
CONFIGS = {
    "llama": lambda: LlamaConfig(**_SIZES, head_dim=8, tie_word_embeddings=False),
    "qwen2": lambda: Qwen2Config(**_SIZES, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_SIZES, head_dim=8, sliding_window=5),
    "gemma2": lambda: Gemma2Config(
        **_SIZES,
        head_dim=8,
        sliding_window=4,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        query_pre_attn_scalar=8,
    ),
    # One layer of each kind: a window and a rope base of its own, then neither.
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "qwen3": lambda: Qwen3Config(**_SIZES, head_dim=16, tie_word_embeddings=False),
    "phi3": lambda: Phi3Config(**_SIZES, sliding_window=6, partial_rotary_factor=0.5, tie_word_embeddings=False),
    # Sinks, and mixtures of experts; a window in the first layer only.
    "gpt_oss": lambda: GptOssConfig(
        **_SIZES,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        num_local_experts=3,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    ),
    # Every layer knows the window, and the second does not use it.
    "exaone4": lambda: Exaone4Config(
        **_SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    # Values of another size than queries and keys, which share a part; a dense layer and one of experts.
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**_SIZES, "num_key_value_heads": 4},
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    "gpt2": lambda: GPT2Config(**_COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=MAX_POSITIONS),
}


def _with_wide_heads(kind):
    config = CONFIGS[kind]()
    config.head_dim = 16
    return config


KINDS = tuple(CONFIGS)
WIDE_CONFIGS = {f"wide {kind}": functools.partial(_with_wide_heads, kind) for kind in ("llama", "qwen2", "gemma2")}
"""The same with heads of 16, which the engine's kernel takes in bf16."""
PADDED_CONFIGS = {
    "mamba": lambda: MambaConfig(**_COMMON, hidden_size=32, num_hidden_layers=2, state_size=4),
    "mamba2": lambda: Mamba2Config(
        **_COMMON, hidden_size=32, num_hidden_layers=2, state_size=4, num_heads=8, head_dim=8, n_groups=1, chunk_size=8
    ),
    "rwkv": lambda: RwkvConfig(
        **_COMMON, hidden_size=32, attention_hidden_size=32, num_hidden_layers=7, context_length=MAX_POSITIONS
    ),
    # Attention and state space by turns.
    "jamba": lambda: JambaConfig(
        **_SIZES, mamba_d_state=4, num_experts=2, attn_layer_period=2, attn_layer_offset=1, tie_word_embeddings=False
    ),
    # Convolutions that say so by the kinds of their layers alone.
    "lfm2": lambda: Lfm2Config(**_SIZES, layer_types=["conv", "full_attention"]),
    # Plain attention that cannot be replaced.
    "bloom": lambda: BloomConfig(**_COMMON, hidden_size=32, n_layer=2, n_head=4),
    # Its attention can be replaced, but its layers add a learned mask.
    "doge": lambda: DogeConfig(**_SIZES),
    # It has windows of which its layers know nothing.
    "phimoe": lambda: PhimoeConfig(**_SIZES, sliding_window=4, num_local_experts=3),
    # What a forward is given besides does not reach its layers.
    "nemotron": lambda: NemotronConfig(**_SIZES, head_dim=8),
}
"""Models whose sequences cannot share a row."""
PADDED_KINDS = tuple(PADDED_CONFIGS)


def make_tokenizer(*, template: str | None = TEMPLATE, bos: str | None = "<s>", eos: str | None = "</s>"):
    """A BPE tokenizer of 96 tokens."""
    text = "the man said yes or no and went home, what did you say? a great big ball. once upon a time"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted({*ALPHABET, "▁"} - {" "}),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=SPECIAL[3:],
    )
    fast.chat_template = template
    return fast


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@functools.cache
def folder(kind: str) -> Path:
    """A model folder with tokenizer."""
    path = _root() / kind
    module = AutoModelForCausalLM.from_config(
        {**CONFIGS, **WIDE_CONFIGS, **PADDED_CONFIGS}[kind](), dtype=torch.float32
    )
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
            noise = np.random.default_rng(number).normal(size=tuple(parameter.shape)).astype(np.float32)
            is_scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(
                torch.from_numpy(noise * (0.1 if parameter.dim() == 1 else 0.25) + is_scale * ("gemma2" not in kind))
            )
    module.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


def load(kind: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> CausalModel:
    """A fresh copy as fairlead sees it."""
    model = load_policy(str(folder(kind)), dtype=_first_dtype(kind, dtype), device=device)
    _loop_over_experts(kind, model.module, dtype)
    return model


def load_plain(kind: str, *, dtype: torch.dtype = torch.float32):
    """The same weights in plain transformers with its own eager attention."""
    dtype_first = _first_dtype(kind, dtype)
    module = AutoModelForCausalLM.from_pretrained(folder(kind), dtype=dtype_first, attn_implementation="eager").eval()
    _loop_over_experts(kind, module, dtype)
    return module


_WITH_EXPERTS = ("gpt_oss", "jamba", "deepseek_v3", "phimoe")


def _first_dtype(kind: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if kind in _WITH_EXPERTS and dtype == torch.float64 else dtype


def _loop_over_experts(kind: str, module, dtype: torch.dtype) -> None:
    """torch's grouped product knows no float64: such a model becomes one after it was loaded, with a loop in its place."""
    if kind in _WITH_EXPERTS and dtype == torch.float64:
        module.double().config._experts_implementation = "eager"
