"""KTO as plain loops over padded completions."""

import math


def log_ratio(logprobs, ref_logprobs, mask):
    """Sum of policy minus reference over the kept tokens of one completion, nats."""
    return sum(p - q for p, q, keep in zip(logprobs, ref_logprobs, mask, strict=True) if keep)


def reference_point(mismatched_ratios):
    """Mean log-ratio of completions of other prompts, at least 0."""
    return max(0.0, sum(mismatched_ratios) / len(mismatched_ratios))


def kto_loss(ratio, is_good, *, z, beta, desirable=1.0, undesirable=1.0):
    """lambda - lambda * sigma(beta (r - z)) for a good completion, sigma(beta (z - r)) for a bad one."""
    if is_good:
        return desirable - desirable * _sigmoid(beta * (ratio - z))
    return undesirable - undesirable * _sigmoid(beta * (z - ratio))


def _sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
