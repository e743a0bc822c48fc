"""What a round of feedback looked like: how many judgments, how they fell, and whether the screen decided some of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead.core.gates import Gate, GateResult, percent, percent_interval, some
from fairlead.core.records import Judgment
from fairlead.core.summary import Figure, StageSummary, Table
from fairlead.feedback.simulated import RaterTraits
from fairlead.feedback.tasks import TaskPlan
from fairlead.stats.intervals import Interval, wilson

SIDE_BIAS = Gate(
    name="feedback.side_bias", question="Do raters choose a text, or the side that it stands on?", unit="share for the favoured side",
    direction="at_most", stop=None, warn=0.55,
    remedy="Look at the raters with a skewed left share, and aggregate with one_coin_side_bias",
    guide="", reason="The guides give no figure; sides are drawn at random, so honest votes fall half and half, and 55 % shows from 783 votes on",
)  # fmt: skip
GATES: tuple[Gate, ...] = (SIDE_BIAS,)

Verdicts = Sequence[Judgment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One finished round of feedback."""

    plan: TaskPlan
    judgments: Verdicts
    panel: Sequence[RaterTraits]
    gold: Mapping[str, float]
    """Gold score of a minus that of b, by task id."""
    duration_s: float
    ties: str
    cost_per_judgment: float
    """Dollars, for people."""


def left_share(judgments: Verdicts, *, confidence: float = 0.95) -> Interval:
    """Share of decided judgments that chose the completion on the left; those on pairs that nobody was shown have none."""
    decided = [j for j in judgments if j.verdict in ("a", "b") and j.has_side]
    num_left = sum((j.verdict == "a") != j.swapped for j in decided)
    return wilson(num_left, len(decided), confidence=confidence)


def judge_sides(judgments: Verdicts) -> GateResult:
    """Hold the share of the favoured side, whichever it is, against the gate."""
    left = left_share(judgments)
    if left.n == 0:
        return SIDE_BIAS.judge(0.0, n=0, note="No judgment names a winner")
    if left.value >= 0.5:
        return SIDE_BIAS.judge(left.value, low=left.low, high=left.high, n=left.n, note="Favoured side: left")
    return SIDE_BIAS.judge(1 - left.value, low=1 - left.high, high=1 - left.low, n=left.n, note="Favoured side: right")


def rater_table(judgments: Verdicts) -> Table:
    """What each rater did, as far as it is visible without knowing who is right."""
    by_rater: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_rater.setdefault(judgment.rater, []).append(judgment)
    # One false alarm in twenty rounds for the panel as a whole, not for each of its raters.
    confidence = 1 - 0.05 / max(1, len(by_rater))
    rows: list[tuple[str | float | int | None, ...]] = []
    for rater, own in sorted(by_rater.items()):
        left = left_share(own, confidence=confidence)
        is_skewed = left.n > 0 and not left.low <= 0.5 <= left.high
        shares = (left.value, left.low, left.high) if left.n else (None, None, None)
        num_ties = sum(j.verdict in ("tie", "both_bad") for j in own)
        rows.append((rater, len(own), *shares, num_ties, "favours a side" if is_skewed else ""))
    return Table(
        title="Raters of this round", columns=("rater", "judgments", "left share", "low", "high", "ties", "remark"), rows=tuple(rows),
        caption=f"Intervals at {100 * confidence:.2f} %, so that the whole panel gives one false alarm in twenty rounds.",
    )  # fmt: skip


def verdict_table(judgments: Verdicts) -> Table:
    """How the verdicts fell, in the canonical frame."""
    counts = Counter(j.verdict for j in judgments)
    total = len(judgments)
    rows = tuple(
        (name, counts[name], counts[name] / total) for name in ("a", "b", "tie", "both_bad", "skip") if counts[name]
    )
    return Table(title="Verdicts", columns=("verdict", "judgments", "share"), rows=rows,
                 caption="a and b are in canonical order, which says nothing about quality: their shares should be near each other.")  # fmt: skip


