"""Gated feed-forwards and rotary attention of a model on the CPU, given to the kernels of `models/native` where they compute the same.

A layer takes part when its class is one of those named here and a trial on random input shows that it does what is written below; its
own forward stays for everything else (sampling, other precisions, a plan that is no tree).

    feed-forward    down(silu(gate(x)) * up(x))
    attention       o(attend(rotate(norm(q(x))), rotate(norm(k(x))), v(x)))        the norms only where the layer has them
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from fairlead.models.attention import Scoring, TreeAttention
from fairlead.models.native import attention as native
from fairlead.models.native import rows

_GATED = (
    "LlamaMLP",
    "MistralMLP",
    "Qwen2MLP",
    "Qwen3MLP",
    "SmolLM3MLP",
    "Olmo2MLP",
    "Olmo3MLP",
    "CohereMLP",
    "GraniteMLP",
)
_ROTARY = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
_NUM_TRIED = 5
_NEAR = 1e-5


def use_layers(module: nn.Module) -> None:
    """Give the layers of a model on the CPU these forwards, where the kernels are there; safe to call again."""
    if not rows.can_compute():
        return
    for layer in module.modules():
        name = type(layer).__name__
        if name in _GATED and _is_gated(layer):
            layer.__class__ = _with(_Gated, type(layer))
        elif name in _ROTARY and (scoring := _find_scoring(layer)) is not None:
            layer.__class__ = _with(_Rotary, type(layer))
            layer.scoring = scoring  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


@functools.cache
def _with(ours: type, theirs: type) -> type:
    """Their class with our forward before its own."""
    return type(f"Fairlead{theirs.__name__}", (ours, theirs), {"__module__": __name__})


class _Gated:
    """Mixin of a feed-forward."""

    gate_proj: Any
    up_proj: Any
    down_proj: Any

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not rows.can_compute(gate, up) or gate.dtype != up.dtype:
            return self.down_proj(torch.nn.functional.silu(gate) * up)
        return self.down_proj(rows.gated(gate, up))


class _Rotary:
    """Mixin of an attention layer."""

    head_dim: int
    q_proj: Any
    k_proj: Any
    v_proj: Any
    o_proj: Any
    scoring: Scoring

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor] | None = None, attention_mask: Tensor | None = None,
        past_key_values: Any = None, **kwargs: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        plan = kwargs.get("fairlead")
        if not isinstance(plan, TreeAttention) or position_embeddings is None or not native.can_attend(self.head_dim):
            return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)  # pyright: ignore
        q, k, v = _project(self, hidden_states)
        cosine, sine = position_embeddings
        if v.dtype != torch.bfloat16 or cosine.dtype != torch.float32:
            return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)  # pyright: ignore
        out = native.attend(
            q[0],
            k[0],
            v[0],
            plan.pieces,
            scale=self.scoring.scale,
            window=self.scoring.window,
            rotation=(cosine[0], sine[0]),
        )
        return self.o_proj(out.view(*hidden_states.shape[:-1], -1)), None


def _project(layer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[1, N, heads, D] queries, keys and values before rotation."""
    q, k, v = (
        project(x).view(*x.shape[:-1], -1, layer.head_dim) for project in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    if hasattr(layer, "q_norm"):
        q, k = layer.q_norm(q), layer.k_norm(k)
    return q, k, v


@torch.no_grad()
def _is_gated(layer: Any) -> bool:
    x = _random(1, _NUM_TRIED, layer.gate_proj.in_features).to(layer.gate_proj.weight.dtype)
    expected = layer.down_proj(torch.nn.functional.silu(layer.gate_proj(x)) * layer.up_proj(x))
    return bool(torch.equal(layer(x), expected))


class _Recorder:
    """An attention plan that notes what a layer asks of it."""

    def __init__(self) -> None:
        self.parts: tuple[Tensor, ...] = ()
        self.scoring: Scoring | None = None
        self.out = torch.empty(0)

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """[1, H, N, D] -> [1, N, H, D], random."""
        self.parts, self.scoring = (query, key, value), scoring
        self.out = _random(1, query.shape[2], query.shape[1], value.shape[3]).to(value.dtype)
        return self.out


@torch.no_grad()
def _find_scoring(layer: Any) -> Scoring | None:
    """How the layer turns queries and keys into weights; None when it does not compute what is written above."""
    x = _random(1, _NUM_TRIED, layer.q_proj.in_features).to(layer.q_proj.weight.dtype)
    cosine, sine = (y.to(x.dtype) for y in _random(2, 1, _NUM_TRIED, layer.head_dim))
    recorder = _Recorder()
    found, _ = layer(x, position_embeddings=(cosine, sine), attention_mask=None, fairlead=recorder)
    q, k, v = _project(layer, x)
    expected = (*(_rotated(y.transpose(1, 2), cosine[:, None], sine[:, None]) for y in (q, k)), v.transpose(1, 2))
    is_same = all(_is_near(a, b) for a, b in zip(recorder.parts, expected, strict=True))
    is_same = is_same and torch.equal(found, layer.o_proj(recorder.out.reshape(1, _NUM_TRIED, -1)))
    return recorder.scoring if is_same and recorder.scoring is not None and recorder.scoring.is_fused else None


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat([-high, low], -1) * sine


def _is_near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= _NEAR * float(b.abs().max())


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
