"""A worker process of rewards/pool.py: reads checks from standard input, one JSON line each, and writes one line an answer.

    {"spec": {...}, "prompt": {...}, "completion": {...}, "timeout_s": 10}   ->   {"event": "start"}, then {"score": 1.0}
                                                                              or {"error": "ValueError: ..."}

`start` is written once the verifier is built, so that importing SymPy is not charged to the first completion. An alarm with the default
action ends the process some time after the limit, in case that the parent is no longer there to do it. It ends when its input does.

python -m fairlead.rewards.worker MAX_MEMORY_BYTES
"""

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from fairlead.core.records import Completion, Prompt, content_hash, from_dict
from fairlead.rewards.verifiers.registry import Verifier, build_verifier, read_section

GRACE_S = 5.0
_BUILD_S = 120.0
"""Importing SymPy takes one second on an idle machine."""
_MAX_ERROR_CHARS = 300


def main() -> None:
    """Serve until the input ends."""
    _limit_memory(int(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    verifiers: dict[str, Verifier] = {}
    _say(replies, {"event": "ready"})
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, _BUILD_S)
        _say(replies, _answer(job, verifiers, replies))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(max_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > max_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _answer(job: Mapping[str, Any], verifiers: dict[str, Verifier], replies: IO[str]) -> dict[str, Any]:
    """The score, or what went wrong: an error of a check is an answer too, and the worker goes on."""
    key = content_hash(job["spec"])
    try:
        if key not in verifiers:
            verifiers[key] = build_verifier(read_section(job["spec"], where="job"))
        prompt, completion = from_dict(Prompt, job["prompt"]), from_dict(Completion, job["completion"])
        signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + GRACE_S)
        _say(replies, {"event": "start"})
        score = verifiers[key].check(prompt, completion)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]}
    return {"score": None if math.isnan(score) else score}


def _say(replies: IO[str], message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
