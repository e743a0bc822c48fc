"""Arithmetic that a step of training needs, by formula: what utilisation counts. Useful tokens only, so that padding earns nothing.

Legend: H hidden size.
"""

from collections.abc import Iterable, Mapping, Sequence

Lengths = tuple[int, tuple[int, ...]]
"""Tokens of a prompt, and of each of its completions."""


def lengths_of(row: Mapping[str, Sequence]) -> Lengths:
    """Of a row of the fixed work: its first field is the prompt, the others are completions or a list of them."""
    prompt, *others = row.values()
    if others and others[0] and isinstance(others[0][0], list):
        (others,) = others
    return len(prompt), tuple(len(completion) for completion in others)


def useful_tokens(lengths: Lengths) -> int:
    """As a padded trainer counts them: the prompt once a completion."""
    prompt, completions = lengths
    return sum(prompt + n for n in completions)


def layer_weights(shape: Mapping[str, int]) -> int:
    """Of the matrices of a layer: queries and output, keys and values, three of the feed-forward part."""
    hidden = shape["hidden_size"]
    kv_width = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    return hidden * (2 * hidden + 2 * kv_width + 3 * shape["intermediate_size"])


def flops_per_token(
    shape: Mapping[str, int], rows: Iterable[Lengths], *, has_head: bool, has_reference: bool, is_shared: bool, is_frozen: bool = False
) -> float:  # fmt: skip
    """Model FLOPs of training for each useful token.

    6 a weight and token (4 where the weights are frozen), for the head where a loss reads (completions); 12 H for each pair of a query and
    a key that it sees (causal), a layer: 4 H forward, twice that backward. Activations that are computed again do not count.

    Args:
        has_reference: the frozen reference's forward belongs to it: 2 a weight and 4 H a pair more.
        is_shared: a prompt is computed once for its completions.
    """
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    a_weight, a_pair = (4 if is_frozen else 6) + 2 * has_reference, (12 + 4 * has_reference) * hidden * layers
    useful, flops = 0, 0.0
    for prompt, completions in rows:
        whole = [prompt + n for n in completions]
        computed = prompt + sum(completions) if is_shared else sum(whole)
        seen = sum(n * (n + 1) / 2 for n in whole) - is_shared * (len(whole) - 1) * prompt * (prompt + 1) / 2
        head = shape["vocab_size"] * hidden * sum(completions) if has_head else 0
        flops += a_weight * (layers * layer_weights(shape) * computed + head) + a_pair * seen
        useful += sum(whole)
    return flops / useful
