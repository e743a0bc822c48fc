"""Signals that a policy is drifting, on a fixed prompt set against the reference policy, paired by prompt.

Pure functions over arrays, no torch. A level is compared with what the reference does on the same prompts and seeds, never with
an absolute ideal; floors on the effect are needed because with many samples every difference is significant.

Legend: P prompts of the fixed set, N completions, S optimiser steps; `reference` and `policy` arrays have the same prompts in the
same order.

Source: docs/stages/evals.md lists where each threshold comes from.

Example:
    before, after = measure_signals(reference_groups), measure_signals(policy_groups, kl=kl_by_prompt)
    for result in judge_signals(before, after):
        print(result.line())
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairlead.core.gates import Gate, GateResult
from fairlead.core.transcripts import num_written_tokens
from fairlead.evals.behaviours import Groups, words
from fairlead.stats.diversity import distinct_n, ngram_lift, repeated_ngram_share, self_bleu
from fairlead.stats.intervals import Interval, mcnemar, mean_interval, paired_interval, wilson

Values = npt.NDArray[np.float64]

KL = Gate(
    name="evals.kl", question="How far has the policy moved from the reference?", unit="nats/token", direction="at_most", stop=1.0, warn=0.5,
    remedy="Raise the KL coefficient or stop earlier",
    guide="Keep KL between 0.1 and 0.5 throughout.",
    reason="An upper band only: a low KL is healthy unless the reward is flat too (evals.collapse). 0.94 to 1.6 is where policies collapsed.",
)  # fmt: skip
COLLAPSE = Gate(
    name="evals.collapse", question="Is the policy stuck at the reference?", unit="nats/token", direction="at_least", stop=None, warn=0.005,
    remedy="Lower the KL coefficient to 0.05, raise the learning rate slightly, and check that rewards differ within a prompt",
    guide="When KL collapses to zero, lower the coefficient to 0.05 and raise the learning rate slightly.",
    reason="Only when the reward is flat after warm-up as well; a policy may improve at a small KL.",
)  # fmt: skip
LENGTH = Gate(
    name="evals.length", question="Do replies grow?", unit="share", direction="at_most", stop=1.0, warn=0.25,
    remedy="Add a length penalty with the reward model's measured slope, or balance the lengths of preferences",
    guide="Watch the average length; verbosity is the first hack.",
)  # fmt: skip
TRUNCATION = Gate(
    name="evals.truncation", question="Do replies break off at the token limit?", unit="share", direction="at_most", stop=0.20, warn=0.05,
    remedy="Penalise replies without an end of turn, or raise max_new_tokens",
)  # fmt: skip
SELF_BLEU = Gate(
    name="evals.self_bleu", question="Do replies to one prompt become alike?", unit="bleu", direction="at_most", stop=0.25, warn=0.10,
    remedy="Stop earlier or raise the sampling temperature; a stronger KL penalty does not bring diversity back",
    guide="Watch self-BLEU on a fixed prompt set.",
)  # fmt: skip
DISTINCT = Gate(
    name="evals.distinct", question="Do replies use fewer different word pairs?", unit="share", direction="at_least", stop=-0.50, warn=-0.25,
    remedy="Look for a template that the reward model likes; add preferences against it",
)  # fmt: skip
REPETITION = Gate(
    name="evals.repetition", question="Do replies repeat themselves?", unit="share", direction="at_most", stop=0.20, warn=0.05,
    remedy="Add preferences against repetition, or raise the KL coefficient",
)  # fmt: skip
ENTROPY = Gate(
    name="evals.entropy", question="Does the policy still explore?", unit="x the reference", direction="at_least", stop=0.15, warn=0.50,
    remedy="Stop at the best checkpoint, or raise the KL coefficient",
    reason="Stops only when the reward is flat as well: entropy is what the gain is paid with.",
)  # fmt: skip
SPREAD = Gate(
    name="evals.spread", question="Do scores still differ within a prompt?", unit="x the reference", direction="at_least", stop=0.05, warn=0.25,
    remedy="Nothing is left to learn from this reward: stop, or refresh the reward model on current samples",
)  # fmt: skip
BOILERPLATE = Gate(
    name="evals.boilerplate", question="Does one phrase spread through the replies?", unit="share", direction="at_most", stop=0.50, warn=0.20,
    remedy="Read replies with this phrase; add preferences against it",
)  # fmt: skip
GATES = (KL, COLLAPSE, LENGTH, TRUNCATION, SELF_BLEU, DISTINCT, REPETITION, ENTROPY, SPREAD, BOILERPLATE)

WARMUP_SHARE = 0.2
"""Of the steps; before that a policy is expected to sit at the reference."""
TRUNCATION_P = 0.001
"""More truncation than the reference's must be beyond chance before it warns."""
PHRASE_WORDS = 3
PHRASE_LIFT = 5.0
"""A phrase counts when it is this many times as frequent as in the reference's replies."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """What the monitors read about one policy on the fixed prompt set. Picklable."""

    num_tokens: Values
    """[P] mean length of a reply; in words where the engine gave no token ids."""
    is_cut: npt.NDArray[np.bool_]
    """[N] broke off at the limit."""
    self_bleu: Values
    """[P], NaN with one sample a prompt."""
    distinct: Values
    """[P] share of different bigrams among a prompt's replies."""
    repetition: Values
    """[P] mean share of 4-grams that a reply repeats."""
    texts: tuple[tuple[str, ...], ...]
    """[N] words of each reply."""
    kl: Values | None = None
    """[P] KL(policy || reference), estimator k1, nats a token; None when it was not measured."""
    entropy: Values | None = None
    """[P] mean entropy, nats a token."""
    scores: Values | None = None
    """[N] scores in the order of the completions, or None."""
    group_sizes: tuple[int, ...] = ()
    """[P] completions a prompt."""


