"""Advantages as definitions, one sequence at a time: sums over the future, not recursions."""

import math
from itertools import pairwise


def gae(rewards, values, *, gamma, lam, is_observation=None):
    """A_t = sum_k (gamma lam)^k delta_{t+k} over the tokens that the policy wrote, in order.

    An observation's reward goes to the policy token before it; one before the first policy token is nobody's.
    """
    is_observation = is_observation or [False] * len(rewards)
    steps = [t for t, skip in enumerate(is_observation) if not skip]
    bounds = [*steps, len(rewards)]
    earned = [sum(rewards[start:end]) for start, end in pairwise(bounds)]
    next_values = [*(values[t] for t in steps), 0.0][1:]
    deltas = [r + gamma * v_next - values[t] for r, v_next, t in zip(earned, next_values, steps, strict=True)]
    advantages = [0.0] * len(rewards)
    for i, t in enumerate(steps):
        advantages[t] = sum((gamma * lam) ** (k - i) * deltas[k] for k in range(i, len(deltas)))
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def monte_carlo_returns(rewards, *, gamma):
    """Discounted sum of the rewards from each token on."""
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]


def token_rewards(score, kl, *, kl_coef, score_clip=None, has_eos=True, missing_eos_penalty=0.0):
    """Rewards of one completion."""
    if score_clip is not None:
        score = min(max(score, -score_clip), score_clip)
    if not has_eos:
        score -= missing_eos_penalty
    rewards = [-kl_coef * k for k in kl]
    rewards[-1] += score
    return rewards


def whiten(xs, *, shift_mean):
    """Divide by the population standard deviation; with shift_mean also subtract the mean."""
    mean = sum(xs) / len(xs)
    std = math.sqrt(sum((x - mean) ** 2 for x in xs) / len(xs) + 1e-8)
    return [(x - mean) / std + (0.0 if shift_mean else mean) for x in xs]
