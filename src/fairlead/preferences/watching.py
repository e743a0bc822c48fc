"""Tables of a project that goes on: anchors to alarms, votes to rolling kappa, a pool to the next batch. What `fairlead votes drift`, `rolling`
and `choose` do.

Example:
    drift_of("anchors.csv").headline
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.gates import some
from fairlead.core.io import Row, read_rows, write_jsonl
from fairlead.core.summary import Figure, StageSummary, Table
from fairlead.formats import read_votes
from fairlead.formats.fields import number, truth
from fairlead.preferences.agreement import as_figure
from fairlead.stats.drift import bernoulli_cusum, bernoulli_run_length
from fairlead.stats.intervals import wilson
from fairlead.stats.rolling import rolling_alpha
from fairlead.stats.sampling import choose_pairs, pair_scores
from fairlead.stats.votes import votes_from_rows

MIN_ANCHORS = 30
"""Below this an alarm blocks nobody: the interval of a share of .80 spans .63 to .90 at 30."""


def drift_of(path: Path | str, *, p0: float = 0.80, p1: float = 0.65, h: float = 4.0) -> StageSummary:
    """Watch each rater's answers on anchors, in the order of the file.

    Raises:
        DataError: a column is missing, or `correct` is no truth value.
    """
    answers: dict[str, list[bool]] = {}
    for row in read_rows(path):
        answers.setdefault(_rater(row), []).append(_correct(row))
    rows: list[tuple[str | float | int | None, ...]] = []
    alarms: list[str] = []
    for name, correct in sorted(answers.items()):
        run, share = bernoulli_cusum(correct, p0=p0, p1=p1, h=h), wilson(sum(correct), len(correct))
        said = (
            ""
            if run.alarm is None
            else "alarm"
            if run.alarm + 1 >= MIN_ANCHORS
            else "alarm on few anchors: look, do not block"
        )
        alarms += [name] if run.alarm is not None else []
        rows.append((name, len(correct), share.value, share.low, share.high, float(run.path[-1]), said,
                     None if run.alarm is None else run.alarm + 1, None if run.change_point is None else run.change_point + 1))  # fmt: skip
    between = bernoulli_run_length(p0, p0=p0, p1=p1, h=h)
    return StageSummary(
        stage="votes", headline=f"{len(alarms)} of {some(len(answers), 'rater')} {'raises' if len(alarms) == 1 else 'raise'} an alarm"
        f"{': ' + ', '.join(alarms) if alarms else ''}.",
        figures=(Figure(name="anchors between false alarms", value=between, note="exact, of a rater who stays at p0"),
                 Figure(name="anchors until a fall to p1 is found", value=bernoulli_run_length(p1, p0=p0, p1=p1, h=h), note="exact"),
                 Figure(name="anchors until guessing is found", value=bernoulli_run_length(0.5, p0=p0, p1=p1, h=h), note="exact")),
        tables=(Table(title="Anchors", rows=tuple(rows),
                      columns=("rater", "anchors", "right", "low", "high", "sum", "remark", "alarm at", "changed at"),
                      caption="An alarm means recalibration, and a second rating of what came after the change; never silent discard."),),
        facts={"alarms": alarms},
    )  # fmt: skip


def _rater(row: Row) -> str:
    value = row.values.get("rater")
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(
            explain(
                f"{row.where}.rater", value, "is no rater", expected="columns rater and correct", remedy="Fix the row"
            )
        )
    return str(value).strip()


def _correct(row: Row) -> bool:
    found = truth(row.values.get("correct"))
    if found is None:
        raise DataError(
            explain(
                f"{row.where}.correct",
                row.values.get("correct"),
                "is no truth value",
                expected="true or false",
                remedy="Fix the row",
            )
        )
    return found


def rolling_of(
    path: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label", window: int = 100, seed: int = 0
) -> StageSummary:  # fmt: skip
    """Alpha of windows of items, in the order of the file."""
    points = rolling_alpha(
        votes_from_rows(read_votes(path, item=item, rater=rater, label=label)), seed=seed, window=window
    )
    if not points:
        raise DataError(
            explain(
                path,
                None,
                "has no item with two votes",
                expected="items that several raters share",
                remedy="Give raters the same items",
            )
        )
    newest = points[-1]
    words = {"pause": "pause: the whole interval lies below 0.4", "warn": "below 0.4, though luck may do it", "go_on": "goes on",
             "may_scale": "above 0.6: more votes may be bought", "not_measured": newest.alpha.note}[newest.action]  # fmt: skip
    rows = tuple(
        (p.first_item + 1, p.last_item + 1, _plain(p.alpha.value), _plain(p.alpha.low), _plain(p.alpha.high), p.action) for p in points
    )  # fmt: skip
    figures = (
        (as_figure("kappa of the newest window", "kappa", newest.alpha),) if math.isfinite(newest.alpha.value) else ()
    )
    return StageSummary(
        stage="votes", headline=f"The newest {newest.last_item - newest.first_item + 1} items: {words}.", figures=figures,
        tables=(Table(title="Kappa along the work", columns=("from item", "to", "kappa", "low", "high", "action"), rows=rows),),
        facts={"action": newest.action},
    )  # fmt: skip


def choose_batch(
    path: Path | str, out: Path | str, *, num_pairs: int, random_share: float = 0.2, seed: int = 0
) -> StageSummary:
    """Choose the next pairs of a pool and write them with their probabilities.

    The pool has a column `item`, and any of: p_first (reward model), votes_first and votes_second, slice, rated (how many of the
    slice were rated so far: the slice of a row with rated=true counts).
    """
    rows = list(read_rows(path))
    pool = [row for row in rows if truth(row.values.get("rated")) is not True]
    if not pool:
        raise DataError(
            explain(path, None, "holds only rated pairs", expected="pairs to choose from", remedy="Add pairs")
        )
    slices = [str(row.values.get("slice") or "all") for row in pool]
    rated = [str(row.values.get("slice") or "all") for row in rows if truth(row.values.get("rated")) is True]
    scores = pair_scores(
        p_first=_column(pool, "p_first"), votes=_votes(pool), slices=slices, rated=rated
    )  # fmt: skip
    chosen = choose_pairs(scores, num_pairs=num_pairs, seed=seed, random_share=random_share)
    batch = [
        {"item": pool[i].values.get("item"), "arm": "random" if is_random else "active", "p_inclusion": float(chosen.inclusion[i]),
         "score": float(scores[i])}
        for i, is_random in zip(chosen.pairs.tolist(), chosen.is_random.tolist(), strict=True)
    ]  # fmt: skip
    write_jsonl(out, batch)
    num_random = int(chosen.is_random.sum())
    return StageSummary(
        stage="votes", headline=f"{num_pairs:,} of {len(pool):,} pairs chosen, {num_random:,} of them at random.",
        figures=(Figure(name="least probability to be chosen", value=float(chosen.inclusion.min()), note="every pair could have been chosen"),),
    )  # fmt: skip


def _column(rows: list[Row], name: str) -> Any:
    """[N] numbers; None where no row has the column."""
    if not any(name in row.values for row in rows):
        return None
    found = [number(row.values.get(name)) for row in rows]
    wrong = next((row for row, value in zip(rows, found, strict=True) if value is None), None)
    if wrong is not None:
        raise DataError(
            explain(
                f"{wrong.where}.{name}",
                wrong.values.get(name),
                "is not a number",
                expected="a number in every row",
                remedy="Fix the row",
            )
        )
    return np.array(found, dtype=np.float64)


def _votes(rows: list[Row]) -> Any:
    first, second = _column(rows, "votes_first"), _column(rows, "votes_second")
    return None if first is None or second is None else np.stack([first, second], axis=1)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
