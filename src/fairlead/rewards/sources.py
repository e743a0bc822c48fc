"""A component of a composed reward as it runs, and what it answers: scores, and which completions it failed on.

Example:
    asked = Direct(rule).ask(prompts, completions, step=0)
    asked.values[~asked.failed]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Prompt
from fairlead.rewards.pool import PooledScorer

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What one component answered for some completions."""

    values: Floats
    """NaN where it does not apply, or failed."""
    failed: Bools
    reason: str = ""
    """Why the first of those that failed did."""
    token_rewards: tuple[Floats, ...] | None = None
    """What it pays at single tokens, in place of `values`."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else is logged of it, as reward/NAME_..."""


class Source(Protocol):
    """A component as it runs: which model is active at a step, and what that says."""

    @property
    def is_dense(self) -> bool:
        """True when it pays at single tokens."""
        ...

    def active(self, step: int) -> str:
        """Artifact id of the model that scores at `step`; empty for what is no model."""
        ...

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """Score; what may fail without the run being at fault comes back as failed."""
        ...


class Direct:
    """A scorer that is asked in this process: whatever it raises is a failure of all that was asked, unless the user's files are wrong."""

    is_dense = False

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def active(self, step: int) -> str:
        """No model."""
        return ""

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """Its scores; all failed when it raised.

        Raises:
            ConfigError, DataError: what it was asked to read is wrong, and would be every time.
        """
        size = len(completions)
        try:
            values = np.asarray(self.scorer.score(prompts, completions), dtype=np.float64)
        except (ConfigError, DataError):
            raise
        except Exception as error:
            return Asked(
                values=np.full(size, np.nan),
                failed=np.ones(size, dtype=bool),
                reason=f"{type(error).__name__}: {error}",
            )
        assert values.shape == (size,), f"{self.scorer.name} gave {values.shape} scores for {size} completions"
        return Asked(values=values, failed=np.zeros(size, dtype=bool))


class Pooled:
    """A verifier in worker processes: one check that is too slow, crashes or raises is the failure of its own completion."""

    is_dense = False

    def __init__(self, scorer: PooledScorer) -> None:
        self.scorer = scorer

    def active(self, step: int) -> str:
        """No model."""
        return ""

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """Its scores, in the order of the completions."""
        outcomes = self.scorer.outcomes(prompts, completions)
        failed = np.array([bool(outcome.failure) for outcome in outcomes], dtype=bool)
        first = next((outcome for outcome in outcomes if outcome.failure), None)
        reason = "" if first is None else f"{first.failure}: {first.detail}"
        return Asked(
            values=np.array([outcome.score for outcome in outcomes], dtype=np.float64), failed=failed, reason=reason
        )
