"""The loss of Bradley-Terry with raters, sides and ties, vote by vote."""

import math


def loss(rows, s, a, b, t, *, ridge, rater_ridge, side_ridge):
    """rows of (first, second, rater, result, side); t None without ties."""
    total = 0.0
    for first, second, rater, result, side in rows:
        eta = a[rater] * (s[first] - s[second]) + b[rater] * side
        nu = 0.0 if t is None else math.exp(t)
        weights = {1.0: math.exp(eta / 2), 0.0: math.exp(-eta / 2), 0.5: nu}
        total -= math.log(weights[result] / sum(weights.values()))
    total += ridge / 2 * sum(x * x for x in s)
    total += rater_ridge / 2 * sum((x - 1) ** 2 for x in a)
    total += side_ridge / 2 * sum(x * x for x in b)
    return total + (0.0 if t is None else 1e-6 / 2 * t * t)
