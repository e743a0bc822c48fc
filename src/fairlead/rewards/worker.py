"""A worker process of rewards/pool.py: reads jobs from standard input, one JSON line each, and writes one line an answer.

    {"kind": "check", "spec": {...}, "prompt": {...}, "given": {completion}, "timeout_s": 10}  ->  {"event": "start"}, then {"score": 1.0}
    {"kind": "answer", "spec": {...}, "prompt": {...}, "given": {turn}, "timeout_s": 10}       ->  {"event": "start"}, then {"answer": {...}}
                                                                                               or {"error": "ValueError: ..."}

`start` is written once the verifier or environment is built, so that importing SymPy is not charged to the first completion. An alarm with
the default action ends the process some time after the limit, in case that the parent is no longer there to do it. It ends when its input does.

python -m fairlead.rewards.worker MAX_MEMORY_BYTES
"""

import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

from fairlead.core.protocols import Turn
from fairlead.core.records import Completion, Message, Prompt, content_hash, from_dict
from fairlead.rewards.environments.registry import Answerer, build_answerer, read_environment
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
    built: dict[str, Any] = {}
    _say(replies, {"event": "ready"})
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, _BUILD_S)
        _say(replies, _answer(job, built, replies))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(max_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > max_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _answer(job: Mapping[str, Any], built: dict[str, Any], replies: IO[str]) -> dict[str, Any]:
    """The result, or what went wrong: an error of a job is an answer too, and the worker goes on."""
    key = content_hash([job["kind"], job["spec"]])
    is_check = job["kind"] == "check"
    try:
        if key not in built:
            built[key] = (
                build_verifier(read_section(job["spec"], where="job"))
                if is_check
                else build_answerer(read_environment(job["spec"], where="job"))
            )
        prompt = from_dict(Prompt, job["prompt"])
        signal.setitimer(signal.ITIMER_REAL, job["timeout_s"] + GRACE_S)
        _say(replies, {"event": "start"})
        return _score(built[key], prompt, job["given"]) if is_check else _observe(built[key], prompt, job["given"])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]}


def _score(verifier: Verifier, prompt: Prompt, given: Mapping[str, Any]) -> dict[str, Any]:
    score = verifier.check(prompt, from_dict(Completion, dict(given)))
    return {"score": None if math.isnan(score) else score}


def _observe(answerer: Answerer, prompt: Prompt, given: Mapping[str, Any]) -> dict[str, Any]:
    messages = tuple(Message(**message) for message in given["messages"])
    found = answerer.answer(Turn(prompt=prompt, messages=messages, text=given["text"]))
    if found is not None and not math.isfinite(found.reward):
        raise ValueError(f"reward={found.reward} is no finite number")
    return {"answer": None if found is None else asdict(found)}


def _say(replies: IO[str], message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
