"""Prompts, replies and the real data that the tests of verifiers share."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.records import Completion, Message, Prompt
from fairlead.rewards.verifiers import VerifierBase, build_verifier
from fairlead.rewards.verifiers.registry import read_section


def prompt(text: str = "question", **meta: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), meta=meta)


def reply(text: str, **fields: Any) -> Completion:
    return Completion(prompt_id="p-1", text=text, model="m", **fields)


def section(kind: str, **options: Any) -> VerifierBase:
    return read_section({"kind": kind, **options}, where="test")


def check(kind: str, meta: dict[str, Any], text: str, **options: Any) -> float:
    """Score of one reply by the bare verifier."""
    return build_verifier(section(kind, **options)).check(prompt(**meta), reply(text))


def real_rows(name: str) -> list[dict[str, Any]]:
    """Rows of a file of the data collection; skips where it is absent."""
    folder = os.environ.get("FAIRLEAD_DATA")
    if folder is None or not (path := Path(folder) / "verifiable" / name).is_file():
        pytest.skip(f"FAIRLEAD_DATA does not hold verifiable/{name}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
