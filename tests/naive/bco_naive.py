"""BCO as plain loops over steps and completions."""

import math


def deltas(steps, *, decay):
    """Reward shift of every step; a step is (rewards of good, rewards of bad)."""
    means = [None, None]
    found = []
    for step in steps:
        for side, rewards in enumerate(step):
            if rewards:
                now = sum(rewards) / len(rewards)
                means[side] = now if means[side] is None else decay * means[side] + (1 - decay) * now
        seen = [mean for mean in means if mean is not None]
        found.append(sum(seen) / len(seen))
    return found


def bco_loss(reward, is_good, *, delta):
    """-log sigma(reward - delta) for a good completion, -log sigma(delta - reward) for a bad one."""
    x = reward - delta if is_good else delta - reward
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
