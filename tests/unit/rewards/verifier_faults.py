"""A verifier whose check does what the reply says: score, sleep, loop, die, eat memory, raise, print. Imported by worker processes."""

import ctypes
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from fairlead.core.records import Completion, Prompt


class Faulty:
    """See the module. `mark` names a file that counts the attempts."""

    version = "1"

    def __init__(self, mark: str | None) -> None:
        self.mark = mark

    def validate(self, prompt: Prompt) -> bool:
        return True

    def check(self, prompt: Prompt, completion: Completion) -> float:
        if self.mark is not None:
            with Path(self.mark).open("a") as file:
                file.write(completion.text + "\n")
        word, _, value = completion.text.partition(" ")
        if word == "sleep":
            time.sleep(float(value))
        elif word == "regex":  # holds the interpreter's lock: no thread and no handler of the worker can end it
            re.match(r"(a+)+$", "a" * 60 + "b")
        elif word == "segfault":
            ctypes.string_at(0)
        elif word == "exit":
            os._exit(int(value))
        elif word == "memory":
            return float(len(bytearray(int(value))) > 0)
        elif word == "raise":
            raise ValueError(value)
        elif word == "recurse":
            return self.check(prompt, completion)
        elif word == "print":
            print('{"score": 99}', flush=True)
            os.write(1, b'{"score": 98}\n')
            sys.stderr.write("x" * 1_000_000)
        elif word == "die-once":
            assert self.mark is not None
            if Path(self.mark).read_text().splitlines().count(completion.text) == 1:
                os._exit(1)
        elif word == "environment":
            return float(value in os.environ)
        elif word == "nan":
            return float("nan")
        return len(completion.text) / 1000


def build(options: dict[str, Any]) -> Faulty:
    """What a recipe names."""
    if options.get("broken"):
        raise RuntimeError("cannot be built")
    return Faulty(options.get("mark"))
