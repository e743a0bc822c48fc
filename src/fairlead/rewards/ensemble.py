"""What the members of an ensemble say together: normalised scores, their mean, their disagreement, and whether it tells errors.

Legend: B completions, M members, P held-out pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.io import write_jsonl
from fairlead.core.records import Score
from fairlead.core.summary import Figure, Table
from fairlead.models.heads import Readout
from fairlead.stats.intervals import Interval, wilson

Floats = npt.NDArray[np.float64]
_PARTS = ("all name one side", "split", "smallest spread", "middle", "largest spread")


def fit_readout(outputs: Floats, names: Sequence[str]) -> Readout:
    """Normalise every member on [B, M] outputs and weigh all alike."""
    size = outputs.shape[1]
    stds = np.maximum(outputs.std(axis=0), 1e-6)
    return Readout(names=tuple(names), means=tuple(map(float, outputs.mean(axis=0))), stds=tuple(map(float, stds)),
                   weights=(1 / size,) * size, is_ensemble=True)  # fmt: skip


def combined(readout: Readout, outputs: Floats) -> Floats:
    """[B] mean of the normalised scores."""
    return readout.scores(torch.from_numpy(outputs)).numpy()


def disagreement(readout: Readout, outputs: Floats) -> Floats:
    """[B] standard deviation of the members' normalised scores."""
    return readout.disagreement(torch.from_numpy(outputs)).numpy()


def write_scores(path: Path, readout: Readout, outputs: Floats, *, ids: Sequence[str]) -> None:
    """A Score a reference sample: the mean of the members' normalised scores, and in `meta` each of these and their disagreement."""
    z = readout.normalised(torch.from_numpy(outputs)).numpy()
    rows = zip(ids, combined(readout, outputs), disagreement(readout, outputs), z, strict=True)
    write_jsonl(path, (
        Score(completion_id=name, scorer="reward ensemble", value=float(value),
              meta={"disagreement": float(spread), "members": [float(x) for x in members]})
        for name, value, spread, members in rows
    ))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnsembleReport:
    """How the members compare, for the report."""

    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: dict[str, float] = field(default_factory=dict[str, float])


def member_accuracies(outputs: Floats) -> list[Interval]:
    """Accuracy of every member on held-out pairs [2P, M] in the order chosen, rejected."""
    margins = outputs[0::2] - outputs[1::2]
    right = (margins > 0) + 0.5 * (margins == 0)
    return [wilson(float(column.sum()), len(column)) for column in right.T]


def members_table(outputs: Floats, sizes: Sequence[int], *, whole: Interval, label: str) -> Table:
    """Every member of held-out pairs [2P, M] beside what they make together."""
    rows = [
        (f"member {i + 1}", size, a.value, a.low, a.high, a.n)
        for i, (a, size) in enumerate(zip(member_accuracies(outputs), sizes, strict=True))
    ]
    rows.append((label, sum(sizes), whole.value, whole.low, whole.high, whole.n))
    return Table(
        title="Members of the ensemble", columns=("model", "trained on", "held-out accuracy", "low", "high", "pairs"), rows=tuple(rows),
        caption="Trained on counts pairs or rankings, repeats included.",
    )  # fmt: skip


def report(readout: Readout, reference: Floats, heldout: Floats) -> EnsembleReport:
    """Disagreement on reference samples and held-out pairs, and accuracy where members agree and where they do not.

    Args:
        reference: [B, M] outputs, empty when there are none.
        heldout: [2P, M] outputs in the order chosen, rejected.
    """
    z = readout.normalised(torch.from_numpy(heldout)).numpy()
    margins = z[0::2] - z[1::2]
    parts = accuracy_by_disagreement(margins)
    spread = disagreement(readout, reference if len(reference) else heldout)
    where = "reference samples" if len(reference) else "held-out completions"
    correlation = _mean_correlation(reference if len(reference) else heldout)
    figures = (
        Figure(name="disagreement", value=float(spread.mean()), n=len(spread), unit="sd", note=f"sd of the members' normalised scores, {where}"),
        Figure(name="correlation of members", value=correlation, n=len(spread), note=f"mean Pearson correlation of two members, {where}"),
    )  # fmt: skip
    table = Table(
        title="Does disagreement tell where it errs?", columns=("members", "disagreement", "accuracy", "low", "high", "pairs"),
        rows=tuple((name, sd, a.value, a.low, a.high, a.n) for name, sd, a in parts),
        caption="Held-out pairs by whether all members order them alike, and in thirds by the standard deviation of the members' margins.",
    )  # fmt: skip
    facts = {"disagreement": float(spread.mean()), "member_correlation": correlation}
    return EnsembleReport(figures=figures, tables=(table,), facts=facts)


def accuracy_by_disagreement(margins: Floats) -> list[tuple[str, float, Interval]]:
    """Accuracy of the mean of [P, M] margins: where all members name one side and where they split, and in thirds by their spread.

    Spread grows with the margin itself, so the thirds alone could look like disagreement that does no harm.
    """
    spread, mean = margins.std(axis=1), margins.mean(axis=1)
    right = (mean > 0) + 0.5 * (mean == 0)
    is_one = np.abs(np.sign(margins).sum(axis=1)) == margins.shape[1]
    parts = [np.flatnonzero(is_one), np.flatnonzero(~is_one)]
    parts += np.array_split(np.argsort(spread, kind="stable"), 3)
    return [
        (name, float(spread[part].mean()), wilson(float(right[part].sum()), len(part)))
        for name, part in zip(_PARTS, parts, strict=True)
        if len(part)
    ]


def _mean_correlation(outputs: Floats) -> float:
    """Over all pairs of members; 0 when a member is constant."""
    if (outputs.std(axis=0) == 0).any():
        return 0.0
    matrix = np.atleast_2d(np.corrcoef(outputs.T))
    return float(matrix[np.triu_indices(len(matrix), k=1)].mean())
