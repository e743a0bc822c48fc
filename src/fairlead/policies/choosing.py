"""Sampled completions as pairs or as demonstrations: the policy's own text as the source of batches for DPO, IPO and imitation.

    online_dpo, online_ipo   the best completion of each prompt against the worst; none where they are paid alike
    best_of_n                the best completion of each prompt (num_iterations: 1 is rejection-sampling fine-tuning)
    expert_iteration         every completion of at least min_score

Legend: B completions of the round, in tree and branch order.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fairlead.engine.rollouts import Rollout
from fairlead.policies.online_config import OnlineConfig
from fairlead.text.packing import Branch, Tree


def choose_learned(
    config: OnlineConfig, rollouts: Sequence[Rollout], trees: Sequence[Tree], *, rewards: Float[Tensor, "B"], scores: Float[Tensor, "B"]
) -> tuple[list[Tree], dict[str, float]]:  # fmt: skip
    """Trees to learn from, at most one a prompt, and the share of the completions in them.

    Args:
        trees: hold the rollouts' completions in order, with the reference's logprobs; a large group may be several.
        rewards: [B] with all penalties, which say what is best.
        scores: [B] as they came, which min_score is held against.
    Returns:
        No trees when there is nothing to learn from in this round.
    """
    branches = [branch for tree in trees for branch in tree.branches]
    found: list[Tree] = []
    start = 0
    for rollout in rollouts:
        rows = np.arange(start, start + len(rollout.samples))
        start += len(rows)
        chosen = _choose(config, rows, rewards.numpy()[rows], scores.numpy()[rows])
        if chosen:
            ranks = (0, 1) if config.method.learns == "pairs" else ()
            found.append(
                Tree(
                    prompt_ids=rollout.tree.prompt_ids, branches=tuple(_plain(branches[i]) for i in chosen), ranks=ranks
                )
            )
    return found, {"rl/learned_share": sum(len(tree.branches) for tree in found) / len(branches)}


def _choose(config: OnlineConfig, rows: np.ndarray, rewards: np.ndarray, scores: np.ndarray) -> list[int]:
    """Rows of one prompt that are learned from; for pairs the better one first."""
    if config.method.learns == "pairs":
        best, worst = int(rewards.argmax()), int(rewards.argmin())
        return [int(rows[best]), int(rows[worst])] if rewards[best] > rewards[worst] else []
    is_good = np.ones(len(rows), dtype=bool) if config.min_score is None else scores >= config.min_score
    if config.method.learns == "good":
        return rows[is_good].tolist()
    best = int(np.where(is_good, rewards, -np.inf).argmax())
    return [int(rows[best])] if is_good[best] else []


def _plain(branch: Branch) -> Branch:
    """Without what only policy gradients read."""
    return Branch(
        token_ids=branch.token_ids,
        kept=branch.kept,
        choices=branch.choices,
        arrays={n: x for n, x in branch.arrays.items() if n != "advantages"},
    )
