"""Agreement, aggregation and diversity by plain loops over votes, as their definitions read.

Votes are (item, rater, label) with labels 0..K-1. Everything is a list or a dict; nothing is vectorised.
"""

import math
from collections import Counter, defaultdict


def by_item(rows):
    """{item: [labels]} of the items with two votes or more."""
    labels = defaultdict(list)
    for item, _, label in rows:
        labels[item].append(label)
    return {item: found for item, found in labels.items() if len(found) >= 2}


def percent_agreement(rows):
    """Mean over items of the share of ordered pairs of different votes that agree."""
    shares = []
    for labels in by_item(rows).values():
        pairs = [(a, b) for i, a in enumerate(labels) for j, b in enumerate(labels) if i != j]
        shares.append(sum(a == b for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares) if shares else math.nan


def pooled(rows):
    return Counter(label for labels in by_item(rows).values() for label in labels)


def squared_distance(a, b, level, totals, values):
    if level == "nominal":
        return float(a != b)
    if level == "interval":
        return (values[a] - values[b]) ** 2
    low, high = min(a, b), max(a, b)
    return (sum(totals[g] for g in range(low, high + 1)) - (totals[low] + totals[high]) / 2) ** 2 if a != b else 0.0


def krippendorff_alpha(rows, *, level="nominal", values=None):
    """1 - D_o / D_e, where D_o averages the distance over pairs within items and D_e over all pairs of votes."""
    items, totals = by_item(rows), pooled(rows)
    num_votes = sum(totals.values())
    observed = 0.0
    for labels in items.values():
        for i, a in enumerate(labels):
            for j, b in enumerate(labels):
                if i != j:
                    observed += squared_distance(a, b, level, totals, values) / (len(labels) - 1)
    everything = [label for labels in items.values() for label in labels]
    expected = 0.0
    for i, a in enumerate(everything):
        for j, b in enumerate(everything):
            if i != j:
                expected += squared_distance(a, b, level, totals, values)
    if expected == 0:
        return math.nan
    return 1 - (observed / num_votes) / (expected / (num_votes * (num_votes - 1)))


def gwet_ac1(rows, num_labels):
    items = by_item(rows)
    if not items or num_labels < 2:
        return math.nan
    chance = 0.0
    for label in range(num_labels):
        share = sum(labels.count(label) / len(labels) for labels in items.values()) / len(items)
        chance += share * (1 - share) / (num_labels - 1)
    return (percent_agreement(rows) - chance) / (1 - chance)


def rater_agreement(rows):
    """{rater: (agreed, counted)} against the strict majority of the other raters."""
    result = defaultdict(lambda: [0, 0])
    for item, rater, label in rows:
        result[rater]
        others = Counter(other for i, r, other in rows if i == item and r != rater).most_common()
        if not others or (len(others) > 1 and others[0][1] == others[1][1]):
            continue
        result[rater][0] += others[0][0] == label
        result[rater][1] += 1
    return {rater: tuple(pair) for rater, pair in result.items()}


def one_coin_step(rows, posterior, num_labels, *, right=2.0, wrong=1.0):
    """One round of EM: accuracies from the posterior {item: [p]}, then the posterior from the accuracies."""
    hits, total = defaultdict(float), defaultdict(int)
    for item, rater, label in rows:
        hits[rater] += posterior[item][label]
        total[rater] += 1
    accuracy = {rater: (hits[rater] + right) / (total[rater] + right + wrong) for rater in total}
    result = {}
    for item in posterior:
        joint = []
        for truth in range(num_labels):
            p = 1.0
            for i, rater, label in rows:
                if i == item:
                    p *= accuracy[rater] if label == truth else (1 - accuracy[rater]) / (num_labels - 1)
            joint.append(p)
        result[item] = [p / sum(joint) for p in joint]
    return result, accuracy


def dawid_skene_step(rows, posterior, num_labels, *, smoothing):
    confusion = {}
    for rater in {rater for _, rater, _ in rows}:
        table = [[smoothing] * num_labels for _ in range(num_labels)]
        for item, r, label in rows:
            if r == rater:
                for truth in range(num_labels):
                    table[truth][label] += posterior[item][truth]
        confusion[rater] = [[cell / sum(row) for cell in row] for row in table]
    prior = [sum(p[truth] for p in posterior.values()) / len(posterior) for truth in range(num_labels)]
    result = {}
    raters_of = {item: {r for i, r, _ in rows if i == item} for item in posterior}
    checked = {r for raters in raters_of.values() if len(raters) > 1 for r in raters}
    for item in posterior:
        if not raters_of[item] & checked:  # nothing says how good its only rater is
            result[item] = posterior[item]
            continue
        joint = []
        for truth in range(num_labels):
            p = prior[truth]
            for i, rater, label in rows:
                if i == item:
                    p *= confusion[rater][truth][label]
            joint.append(p)
        result[item] = [p / sum(joint) for p in joint]
    return result, confusion


def self_bleu(samples):
    """Mean over samples of BLEU-4 against the others, counts clipped to the most that any other sample has."""
    scores = []
    for i, text in enumerate(samples):
        others = [other for j, other in enumerate(samples) if j != i]
        log_precision = 0.0
        for n in range(1, 5):
            found = Counter(tuple(text[k : k + n]) for k in range(len(text) - n + 1))
            matches = 0
            for ngram, times in found.items():
                most = max(sum(tuple(o[k : k + n]) == ngram for k in range(len(o) - n + 1)) for o in others)
                matches += min(times, most)
            add = 1 if n > 1 else 0
            if matches + add == 0:
                log_precision = -math.inf
                break
            log_precision += math.log((matches + add) / (sum(found.values()) + add)) / 4
        closest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
        brevity = 1.0 if len(text) >= closest else math.exp(1 - closest / len(text)) if text else 0.0
        scores.append(brevity * math.exp(log_precision))
    return sum(scores) / len(scores)


def bernoulli_cusum(correct, p0, p1):
    """The path of the cumulative sum."""
    total, path = 0.0, []
    for is_right in correct:
        ratio = p1 / p0 if is_right else (1 - p1) / (1 - p0)
        total = max(0.0, total + math.log(ratio))
        path.append(total)
    return path
