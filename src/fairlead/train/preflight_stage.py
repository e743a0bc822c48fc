"""Which checks a stage makes before its first step: one list a kind of training.

    rows          masks, prompts, BOS, template, terminators, vocabulary, lengths; when these hold
    forwards      dropout, layouts, model, and
    imitation     nothing more                                         (SFT)
    comparison    policy equals reference                              (the DPO family, KTO, BCO, AOT)
    reward        scores, head                                         (reward models)
    rollouts      scores, engine equals trainer, policy equals reference   (PPO)

Example:
    start = Start(stage="dpo", model=model, rows=train, bos_token_id=1, stop_token_ids=(2,), max_length=512, max_tokens=8192, rate=verdict)
    preflight = conclude(start, comparison_checks(start, compared), services)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fairlead.core.errors import TrainError, explain
from fairlead.core.gates import GateResult
from fairlead.core.services import Services
from fairlead.core.summary import Table
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.examples import Encoded
from fairlead.text.packing import Tree
from fairlead.train.preflight import (
    Check,
    check_appends,
    check_bos,
    check_budget,
    check_cuts,
    check_dropout,
    check_layout,
    check_masks,
    check_prompts,
    check_reference,
    check_sampling,
    check_scores,
    check_terminators,
    preflight_table,
    require_passed,
    sentence,
    spread,
)
from fairlead.train.preflight_model import check_head, check_model, check_positions, check_truncation, check_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """A stage before its first step."""

    stage: str
    """As errors name it."""
    model: CausalModel
    """What is trained."""
    rows: Encoded
    """What it is trained on."""
    bos_token_id: int | None
    stop_token_ids: Sequence[int]
    max_length: int
    """Longest prompt plus completion, tokens."""
    max_tokens: int | Literal["auto"]
    """Token budget of a forward; `auto` makes room for the largest row."""
    rate: GateResult | None = None
    """What the gate says of the learning rate."""
    heldout: Sequence[Tree] = ()
    """What is measured on."""
    learns_all: bool = False
    """The recipe asks for prompts to be learned too."""
    looked: Sequence[Tree] = field(init=False)
    """The rows that are looked at: all, or 10,000 of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "looked", spread(self.rows.trees)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What a stage reports of its checks."""

    table: Table
    verdicts: tuple[GateResult, ...] = ()
    """Of the learning rate, when it is not usual; else the table says enough."""


def row_checks(start: Start) -> list[Check]:
    """Those of the rows, without a forward: of rows that fail them a forward says nothing, or breaks off."""
    rows, trees, everything = start.rows, start.looked, [*start.looked, *spread(start.heldout)[0]]
    promptless = rows.num_promptless / max(1, len(rows.trees))
    checks = [check_masks(trees), check_bos(trees, start.bos_token_id)]
    checks += [] if start.learns_all else [check_prompts(trees, start.bos_token_id, promptless=promptless)]
    if rows.num_looked:  # what was sampled has no text that a template wrote, and may be cut
        checks += [check_appends(rows), check_terminators(trees, start.stop_token_ids, max_length=start.max_length)]
    checks += [check_vocabulary(start.model, everything), check_positions(start.model, everything)]
    checks += [check_truncation(rows.num_dropped, len(rows.trees)), check_cuts(rows)]
    return checks if start.max_tokens == "auto" else [*checks, check_budget(trees, start.max_tokens)]


def refuse_rows(start: Start, services: Services) -> None:
    """End the stage where its rows cannot be trained on, before a pass over all of them; all checks follow after it.

    Raises:
        TrainError: as `conclude`.
    """
    checks = row_checks(start)
    if _have_failed(checks):
        conclude(start, checks, services)


def _have_failed(checks: Sequence[Check]) -> bool:
    return any(check.result == "failed" for check in checks)


def _with_forwards(start: Start, more: Callable[[], list[Check]]) -> list[Check]:
    """The rows' checks, and when these hold those that take forwards."""
    checks = row_checks(start)
    if _have_failed(checks):
        return checks
    checks += [check_dropout(start.model, start.looked), *check_layout(start.model, start.looked)]
    return [*checks, *check_model(start.model, start.looked), *more()]


def imitation_checks(start: Start) -> list[Check]:
    """Of supervised fine-tuning."""
    return _with_forwards(start, list)


def comparison_checks(start: Start, compared: Sequence[Tree]) -> list[Check]:
    """Of direct methods.

    Args:
        compared: some trees with `ref_logprobs` of the start; empty for methods without a reference.
    """
    return _with_forwards(start, lambda: [check_reference(start.model, compared)] if len(compared) else [])


def reward_checks(start: Start, model: ScalarModel) -> list[Check]:
    """Of a reward model, whose trunk is `start.model`. A score is read at the terminator, so one must be there."""
    return _with_forwards(start, lambda: [check_scores(model, start.looked), check_head(model, start.looked)])


def rollout_checks(
    start: Start,
    reward: ScalarModel | None,
    *,
    temperature: float,
    is_first: bool,
    among_choices: bool = True,
    is_exact: bool = True,
    is_compared: bool = True,
) -> list[Check]:
    """Of on-policy methods, on the first round.

    Args:
        reward: None where no reward model scores.
        temperature: of sampling.
        is_first: no step was made yet, so the policy is its reference.
        among_choices: the reference was read among the tokens that had a chance, as a ratio needs it.
        is_exact: see `check_sampling`.
        is_compared: False where the engine draws from other probabilities than the trainer's, on purpose.
    """

    def more() -> list[Check]:
        model, trees = start.model, start.looked
        found = check_sampling(model, trees, temperature=temperature, is_exact=is_exact) if is_compared else []
        found = found if reward is None else [check_scores(reward, trees), *found]
        if not is_first:
            return found
        return [*found, check_reference(model, trees, temperature=temperature, among_choices=among_choices)]

    return _with_forwards(start, more)


def conclude(start: Start, checks: Sequence[Check], services: Services) -> Preflight:
    """Tell what was found, and end the stage when a check failed or the learning rate is refused.

    Raises:
        TrainError: for the first that failed; nothing was trained.
    """
    found = [*checks, *([] if start.rate is None else [_rate(start.rate)])]
    table = preflight_table(found)
    services.on_preflight(table)
    for check in checks:
        if check.result == "warned":
            services.say(sentence(start.stage, check))
    require_passed(start.stage, checks)
    if start.rate is not None and start.rate.is_blocking:
        raise TrainError(explain(f"{start.stage}: preflight", None, f"refuses the learning rate: {start.rate.note}",
                                 expected=f"a rate near that band ({start.rate.threshold} {start.rate.unit})",
                                 remedy=f"Set training.learning_rate, or pass --allow {start.rate.gate}=REASON"))  # fmt: skip
    verdicts = () if start.rate is None or start.rate.outcome == "PASS" else (start.rate,)
    return Preflight(table=table, verdicts=verdicts)


def _rate(verdict: GateResult) -> Check:
    return Check(name="the learning rate is usual", is_passed=verdict.outcome == "PASS", found=verdict.value,
                 limit=f"{verdict.threshold} {verdict.unit}", remedy=verdict.remedy, is_advice=not verdict.is_blocking)  # fmt: skip
