"""Advantages of a whole round from its samples and scores, one completion and one token at a time. Read this first; `policies.collect` must agree.

score -> less what length costs -> clipped -> less the penalty of one that was cut off -> on the last token, beside -kl_coef * kl on each
rewards -> the estimator's baseline -> one advantage a token
"""

from dataclasses import dataclass

from naive import advantages_naive, group_advantages_naive


@dataclass
class Completion:
    """A completion of a round; lists are one number a token."""

    prompt: int
    score: float
    has_eos: bool
    old_logprobs: list
    ref_logprobs: list
    values: list
    greedy_score: float = 0.0
    """Of the greedy completion of its prompt, of `greedy_length` tokens."""
    greedy_length: int = 0
    greedy_has_eos: bool = True


@dataclass
class Prices:
    """What a round is paid by; the names are those of the recipe."""

    kl_coef: float
    length_coef: float
    overlong_share: float
    max_new_tokens: int
    score_clip: float
    missing_eos_penalty: float
    gamma: float
    lam: float


def shaped_score(score, length, prices):
    """After what length costs: evenly, and falling over the last part of the limit."""
    score -= prices.length_coef * length / prices.max_new_tokens
    buffer = round(prices.overlong_share * prices.max_new_tokens)
    if buffer:
        score -= min(1.0, max(0.0, (length - (prices.max_new_tokens - buffer)) / buffer))
    return score


def rewards_of(completion, prices, *, in_reward):
    """What each token is paid."""
    length = len(completion.old_logprobs)
    kl = [a - b for a, b in zip(completion.old_logprobs, completion.ref_logprobs, strict=True)]
    return advantages_naive.token_rewards(
        shaped_score(completion.score, length, prices), kl, kl_coef=prices.kl_coef if in_reward else 0.0, score_clip=prices.score_clip,
        has_eos=completion.has_eos, missing_eos_penalty=prices.missing_eos_penalty,
    )  # fmt: skip


def baseline_of(completion, prices):
    """What the greedy completion is paid; it pays no KL."""
    (paid,) = advantages_naive.token_rewards(
        shaped_score(completion.greedy_score, completion.greedy_length, prices), [0.0], kl_coef=0.0, score_clip=prices.score_clip,
        has_eos=completion.greedy_has_eos, missing_eos_penalty=prices.missing_eos_penalty,
    )  # fmt: skip
    return paid


def advantages(completions, estimator, prices, *, in_reward):
    """Lists of advantages, and for gae lists of returns (else None)."""
    rewards = [rewards_of(c, prices, in_reward=in_reward) for c in completions]
    if estimator == "gae":
        pairs = [
            advantages_naive.gae(r, c.values, gamma=prices.gamma, lam=prices.lam)
            for r, c in zip(rewards, completions, strict=True)
        ]
        white = iter(advantages_naive.whiten([a for row, _ in pairs for a in row], shift_mean=True))
        return [[next(white) for _ in row] for row, _ in pairs], [returns for _, returns in pairs]
    if estimator == "whitened_returns":
        return group_advantages_naive.whitened_returns(rewards, gamma=prices.gamma), None
    totals, prompts = [sum(row) for row in rewards], [c.prompt for c in completions]
    if estimator == "greedy_baseline":
        by_prompt = {c.prompt: baseline_of(c, prices) for c in completions}
        found = group_advantages_naive.greedy_baseline(totals, prompts, by_prompt)
    elif estimator == "whitened_group_centered":
        found = group_advantages_naive.group_centered(totals, prompts)
    else:
        found = getattr(group_advantages_naive, estimator)(totals, prompts)
    rows = [[a] * len(row) for a, row in zip(found, rewards, strict=True)]
    if estimator == "whitened_group_centered":
        white = iter(advantages_naive.whiten([a for row in rows for a in row], shift_mean=True))
        rows = [[next(white) for _ in row] for row in rows]
    return rows, None
