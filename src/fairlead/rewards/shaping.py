"""From raw scores to what is optimised: normalisation, length and truncation penalties, clipping.

Pure functions over arrays [B]; numpy only. The usual order is normalise, clip, then subtract penalties, so that a penalty has
the unit of one standard deviation of the reference policy's scores (a coefficient means nothing without that).

Example:
    normaliser = Normaliser.fit(reference_scores)
    rewards = length_penalty(normaliser.apply(scores), num_tokens, coef=0.1, max_tokens=256)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, explain

Scores = npt.NDArray[np.float64]

GUIDE_LENGTH_COEF = 0.1  # what the common guides use: score - 0.1 * tokens / max_tokens
MIN_STD = 1e-6  # below this all reference scores are the same, and dividing would blow up rounding noise


def length_penalty(scores: Scores, num_tokens: npt.ArrayLike, *, coef: float, max_tokens: int) -> Scores:
    """Subtract a price for length.

    reward = score - coef * num_tokens / max_tokens

    Args:
        scores: [B] normalised scores.
        num_tokens: [B] tokens of each completion.
        coef: price of a completion of `max_tokens`, in units of the score; 0 is off.
        max_tokens: limit of the sampler.
    Source: the guides' form; it only outweighs a reward model whose score rises by less than `coef` over `max_tokens`.
    """
    if max_tokens < 1:
        raise DataError(
            explain("max_tokens", max_tokens, "is not a limit", expected=">= 1", remedy="Pass the sampler's limit")
        )
    return scores - coef * np.asarray(num_tokens, dtype=np.float64) / max_tokens


def default_length_coef(slope: float) -> float:
    """The guides' coefficient, or the reward model's measured slope where that is steeper.

    coef = max(0.1, slope)

    Args:
        slope: rise of the normalised score from 0 to `max_tokens` tokens, measured on reference samples.
    """
    if not np.isfinite(slope):
        raise DataError(
            explain(
                "slope", slope, "was not measured", expected="a finite number", remedy="Measure it on reference samples"
            )
        )
    return max(GUIDE_LENGTH_COEF, slope)


def missing_eos_penalty(scores: Scores, is_finished: npt.ArrayLike, *, penalty: float) -> Scores:
    """Subtract `penalty` where the completion was cut off before its terminator.

    Args:
        is_finished: [B] True where the finish reason is "stop".
    """
    return scores - penalty * ~np.asarray(is_finished, dtype=bool)


def clip_scores(scores: Scores, *, limit: float) -> Scores:
    """Limit scores to [-limit, limit]; one extreme score cannot dominate a batch. NaN stays NaN."""
    if not limit > 0:
        raise DataError(
            explain("limit", limit, "is not a range", expected="> 0", remedy="Raise it, or leave clipping out")
        )
    return np.clip(scores, -limit, limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """Affine map that gives the reference policy's scores mean 0 and standard deviation 1. Immutable; stored beside the model."""

    mean: float
    """Mean raw score of reference samples."""
    std: float
    """Standard deviation (n - 1) of their raw scores, > 0."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise DataError(explain("normaliser", f"mean {self.mean}, std {self.std}", "cannot be applied", expected="finite numbers, std > 0",
                                    remedy="Fit it on reference samples again"))  # fmt: skip

    @classmethod
    def fit(cls, scores: npt.ArrayLike) -> Self:
        """Measure on reference samples; scores that are NaN (rule not applicable) are left out.

        Raises:
            DataError: fewer than two scores, or no spread: such a scorer cannot tell replies apart.
        """
        values = np.asarray(scores, dtype=np.float64)
        values = values[~np.isnan(values)]
        if len(values) < 2 or not values.std(ddof=1) > MIN_STD:
            raise DataError(explain("reference scores", f"{len(values)} values", "do not vary", expected="two or more different scores",
                                    remedy="Score more samples, or check the scorer"))  # fmt: skip
        return cls(mean=float(values.mean()), std=float(values.std(ddof=1)))

    def apply(self, scores: npt.ArrayLike) -> Scores:
        """(score - mean) / std, of any shape."""
        return (np.asarray(scores, dtype=np.float64) - self.mean) / self.std

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` wrote."""
        return cls(mean=float(data["mean"]), std=float(data["std"]))
