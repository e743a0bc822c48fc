"""Did a new version of the guideline make raters agree more? Agreement under each version, and the change with its interval."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.stats.agreement import agreement_report
from fairlead.stats.intervals import Interval, difference_interval
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Guideline
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.dashboard.sheet import Sheet, sheet_of

NUM_RESAMPLES = 500
_CONTEXT = 2  # unchanged lines around a change


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """Votes under one version."""

    num_votes: int
    percent: Interval
    alpha: Interval
    percent_change: Interval | None
    """Against the version before; None for the first and where one of both is not measured."""
    alpha_change: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a difference."""

    kind: str
    """same, new, gone or gap."""
    text: str


def figures_of(database: Database, project_id: str) -> Kept[dict[int, VersionFigures]]:
    """By version; at most a minute old."""
    return keep(
        database,
        project_id,
        "versions",
        lambda: read_versions(sheet_of(database, project_id).value),
        kind=dict[int, VersionFigures],
    )


def read_versions(sheet: Sheet) -> dict[int, VersionFigures]:
    """Measure agreement among the votes of each version; votes of two versions are never compared."""
    found: dict[int, VersionFigures] = {}
    before: VersionFigures | None = None
    for version in sorted(set(sheet.versions.tolist())):
        votes = sheet.votes(sheet.versions == version)
        report = agreement_report(votes, seed=0, num_resamples=NUM_RESAMPLES)
        percent, alpha = report["percent_agreement"], report["krippendorff_alpha"]
        now = VersionFigures(
            num_votes=len(votes.items), percent=percent, alpha=alpha,
            percent_change=difference_interval(before.percent, percent) if before else None,
            alpha_change=difference_interval(before.alpha, alpha) if before else None,
        )  # fmt: skip
        found[version] = before = now
    return found


def difference(before: str, after: str) -> tuple[Line, ...]:
    """Changed lines with a little around them."""
    lines: list[Line] = []
    old, new = before.splitlines(), after.splitlines()
    for group in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_grouped_opcodes(_CONTEXT):
        if lines:
            lines.append(Line(kind="gap", text=""))
        for kind, a0, a1, b0, b1 in group:
            if kind == "equal":
                lines += [Line(kind="same", text=text) for text in old[a0:a1]]
            else:
                lines += [Line(kind="gone", text=text) for text in old[a0:a1]] + [
                    Line(kind="new", text=text) for text in new[b0:b1]
                ]
    return tuple(lines)


def rule_changes(before: Guideline, after: Guideline) -> tuple[str, ...]:
    """What changed beside the text."""
    names: Sequence[tuple[str, str]] = (
        ("scale", "Scale"),
        ("ties", "Ties"),
        ("both_bad", "Both bad"),
        ("rationale", "Reason"),
        ("spans", "Marked passages"),
        ("edits", "Edits"),
    )
    criteria = [", ".join(each["name"] for each in version.criteria) or "none" for version in (before, after)]
    changed = () if before.criteria == after.criteria else (f"Criteria: {criteria[0]} to {criteria[1]}",)
    return changed + tuple(
        f"{words}: {_word(getattr(before, name))} to {_word(getattr(after, name))}"
        for name, words in names
        if getattr(before, name) != getattr(after, name)
    )


def _word(value: object) -> str:
    return {True: "allowed", False: "not allowed"}.get(value, str(value)) if isinstance(value, bool) else str(value)
