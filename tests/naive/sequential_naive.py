"""The sequential test by plain loops: every sequence of answers, one after another, as the definition reads."""

import itertools
import math


def end_of(answers, *, p0, p1, alpha, beta):
    """(decision, answers used, right ones) of a list of answers; undecided when they run out."""
    low, high, total = math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha), 0.0
    for n, is_right in enumerate(answers, start=1):
        total += math.log(p1 / p0) if is_right else math.log((1 - p1) / (1 - p0))
        if total >= high - 1e-12:
            return "pass", n, sum(answers[:n])
        if total <= low + 1e-12:
            return "fail", n, sum(answers[:n])
    return "undecided", len(answers), sum(answers)


def operating_point(p, *, cap, **test):
    """(chance to pass, to fail, to be undecided, mean length) by all 2^cap sequences."""
    chances, length = {"pass": 0.0, "fail": 0.0, "undecided": 0.0}, 0.0
    for answers in itertools.product((True, False), repeat=cap):
        chance = math.prod(p if right else 1 - p for right in answers)
        decision, n, _ = end_of(answers, **test)
        chances[decision] += chance
        length += chance * n
    return chances["pass"], chances["fail"], chances["undecided"], length


def ends(*, cap, **test):
    """All ends of the test with their chances as a function of p: {(decision, n, right): number of ways}."""
    found = {}
    for answers in itertools.product((True, False), repeat=cap):
        decision, n, right = end_of(answers, **test)
        found.setdefault((decision, n, right), set()).add(answers[:n])
    return {end: len(ways) for end, ways in found.items()}


def rank(end):
    """Higher is more evidence for a large share: earliest pass first, earliest failure last."""
    decision, n, right = end
    return (2, -n, 0) if decision == "pass" else (1, right, 0) if decision == "undecided" else (0, n, 0)
