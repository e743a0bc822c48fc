"""Several scores of a completion to one reward: pure functions on numpy arrays, NaN meaning "this score does not apply here".

Two ways, which differ when scores have unlike spreads:

    weight_then_sum       total_b = sum_k w_k s_kb                    one later normalisation for all: the widest score decides
    normalise_then_sum    z_kb    = (s_kb - mean_g s_k) / std_g s_k   each score speaks with its weight, however narrow it is
                          total_b = batch-normalised sum_k w_k z_kb

Legend: B completions, K components, M outputs of a model; g the group (completions of one prompt) that b belongs to.

Example:
    total = weight_then_sum({"helpful": [1.5, 2.0], "math": [nan, 1.0]}, {"helpful": 1.0, "math": 2.0})    # [1.5, 4.0]
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Prompt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Aggregate = Literal["mean", "min", "uncertainty"]

EPSILON = 1e-4
"""Added to standard deviations; the value of TRL's GRPO, large enough that rounding in a group of equal scores stays nothing."""


def group_index(prompts: Sequence[Prompt]) -> Ints:
    """[B] number of each completion's group, in order of appearance; a group is all completions of one prompt."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(prompt.id, len(numbers)) for prompt in prompts], dtype=np.int64)


def aggregate_members(outputs: Floats, how: Aggregate, *, uncertainty_coef: float = 0.0) -> Floats:
    """[B] one score from [B, M] normalised outputs of the members of an ensemble.

    mean: their mean. min: the most doubtful member decides. uncertainty: mean - uncertainty_coef * std over the members (divided by M).

    Source: Coste et al. 2023, arXiv:2310.02743 (WCO is min, UWO is uncertainty).
    Differs: the standard deviation in place of the variance, which has the unit of the score.
    """
    if how == "min":
        return outputs.min(axis=1)
    mean = outputs.mean(axis=1)
    return mean - uncertainty_coef * outputs.std(axis=1) if how == "uncertainty" else mean


def group_normalised(scores: Floats, groups: Ints) -> Floats:
    """[B] scores less the mean of their group, over its standard deviation (sample, n - 1) plus EPSILON; NaN stays NaN.

    What does not apply counts in neither. Alone in its group, or among equals, a score says nothing: 0.
    """
    known = ~np.isnan(scores)
    size = int(groups.max(initial=-1)) + 1
    index, values = groups[known], scores[known]
    count = np.bincount(index, minlength=size)
    mean = np.bincount(index, values, minlength=size) / np.maximum(count, 1)
    centred = values - mean[index]
    variance = np.bincount(index, centred * centred, minlength=size) / np.maximum(count - 1, 1)
    result = np.full_like(scores, np.nan)
    result[known] = centred / (np.sqrt(variance) + EPSILON)[index]
    return result


def batch_normalised(scores: Floats) -> Floats:
    """[B] scores less their mean, over their standard deviation (sample, n - 1) plus EPSILON; NaN stays NaN."""
    return group_normalised(scores, np.zeros(len(scores), dtype=np.int64))


def weight_then_sum(components: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """[B] weighted sum of what applies; NaN where nothing does.

    A component that does not apply adds nothing, and the others do not grow in its place: their weights are exchange rates.
    """
    stacked = np.stack([np.asarray(components[name], dtype=np.float64) for name in weights])
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).T @ np.array(list(weights.values()), dtype=np.float64)
    return np.where(known.any(axis=0), total, np.nan)


def normalise_then_sum(components: Mapping[str, Floats], weights: Mapping[str, float], groups: Ints) -> Floats:
    """[B] advantages: every component normalised within its group, the weighted sum of them normalised over the batch.

    Source: GDPO, arXiv:2601.05242; EPSILON and sample deviations as in TRL.
    """
    scaled = {name: group_normalised(np.asarray(components[name], dtype=np.float64), groups) for name in weights}
    return batch_normalised(weight_then_sum(scaled, weights))
