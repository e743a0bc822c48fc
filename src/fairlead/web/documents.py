"""A guideline as a document that stands alone: its text, then in words what a verdict may be. Borderline examples are part of the text."""

import datetime as dt

from fairlead.store.annotation.schema import Guideline, Project
from fairlead.web.projects import Criterion, rules_of

_SCALES = {
    "graded": "One reply is much better, better or slightly better.",
    "binary": "One reply is better; by how much is not asked.",
}
_TIES = {
    "forced": "A choice is asked for: when both seem equal after a second reading, the slightly better one is chosen.",
    "allowed": 'Ties are allowed: "equally good" is a verdict.',
}
_RATIONALES = {
    "off": "No reason is asked for.",
    "optional": "A reason may be given.",
    "required": "Every verdict needs a reason of one or two sentences.",
}
_BOTH_BAD = {
    True: '"Both bad" is a verdict of its own, for two replies that nobody should get.',
    False: "When both are bad, the less bad one is chosen.",
}


def as_markdown(project: Project, guideline: Guideline) -> str:
    """The whole document."""
    day = dt.datetime.fromtimestamp(guideline.published_at / 1000, dt.UTC)
    rules = (
        _SCALES[guideline.scale],
        _TIES[guideline.ties],
        _BOTH_BAD[guideline.both_bad],
        _RATIONALES[guideline.rationale],
    )
    asked = rules_of(guideline)
    rules = (*rules, *(["Passages may be marked as good or bad."] if asked.spans else []),
             *(["The better reply may be written better."] if asked.edits else []))  # fmt: skip
    criteria = (
        ["## Ratings", "", "Each reply is rated by itself.", "", *map(_criterion, asked.criteria), ""]
        if asked.criteria
        else []
    )
    return "\n".join([
        guideline.text.rstrip(), "", "## What a verdict may be", "", *(f"- {rule}" for rule in rules), "", *criteria,
        f"Version {guideline.version} of the guideline of {project.name}, published {day.day} {day:%B %Y}.", "",
    ])  # fmt: skip


def _criterion(criterion: Criterion) -> str:
    ends = f" ({criterion.low or 'worst'} to {criterion.high or 'best'})" if criterion.low or criterion.high else ""
    return f"- **{criterion.name}**, 1 to {criterion.points}{ends}: {criterion.question}"
