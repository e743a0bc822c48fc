"""Votes of people into the records of the feedback stage, from the file that the rating application exports."""

from collections.abc import Sequence
from pathlib import Path

from fairlead.core.errors import DataError, explain
from fairlead.core.gates import some
from fairlead.core.io import write_jsonl
from fairlead.core.records import Judgment
from fairlead.core.summary import Figure, StageSummary
from fairlead.feedback.collected import Comparison, read_collected
from fairlead.feedback.round import judge_sides, left_share, rater_table, verdict_table


def take_votes(path: Path, *, out: Path, cost_per_judgment: float) -> StageSummary:
    """Write prompts.jsonl, completions.jsonl, tasks.jsonl and judgments.jsonl, and say what the round looked like.

    Args:
        cost_per_judgment: dollars.
    Raises:
        DataError: the file is no export, its parts do not fit together, or it holds no vote.
    """
    comparisons = list(read_collected(path))
    judgments = [judgment for comparison in comparisons for judgment in comparison.judgments]
    if not judgments:
        raise DataError(
            explain(
                path,
                None,
                "holds no vote",
                expected="comparisons with judgments",
                remedy="Export again when people have voted",
            )
        )
    write_jsonl(out / "prompts.jsonl", {c.prompt.id: c.prompt for c in comparisons}.values())
    write_jsonl(out / "completions.jsonl", {text.id: text for c in comparisons for text in (c.a, c.b)}.values())
    write_jsonl(out / "tasks.jsonl", (comparison.task for comparison in comparisons))
    write_jsonl(out / "judgments.jsonl", judgments)
    return _summarise(comparisons, judgments, cost_per_judgment=cost_per_judgment)


def _summarise(comparisons: Sequence[Comparison], judgments: Sequence[Judgment], *, cost_per_judgment: float) -> StageSummary:  # fmt: skip
    raters = {judgment.rater for judgment in judgments}
    kinds = sorted({judgment.rater_kind for judgment in judgments})
    versions = sorted({judgment.guideline_version for judgment in judgments})
    has_ties = any(judgment.verdict in ("tie", "both_bad") for judgment in judgments)
    num_skips = sum(judgment.verdict == "skip" for judgment in judgments)
    left = left_share(judgments)
    cost = len(judgments) * cost_per_judgment
    notes = [f"Votes by raters of kind {', '.join(kinds)}, under guideline version {', '.join(versions)}."]
    if num_skips:
        notes.append(
            f"{num_skips:,} of {some(len(judgments), 'judgment')} "
            f"{'is a skip, which is no vote' if num_skips == 1 else 'are skips, which are no votes'}."
        )
    if len(versions) > 1:
        notes.append("The guideline changed during this round: agreement mixes its versions.")
    return StageSummary(
        stage="feedback", headline=f"{some(len(raters), 'rater')} gave {some(len(judgments), 'judgment')} on {some(len(comparisons), 'pair')}.",
        figures=(
            Figure(name="pairs rated", value=len(comparisons), note="a count, exact"),
            Figure(name="judgments", value=len(judgments), note="a count, exact"),
            *((Figure(name="left share", value=left.value, low=left.low, high=left.high, n=left.n, unit="share"),) if left.n else ()),
            Figure(name="price", value=cost, unit="dollars", note=f"at {cost_per_judgment:.2f} dollars a judgment"),
        ),
        verdicts=(judge_sides(judgments),), tables=(verdict_table(judgments), rater_table(judgments)), notes=tuple(notes), cost_dollars=cost,
        facts={"num_tasks": len(comparisons), "num_judgments": len(judgments), "num_prompts": len({c.prompt.id for c in comparisons}),
               "ties": "allowed" if has_ties else "forced", "rater_kind": "+".join(kinds)},
    )  # fmt: skip
