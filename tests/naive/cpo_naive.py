"""CPO as a plain loop over one padded pair."""

import math


def cpo_loss(chosen, rejected, mask_chosen, mask_rejected, p, *, beta, nll_coef, nll_average):
    """-log sigma(beta (a - b)) on sums, the pair turned round with 1 - p, plus the likelihood of the better side."""
    kept = [[x for x, keep in zip(row, mask, strict=True) if keep] for row, mask in
            ((chosen, mask_chosen), (rejected, mask_rejected))]  # fmt: skip
    a, b = (sum(row) for row in kept)
    losses = [math.log(1 + math.exp(-beta * margin)) for margin in (a - b, b - a)]
    nll = [-sum(row) / (len(row) if nll_average == "token" else 1) for row in kept]
    return p * (losses[0] + nll_coef * nll[0]) + (1 - p) * (losses[1] + nll_coef * nll[1])
