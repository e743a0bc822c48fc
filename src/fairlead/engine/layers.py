"""A transformers model as the kernel reads it: which of its tensors are what, or why it has another shape.

Nothing here goes by a model's name. Parts are found by the names that Llama gave them (Mistral, Qwen, Phi and Gemma kept them), what an
attention layer does is heard from the layer itself in a forward of a few tokens, and `KernelRunner` compares the logits of both ways
before it is used: a model with a multiplier somewhere, or layers without rotation, is found out there.

Legend: H hidden size, D head size, C capacity in tokens, R rotated numbers of a head.
"""

import inspect
import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fairlead.engine import kernel
from fairlead.models.attention import Scoring
from fairlead.models.load import CausalModel
from fairlead.models.norms import RootMeanSquareNorm
from fairlead.models.probe import make_probe
from fairlead.models.varlen import plan_attention

_MULTIPLE = 16
"""Sizes of products are multiples of it: the widest vector of a processor."""
_GROWING = ("dynamic", "longrope")
"""Rotations whose angles change with the length of a sequence."""


class OtherShapeError(Exception):
    """The model is not one of the kernel's; the message says what it does, after the model's name."""


@dataclass(slots=True, eq=False)
class Decoder:
    """A model's tensors in the structures of the kernel. Valid until a parameter is replaced by another; `bind` again then."""

    model: kernel.Model
    layers: Any
    """Array of kernel.Layer."""
    held: list[Tensor] = field(default_factory=list[Tensor])
    """What the structures point to and nobody else holds."""


@torch.no_grad()
def hear_scoring(model: CausalModel) -> list[Scoring]:
    """How each layer scores its keys, as it says in a forward of six tokens."""
    layout = make_probe(model.config.get_text_config().vocab_size).layout
    ear = _Ear(plan_attention(layout, device=model.device))
    model.run(torch.from_numpy(layout.token_ids)[None], torch.from_numpy(layout.position_ids)[None], ear)
    return [ear.found[i] for i in sorted(ear.found)]


@dataclass(slots=True, eq=False)
class _Ear:
    """An attention plan that notes what it is asked for."""

    inner: Any
    found: dict[int, Scoring] = field(default_factory=dict[int, Scoring])

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Pass on."""
        self.found[module.layer_idx] = scoring
        if query.shape[-1] != value.shape[-1]:
            raise OtherShapeError("has values of another size than its keys")
        return self.inner.attend(module, query, key, value, scoring)


@torch.no_grad()
def bind(
    model: CausalModel, scoring: list[Scoring], *, capacity: int, keys: list[Tensor], values: list[Tensor]
) -> Decoder:
    """The structures of a model and of its cache.

    Args:
        keys, values: of each layer [S, Hkv, C, D].
    Raises:
        OtherShapeError: it is not of the kernel's kind.
    """
    backbone: Any = model.backbone
    text = model.config.get_text_config()
    layers = list(_part(backbone, "layers", "has no decoder layers"))
    if len(scoring) != len(layers):
        raise OtherShapeError("has layers without attention")
    first, held = scoring[0], []
    norms = [_norm(layer, "input_layernorm") for layer in layers] + [_norm(backbone, "norm")]
    angles = _Angles(backbone, text, capacity, held)
    array = (kernel.Layer * len(layers))(*(
        _bind_layer(layer, own, angles.of(number), (keys[number], values[number]), held)
        for number, (layer, own) in enumerate(zip(layers, scoring, strict=True))
    ))  # fmt: skip
    if any((s.scale, s.softcap) != (first.scale, first.softcap) or s.sinks is not None for s in scoring):
        raise OtherShapeError("has attention of several kinds, or with sinks")
    head = model.output_head()
    embedding = _part(backbone, "embed_tokens", "has no token embeddings")
    attention: Any = layers[0].self_attn
    _, kv_heads, _, size = keys[0].shape
    found = kernel.Model(
        num_layers=len(layers), hidden=model.hidden_size, heads=_plain(attention.o_proj, held)[0].shape[1] // size, kv_heads=kv_heads,
        head=size, rotated=angles.size, inner=_inner(layers[0].mlp), vocabulary=len(head.weight), capacity=capacity,
        activation=_activation(layers[0].mlp), epsilon=norms[0].epsilon, norm_offset=norms[0].offset, score_scale=first.scale,
        score_cap=first.softcap or 0.0, embedding_scale=float(getattr(embedding, "embed_scale", 1.0)), logit_scale=head.scale,
        logit_cap=head.softcap or 0.0, embedding=_address(embedding.weight), norm=_address(backbone.norm.weight),
        output=kernel.Linear(weight=_address(head.weight), bias=kernel.address(head.bias)), layers=array,
    )  # fmt: skip
    for size_of_product in (found.hidden, found.heads * found.head, found.inner):
        if size_of_product % _MULTIPLE:
            raise OtherShapeError(f"has products of {size_of_product}, which is no multiple of {_MULTIPLE}")
    return Decoder(found, array, held)


def _bind_layer(
    layer: Any, scoring: Scoring, angles: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor], held: list[Tensor]
) -> kernel.Layer:
    attention, mlp = _part(layer, "self_attn", "has another attention"), _part(layer, "mlp", "has other layers")
    has_middle = hasattr(
        layer, "pre_feedforward_layernorm"
    )  # Gemma: four norms a layer, the second of what attention adds
    middle = _norm(layer, "pre_feedforward_layernorm" if has_middle else "post_attention_layernorm")
    query, key, value = _projections(attention, cache[0], held)
    gate, up = _halves(mlp, held)
    return kernel.Layer(
        query=query, key=key, value=value, output=_linear(attention.o_proj, held), gate=gate, up=up, down=_linear(mlp.down_proj, held),
        norm_in=_address(_norm(layer, "input_layernorm").weight), norm_middle=_address(middle.weight),
        norm_attended=_address(_norm(layer, "post_attention_layernorm").weight) if has_middle else None,
        norm_out=_address(_norm(layer, "post_feedforward_layernorm").weight) if has_middle else None,
        norm_query=_head_norm(attention, "q_norm"), norm_key=_head_norm(attention, "k_norm"),
        cosine=_address(angles[0]), sine=_address(angles[1]), keys=cache[0].data_ptr(), values=cache[1].data_ptr(), window=scoring.window or 0,
    )  # fmt: skip


def _projections(attention: Any, keys: Tensor, held: list[Tensor]) -> list[kernel.Linear]:
    """Queries, keys, values: three layers, or Phi's one."""
    if hasattr(attention, "qkv_proj"):
        weight, bias = _plain(attention.qkv_proj, held)
        width = keys.shape[1] * keys.shape[3]
        cuts = (0, len(weight) - 2 * width, len(weight) - width, len(weight))
        parts = [slice(start, end) for start, end in itertools.pairwise(cuts)]
        return [_cut(weight, bias, part) for part in parts]
    return [_linear(_part(attention, name, "has other projections"), held) for name in ("q_proj", "k_proj", "v_proj")]


