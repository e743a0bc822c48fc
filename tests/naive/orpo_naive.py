"""ORPO as a plain loop over one padded pair."""

import math


def orpo_loss(chosen, rejected, mask_chosen, mask_rejected, p, *, beta):
    """Likelihood of the better side plus beta times -log sigma of the log odds ratio; the pair turned round with 1 - p."""
    a, b = _mean(chosen, mask_chosen), _mean(rejected, mask_rejected)
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (a, b)]
    penalty = [math.log(1 + 1 / ratio) for ratio in (odds[0] / odds[1], odds[1] / odds[0])]
    return p * (-a + beta * penalty[0]) + (1 - p) * (-b + beta * penalty[1])


def _mean(row, mask):
    kept = [x for x, keep in zip(row, mask, strict=True) if keep]
    return sum(kept) / len(kept)
