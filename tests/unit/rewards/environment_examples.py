"""Environments of one's own, as a user would write them, with the faults that the pool must survive."""

import os
import time
from collections.abc import Mapping
from typing import Any

from fairlead.core.protocols import Observation, Turn


class Game:
    """Pays for a guess, ends when it is right, and does what the turn says."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.target = int(options.get("target", 7))

    def answer(self, turn: Turn) -> Observation | None:
        if "hang" in turn.text:
            time.sleep(60)
        if "crash" in turn.text:
            os._exit(3)
        if "raise" in turn.text:
            raise ValueError("no such move")
        if "nan" in turn.text:
            return Observation(text="?", reward=float("nan"))
        if not turn.text.isdigit():
            return None
        guess = int(turn.text)
        if guess == self.target:
            return Observation(text="right", is_done=True, reward=1.0)
        return Observation(text=f"no, after {len(turn.messages)} messages of {turn.prompt.id}", reward=-0.25)


def make_game(options: Mapping[str, Any]) -> Game:
    return Game(options)