def summarise(round_: Collected) -> StageSummary:
    """Say what was collected, at what price, and how far to trust it."""
    num, plan, num_pairs = len(round_.judgments), round_.plan, len(round_.gold)
    accuracy = _accuracy(round_)
    headline = f"{some(num, 'judgment')} of {some(num_pairs, 'pair')} by {some(len(round_.panel), 'simulated rater')}"
    if accuracy.n:
        headline += f"; {percent(accuracy.value)} name the better completion by the gold score ({percent_interval(accuracy.low, accuracy.high)})"
    facts = {"num_tasks": num_pairs, "num_judgments": num, "num_prompts": plan.num_prompts, "num_prompts_identical": plan.num_identical,
             "num_prompts_single": plan.num_single, "ties": round_.ties, "rater_kind": "simulated"}  # fmt: skip
    return StageSummary(
        stage="feedback", headline=f"{headline}.", figures=_figures(round_, accuracy), verdicts=(judge_sides(round_.judgments),),
        tables=(verdict_table(round_.judgments), rater_table(round_.judgments)), notes=_notes(round_), cost_dollars=0.0,
        facts=facts | ({"single_vote_accuracy": accuracy.value} if accuracy.n else {}),
    )  # fmt: skip


def _figures(round_: Collected, accuracy: Interval) -> tuple[Figure, ...]:
    num, price = len(round_.judgments), round_.cost_per_judgment
    return (
        Figure(name="pairs rated", value=len(round_.gold), note="a count, exact"),
        Figure(name="judgments", value=num, note="a count, exact"),
        *_share("left share", left_share(round_.judgments)),
        *_share("single-vote accuracy against gold", accuracy, note="votes taken as independent; pairs with equal gold scores left out"),
        Figure(name="throughput", value=num / max(round_.duration_s, 1e-9), unit="judgments/s", note="one run of simulated raters"),
        Figure(name="price if people had judged", value=num * price, unit="dollars", note=f"at {price:.2f} dollars a judgment"),
    )  # fmt: skip


def _accuracy(round_: Collected) -> Interval:
    """Share of decided judgments on the side of the gold score."""
    decided = [
        (j, round_.gold[j.task_id]) for j in round_.judgments if j.verdict in ("a", "b") and round_.gold[j.task_id] != 0
    ]
    return wilson(sum((j.verdict == "a") == (difference > 0) for j, difference in decided), len(decided))


def _share(name: str, found: Interval, *, note: str = "") -> tuple[Figure, ...]:
    """One figure, or none where nothing was decided."""
    if not found.n:
        return ()
    return (Figure(name=name, value=found.value, low=found.low, high=found.high, n=found.n, unit="share", note=note),)


def _notes(round_: Collected) -> tuple[str, ...]:
    plan = round_.plan
    notes = [
        "Raters are simulated from a gold score: they cost nothing, and say nothing about what people prefer.",
        f"Ties: {round_.ties}.",
    ]
    if plan.num_identical:
        notes.append(
            f"{plan.num_identical:,} of {some(plan.num_prompts, 'prompt')} had only equal completions and gave no pair."
        )
    if plan.num_single:
        notes.append(
            f"{plan.num_single:,} of {some(plan.num_prompts, 'prompt')} had fewer than two completions and gave no pair."
        )
    if plan.num_repeats:
        notes.append(
            f"{some(plan.num_repeats, 'completion repeats', 'completions repeat')} the text of another one of the same prompt "
            f"and {'was' if plan.num_repeats == 1 else 'were'} left out."
        )
    num_unscored = len(plan.tasks) - len(round_.gold)
    if num_unscored:
        notes.append(
            f"{some(num_unscored, 'pair was', 'pairs were')} left out because the gold scorer gives them no score."
        )
    drifting = [t for t in round_.panel if t.half_life is not None]
    if drifting or any(t.lapse == 1 for t in round_.panel):
        notes.append(f"Built into the panel: {len(drifting)} rater(s) who drift, {sum(t.lapse == 1 for t in round_.panel)} who click at random, "
                     f"{sum(t.side_bias != 0 for t in round_.panel)} who favour a side. Whether the next stage finds them is its test.")  # fmt: skip
    return tuple(notes)
