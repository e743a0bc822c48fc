"""Behaviours: what a policy's replies do, measured by prompt, and what changed between two policies.

A behaviour is declared before training (evals/criteria.py freezes it). Afterwards the same prompts are answered by both
policies; each gives one number a prompt, and the difference is taken prompt by prompt. Verdicts: improved, regressed,
unchanged (shown to be within the margin, not merely "no difference found"), inconclusive.

Legend: P prompts, N completions; `groups` are the completions of one policy, one tuple for each prompt, in a fixed order.

Example:
    before, after = measure(hedging, prompts, sft_groups), measure(hedging, prompts, ppo_groups)     # [P] each
    compare(hedging, before, after, model="ppo").verdict        # "improved"
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, EvalResult, Prompt
from fairlead.core.transcripts import num_written_tokens, written_text
from fairlead.stats import intervals
from fairlead.stats.diversity import distinct_n, repeated_ngram_share, self_bleu
from fairlead.stats.numerics import student_tail

Values = npt.NDArray[np.float64]
Groups = Sequence[Sequence[Completion]]
Metric = Literal["score", "phrases", "regex", "finished", "words", "tokens", "distinct", "self_bleu", "repetition"]
Verdict = Literal["improved", "regressed", "unchanged", "inconclusive"]

HEDGES = ("maybe", "perhaps", "possibly", "probably", "might", "somewhat", "i guess", "i suppose", "sort of", "kind of", "hard to say",
          "not sure", "it depends", "in a way", "more or less", "could be", "who knows", "hard to tell")  # fmt: skip
REFUSALS = (
    "i cannot",
    "i can't",
    "i'm sorry",
    "i am sorry",
    "i'm unable",
    "i am unable",
    "as an ai",
    "i won't",
    "i will not",
)
UNITS: Mapping[Metric, str] = {"score": "score", "phrases": "share", "regex": "share", "finished": "share", "words": "words",
                               "tokens": "tokens", "distinct": "share", "self_bleu": "bleu", "repetition": "share"}  # fmt: skip


class Behaviour(Config):
    """One behaviour with the change that would count, declared before anybody trains."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Short name, unique among the criteria."""
    direction: Literal["up", "down", "flat"]
    """Where it should go. `flat` is shown by two one-sided tests (TOST) within `min_effect`."""
    metric: Metric
    """What is measured on each reply: score of a scorer; share of replies with one of `phrases`, with `pattern`, or that end by
    themselves; length in words or tokens; different n-grams among all n-grams of a prompt's replies, their self-BLEU (0 to 1, two or
    more replies a prompt); n-grams repeated in a reply."""
    min_effect: float = Field(gt=0)
    """Smallest change that matters, in the metric's unit (0.05 of a share is 5 points); for `flat` the margin."""
    is_relative: bool = False
    """`min_effect` is a share of the mean before (0.25: a quarter)."""
    guard: bool = False
    """Protects instead of aims: not counted as success, and a gate of its own stops when it regresses."""
    scorer: str = ""
    """For `score`: name of the scorer; empty when there is only one."""
    phrases: tuple[str, ...] = ()
    """For `phrases`: words or phrases, matched as whole words without case."""
    pattern: str = ""
    """For `regex`: a regular expression, found anywhere."""
    ngram: int = Field(default=2, ge=1, le=8)
    """For `distinct` and `repetition`: length of the n-grams in words."""

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        wants = {"phrases": bool(self.phrases), "regex": bool(self.pattern)}
        if not wants.get(self.metric, True):
            name = "phrases" if self.metric == "phrases" else "pattern"
            raise ValueError(
                explain(name, None, f"is missing for metric {self.metric}", expected="a value", remedy="Add it")
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(explain("pattern", self.pattern, f"is not a regular expression ({error})", expected="Python's syntax",
                                     remedy="Fix it")) from error  # fmt: skip
        if self.guard is False and self.direction == "flat":
            raise ValueError(
                explain(
                    "direction",
                    "flat",
                    "is no aim",
                    expected="guard: true for what must stay",
                    remedy="Set guard: true",
                )
            )
        return self

    @property
    def unit(self) -> str:
        """Unit of the metric."""
        return UNITS[self.metric]


def group_completions(
    prompts: Sequence[Prompt], completions: Sequence[Completion]
) -> tuple[tuple[Completion, ...], ...]:
    """Sort completions to their prompts, in order of the sample index.

    Raises:
        DataError: a prompt has no completion, or a completion belongs to none of the prompts.
    """
    found: dict[str, list[Completion]] = {p.id: [] for p in prompts}
    for completion in completions:
        if completion.prompt_id not in found:
            raise DataError(explain("completions", completion.prompt_id, "answers none of the prompts", expected="the evaluation prompts",
                                    remedy="Complete the same prompts with both policies"))  # fmt: skip
        found[completion.prompt_id].append(completion)
    empty = next((key for key, group in found.items() if not group), None)
    if empty is not None:
        raise DataError(
            explain(
                "completions", empty, "has no completion", expected="one or more for every prompt", remedy="Complete it"
            )
        )
    return tuple(tuple(sorted(group, key=lambda c: c.sample_index)) for group in found.values())


def measure(
    behaviour: Behaviour, prompts: Sequence[Prompt], groups: Groups, *, scorers: Mapping[str, Scorer] | None = None
) -> Values:
    """Measure one behaviour of one policy.

    Args:
        groups: [P] completions of each prompt.
        scorers: by name, for metric `score`.
    Returns:
        [P] mean over the replies to each prompt; NaN where it is not defined (a scorer that does not apply).
    """
    if behaviour.metric == "score":
        return _mean_scores(_find_scorer(behaviour, scorers or {}), prompts, groups)
    if behaviour.metric == "distinct":
        return np.array([distinct_n([words(c) for c in group], behaviour.ngram) for group in groups])
    if behaviour.metric == "self_bleu":
        return self_bleu([[words(c) for c in group] for group in groups])
    value = _reply_metric(behaviour)
    return np.array([float(np.mean([value(c) for c in group])) for group in groups], dtype=np.float64)


def _find_scorer(behaviour: Behaviour, scorers: Mapping[str, Scorer]) -> Scorer:
    name = behaviour.scorer or (next(iter(scorers)) if len(scorers) == 1 else "")
    if name not in scorers:
        raise ConfigError(explain(f"evals.{behaviour.id}.scorer", name, f"is not known{nearest(name, scorers)}",
                                  expected="one of " + (", ".join(scorers) or "(no scorer is configured)"), remedy="Name one"))  # fmt: skip
    return scorers[name]


def _mean_scores(scorer: Scorer, prompts: Sequence[Prompt], groups: Groups) -> Values:
    flat = [(prompt, c) for prompt, group in zip(prompts, groups, strict=True) for c in group]
    scores = scorer.score([p for p, _ in flat], [c for _, c in flat])
    ends = np.cumsum([len(group) for group in groups])
    return np.array([float(part.mean()) for part in np.split(scores, ends[:-1])], dtype=np.float64)


def _reply_metric(behaviour: Behaviour) -> Callable[[Completion], float]:
    if behaviour.metric == "phrases":
        pattern = phrase_pattern(behaviour.phrases)
        return lambda c: float(bool(pattern.search(written_text(c).replace("\u2019", "'"))))
    if behaviour.metric == "regex":
        regex = re.compile(behaviour.pattern)
        return lambda c: float(bool(regex.search(written_text(c))))
    simple: dict[str, Callable[[Completion], float]] = {
        "finished": lambda c: float(c.finish_reason == "stop"),
        "words": lambda c: float(len(words(c))),
        "tokens": _num_tokens,
        "repetition": lambda c: float(repeated_ngram_share([words(c)], n=behaviour.ngram)[0]),
    }
    return simple[behaviour.metric]


def _num_tokens(completion: Completion) -> float:
    if completion.text and not completion.token_ids:
        raise DataError(explain("completion", completion.id, "has no token ids", expected="completions of our own sampler",
                                remedy="Measure words instead"))  # fmt: skip
    return float(num_written_tokens(completion))


def phrase_pattern(phrases: Sequence[str]) -> re.Pattern[str]:
    """A pattern that finds any of the phrases as whole words, without case, across line breaks."""
    parts = [r"\s+".join(re.escape(word) for word in phrase.split()) for phrase in phrases]
    return re.compile(r"(?<![\w'])(?:" + "|".join(parts) + r")(?![\w'])", re.IGNORECASE)


def words(completion: Completion) -> list[str]:
    """Lower-cased words of a reply: letters, digits and inner apostrophes; signs separate."""
    return re.findall(r"\w+(?:'\w+)*", written_text(completion).lower().replace("\u2019", "'"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """A paired difference with what the verdict needs."""

    before: float
    after: float
    interval: intervals.Interval
    p_moved: float
    """Two-sided, that nothing moved: McNemar for yes/no outcomes, Student's t otherwise."""
    p_flat: float
    """TOST, that the change lies outside the margin."""
    margin: float
    num_dropped: int


def compare(behaviour: Behaviour, before: Values, after: Values, *, model: str, alpha: float = 0.05) -> EvalResult:
    """Compare one behaviour of two policies on the same prompts; see `compare_all` for several."""
    return compare_all([behaviour], {behaviour.id: before}, {behaviour.id: after}, model=model, alpha=alpha)[0]


def compare_all(
    behaviours: Sequence[Behaviour],
    before: Mapping[str, Values],
    after: Mapping[str, Values],
    *,
    model: str,
    alpha: float = 0.05,
) -> tuple[EvalResult, ...]:
    """Compare behaviours, with Holm's correction over all of them.

    improved: moved in the declared direction (adjusted p < alpha) by at least `min_effect`.
    regressed: moved the other way by at least `min_effect`; for flat, either way. Here p is not adjusted: overlooking harm costs
        more than a false alarm.
    unchanged: TOST shows the change within `min_effect` (adjusted p < alpha).
    inconclusive: none of these; more prompts are needed.

    Args:
        before: [P] by behaviour id.
        after: [P] by behaviour id, the same prompts in the same order.
    Returns:
        One result each; `effect`, `low` and `high` are after minus before in the metric's unit, the interval at 1 - alpha. `meta`
        has direction, min_effect, margin, guard, p, p_adjusted, num_dropped (prompts without a value on one side).
    """
    differences = [_difference(b, before[b.id], after[b.id], alpha=alpha) for b in behaviours]
    moved = intervals.holm([d.p_moved for d in differences])
    flat = intervals.holm([d.p_flat for d in differences])
    results = []
    for b, d, p_moved, p_flat in zip(behaviours, differences, moved, flat, strict=True):
        claim = float(p_flat if b.direction == "flat" else p_moved)
        meta = {"direction": b.direction, "metric": b.metric, "min_effect": b.min_effect, "margin": d.margin, "guard": b.guard,
                "p": d.p_flat if b.direction == "flat" else d.p_moved, "p_adjusted": claim, "num_dropped": d.num_dropped}  # fmt: skip
        results.append(EvalResult(model=model, behaviour=b.id, before=d.before, after=d.after, effect=d.interval.value,
                                  low=d.interval.low, high=d.interval.high, num_prompts=d.interval.n, unit=b.unit, meta=meta,
                                  verdict=_verdict(b, d, p_moved=float(p_moved), p_flat=float(p_flat), alpha=alpha)))  # fmt: skip
    return tuple(results)


def _difference(behaviour: Behaviour, before: Values, after: Values, *, alpha: float) -> _Difference:
    if len(before) != len(after):
        raise DataError(explain(f"evals.{behaviour.id}", f"{len(before)} and {len(after)} prompts", "cannot be paired",
                                expected="the same prompts before and after", remedy="Measure both on one prompt file"))  # fmt: skip
    is_kept = np.isfinite(before) & np.isfinite(after)
    old, new = np.asarray(before)[is_kept], np.asarray(after)[is_kept]
    if len(old) < 2:
        raise DataError(explain(f"evals.{behaviour.id}", f"{len(old)} prompts", "are too few to compare", expected=">= 2 with a value on both sides",
                                remedy="Add evaluation prompts"))  # fmt: skip
    change = new - old
    margin = behaviour.min_effect * (abs(float(old.mean())) if behaviour.is_relative else 1.0)
    interval = intervals.paired_interval(old, new, confidence=1 - alpha)
    return _Difference(before=float(old.mean()), after=float(new.mean()), interval=interval, p_moved=_p_moved(old, new),
                       p_flat=intervals.tost(change, margin), margin=margin, num_dropped=int((~is_kept).sum()))  # fmt: skip


def _p_moved(before: Values, after: Values) -> float:
    if np.isin(before, (0.0, 1.0)).all() and np.isin(after, (0.0, 1.0)).all():
        return intervals.mcnemar(before == 1, after == 1)
    change = after - before
    if np.ptp(change) < 1e-12 * max(1.0, float(np.abs(change).max())):  # no spread: t is 0/0 or infinite
        return 1.0 if abs(float(change.mean())) < 1e-12 else 0.0
    t = abs(float(change.mean())) / (float(change.std(ddof=1)) / math.sqrt(len(change)))
    return 2 * student_tail(t, len(change) - 1)


def _verdict(behaviour: Behaviour, d: _Difference, *, p_moved: float, p_flat: float, alpha: float) -> Verdict:
    effect = d.interval.value
    sign = {"up": 1.0, "down": -1.0, "flat": 0.0}[behaviour.direction]
    is_large = abs(effect) >= d.margin
    if is_large and sign * effect > 0 and p_moved < alpha:
        return "improved"
    if is_large and sign * effect <= 0 and d.p_moved < alpha:
        return "regressed"
    return "unchanged" if p_flat < alpha else "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often the policy beat the reference on a prompt."""

    interval: intervals.Interval
    """Share of prompts won, a tie counted half, with Wilson's interval."""
    num_wins: int
    num_ties: int
    num_losses: int
    p: float
    """Sign test that wins and losses are equally likely."""


def win_rate(
    before_scores: npt.ArrayLike, after_scores: npt.ArrayLike, *, confidence: float = 0.95, tie_below: float = 1e-9
) -> WinRate:
    """Count prompts on which the policy scores higher than the reference.

    Args:
        before_scores: [P] of the reference; prompts with NaN on either side are left out.
        after_scores: [P] of the policy.
        tie_below: differences up to this are ties.
    """
    change = np.asarray(after_scores, dtype=np.float64) - np.asarray(before_scores, dtype=np.float64)
    change = change[np.isfinite(change)]
    wins, losses = int((change > tie_below).sum()), int((change < -tie_below).sum())
    ties = len(change) - wins - losses
    share = intervals.wilson(wins + ties / 2, len(change), confidence=confidence)
    return WinRate(
        interval=share, num_wins=wins, num_ties=ties, num_losses=losses, p=intervals.sign_test(wins, losses, ties=ties)
    )
