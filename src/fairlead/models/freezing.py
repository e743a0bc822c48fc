"""Keeping weights as they are: parameters chosen by pattern take no part in training, and no gradient is computed for them."""

import re
from collections.abc import Sequence

from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.models.load import CausalModel

_NUM_SHOWN = 3


def freeze(model: CausalModel, patterns: Sequence[str]) -> int:
    r"""Take out of training what is named: `model\.embed_tokens\.weight`, `model\.layers\.[0-3]\..*`.

    A pattern is a regular expression for a whole name of the transformers model. Input embeddings and a head tied to them are one tensor
    with two names: whichever is named, both are frozen.

    Returns:
        Numbers that were frozen.
    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """
    named = dict(model.causal_lm.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in named):
            plain = re.sub(r"\\|\.\*|\[.*?\]|[()^$+?*]", "", pattern)
            raise ConfigError(explain("training.freeze", pattern, f"matches no parameter{nearest(plain, named)}",
                                      expected=f"regular expressions for whole names, such as {', '.join(list(named)[:_NUM_SHOWN])}",
                                      remedy="A dot stands for any character, .* for any text"))  # fmt: skip
    frozen = {id(p): p for name, p in named.items() if any(re.fullmatch(pattern, name) for pattern in patterns)}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    if not any(p.requires_grad for p in named.values()):
        raise ConfigError(explain("training.freeze", ", ".join(patterns), "freezes everything", expected="a parameter left to train",
                                  remedy="Remove a pattern"))  # fmt: skip
    return sum(p.numel() for p in frozen.values())


def freeze_embeddings(model: CausalModel) -> int:
    """`freeze` for the input embeddings, whatever their name."""
    weight = model.causal_lm.get_input_embeddings().weight
    return freeze(model, [re.escape(name) for name, p in model.causal_lm.named_parameters() if p is weight])
