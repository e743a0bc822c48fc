"""The reward-model loss as a plain loop over pairs, probabilities written out."""

import math


def reward_loss(chosen, rejected, *, p_chosen, margins, is_tie, weights, center_coef, ties, tie_rate):
    """Weighted mean loss, nats. All arguments before `center_coef` are [P] lists."""
    total = 0.0
    for r_c, r_r, p, margin, tie, weight in zip(chosen, rejected, p_chosen, margins, is_tie, weights, strict=True):
        if tie and ties != "soft":
            loss = -math.log(outcome_probabilities(r_c - r_r, ties=ties, tie_rate=tie_rate)[1])
        else:
            p = 0.5 if tie else p
            if_chosen_wins, _, _ = outcome_probabilities(r_c - r_r - margin, ties=ties, tie_rate=tie_rate)
            _, _, if_rejected_wins = outcome_probabilities(r_c - r_r + margin, ties=ties, tie_rate=tie_rate)
            loss = -p * math.log(if_chosen_wins) - (1 - p) * math.log(if_rejected_wins)
        total += weight * (loss + center_coef * (r_c + r_r) ** 2)
    return total / sum(weights)


def outcome_probabilities(difference, *, ties, tie_rate):
    """(first wins, tie, second wins) for strengths exp(difference) and 1."""
    a, b = math.exp(difference), 1.0
    if ties == "davidson":
        nu = 2 * tie_rate / (1 - tie_rate)
        total = a + b + nu * math.sqrt(a * b)
        return a / total, nu * math.sqrt(a * b) / total, b / total
    if ties == "rao_kupper":
        theta = (1 + tie_rate) / (1 - tie_rate)
        win, lose = a / (a + theta * b), b / (b + theta * a)
        return win, 1 - win - lose, lose
    return a / (a + b), 0.0, b / (a + b)