def measure_signals(
    groups: Groups, *, kl: Values | None = None, entropy: Values | None = None, scores: Values | None = None
) -> Signals:
    """Measure what can be read off the texts, and carry along what only the trainer knows."""
    texts = [[tuple(words(c)) for c in group] for group in groups]
    has_ids = all(c.token_ids or not c.text for group in groups for c in group)
    length = [
        np.mean([num_written_tokens(c) if has_ids else len(t) for c, t in zip(g, ts, strict=True)])
        for g, ts in zip(groups, texts, strict=True)
    ]
    return Signals(
        num_tokens=np.array(length, dtype=np.float64), is_cut=np.array([c.finish_reason == "length" for group in groups for c in group], dtype=bool),
        self_bleu=self_bleu(texts), distinct=np.array([distinct_n(ts, 2) for ts in texts]),
        repetition=np.array([repeated_ngram_share(ts).mean() for ts in texts]), texts=tuple(t for ts in texts for t in ts),
        kl=kl, entropy=entropy, scores=scores, group_sizes=tuple(len(group) for group in groups),
    )  # fmt: skip


def judge_signals(
    reference: Signals, policy: Signals, *, is_reward_flat: bool = False, has_penalty: bool = False
) -> tuple[GateResult, ...]:
    """Judge everything that both sides carry; what was not measured has no line.

    Args:
        is_reward_flat: the reward no longer rises; then a low entropy stops.
        has_penalty: replies were drawn under a repetition penalty.
    """
    results = [
        judge_relative(LENGTH, reference.num_tokens, policy.num_tokens),
        judge_truncation(reference.is_cut, policy.is_cut),
        judge_change(REPETITION, reference.repetition, policy.repetition),
        judge_relative(DISTINCT, reference.distinct, policy.distinct),
        judge_boilerplate(reference.texts, policy.texts),
    ]
    if np.isfinite(policy.self_bleu).any():
        results.append(judge_change(SELF_BLEU, reference.self_bleu, policy.self_bleu))
    if policy.kl is not None:
        results.append(judge_kl(policy.kl, has_penalty=has_penalty))
    if reference.entropy is not None and policy.entropy is not None:
        results.append(judge_entropy(reference.entropy, policy.entropy, is_reward_flat=is_reward_flat))
    if reference.scores is not None and policy.scores is not None and min(policy.group_sizes, default=0) > 1:
        results.append(judge_spread(reference, policy))
    return tuple(results)


def judge_kl(kl: Values, *, has_penalty: bool = False) -> GateResult:
    """Judge the mean of [P] KL estimates; a mean clearly below 0 cannot be a KL and says so.

    A k1 mean is unbiased, so 3 standard errors below 0 means that sampling and scoring disagree; under a repetition penalty it is no
    KL, for replies are drawn from other probabilities than those that it compares.
    """
    mean = mean_interval(kl)
    if has_penalty:
        return _judge(KL, mean, note="Of replies drawn under a repetition penalty, by probabilities without it")
    is_impossible = mean.n > 1 and mean.value < 0 and float(np.std(kl, ddof=1)) * 3 / math.sqrt(mean.n) < -mean.value
    note = "Negative beyond chance: the engine's and the trainer's logprobs disagree" if is_impossible else ""
    result = _judge(KL, mean, note=note)
    return (
        dataclasses.replace(result, outcome="STOP", remedy="Compare logprobs of engine and trainer")
        if is_impossible
        else result
    )


def judge_collapse(kl_by_step: Values, reward_by_step: Values) -> GateResult:
    """Warn when after warm-up KL stays near 0 **and** the reward is flat.

    Args:
        kl_by_step: [S] nats a token.
        reward_by_step: [S] mean reward, without the KL penalty.
    """
    start = math.ceil(WARMUP_SHARE * len(kl_by_step))
    late_kl = mean_interval(np.asarray(kl_by_step)[start:])
    if not is_flat(np.asarray(reward_by_step)[start:]):
        gate = dataclasses.replace(COLLAPSE, warn=None)
        return _judge(gate, late_kl, note="The reward still moves")
    return _judge(COLLAPSE, late_kl, note="The reward is flat after warm-up")


