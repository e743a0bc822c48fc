"""The PPO loss as a plain loop over tokens."""

import math


def ppo_loss(tokens, *, clip_low, clip_high, value_coef, value_clip, entropy_coef, dual_clip):
    """Mean loss over tokens.

    Args:
        tokens: list of dicts with logprob, old_logprob, advantage, value, old_value, returns, entropy.
    """
    total = 0.0
    for token in tokens:
        total += policy_loss(token, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
        total += value_coef * value_loss(token, value_clip=value_clip)
        total -= entropy_coef * token["entropy"]
    return total / len(tokens)


def policy_loss(token, *, clip_low, clip_high, dual_clip):
    """The pessimistic one of the plain and the clipped objective, as a loss."""
    advantage = token["advantage"]
    ratio = math.exp(token["logprob"] - token["old_logprob"])
    clipped_ratio = min(max(ratio, 1 - clip_low), 1 + clip_high)
    objective = min(ratio * advantage, clipped_ratio * advantage)
    if dual_clip is not None and advantage < 0:
        objective = max(objective, dual_clip * advantage)
    return -objective


def value_loss(token, *, value_clip):
    """Half the larger squared error of the value and of the value held near the old one."""
    errors = [token["value"] - token["returns"]]
    if value_clip is not None:
        move = min(max(token["value"] - token["old_value"], -value_clip), value_clip)
        errors.append(token["old_value"] + move - token["returns"])
    return 0.5 * max(error**2 for error in errors)
