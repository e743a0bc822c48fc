"""Checks on the real first batch before the first optimiser step; each is named and says what to do when it fails.

They cost one or two forwards of a few rows, look at 10,000 rows of the data at most, and catch the faults that leave every loss curve
healthy: masks that train nothing, terminators that are never learned, sequences that see each other, a reference that is not the start,
an engine whose probabilities are not the trainer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fairlead.core.errors import TrainError, explain
from fairlead.core.summary import Table
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.packing import Tree, pack_trees, unshare

_TOLERANCE = 2e-4  # nats: fp32 logprobs of deep models differ by 1e-5 to 1e-4 between equal layouts
_MOST_TREES = 10_000  # 0.7 s of walking; a fault of a template or a tokenizer shows in far fewer
_NUM_TREES = 4  # enough for both kinds of leak (between trees, between siblings) at the price of one small forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one preflight check."""

    name: str
    is_passed: bool
    found: float
    limit: str
    remedy: str


def spread(trees: Sequence[Tree]) -> tuple[Sequence[Tree], str]:
    """At most 10,000 trees at even distances, the first and the last among them, and words for a limit when that is not all."""
    if len(trees) <= _MOST_TREES:
        return trees, ""
    places = np.linspace(0, len(trees) - 1, _MOST_TREES).round().astype(int).tolist()
    return [trees[i] for i in places], f" (in {_MOST_TREES:,} of {len(trees):,} rows, evenly spread)"


def check_masks(trees: Sequence[Tree]) -> Check:
    """Every branch has at least one trained token."""
    trees, share = spread(trees)
    empty = sum(branch.num_kept == 0 for tree in trees for branch in tree.branches)
    return Check(name="masks are not empty", is_passed=empty == 0, found=empty, limit=f"0 completions without a trained token{share}",
                 remedy="Check the chat template and max_length: everything was masked or cut away")  # fmt: skip


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
    remedy = "Sequences see each other: this architecture or attention implementation cannot be packed; please report the model"
    return [
        _near("packed equals unpacked", packed, alone, remedy),
        _near("shared prefix equals plain", alone, plain, remedy),
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
    )


def check_reference(model: CausalModel, trees: Sequence[Tree], *, temperature: float = 1.0) -> Check:
    """At the start the policy is the reference: log-ratios are 0, so DPO's margin is 0 and PPO's KL is 0."""
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        logprobs = model.logprobs(pack_trees(few), temperature=temperature).logprobs
    stored = torch.from_numpy(np.concatenate([b.arrays["ref_logprobs"] for t in few for b in t.branches]))
    return _near(
        "policy equals reference",
        logprobs.cpu(),
        stored,
        "The reference is another checkpoint or another dtype than the start",
    )


def check_sampling(model: CausalModel, trees: Sequence[Tree], *, temperature: float) -> list[Check]:
    """Engine and trainer agree on the sampled tokens, so the first importance ratio is 1."""
    few = list(trees[:_NUM_TREES])
    with torch.no_grad():
        logprobs = model.logprobs(pack_trees(few), temperature=temperature).logprobs.cpu()
    sampled = torch.from_numpy(np.concatenate([b.arrays["sampling_logprobs"] for t in few for b in t.branches]))
    ratio = (logprobs - sampled).exp()
    remedy = "The engine has other weights, another temperature, or truncates the distribution"
    return [
        _near("engine and trainer logprobs agree", logprobs, sampled, remedy),
        _near("importance ratio is 1", ratio, torch.ones_like(ratio), remedy),
    ]


def check_dropout(model: CausalModel, trees: Sequence[Tree]) -> Check:
    """Two forwards of the same rows are equal: no dropout, no hidden state."""
    layout = pack_trees(list(trees[:1]))
    with torch.no_grad():
        first, second = (model.logprobs(layout).logprobs for _ in range(2))
    return _near("forward is repeatable", first, second, "Switch dropout off in the model's config")


def _near(name: str, found: torch.Tensor, expected: torch.Tensor, remedy: str) -> Check:
    gap = float((found.float() - expected.float()).abs().max()) if found.numel() else float("nan")
    return Check(name=name, is_passed=gap <= _TOLERANCE, found=gap, limit=f"<= {_TOLERANCE:g}", remedy=remedy)


def require_passed(stage: str, checks: Sequence[Check]) -> None:
    """Raise for the first failed check, before anything was trained."""
    for check in checks:
        if not check.is_passed:
            raise TrainError(
                explain(
                    f"{stage}: preflight: {check.name}",
                    f"{check.found:.3g}",
                    "failed",
                    expected=check.limit,
                    remedy=check.remedy,
                )
            )


def preflight_table(checks: Sequence[Check]) -> Table:
    """The checks for the report."""
    rows = tuple((c.name, "passed" if c.is_passed else "failed", c.found, c.limit) for c in checks)
    return Table(title="Preflight: checks on the first batch", columns=("check", "result", "found", "limit"), rows=rows)
