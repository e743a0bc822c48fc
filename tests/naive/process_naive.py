"""Process rewards as plain loops: the loss of labelled steps, scores of replies, payments of steps."""

import math


def loss(logits, labels):
    """Sum over steps, nats."""
    total = 0.0
    for z, y in zip(logits, labels, strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total


def reply_score(steps, how):
    if how == "min":
        return min(steps)
    if how == "last":
        return steps[-1]
    if how == "product":
        return math.prod(steps)
    return sum(steps) / (len(steps) if how == "mean" else 1)


def payments(steps, how):
    paid, before = [], 0.0
    for s in range(len(steps)):
        now = reply_score(steps[: s + 1], how)
        paid.append(now - before)
        before = now
    return paid
