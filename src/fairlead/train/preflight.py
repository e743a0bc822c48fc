"""Checks on the real first batch before the first optimiser step; each is named and says what to do when it fails.

They cost one or two forwards of a few rows, look at 10,000 rows of the data at most, and catch the faults that leave every loss curve
healthy: masks that train nothing, terminators that are never learned, sequences that see each other, a reference that is not the start,
an engine whose probabilities are not the trainer's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fairlead.core.errors import TrainError, explain
from fairlead.core.summary import Table
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel, computing_in
from fairlead.text.examples import Encoded
from fairlead.text.packing import Tree, pack_trees, unshare
from fairlead.train.batches import microbatch
from fairlead.train.forward import PolicyLogprobs

_TOLERANCE = 2e-4  # nats: fp32 logprobs of deep models differ by 1e-5 to 1e-4 between equal layouts
_ROUNDINGS = 4  # in bf16: as many times what rounding itself does, for products of another shape may be added up in another order
_LARGEST_MEAN_GAP = 0.05  # nats; engines in bf16 stay below 0.01
_MOST_TREES = 10_000  # 0.7 s of walking; a fault of a template or a tokenizer shows in far fewer
_MOST_WHOLE = 0.5  # as for terminators: single odd rows are the data's, most of them are the template's
_MANY_CUT = 0.1
_NUM_TREES = 4  # enough for both kinds of leak (between trees, between siblings) at the price of one small forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one preflight check."""

    name: str
    is_passed: bool
    found: float
    limit: str
    remedy: str
    is_advice: bool = False
    """What is found is told, and the stage goes on."""

    @property
    def result(self) -> Literal["passed", "warned", "failed"]:
        """In a word."""
        return "passed" if self.is_passed else "warned" if self.is_advice else "failed"


class _Spread(list[Tree]):
    """Trees that were chosen already, so that several checks look at the same ones and take them from disk once."""

    words = ""


def spread(trees: Sequence[Tree]) -> tuple[Sequence[Tree], str]:
    """At most 10,000 trees at even distances, the first and the last among them, and words for a limit when that is not all."""
    if isinstance(trees, _Spread):
        return trees, trees.words
    if len(trees) <= _MOST_TREES:
        return _Spread(trees), ""
    places = np.linspace(0, len(trees) - 1, _MOST_TREES).round().astype(int).tolist()
    found = _Spread(trees[i] for i in places)
    found.words = f" (in {_MOST_TREES:,} of {len(trees):,} rows, evenly spread)"
    return found, found.words


def check_masks(trees: Sequence[Tree]) -> Check:
    """Every branch has at least one trained token."""
    trees, share = spread(trees)
    empty = sum(branch.num_kept == 0 for tree in trees for branch in tree.branches)
    return Check(name="masks are not empty", is_passed=empty == 0, found=empty, limit=f"0 completions without a trained token{share}",
                 remedy="Check the chat template and max_length: everything was masked or cut away")  # fmt: skip


def check_prompts(trees: Sequence[Tree], bos_token_id: int | None, *, promptless: float = 0.0) -> Check:
    """Prompts are not learned: a row whose every token (but a BOS) is learned asks nothing.

    Args:
        promptless: share of rows that ask nothing, and may be learned whole.
    """
    trees, part = spread(trees)
    share = max(0.0, sum(_is_learned_whole(tree, bos_token_id) for tree in trees) / max(1, len(trees)) - promptless)
    return Check(name="prompts are not learned", is_passed=share <= _MOST_WHOLE, found=share,
                 limit=f"<= {_MOST_WHOLE:g} of rows that ask something and are learned whole{part}",
                 remedy="The template leaves out what is asked, or learns it too; where that is meant, set sft.learn: all")  # fmt: skip


def _is_learned_whole(tree: Tree, bos_token_id: int | None) -> bool:
    ids = np.concatenate([tree.prompt_ids, *(b.token_ids for b in tree.branches)])
    kept = [np.ones(len(b.token_ids), dtype=bool) if b.kept is None else b.kept for b in tree.branches]
    unlearned = ids[~np.concatenate([np.zeros(len(tree.prompt_ids), dtype=bool), *kept])]
    return bool((unlearned == bos_token_id).all())


