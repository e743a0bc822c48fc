"""SimPO as a plain loop over one padded pair."""

import math


def simpo_loss(chosen, rejected, mask_chosen, mask_rejected, p, *, beta, gamma, nll_coef):
    """-log sigma(beta (a - b) - gamma) on means, the pair turned round with 1 - p, plus the likelihood of the better side."""
    a, b = _mean(chosen, mask_chosen), _mean(rejected, mask_rejected)
    losses = [math.log(1 + math.exp(-(beta * margin - gamma))) for margin in (a - b, b - a)]
    return p * losses[0] + (1 - p) * losses[1] - nll_coef * (p * a + (1 - p) * b)


def _mean(row, mask):
    kept = [x for x, keep in zip(row, mask, strict=True) if keep]
    return sum(kept) / len(kept)
