"""The engine's kernel in bf16, as the specification: a Llama's forward in which every product rounds its two operands to bf16 and adds in fp32.

What is rounded: rows and weights of linear layers, queries, keys, values, and attention weights (whose largest is 1) before they are divided
by their sum, which is of the unrounded ones. Residual stream, norms, rotation, softmax and activations are fp32.
"""

from typing import Any

import torch
from torch import Tensor


def rounded(x: Tensor) -> Tensor:
    """To the nearest bf16."""
    return x.to(torch.bfloat16).to(torch.float32)


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square."""
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight


def linear(layer: Any, x: Tensor) -> Tensor:
    """[T, in] -> [T, out]."""
    found = rounded(x) @ rounded(layer.weight).T
    return found if layer.bias is None else found + layer.bias


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Of one head [T, D]."""
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[:, half:], x[:, :half]], -1) * sine


@torch.no_grad()
def logits(module: Any, token_ids: list[int], *, window: int | None = None) -> Tensor:
    """[T, V] of a plain LlamaForCausalLM or MistralForCausalLM."""
    config, count = module.config, len(token_ids)
    x = module.model.embed_tokens.weight[torch.tensor(token_ids)]
    cosine, sine = (y[0] for y in module.model.rotary_emb(x, torch.arange(count)[None]))
    size, group = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    for layer in module.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        normed = norm(x, layer.input_layernorm.weight, config.rms_norm_eps)
        q, k, v = (
            linear(p, normed).view(count, -1, size) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        heads = torch.zeros(count, config.num_attention_heads, size)
        for h in range(config.num_attention_heads):
            query = rounded(rotated(q[:, h], cosine, sine))
            key, value = rounded(rotated(k[:, h // group], cosine, sine)), rounded(v[:, h // group])
            for t in range(count):
                start = 0 if window is None else max(0, t + 1 - window)
                scores = key[start : t + 1] @ query[t] * attention.scaling
                weights = (scores - scores.max()).exp()
                heads[t, h] = rounded(weights) @ value[start : t + 1] / weights.sum()
        x = x + linear(attention.o_proj, heads.flatten(1))
        normed = norm(x, layer.post_attention_layernorm.weight, config.rms_norm_eps)
        gate = linear(mlp.gate_proj, normed)
        x = x + linear(mlp.down_proj, gate * torch.sigmoid(gate) * linear(mlp.up_proj, normed))
    return linear(module.lm_head, norm(x, module.model.norm.weight, config.rms_norm_eps))
