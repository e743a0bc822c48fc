"""Totals of votes by plain loops over all of them: the specification of `store.annotation.totals`."""

from collections import Counter


def patterns(votes):
    """votes: (item, person, label), skips among them -> {item: 'a:2 b:1'}."""
    found = {}
    for item, _, label in votes:
        found.setdefault(item, Counter())[label] += 1
    return {item: " ".join(f"{label}:{labels[label]}" for label in sorted(labels)) for item, labels in found.items()}


def concord(votes):
    """{(person, own label, majority of the others): votes}; votes without a majority of others are left out."""
    found = Counter()
    for item, person, label in votes:
        if label == "skip":
            continue
        others = Counter(
            other for where, who, other in votes if where == item and who != person and other != "skip"
        ).most_common()
        if others and (len(others) == 1 or others[0][1] > others[1][1]):
            found[person, label, others[0][0]] += 1
    return found


def work(verdicts):
    """verdicts: (person, at in ms, version, choice, strength, active_ms or None) -> {key: (num, num_timed, active_ms)}."""
    found = {}
    for person, at, version, choice, strength, active_ms in verdicts:
        key = (person, at // (24 * 3600 * 1000), version, choice, strength)
        num, timed, ms = found.get(key, (0, 0, 0))
        found[key] = (num + 1, timed + (active_ms is not None), ms + (active_ms or 0))
    return found
