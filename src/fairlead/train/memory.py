"""How much memory training takes, from shapes alone, and the token budget of a micro-batch that it leaves room for.

    further(T) = gradients + optimiser + average + snapshot + copies + buffers + head(T) + T * activations          bytes, beside the weights

    gradients    4 P              P trained parameters
    optimiser    8 P adamw, 2 P adamw_8bit, 4 (matrices) + 8 (rest) muon, about 0 adafactor
    average      4 P with ema_decay
    snapshot     4 P + optimiser + average: a checkpoint's copy in host memory (0 on a GPU, whose memory it does not take)
    copies       2 W with bf16    W weights of linear layers
    head(T)      min(T V s, KEPT_BYTES) + one chunk of logits + 8 V H of a trained head's gradient on its way
    activations  gaps (L layer + 12 H + work),   layer = s (4 I + 2 A D + 2 K D + 2 H) + 16 H + s A min(S, S / 2 + 64),   s = 4, or 2 with bf16
                 work = 4 (3 I + 6 H), what one layer's backward has in hand
    buffers      BUFFERS, what libraries hold for their products

Legend: T tokens of a row, L layers, H width, I width of the MLP (of the experts that a token meets), A heads, K key heads, D size of a head,
V vocabulary, S keys of the longest segment whose attention weights are kept (none on a GPU). With activation checkpointing one layer at a
time is there, and 4 H a layer. Without training (a reference pass) only work and one chunk of logits remain. Adapters add nothing that counts.

Gaps are what freed blocks leave that nobody can use: GAPS has them by allocator, measured on CPUs, where peaks of Llamas of three widths
were 0.5 to 0.95 times the estimate with our heap (tested within 0.4 to 1). A budget may fill SHARE of what is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from fairlead.core.errors import ConfigError, explain
from fairlead.models.free_memory import free_bytes
from fairlead.models.load import CausalModel
from fairlead.models.logprobs import KEPT_BYTES, chunk_rows
from fairlead.models.memory import give_back
from fairlead.models.products import KEPT_KEYS
from fairlead.text.packing import Tree
from fairlead.train.budget import tree_size
from fairlead.train.optim import OptimizerKind, hidden_matrices
from fairlead.train.preflight import spread

MOST_TOKENS = 8192
"""What `auto` takes where memory allows: more gains no speed."""
SHARE = 0.8
"""Of the free memory that an estimate may fill."""
GAPS = {"heap": 1.1, "malloc": 3.0, "cuda": 1.7}
"""By where tensors lie: our heap (models/native/heap.cpp), glibc's malloc without it, torch's allocator on a GPU (not measured)."""
BUFFERS = 32 << 20
_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of one transformer; the legend is that of the module."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    num_parameters: int
    num_trained: int
    num_matrices: int = 0
    """Trained parameters that Muon steps."""
    num_linear: int = 0
    """Weights of linear layers."""
    has_logits: bool = True
    """False for a scalar model, whose head has one output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How it is trained."""

    optimizer: OptimizerKind = "adamw"
    has_average: bool = False
    is_low: bool = False
    """bf16 products."""
    recomputes: bool = False
    """Activation checkpointing."""
    on_cpu: bool = True
    has_heap: bool = True
    """Large tensors on the CPU lie in our heap."""
    longest: int = KEPT_KEYS
    """Tokens of the largest tree."""

    @property
    def gaps(self) -> float:
        """How many times their size activations take."""
        return GAPS["cuda" if not self.on_cpu else "heap" if self.has_heap else "malloc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An estimate in bytes."""

    weights: int
    states: int
    """Gradients, optimiser, average, snapshot, copies and buffers."""
    chunk: int
    """The head's work, whatever the number of tokens."""
    per_logits: int
    """Of the kept logits, a token."""
    per_token: int

    def further(self, tokens: int) -> int:
        """Beside the weights, for rows of so many tokens."""
        return self.states + self.chunk + min(self.per_logits * tokens, KEPT_BYTES) + self.per_token * tokens

    def __add__(self, other: "Need") -> "Need":
        """Of two models that are trained together."""
        return Need(weights=self.weights + other.weights, states=self.states + other.states, chunk=self.chunk + other.chunk,
                    per_logits=self.per_logits + other.per_logits, per_token=self.per_token + other.per_token)  # fmt: skip


def shape_of(model: CausalModel, *, has_logits: bool = True) -> Shape:
    """The sizes of a loaded model, adapters and frozen parts as they are."""
    text: Any = model.config.get_text_config()
    hidden, heads = int(text.hidden_size), int(getattr(text, "num_attention_heads", None) or 1)
    inner = int(getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * hidden)
    experts = int(getattr(text, "num_experts_per_tok", None) or 1)
    if experts > 1:
        inner = experts * int(getattr(text, "moe_intermediate_size", None) or inner)
    trained = [p for p in model.module.parameters() if p.requires_grad]
    matrices = hidden_matrices(model.causal_lm)
    return Shape(
        hidden=hidden, inner=inner, layers=int(text.num_hidden_layers), heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads), head_size=int(getattr(text, "head_dim", None) or hidden // heads),
        vocabulary=int(text.vocab_size), num_parameters=sum(p.numel() for p in model.module.parameters()),
        num_trained=sum(p.numel() for p in trained), num_matrices=sum(p.numel() for p in trained if id(p) in matrices),
        num_linear=sum(m.weight.numel() for m in model.module.modules() if isinstance(m, nn.Linear)), has_logits=has_logits,
    )  # fmt: skip


