"""AOT as sorting and one loop; unequal sizes by repeating every value until both sides are equally long."""

import math


def aot_loss(u, v, *, beta):
    """Mean over quantiles of -log sigma(beta (u(q) - v(q))); u and v are lists of numbers."""
    size = math.lcm(len(u), len(v))
    long_u = [x for x in sorted(u) for _ in range(size // len(u))]
    long_v = [x for x in sorted(v) for _ in range(size // len(v))]
    return sum(_minus_log_sigmoid(beta * (a - b)) for a, b in zip(long_u, long_v, strict=True)) / size


def _minus_log_sigmoid(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
