"""Ranking losses as plain loops: every order that a ranking allows is written out."""

import itertools
import math


def plackett_luce(scores, ranks, *, top=None):
    """Mean negative log-likelihood of the first `top` places over all orders that the ranks allow, nats."""
    count = len(scores)
    costs = []
    for order in itertools.permutations(range(count)):
        if any(ranks[a] > ranks[b] for a, b in itertools.pairwise(order)):
            continue
        cost = 0.0
        for place in range(min(count, top or count)):
            left = sum(math.exp(scores[i]) for i in order[place:])
            cost -= math.log(math.exp(scores[order[place]]) / left)
        costs.append(cost)
    return sum(costs) / len(costs)


def all_pairs(scores, ranks, *, top=None):
    """Mean over the pairs with a side among the first `top` places of -log sigmoid(better - worse); a tie is half and half."""
    costs = []
    for i, j in itertools.combinations(range(len(scores)), 2):
        places = [sum(rank < ranks[k] for rank in ranks) for k in (i, j)]
        if min(places) >= (top or len(scores)):
            continue
        i_wins = 1 / (1 + math.exp(scores[j] - scores[i]))
        share = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
        costs.append(-share * math.log(i_wins) - (1 - share) * math.log(1 - i_wins))
    return sum(costs) / len(costs)


def ranking_loss(groups, *, model, top=None, center_coef=0.0):
    """Weighted mean over groups (scores, ranks, weight); p: probability that the order is not upside down."""
    nll = plackett_luce if model == "plackett_luce" else all_pairs
    total, weights = 0.0, 0.0
    for scores, ranks, weight, p in groups:
        cost = p * nll(scores, ranks, top=top) + (1 - p) * nll(scores, [-rank for rank in ranks], top=top)
        total += weight * (cost + center_coef * (2 * sum(scores) / len(scores)) ** 2)
        weights += weight
    return total / weights
