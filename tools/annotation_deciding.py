"""A made-up ranking on which raters differ, for the pictures and checks of `annotation_pages`."""

from collections.abc import Callable, Sequence

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Assignment
from fairlead.web import importing, people, projects, queue, verdicts
from fairlead.web.answers import MAX_NOTE, Edit, Span


def fill_deciding(
    database: Database, item: importing.NewItem, raters: Sequence[people.Actor], *, rules: projects.Rules, say: Callable[[str], str]
) -> dict[str, str]:  # fmt: skip
    """Everybody ranks one item in another order, rates, marks a passage and edits the best; ids for the path of the page."""
    project = projects.create_project(database, "decide", votes_per_item=len(raters), calibration_items=0, rules=rules)
    importing.add_items(database, project.id, [item])
    num, item_id = len(item.completions), ""
    for number, who in enumerate(raters):
        assignment = queue.next_assignment(database, who, project.id)
        assert isinstance(assignment, Assignment), assignment
        item_id = assignment.item_id
        order = [assignment.shown.index(str((position + number) % num)) for position in range(num)]
        points = {criterion.name: criterion.points for criterion in rules.criteria}
        criteria = {name: tuple(1 + (place + number) % most for place in range(num)) for name, most in points.items()}
        ranking = tuple((place,) for place in order)
        sent = verdicts.Submission(
            key=verdicts.new_key(), choice="ranked", ranking=ranking, criteria=criteria, guideline_version=1, active_ms=40_000,
            spans=tuple(Span(place=order[-1], start=0, end=8, label="bad", note=note[:MAX_NOTE]) for note in say("too short").split("\n\n")),
            rationale=say("The order of the steps is right."),
            edit=Edit(place=order[0], text=say("1. Water it from below, in the morning.")),
        )  # fmt: skip
        verdicts.submit(database, who, assignment.id, sent)
    return {"decide": project.id, "ranking": item_id}
