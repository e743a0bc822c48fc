"""How fast training goes. The clock decides these numbers, so they are shown and summed up, and never part of an artifact's files.

Example:
    pace = Pace()
    metrics |= pace.lap(num_tokens=4096)    # {"tokens_per_s": 2140.0, "train/step_s": 1.91}
    pace.words()                            # "2,140 tokens/s, 1.91 s/step"
"""

import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from fairlead.core.gates import figure
from fairlead.telemetry.sinks import read_metrics

PHASES = {"generate": "rl/sample_tokens_per_s", "score": "rl/score_tokens_per_s", "update": "rl/train_tokens_per_s"}
"""Phases of an on-policy round, and the metrics of their tokens a second."""
NUM_LAPS = 20  # laps behind the words: enough to be steady, few enough to show that a machine became slower


class Pace:
    """Measures from lap to lap. One a training run; not thread-safe."""

    def __init__(self) -> None:
        self._laps: deque[tuple[float, int, float]] = deque(maxlen=NUM_LAPS)
        self._since = time.monotonic()

    def restart(self) -> None:
        """Begin the next lap now: what came before was not training (a checkpoint, a preflight)."""
        self._since = time.monotonic()

    def lap(self, *, num_tokens: float, num_steps: int = 1) -> dict[str, float]:
        """End a lap of `num_steps` optimiser steps; its tokens a second and seconds a step under their metric names."""
        now = time.monotonic()
        seconds, self._since = max(now - self._since, 1e-9), now
        self._laps.append((num_tokens, num_steps, seconds))
        return {"tokens_per_s": num_tokens / seconds, "train/step_s": seconds / num_steps}

    def words(self) -> str:
        """Mean over the last laps; empty before the first."""
        if not self._laps:
            return ""
        tokens, steps, seconds = (sum(column) for column in zip(*self._laps, strict=True))
        return f"{figure(tokens / seconds)} tokens/s, {figure(seconds / steps)} s/step"


def phase_words(rates: Mapping[str, float]) -> str:
    """Tokens a second by phase (a key of PHASES); empty where none is known."""
    known = [f"{phase} {figure(rates[phase])}" for phase in PHASES if phase in rates]
    return f"{', '.join(known)} tokens/s" if known else ""


def typical_pace(path: Path) -> dict[str, float]:
    """Medians of a metrics file that still holds the metrics of the clock, for a summary; empty when there is none."""
    curves = read_metrics(path) if path.is_file() else {}
    names = {"tokens_per_s": "tokens_per_s", "step_s": "train/step_s"}
    names |= {f"{phase}_tokens_per_s": name for phase, name in PHASES.items()}
    return {fact: statistics.median(v for _, v in curves[name]) for fact, name in names.items() if name in curves}
