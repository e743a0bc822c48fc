"""Advantages of groups as definitions: dicts of lists, one completion at a time. NaN means no score."""

import math


def members(scores, groups, group):
    """Scores of a group's scored completions."""
    return [s for s, g in zip(scores, groups, strict=True) if g == group and not math.isnan(s)]


def group_normalised(scores, groups, *, eps=1e-4):
    return [
        _of_group(s, members(scores, groups, g), lambda x, xs: (x - _mean(xs)) / (_std(xs) + eps))
        for s, g in zip(scores, groups, strict=True)
    ]


def group_centered(scores, groups):
    return [
        _of_group(s, members(scores, groups, g), lambda x, xs: x - _mean(xs))
        for s, g in zip(scores, groups, strict=True)
    ]


def leave_one_out(scores, groups):
    """Minus the mean of all others, found by taking one of its own score out."""
    found = []
    for score, group in zip(scores, groups, strict=True):
        others = members(scores, groups, group)
        if math.isnan(score) or len(others) < 2:
            found.append(0.0)
            continue
        others.remove(score)
        found.append(score - _mean(others))
    return found


def greedy_baseline(scores, groups, greedy_scores):
    gaps = [s - greedy_scores[g] for s, g in zip(scores, groups, strict=True)]
    return [0.0 if math.isnan(gap) else gap for gap in gaps]


def whitened_returns(token_rewards, *, gamma):
    """Of completions given as lists of rewards: discounted sums of what comes, over the spread of all tokens."""
    returns = [
        [sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))] for row in token_rewards
    ]
    kept = [x for row in returns if not any(map(math.isnan, row)) for x in row]
    mean = _mean(kept)
    std = math.sqrt(sum((x - mean) ** 2 for x in kept) / len(kept) + 1e-8)
    return [[0.0 if any(map(math.isnan, row)) else (x - mean) / std for x in row] for row in returns]


def _of_group(score, scores, estimate):
    return 0.0 if math.isnan(score) or len(set(scores)) < 2 else estimate(score, scores)


def _mean(xs):
    return sum(xs) / len(xs)


def _std(xs):
    return math.sqrt(sum((x - _mean(xs)) ** 2 for x in xs) / (len(xs) - 1))
