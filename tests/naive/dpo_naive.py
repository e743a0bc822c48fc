"""The DPO family as plain loops over padded pairs."""

import math


def log_ratio(logprobs, ref_logprobs, mask, *, average=False):
    """Sum (or mean) of policy minus reference over the kept tokens of one completion, nats."""
    kept = [p - q for p, q, keep in zip(logprobs, ref_logprobs, mask, strict=True) if keep]
    return sum(kept) / (len(kept) if average else 1)


def dpo_loss(h, p, *, beta):
    """-p log sigma(beta h) - (1 - p) log sigma(-beta h)."""
    return p * _minus_log_sigmoid(beta * h) + (1 - p) * _minus_log_sigmoid(-beta * h)


def cdpo_loss(h, p, *, beta, flip_rate):
    """The label is flipped with probability flip_rate, and the loss expects it."""
    return (1 - flip_rate) * dpo_loss(h, p, beta=beta) + flip_rate * dpo_loss(-h, p, beta=beta)


def robust_loss(h, p, *, beta, flip_rate):
    """((1 - e) l(h) - e l(-h)) / (1 - 2e)."""
    return ((1 - flip_rate) * dpo_loss(h, p, beta=beta) - flip_rate * dpo_loss(-h, p, beta=beta)) / (1 - 2 * flip_rate)


def ipo_loss(h, p, *, beta):
    """Squared distance of h from +-1 / (2 beta), the sign by the label."""
    return p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (h + 1 / (2 * beta)) ** 2


def _minus_log_sigmoid(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