def check_appends(rows: Encoded) -> Check:
    """The template writes a prompt in the same way whether its reply follows or not."""
    return Check(name="the template appends", is_passed=rows.num_rewritten == 0, found=rows.num_rewritten,
                 limit=f"0 of {rows.num_looked:,} rows whose prompt changes once a reply follows",
                 remedy="The model would be asked otherwise than it was trained: use text.template: chatml or a training template")  # fmt: skip


def check_cuts(rows: Encoded) -> Check:
    """Few rows lost their end, or some of their completions, to the longest length."""
    share = rows.num_truncated / max(1, len(rows.trees) + rows.num_dropped)
    return Check(name="few rows are cut", is_passed=share <= _MANY_CUT, found=share, limit=f"<= {_MANY_CUT:g} of rows",
                 remedy="What was cut is not learned, nor is how it ends: raise text.max_length, or shorten the rows", is_advice=True)  # fmt: skip


def check_budget(trees: Sequence[Tree], max_tokens: int) -> Check:
    """Trees fit into a micro-batch; one that does not gets a forward of its own, with the memory that this takes."""
    trees, part = spread(trees)
    longer = [tree.num_tokens for tree in trees if tree.num_tokens > max_tokens]
    longest = f", the longest has {max(longer):,}" if longer else ""
    return Check(name="rows fit the token budget", is_passed=not longer, found=len(longer),
                 limit=f"0 rows of more than {max_tokens:,} tokens, completions together{longest}{part}",
                 remedy="Each takes a forward by itself and the memory for it: raise training.max_tokens_per_microbatch or lower text.max_length",
                 is_advice=True)  # fmt: skip


def check_terminators(trees: Sequence[Tree], stop_token_ids: Sequence[int], *, max_length: int | None = None) -> Check:
    """The turn terminator is among the trained tokens of most completions that were not cut at `max_length` tokens."""
    trees, part = spread(trees)
    whole = [
        (t, b)
        for t in trees
        for b in t.branches
        if max_length is None or len(t.prompt_ids) + len(b.token_ids) < max_length
    ]
    trained = [np.isin(b.token_ids if b.kept is None else b.token_ids[b.kept], stop_token_ids).any() for _, b in whole]
    share = float(np.mean(trained)) if trained else 1.0
    limit = ">= 0.5 of completions" if trained else "every completion reaches max_length, so none can end"
    return Check(name="terminators are trained", is_passed=share >= 0.5, found=share, limit=limit + part,
                 remedy="The template writes no terminator; a model trained so never stops")  # fmt: skip


def check_bos(trees: Sequence[Tree], bos_token_id: int | None) -> Check:
    """Exactly one BOS at the start of every tree, when the tokenizer has one."""
    if bos_token_id is None:
        return Check(name="exactly one BOS", is_passed=True, found=0, limit="the tokenizer has none", remedy="")
    trees, share = spread(trees)
    starts = [np.concatenate([t.prompt_ids, t.branches[0].token_ids]) for t in trees]
    wrong = sum(bool(ids[0] != bos_token_id or (ids[:2] == bos_token_id).sum() != 1) for ids in starts)
    return Check(name="exactly one BOS", is_passed=wrong == 0, found=wrong, limit=f"0 rows with none or two{share}",
                 remedy="The template and the tokenizer both add BOS, or neither does")  # fmt: skip


def check_layout(model: CausalModel, trees: Sequence[Tree]) -> list[Check]:
    """Packed equals unpacked, and shared-prefix equals plain: the same logprobs in every layout."""
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        packed = model.logprobs(pack_trees(few)).logprobs
        alone = torch.cat([model.logprobs(pack_trees([tree])).logprobs for tree in few])
        plain = torch.cat([model.logprobs(pack_trees([tree])).logprobs for tree in unshare(few)])
    most = _tolerance(model, lambda: model.logprobs(pack_trees(few)).logprobs)
    remedy = "Sequences see each other: this architecture or attention implementation cannot be packed; please report the model"
    return [
        _near("packed equals unpacked", packed, alone, remedy, most=most),
        _near("shared prefix equals plain", alone, plain, remedy, most=most),
    ]


def check_scores(model: ScalarModel, trees: Sequence[Tree]) -> Check:
    """A reward does not depend on padding or on what else is in the batch."""
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        packed = model.scores(pack_trees(few))
        plain = torch.cat([model.scores(pack_trees([tree])) for tree in unshare(few)])
    return _near(
        "reward is free of padding and batch mates",
        packed,
        plain,
        "The pooled position is wrong; please report the model",
        most=_tolerance(model.base, lambda: model.scores(pack_trees(few))),
        unit="",
    )


