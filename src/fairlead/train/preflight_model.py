"""Preflight checks on the model that is about to learn: what trains, in which precision, and whether its parts still belong together.

Faults of this kind do not stop a run either: adapters that nothing reads, frozen weights that move, tied weights that came apart, a
vocabulary that the tokenizer outgrew.
"""

from collections.abc import Sequence

import torch

from fairlead.models.adapters import has_adapter, reference_mode
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.packing import Tree, pack_trees
from fairlead.train.preflight import Check, spread

_SPOILED = 0.05
MOST_TRUNCATED = 0.5
"""Share of rows dropped for length from which a run is refused: it would learn from the short half of its data."""


def check_model(model: CausalModel, trees: Sequence[Tree]) -> list[Check]:
    """The checks of this file that look at the model and take a forward."""
    checks = [check_trainable(model, trees), check_precision(model), check_tied(model)]
    return [*checks, check_adapter(model, trees)] if has_adapter(model) else checks


def check_trainable(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """A backward of one tree reaches everything that is trained but the head's unread part, and nothing that is frozen."""
    tree = min(trees[:16], key=lambda t: t.num_tokens)
    named = dict(model.module.named_parameters())
    was, trained = {n: p.grad for n, p in named.items()}, {n for n, p in named.items() if p.requires_grad}
    for parameter in named.values():
        parameter.grad = None
    total = model.logprobs(pack_trees([tree])).logprobs.sum()
    if total.requires_grad:
        total.backward()
    frozen = [n for n, p in named.items() if n not in trained and (p.requires_grad or p.grad is not None)]
    silent = [n for n, p in named.items() if n in trained and p.grad is None]
    for name, parameter in named.items():
        parameter.grad = was[name]
        parameter.requires_grad_(name in trained)
    wrong = [*frozen, *silent] if trained else ["nothing is trained"]
    limit = "0 parameters that are frozen and get one, or trained and get none" + (
        f" (first: {wrong[0]})" if wrong else ""
    )
    return Check(name="what trains gets gradients", is_passed=not wrong, found=len(wrong), limit=limit,
                 remedy="Frozen parts must stay out of the graph and trained parts in it; check lora.target_modules")  # fmt: skip


def check_adapter(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """The adapter is read: with its weights spoiled the logprobs move, and with it switched off they do not."""
    layout = pack_trees([min(trees[:16], key=lambda t: t.num_tokens)])
    adapters = [p for n, p in model.module.named_parameters() if "lora_" in n and p.requires_grad]
    saved = [p.detach().clone() for p in adapters]
    with torch.no_grad():
        before = model.logprobs(layout).logprobs
        with reference_mode(model):
            off = model.logprobs(layout).logprobs
        for parameter in adapters:
            parameter.add_(_SPOILED)
        spoiled = model.logprobs(layout).logprobs
        with reference_mode(model):
            spoiled_off = model.logprobs(layout).logprobs
        for parameter, old in zip(adapters, saved, strict=True):
            parameter.copy_(old)
    moved, leaked = float((spoiled - before).abs().max()), float((spoiled_off - off).abs().max())
    return Check(name="the adapter is attached", is_passed=moved > 0 and leaked == 0, found=moved if leaked == 0 else leaked,
                 limit="> 0 nats when its weights move, 0 when it is off",
                 remedy="No module matched lora.target_modules, or the adapter is not the one in use")  # fmt: skip


def check_precision(model: CausalModel) -> Check:
    """Everything that is trained is in one precision, of 32 bits or more."""
    kinds = {p.dtype for p in model.module.parameters() if p.requires_grad}
    low = sorted(str(k) for k in kinds if torch.finfo(k).bits < 32)
    is_passed = len(kinds) <= 1 and not low
    return Check(name="trained weights are fp32", is_passed=is_passed, found=len(kinds), limit="one precision, 32 bits or more",
                 remedy="Small updates round to nothing in 16 bits: keep master weights in fp32")  # fmt: skip


def check_tied(model: CausalModel) -> Check:
    """Input and output embeddings are one tensor where the config says so."""
    config = model.config.get_text_config()
    says = bool(getattr(config, "tie_word_embeddings", False))
    lm = model.causal_lm
    inputs, outputs = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    is_tied = inputs.data_ptr() == outputs.data_ptr()
    limit = "1 where the config ties them" if says else "not tied"
    return Check(name="tied weights are one", is_passed=not says or is_tied, found=float(is_tied), limit=limit,
                 remedy="The head was saved apart from the embeddings; set tie_word_embeddings to false or save it again")  # fmt: skip


def check_vocabulary(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """Every token of the data has an embedding."""
    size = model.causal_lm.get_input_embeddings().weight.shape[0]
    trees, share = spread(trees)
    highest = max(
        int(ids.max()) for t in trees for ids in (t.prompt_ids, *(b.token_ids for b in t.branches)) if len(ids)
    )
    return Check(name="tokens have embeddings", is_passed=highest < size, found=highest, limit=f"< {size:,} rows of the embedding{share}",
                 remedy="Tokens were added to the tokenizer and not to the model: resize its embeddings")  # fmt: skip


def check_positions(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """No prompt with a completion is longer than the positions that the model was made for."""
    trees, share = spread(trees)
    longest = max(len(t.prompt_ids) + max(len(b.token_ids) for b in t.branches) for t in trees)
    return Check(name="rows fit the model", is_passed=longest <= model.max_positions, found=longest,
                 limit=f"<= {model.max_positions:,} positions of the model{share}",
                 remedy="Lower text.max_length to the model's positions, or take a model with more")  # fmt: skip


def check_head(model: ScalarModel, trees: Sequence[Tree]) -> Check:
    """The scalar head is trained: a backward of one tree's scores reaches its weight."""
    tree = min(trees[:16], key=lambda t: t.num_tokens)
    parameters = model.parameters()
    was = [p.grad for p in parameters]
    model.head.weight.grad = None
    outputs = model.outputs(pack_trees([tree]))
    if outputs.requires_grad:
        outputs.sum().backward()
    is_reached = model.head.weight.grad is not None
    for parameter, grad in zip(parameters, was, strict=True):
        parameter.grad = grad
    return Check(name="the head gets a gradient", is_passed=is_reached, found=float(is_reached), limit="1: the scores' gradient reaches it",
                 remedy="The head must not be frozen; please report the model")  # fmt: skip


def check_truncation(num_dropped: int, num_kept: int) -> Check:
    """Not most of the data was dropped for its length."""
    share = num_dropped / max(1, num_dropped + num_kept)
    return Check(name="most rows fit", is_passed=share <= MOST_TRUNCATED, found=share, limit=f"<= {MOST_TRUNCATED:g} of rows dropped",
                 remedy="Raise text.max_length, or shorten or split the rows")  # fmt: skip
