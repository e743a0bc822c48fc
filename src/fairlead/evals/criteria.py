"""Criteria of success: declared before training, frozen by a hash, judged afterwards.

A reward that rises while no declared behaviour moves is not a success but the first sign of reward hacking, so this gate looks
at behaviours only. What must not get worse (guards) has gates of its own. A change of the criteria, or of the evaluation prompts,
after they were frozen is refused.

Example:
    frozen = freeze(config, eval_prompts_sha256=hash_file(path))          # before the first optimiser step; kept in the run
    check_frozen(frozen, config, eval_prompts_sha256=hash_file(path))     # at evaluation: refuses what was changed since
    gates = (judge_criteria(results), *judge_guards(results))
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fairlead.core.config import Config, resolved
from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.gates import Gate, GateResult
from fairlead.core.io import require_file
from fairlead.core.records import EvalResult, content_hash
from fairlead.evals.behaviours import HEDGES, Behaviour
from fairlead.stats.intervals import Interval, paired_interval

SCHEMA = 1

CRITERIA = Gate(
    name="evals.criteria", question="Did the behaviours that were declared before training improve?", unit="share",
    direction="at_least", stop=0.01, warn=1.0,
    remedy="Read the samples of the behaviours that did not move, then collect preferences about them",
    guide="Define success before the start; a reward that rises with no behaviour moving is a failure.",
)  # fmt: skip
CAPABILITY = Gate(
    name="evals.capability", question="Did anything get worse that must not?", unit="points", direction="at_most", stop=5.0, warn=1.0,
    remedy="Raise the KL coefficient, mix in pretraining data, or interpolate towards the reference policy",
    guide="Watch capability benchmarks throughout, not only at the end.",
    reason="Warns above max(2 standard errors, 1 point): a stable benchmark moves by less from run to run.",
)  # fmt: skip
GUARD = Gate(
    name="evals.guard", question="Did anything leave the range that was declared for it?", unit="x the allowed change", direction="at_most",
    stop=2.0, warn=1.0, remedy="Look at the samples; a penalty on this quantity or a stronger KL penalty holds it",
)  # fmt: skip
GATES = (CRITERIA, CAPABILITY, GUARD)


def default_behaviours() -> tuple[Behaviour, ...]:
    """What is declared when the recipe declares nothing: a better score, less hedging, and nothing else bent.

    The score is the gold rule or the held-out scorer where one is configured. Its aim (0.2) is small against a standard deviation
    of about 1; hedging by 5 points is what a reader notices.
    """
    return (
        Behaviour(id="score", direction="up", metric="score", min_effect=0.2),
        Behaviour(id="hedging", direction="down", metric="phrases", phrases=HEDGES, min_effect=0.05),
        Behaviour(id="finished", direction="up", metric="finished", min_effect=0.01, guard=True),
        Behaviour(id="length", direction="flat", metric="words", min_effect=0.25, is_relative=True, guard=True),
    )


class CriteriaConfig(Config):
    """What counts as success."""

    behaviours: tuple[Behaviour, ...] = Field(default_factory=default_behaviours, min_length=1)
    """Aims (up, down) and guards; names are unique and at least one is an aim."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Level of the tests, after Holm's correction over the behaviours."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [b.id for b in self.behaviours]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                explain("behaviours", twice, "is declared twice", expected="unique ids", remedy="Rename one")
            )
        if all(b.guard for b in self.behaviours):
            raise ValueError(explain("behaviours", ", ".join(names), "are all guards", expected="one or more with direction up or down",
                                     remedy="Declare what training is for"))  # fmt: skip
        return self


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes."""
    path = Path(path)
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def freeze(config: CriteriaConfig, *, eval_prompts_sha256: str) -> dict[str, Any]:
    """Fix criteria and evaluation prompts before training.

    Returns:
        Plain data {schema, criteria, eval_prompts_sha256, sha256}; `sha256` covers the other three.
    """
    content = {"schema": SCHEMA, "criteria": resolved(config), "eval_prompts_sha256": eval_prompts_sha256}
    return {**content, "sha256": content_hash(content, num_chars=64)}


def check_frozen(
    frozen: Mapping[str, Any], config: CriteriaConfig, *, eval_prompts_sha256: str, where: str = "evals"
) -> None:
    """Refuse criteria or prompts that are not the frozen ones.

    Raises:
        DataError: the frozen record itself was edited, or the evaluation prompts differ.
        ConfigError: a criterion differs; names the first difference.
    """
    content = {key: value for key, value in frozen.items() if key != "sha256"}
    if content_hash(content, num_chars=64) != frozen.get("sha256") or set(content) != {
        "schema",
        "criteria",
        "eval_prompts_sha256",
    }:
        raise DataError(explain(f"{where}.frozen", frozen.get("sha256"), "does not match its content", expected="the record made before training",
                                remedy="Restore it, or start a new run"))  # fmt: skip
    for path, was, now in _differences(content["criteria"], resolved(config), where):
        raise ConfigError(explain(path, now, "was changed after training began", expected=f"{was} as frozen",
                                  remedy="Set it back, or start a new run with the new criteria"))  # fmt: skip
    if eval_prompts_sha256 != content["eval_prompts_sha256"]:
        raise DataError(explain(f"{where}.prompts", eval_prompts_sha256[:12], "was changed after training began",
                                expected=f"the file with SHA-256 {content['eval_prompts_sha256'][:12]}... as frozen",
                                remedy="Restore the file, or start a new run"))  # fmt: skip


def _differences(was: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*was, *now)):
            yield from _differences(was.get(key), now.get(key), f"{path}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _differences(old, new, f"{path}[{i}]")
    elif was != now:
        yield path, was, now


def judge_criteria(results: Sequence[EvalResult], *, reward_change: Interval | None = None) -> GateResult:
    """Judge the declared aims: all improved is PASS, some is WARN, none is STOP.

    Args:
        results: of all behaviours; guards are left to `judge_guards`.
        reward_change: change of the optimised reward, with interval. When it rose and no aim improved, the note says what that
            means.
    """
    aims = [r for r in results if not r.meta.get("guard")]
    num_improved = sum(r.verdict == "improved" for r in aims)
    missed = ", ".join(f"{r.behaviour} {r.verdict}" for r in aims if r.verdict != "improved")
    note = f"Not improved: {missed}" if missed else ""
    if aims and num_improved == 0 and reward_change is not None and reward_change.low > 0:
        note = f"The reward rose while no declared behaviour improved ({missed}): reward hacking until shown otherwise"
    share = num_improved / len(aims) if aims else math.nan
    return CRITERIA.judge(share, n=len(aims), note=note)


def judge_guards(results: Sequence[EvalResult]) -> tuple[GateResult, ...]:
    """Judge each guard: shares in points by `CAPABILITY`, anything else in multiples of its declared margin by `GUARD`."""
    return tuple(_judge_guard(r) for r in results if r.meta.get("guard"))


def _judge_guard(result: EvalResult) -> GateResult:
    harm, low, high = _harm(result)
    if result.unit == "share" and result.meta["direction"] != "flat":
        return _judge_points(100 * harm, 100 * low, 100 * high, n=result.num_prompts, note=f"Guard {result.behaviour}")
    margin = float(result.meta["margin"])
    note = f"Guard {result.behaviour}: {result.before:.3g} to {result.after:.3g} {result.unit}"
    if margin == 0:  # a relative margin of a quantity that was 0
        margin = 1.0
        note += "; the margin is relative to 0, so the change is shown as it is"
    return GUARD.judge(harm / margin, low=low / margin, high=high / margin, n=result.num_prompts, note=note)


def _harm(result: EvalResult) -> tuple[float, float, float]:
    """How much worse: (value, low, high); for a flat guard the distance from no change."""
    direction = result.meta["direction"]
    if direction == "down":
        return result.effect, result.low, result.high
    if direction == "up":
        return -result.effect, -result.high, -result.low
    nearest_end = 0.0 if result.low <= 0 <= result.high else min(abs(result.low), abs(result.high))
    return abs(result.effect), nearest_end, max(abs(result.low), abs(result.high))


def judge_capability(before: npt.ArrayLike, after: npt.ArrayLike, *, task: str) -> GateResult:
    """Judge a capability task on the same items: the drop in points, with its paired interval.

    Args:
        before: [N] right or wrong (or a score in [0, 1]) of the reference.
        after: [N] the same items of the policy.
    """
    drop = paired_interval(np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64))
    if not math.isfinite(drop.low):
        return CAPABILITY.judge(math.nan, n=drop.n, note=f"{task}: {drop.note}")
    return _judge_points(100 * drop.value, 100 * drop.low, 100 * drop.high, n=drop.n, note=task)


def _judge_points(drop: float, low: float, high: float, *, n: int, note: str) -> GateResult:
    # half the 95 % interval is about 2 standard errors
    gate = dataclasses.replace(CAPABILITY, warn=min(max((high - low) / 2, 1.0), 5.0))
    return gate.judge(drop, low=low, high=high, n=n, note=note)