def _halves(mlp: Any, held: list[Tensor]) -> list[kernel.Linear]:
    """Gate and up: two layers, or Phi's one."""
    if hasattr(mlp, "gate_up_proj") and isinstance(mlp.gate_up_proj, nn.Module):
        weight, bias = _plain(mlp.gate_up_proj, held)
        half = len(weight) // 2
        return [_cut(weight, bias, slice(0, half)), _cut(weight, bias, slice(half, None))]
    return [_linear(_part(mlp, name, "has another MLP"), held) for name in ("gate_proj", "up_proj")]


def _cut(weight: Tensor, bias: Tensor | None, part: slice) -> kernel.Linear:
    return kernel.Linear(weight=_address(weight[part]), bias=None if bias is None else _address(bias[part]))


def _inner(mlp: Any) -> int:
    down = getattr(mlp.down_proj, "base_layer", mlp.down_proj)
    return int(down.weight.shape[1])


def _linear(layer: Any, held: list[Tensor]) -> kernel.Linear:
    weight, bias = _plain(layer, held)
    return kernel.Linear(weight=_address(weight), bias=None if bias is None else _address(bias))


def _plain(layer: Any, held: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer; of one with an adapter what it amounts to, read off what it does to each input by itself."""
    if isinstance(layer, nn.Linear) and not hasattr(layer, "base_layer"):
        return layer.weight, layer.bias
    base = getattr(layer, "base_layer", None)
    if not isinstance(base, nn.Linear):
        raise OtherShapeError("has linear layers of another kind")
    unit = torch.eye(base.weight.shape[1], dtype=base.weight.dtype)
    found = layer(unit).detach()
    weight = (found if base.bias is None else found - base.bias).t().contiguous()
    held.append(weight)
    return weight, base.bias


def _head_norm(attention: Any, name: str) -> int | None:
    return _address(_norm(attention, name).weight) if hasattr(attention, name) else None


def _norm(owner: Any, name: str) -> RootMeanSquareNorm:
    norm = getattr(owner, name, None)
    if not isinstance(norm, RootMeanSquareNorm):
        raise OtherShapeError("has norms of another kind")
    return norm


def _activation(mlp: Any) -> int:
    """0 SiLU, 1 GELU by tanh: told by what it does."""
    act = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    x = torch.linspace(-5, 5, 64)
    known = (nn.functional.silu(x), nn.functional.gelu(x, approximate="tanh"))
    for number, expected in enumerate(known):
        if act is not None and torch.allclose(act(x), expected, atol=1e-6):
            return number
    raise OtherShapeError("has another activation")


class _Angles:
    """Cosines and sines of the positions, as the model's own module computes them, by kind of layer."""

    def __init__(self, backbone: Any, text: Any, capacity: int, held: list[Tensor]) -> None:
        self._rotary = _part(backbone, "rotary_emb", "has no rotary positions")
        if any(kind in str(getattr(text, "rope_parameters", None) or "") for kind in _GROWING):
            raise OtherShapeError("turns its positions by the length of the text")
        self._has_kinds = (
            "layer_types" in vars(text) and "layer_type" in inspect.signature(self._rotary.forward).parameters
        )
        self._kinds = text.layer_types if self._has_kinds else None
        self._positions, self._held = torch.arange(capacity)[None], held
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        self.size = self.of(0)[0].shape[-1]

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """[C, R] of a layer."""
        kind = self._kinds[layer] if self._kinds is not None else ""
        if kind not in self._found:
            x = torch.zeros(1, dtype=torch.float32)
            made = self._rotary(x, self._positions, kind) if kind else self._rotary(x, self._positions)
            self._found[kind] = (made[0][0].contiguous(), made[1][0].contiguous())
            self._held += self._found[kind]
        return self._found[kind]


def _part(owner: Any, name: str, otherwise: str) -> Any:
    found = getattr(owner, name, None)
    if found is None:
        raise OtherShapeError(otherwise)
    return found


def _address(tensor: Tensor) -> int:
    if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise OtherShapeError("has weights that are not plain fp32")
    return tensor.data_ptr()
