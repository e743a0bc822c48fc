"""Mean and standard deviation of a stream of scores, exact whatever its order and cutting; and the scores in their units.

Example:
    statistics = RunningStatistics()
    statistics.update(scores)                    # NaN is left out
    z = statistics.normalised(scores)
    checkpoint["reward"] = statistics.state()
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SMALLEST_STD = 1e-6
"""Below it all scores seen are equal but for rounding: they are centred and not stretched."""


@dataclass(slots=True)
class RunningStatistics:
    """Count, mean and sum of squared deviations of all finite scores seen. Mutable; not thread-safe.

    Source: Welford 1962; merged as in Chan, Golub and LeVeque 1979, so no large sums are subtracted.
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0
    """Sum of (score - mean)^2."""

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1); 0 of fewer than two scores."""
        return math.sqrt(self.deviations / (self.count - 1)) if self.count > 1 else 0.0

    def update(self, scores: Floats) -> None:
        """Take in [B] scores; what is not finite is left out."""
        seen = scores[np.isfinite(scores)]
        if len(seen):
            mean = float(seen.mean())
            self.merge(RunningStatistics(len(seen), mean, float(((seen - mean) ** 2).sum())))

    def merge(self, other: "RunningStatistics") -> None:
        """Take in what another one saw, as if this one had seen it too."""
        if not other.count:
            return
        total = self.count + other.count
        apart = other.mean - self.mean
        self.deviations += other.deviations + apart * apart * self.count * other.count / total
        self.mean += apart * other.count / total
        self.count = total

    def normalised(self, scores: Floats) -> Floats:
        """[B] (score - mean) / std; only centred where all scores seen were equal. NaN stays NaN."""
        return (scores - self.mean) / (self.std if self.std > _SMALLEST_STD else 1.0)

    def state(self) -> dict[str, float]:
        """All of it, JSON-able; floats survive JSON exactly."""
        return {"count": self.count, "mean": self.mean, "deviations": self.deviations}


def running_statistics(state: Mapping[str, float]) -> RunningStatistics:
    """Read back what `state` gave."""
    return RunningStatistics(int(state["count"]), float(state["mean"]), float(state["deviations"]))
