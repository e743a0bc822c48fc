"""The log of scored samples, scored.jsonl: what was written, what every component said of it, and which model said so.

One row a sample of the first `log_samples` of a round:
    {"step", "prompt_id", "prompt": [{"role", "content"}], "slice", "meta", "completion", "token_ids", "finish_reason",
     "total", "components": {name: score or null}, "active": {name: artifact id}, "dropped"}
and, of a reply of several turns, "reply_meta" (core/transcripts.py).

It lies in the stage's work folder while the policy trains and in the policy's artifact afterwards. A round that a resumed run makes
again replaces its rows.

Example:
    for row in read_scored(folder / SCORED_FILE): ...
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.io import write_jsonl
from fairlead.core.protocols import ComposedReward
from fairlead.core.records import Completion, FinishReason, Message, Prompt

SCORED_FILE = "scored.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredSample:
    """One row of the log."""

    step: int
    prompt: Prompt
    completion: Completion
    total: float
    """NaN when the sample was dropped."""
    components: dict[str, float]
    active: dict[str, str]


class ScoredLog:
    """Appends to scored.jsonl in one folder; keeps `num_samples` a round. One process writes."""

    def __init__(self, folder: Path, *, num_samples: int) -> None:
        self.path = folder / SCORED_FILE
        self.num_samples = num_samples
        self._has_cut = False

    def write(
        self, step: int, prompts: Sequence[Prompt], completions: Sequence[Completion], composed: ComposedReward
    ) -> None:
        """Append the first rows of a round."""
        if not self.num_samples:
            return
        self._cut(step)
        with self.path.open("a", encoding="utf-8") as file:
            for i in range(min(self.num_samples, len(completions))):
                row = _row(step, prompts[i], completions[i], composed, i)
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def _cut(self, step: int) -> None:
        """Before the first write: leave out what an interrupted run wrote from `step` on, and a line that it did not finish."""
        if self._has_cut:
            return
        self._has_cut = True
        if self.path.is_file():
            write_jsonl(self.path, (row for row in _read(self.path, is_live=True) if row["step"] < step))

    def save(self, out: Path) -> None:
        """Copy the log to where it stays."""
        if self.path.is_file():
            write_jsonl(out / SCORED_FILE, _read(self.path, is_live=False))


def _row(step: int, prompt: Prompt, completion: Completion, composed: ComposedReward, i: int) -> dict[str, Any]:
    return {
        "step": step, "prompt_id": prompt.id, "prompt": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "slice": prompt.slice, "meta": dict(prompt.meta), "completion": completion.text, "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason, "total": _number(composed.total[i]),
        "components": {name: _number(scores[i]) for name, scores in composed.components.items()},
        "active": dict(composed.active), "dropped": bool(composed.dropped[i]),
        **({"reply_meta": dict(completion.meta)} if completion.meta else {}),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _read(path: Path, *, is_live: bool) -> Iterator[dict[str, Any]]:
    """Rows; of a log that may be written at this moment a last line that is not complete is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if is_live and number == len(lines):
                return
            raise DataError(explain(f"{path}:{number}", None, "is not a row of a log of scored samples", expected="JSON as Fairlead wrote it",
                                    remedy="Remove that line")) from error  # fmt: skip


def read_scored(path: Path) -> Iterator[ScoredSample]:
    """The samples of a log, in the order in which they were scored.

    Raises:
        DataError: a row is damaged.
    """
    for number, row in enumerate(_read(path, is_live=True), start=1):
        try:
            prompt = Prompt(
                messages=tuple(Message(**m) for m in row["prompt"]),
                slice=row["slice"],
                meta=row["meta"],
                id=row["prompt_id"],
            )
            reason: FinishReason = row["finish_reason"]
            completion = Completion(prompt_id=prompt.id, text=row["completion"], model="policy", token_ids=tuple(row["token_ids"]),
                                    finish_reason=reason, sample_index=number, meta=row.get("reply_meta", {}))  # fmt: skip
            numbers = {name: math.nan if value is None else float(value) for name, value in row["components"].items()}
            total = math.nan if row["total"] is None else float(row["total"])
            yield ScoredSample(
                step=int(row["step"]),
                prompt=prompt,
                completion=completion,
                total=total,
                components=numbers,
                active=dict(row["active"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(explain(f"{path}: row {number}", None, f"is damaged ({error})", expected="a scored sample",
                                    remedy="Score another run's log")) from error  # fmt: skip
