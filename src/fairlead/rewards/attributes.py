"""How well each attribute of a reward model is predicted on held-out pairs.

Legend: P held-out pairs, K attributes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Preference
from fairlead.core.summary import Table
from fairlead.rewards.data import Scale
from fairlead.stats.intervals import wilson
from fairlead.text.ratings import read_ratings

Floats = npt.NDArray[np.float64]


def attribute_table(
    weights: Mapping[str, float], scales: Mapping[str, Scale], outputs: Floats, rows: Sequence[Preference]
) -> Table:
    """A row an attribute: its ratings in training, and on held-out pairs the share that it orders as the ratings do.

    Args:
        outputs: [2P, K] in the order chosen, rejected.
        rows: [P] held-out preferences.
    """
    names = tuple(weights)
    ratings = np.array([side for row in rows for side in read_ratings(row, names)], dtype=float)
    found: list[tuple[str | float | int | None, ...]] = []
    for k, name in enumerate(names):
        known = ~np.isnan(ratings[:, k])
        rated, said = ratings[0::2, k] - ratings[1::2, k], outputs[0::2, k] - outputs[1::2, k]
        decided = known[0::2] & known[1::2] & (rated != 0)
        right = (np.sign(rated) == np.sign(said)) + 0.5 * (said == 0)
        accuracy = wilson(float(right[decided].sum()), int(decided.sum())) if decided.any() else None
        bounds = (accuracy.value, accuracy.low, accuracy.high, accuracy.n) if accuracy else (None, None, None, 0)
        scale = scales[name]
        found.append(
            (
                name,
                weights[name],
                scale.num,
                scale.mean,
                scale.std,
                *bounds,
                _correlation(ratings[known, k], outputs[known, k]),
            )
        )
    return Table(
        title="Attributes", rows=tuple(found),
        columns=("attribute", "weight", "ratings", "mean", "sd", "held-out accuracy", "low", "high", "pairs", "correlation"),
        caption="Accuracy is over held-out pairs that the attribute's ratings order; correlation is Pearson's over held-out completions.",
    )  # fmt: skip


def _correlation(a: Floats, b: Floats) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else None
