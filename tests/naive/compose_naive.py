"""Composition of rewards as plain loops over completions, components and groups; the specification of rewards/compose.py."""

import math


def _mean(values):
    return sum(values) / len(values)


def _std(values):
    """Sample standard deviation; 0 of one value."""
    mean = _mean(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def group_normalised(scores, groups, epsilon=1e-4):
    result = []
    for score, group in zip(scores, groups, strict=True):
        mates = [s for s, g in zip(scores, groups, strict=True) if g == group and not math.isnan(s)]
        result.append(math.nan if math.isnan(score) else (score - _mean(mates)) / (_std(mates) + epsilon))
    return result


def weight_then_sum(components, weights):
    result = []
    for b in range(len(next(iter(components.values())))):
        known = [weights[name] * components[name][b] for name in weights if not math.isnan(components[name][b])]
        result.append(sum(known) if known else math.nan)
    return result


def normalise_then_sum(components, weights, groups):
    scaled = {name: group_normalised(components[name], groups) for name in weights}
    total = weight_then_sum(scaled, weights)
    return group_normalised(total, [0] * len(total))


def aggregate_members(outputs, how, coef=0.0):
    result = []
    for row in outputs:
        mean = _mean(row)
        spread = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
        result.append({"mean": mean, "min": min(row), "uncertainty": mean - coef * spread}[how])
    return result


def running(batches):
    """Mean and sample deviation of everything at once."""
    seen = [x for batch in batches for x in batch if math.isfinite(x)]
    return _mean(seen), _std(seen)
