"""Correction weights one completion at a time."""

import math


def correction(completions, *, way, cap=2.0, floor=0.5, sequence_ratio="geometric_mean"):
    """Weights of completions given as lists of (old logprob, sampling logprob)."""
    return [_weights([o - s for o, s in tokens], way, cap, floor, sequence_ratio) for tokens in completions]


def _weights(log_ratios, way, cap, floor, kind):
    ratios = [math.exp(x) for x in log_ratios]
    if way == "off":
        return [1.0] * len(ratios)
    if way == "token_clip":
        return [min(r, cap) for r in ratios]
    if way == "token_mask":
        return [r if floor <= r <= cap else 0.0 for r in ratios]
    whole = math.prod(ratios)
    if kind == "product":
        return [whole if floor <= whole <= cap else 0.0] * len(ratios)
    inside = floor <= whole ** (1 / len(ratios)) <= cap
    return [min(r, cap) if inside else 0.0 for r in ratios]
