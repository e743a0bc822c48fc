"""An environment that answers whatever it is told, for policies that know no tools; named by recipes as `answering:make`."""

from collections.abc import Mapping
from typing import Any

from fairlead.core.protocols import Observation, Turn


class Answering:
    """Answers the first turns of a rollout, pays by their length, and fails on some when it is told to."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.fails_every = int(options.get("fails_every", 0))

    def answer(self, turn: Turn) -> Observation | None:
        if self.fails_every and len(turn.text) % self.fails_every == 0:
            raise ValueError("this turn cannot be answered")
        if len(turn.messages) >= 4:
            return None
        is_odd = len(turn.text) % 2 == 1
        return Observation(
            text="error: odd" if is_odd else "and then?",
            num_calls=1,
            num_errors=int(is_odd),
            reward=0.01 * len(turn.text),
        )


def make(options: Mapping[str, Any]) -> Answering:
    return Answering(options)
