"""The value half of PPO as a plain loop; the policy half is `policy_naive.py`."""

from naive.policy_naive import mean_loss, token_clipped


def ppo_loss(
    completions, *, clip_low, clip_high, dual_clip, value_coef, value_clip, entropy_coef, aggregation="token_mean"
):
    """Mean loss over the completions; see `policy_naive.mean_loss`."""
    silent = [(weight, [t | {"correction": 1.0} for t in tokens]) for weight, tokens in completions]
    policy = token_clipped(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    return mean_loss(completions, policy, aggregation=aggregation, entropy_coef=entropy_coef) + value_coef * mean_loss(
        silent, lambda token, _tokens: value_loss(token, value_clip=value_clip), aggregation=aggregation
    )


def value_loss(token, *, value_clip):
    """Half the larger squared error of the value and of the value held near the old one."""
    errors = [token["value"] - token["returns"]]
    if value_clip is not None:
        move = min(max(token["value"] - token["old_value"], -value_clip), value_clip)
        errors.append(token["old_value"] + move - token["returns"])
    return 0.5 * max(error**2 for error in errors)