def is_flat(values: npt.ArrayLike) -> bool:
    """Whether a straight line through [S] values has a slope within 2 standard errors of 0; too few to tell counts as flat.

    The error is that of ordinary least squares; neighbouring steps that share noise make it too small, so a drift is found early
    rather than late, and the alarm that hangs on flatness fires less often.
    """
    y = np.asarray(values, dtype=np.float64)
    if len(y) < 4:
        return True
    x = np.arange(len(y)) - (len(y) - 1) / 2
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    error = math.sqrt(float(rest @ rest) / (len(y) - 2) / float(x @ x))
    return abs(slope) <= 2 * error + 1e-12


def judge_change(gate: Gate, reference: Values, policy: Values) -> GateResult:
    """Judge the mean paired change, policy minus reference, in the signal's own unit."""
    is_kept = np.isfinite(reference) & np.isfinite(policy)
    return _judge(gate, paired_interval(reference[is_kept], policy[is_kept]), note=_dropped(is_kept))


def judge_relative(gate: Gate, reference: Values, policy: Values) -> GateResult:
    """Judge the mean paired change as a share of the reference's mean."""
    is_kept = np.isfinite(reference) & np.isfinite(policy)
    change = paired_interval(reference[is_kept], policy[is_kept])
    level = float(reference[is_kept].mean()) if is_kept.any() else 0.0
    if level <= 0:
        return gate.judge(math.nan, n=change.n, note="The reference's mean is 0")
    return _judge(
        gate, Interval(change.value / level, change.low / level, change.high / level, change.n), note=_dropped(is_kept)
    )


def judge_truncation(reference: npt.NDArray[np.bool_], policy: npt.NDArray[np.bool_]) -> GateResult:
    """Judge the share of [N] replies that break off; the warning needs more of them than the reference has, beyond chance."""
    share = wilson(int(policy.sum()), len(policy))
    if len(policy) == 0:
        return TRUNCATION.judge(math.nan, n=0)
    if len(reference) == len(policy) and (
        policy.mean() <= reference.mean() or mcnemar(reference, policy) >= TRUNCATION_P
    ):
        gate = dataclasses.replace(TRUNCATION, warn=None, stop=None)
        return _judge(
            gate, share, note=f"Reference {reference.mean():.3g}, not different beyond chance" if len(policy) else ""
        )
    return _judge(TRUNCATION, share)


def judge_entropy(reference: Values, policy: Values, *, is_reward_flat: bool) -> GateResult:
    """Judge the ratio of mean entropies; the stop holds only while the reward is flat."""
    gate = ENTROPY if is_reward_flat else dataclasses.replace(ENTROPY, stop=None)
    return _judge_ratio(gate, reference, policy)


def judge_spread(reference: Signals, policy: Signals) -> GateResult:
    """Judge the ratio of the median over prompts of the scores' standard deviation within a prompt."""
    before, after = _group_std(reference), _group_std(policy)
    if not np.median(before) > 0:
        return SPREAD.judge(math.nan, n=len(before), note="The reference's scores do not differ within a prompt")
    return SPREAD.judge(float(np.median(after) / np.median(before)), n=len(after), note="Ratio of medians, no interval")


def _group_std(signals: Signals) -> Values:
    assert signals.scores is not None
    parts = np.split(signals.scores, np.cumsum(signals.group_sizes)[:-1])
    return np.array([part.std(ddof=1) for part in parts])


def judge_boilerplate(reference: Sequence[Sequence[str]], policy: Sequence[Sequence[str]]) -> GateResult:
    """Judge the most frequent phrase of three words that is 5 times as frequent as in the reference's replies."""
    lifts = ngram_lift(policy, reference, orders=(PHRASE_WORDS,), top=len(policy) * 100)
    worst = max((found for found in lifts if found.lift >= PHRASE_LIFT), key=lambda found: found.share, default=None)
    if worst is None:
        return BOILERPLATE.judge(0.0, n=len(policy), note="No phrase of the policy's own")
    share = wilson(round(worst.share * len(policy)), len(policy))
    phrase = " ".join(str(word) for word in worst.ngram)
    return _judge(BOILERPLATE, share, note=f'"{phrase}", {worst.reference_share:.3g} in the reference')


def _judge_ratio(gate: Gate, reference: Values, policy: Values) -> GateResult:
    level = float(np.mean(reference)) if len(reference) else 0.0
    if level <= 0:
        return gate.judge(math.nan, n=len(reference), note="The reference's mean is 0")
    change = paired_interval(reference, policy)
    return _judge(gate, Interval(1 + change.value / level, 1 + change.low / level, 1 + change.high / level, change.n))


def _judge(gate: Gate, interval: Interval, *, note: str = "") -> GateResult:
    """An interval into a gate; without one (a single prompt) the value stands alone and the note says why."""
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        return gate.judge(interval.value, low=interval.low, high=interval.high, n=interval.n, note=note)
    return gate.judge(interval.value, n=interval.n, note=note or interval.note)


def _dropped(is_kept: npt.NDArray[np.bool_]) -> str:
    num = int((~is_kept).sum())
    return f"{num} prompts without a value left out" if num else ""