def estimate(shape: Shape, way: Way) -> Need:
    """What the formula of the module says."""
    gradients = average = 4 * shape.num_trained
    average *= way.has_average
    optimizer = _optimizer_bytes(shape, way.optimizer)
    snapshot = (gradients + optimizer + average) * way.on_cpu
    copies = 2 * shape.num_linear * way.is_low
    size, learns = 2 if way.is_low else 4, shape.num_trained > 0
    chunk = per_logits = 0
    if shape.has_logits:
        chunk = (
            4 * shape.vocabulary * chunk_rows(shape.vocabulary, "cpu" if way.on_cpu else "cuda")
            + 8 * shape.vocabulary * shape.hidden * learns
        )
        per_logits = size * shape.vocabulary * learns
    return Need(weights=4 * shape.num_parameters, states=gradients + optimizer + average + snapshot + copies + BUFFERS, chunk=chunk,
                per_logits=per_logits, per_token=_activations(shape, way, size=size, learns=learns))  # fmt: skip


def estimate_head(num_weights: int, way: Way) -> Need:
    """Of a scalar head, trained in full whatever the trunk is."""
    shape = Shape(hidden=0, inner=0, layers=1, heads=0, kv_heads=0, head_size=0, vocabulary=0, num_parameters=num_weights, num_trained=num_weights,
                  has_logits=False)  # fmt: skip
    need = estimate(shape, way)
    return replace(need, states=need.states - BUFFERS, per_token=0)


def _optimizer_bytes(shape: Shape, kind: OptimizerKind) -> int:
    others = shape.num_trained - shape.num_matrices
    return {"adamw": 8 * shape.num_trained, "adamw_8bit": 2 * shape.num_trained, "adafactor": 0,
            "muon": 4 * shape.num_matrices + 8 * others}[kind]  # fmt: skip


def _activations(shape: Shape, way: Way, *, size: int, learns: bool) -> int:
    work = 4 * (3 * shape.inner + 6 * shape.hidden)
    if not learns:
        return round(way.gaps * work)
    keys = min(way.longest, KEPT_KEYS) if way.on_cpu else 0
    weights = size * shape.heads * min(keys, keys // 2 + 64)
    parts = 4 * shape.inner + 2 * (shape.heads + shape.kv_heads) * shape.head_size + 2 * shape.hidden
    layer = size * parts + 16 * shape.hidden + weights
    kept = layer + 4 * shape.hidden * shape.layers if way.recomputes else layer * shape.layers
    return round(way.gaps * (kept + 12 * shape.hidden + work))


def fitting_tokens(need: Need, *, free: int | None, largest: int) -> int | None:
    """MOST_TOKENS, or the first of its halves that fits, at least the largest tree; None when not even that fits.

    Args:
        free: bytes; None is unknown, and then everything fits.
    """
    budget = MOST_TOKENS
    while free is not None and need.further(max(budget, largest)) > SHARE * free:
        if budget <= largest:
            return None
        budget = max(largest, budget // 2)
    return budget


def token_budget(
    wanted: int | Literal["auto"], need: Need, *, device: torch.device, largest: int,
    key: str = "training.max_tokens_per_microbatch",
) -> int:  # fmt: skip
    """The recipe's number, or for `auto` what fits into what is free now, with the weights loaded.

    Args:
        device: where the model is.
        largest: tokens of the largest tree, which has to fit.
        key: the recipe's name of it.
    Raises:
        ConfigError: it does not.
    """
    if wanted != "auto":
        return wanted
    free = free_bytes(device)
    found = fitting_tokens(need, free=free, largest=largest)
    if found != MOST_TOKENS:
        give_back()
        free = free_bytes(device)
        found = fitting_tokens(need, free=free, largest=largest)
    if found is None:
        assert free is not None, "everything fits when nothing is known"
        raise ConfigError(explain(
            key, "auto", f"finds no room for the longest row: {largest} tokens take about "
            f"{need.further(largest) / _GB:.1f} GB beside the weights ({need.states / _GB:.1f} GB of them gradients, optimiser and copies)",
            expected=f"at most {SHARE * free / _GB:.1f} of the {free / _GB:.1f} GB that are free",
            remedy="Set activation_checkpointing, lora or a smaller optimizer, lower text.max_length, or give a number to try it all the same",
        ))  # fmt: skip
    return found


def largest_tree(trees: Sequence[Tree]) -> int:
    """Tokens of the largest of at most 10,000 evenly spread trees, with what a step may make of it besides."""
    return max((tree_size(tree) for tree in spread(trees)[0]), default=1)