def check_reference(
    model: CausalModel, trees: Sequence[Tree], *, temperature: float = 1.0, among_choices: bool = False
) -> Check:
    """At the start the policy is the reference: log-ratios are 0, so DPO's margin is 0 and PPO's KL is 0."""
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        logprobs = PolicyLogprobs(model, temperature, among_choices)(microbatch(few))
    stored = torch.from_numpy(np.concatenate([b.arrays["ref_logprobs"] for t in few for b in t.branches]))
    return _near(
        "policy equals reference",
        logprobs.cpu(),
        stored,
        "The reference is another checkpoint or another dtype than the start",
        most=_tolerance(model, lambda: model.logprobs(pack_trees(few), temperature=temperature).logprobs),
    )


def check_sampling(
    model: CausalModel, trees: Sequence[Tree], *, temperature: float, is_exact: bool = True
) -> list[Check]:
    """Engine and trainer agree on the sampled tokens, so the first importance ratio is 1.

    Args:
        is_exact: False for an engine that rounds otherwise than the trainer, which is corrected for; it must agree on average.
    """
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        logprobs = PolicyLogprobs(model, temperature)(microbatch(few)).cpu()
    sampled = torch.from_numpy(np.concatenate([b.arrays["sampling_logprobs"] for t in few for b in t.branches]))
    ratio = (logprobs - sampled).exp()
    remedy = "The engine has other weights, another temperature, or truncates the distribution"
    if not is_exact:
        gap = float((logprobs - sampled).abs().mean())
        return [Check(name="engine and trainer logprobs agree on average", is_passed=gap <= _LARGEST_MEAN_GAP, found=gap,
                      limit=f"<= {_LARGEST_MEAN_GAP:g} nats a token", remedy=remedy)]  # fmt: skip
    return [
        _near("engine and trainer logprobs agree", logprobs, sampled, remedy),
        _near("importance ratio is 1", ratio, torch.ones_like(ratio), remedy, unit=""),
    ]


def check_dropout(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """Two forwards of the same rows are equal: no dropout, no hidden state."""
    layout = pack_trees(list(trees[:1]))
    with torch.no_grad():
        first, second = (model.logprobs(layout).logprobs for _ in range(2))
    return _near("forward is repeatable", first, second, "Switch dropout off in the model's config")


def _tolerance(model: CausalModel, compute: Callable[[], torch.Tensor]) -> float:
    """How far two ways to compute the same may lie apart: a constant, and in bf16 some times the distance to the same in fp32.

    A leak is far beyond that: what another sequence adds is no rounding.
    """
    if model.arithmetic.precision == "fp32":
        return _TOLERANCE
    with torch.no_grad():
        low = compute()
        with computing_in(model, "fp32"):
            exact = compute()
    return max(_TOLERANCE, _ROUNDINGS * float((low.float() - exact.float()).abs().max()) if low.numel() else 0.0)


def _near(
    name: str, found: torch.Tensor, expected: torch.Tensor, remedy: str, *, most: float = _TOLERANCE, unit: str = "nats"
) -> Check:
    gap = float((found.float() - expected.float()).abs().max()) if found.numel() else float("nan")
    return Check(name=name, is_passed=gap <= most, found=gap, limit=f"<= {most:.2g} {unit}".rstrip(), remedy=remedy)


def require_passed(stage: str, checks: Sequence[Check]) -> None:
    """Raise for the first failed check, before anything was trained."""
    for check in checks:
        if check.result == "failed":
            raise TrainError(sentence(stage, check))


def sentence(stage: str, check: Check) -> str:
    """A check that does not hold, in one line."""
    return explain(
        f"{stage}: preflight: {check.name}",
        f"{check.found:.3g}",
        "failed" if check.result == "failed" else "is worth a look",
        expected=check.limit,
        remedy=check.remedy,
    )


def preflight_table(checks: Sequence[Check]) -> Table:
    """The checks for the report; with what to do, where something is to be done."""
    title, columns = "Preflight: checks on the first batch", ("check", "result", "found", "limit")
    if all(c.is_passed for c in checks):
        return Table(title=title, columns=columns, rows=tuple((c.name, c.result, c.found, c.limit) for c in checks))
    rows = tuple((c.name, c.result, c.found, c.limit, "" if c.is_passed else c.remedy) for c in checks)
    return Table(title=title, columns=(*columns, "what to do"), rows=rows)
