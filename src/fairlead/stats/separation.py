"""Do scores tell good from bad when they come without pairs?

Example:
    separation(scores, is_good, seed=0)  # Interval(value=0.81, low=0.77, high=0.85, n=400, note='')
"""

import numpy as np
from numpy.typing import ArrayLike

from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.intervals import Interval, average_ranks, bootstrap_interval, undefined


def separation(scores: ArrayLike, is_good: ArrayLike, *, seed: int) -> Interval:
    """Probability that a good item scores above a bad one, equal scores half (the area under the ROC curve), with its interval.

    Args:
        scores: [N]
        is_good: [N] True for good.
        seed: of the bootstrap over items.
    Equals: Mann-Whitney U / (num_good * num_bad).
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(is_good, dtype=bool)
    num_good = int(labels.sum())
    if num_good in (0, len(labels)):
        return undefined("needs good and bad items", n=len(labels))

    def area(items: IntArray) -> float:
        return _area(values[items], labels[items])

    return bootstrap_interval(area, len(values), seed=seed)


def _area(values: FloatArray, labels: BoolArray) -> float:
    num_good = int(labels.sum())
    num_bad = len(labels) - num_good
    if not num_good or not num_bad:
        return float("nan")
    above = average_ranks(values)[labels].sum() - num_good * (num_good + 1) / 2
    return float(above / (num_good * num_bad))
