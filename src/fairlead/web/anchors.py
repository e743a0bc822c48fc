"""Hidden anchors: made from known answers, served among a rater's items, checked when they are answered.

An anchor is an item of its own, so that a rater's vote on it is stored, changed and undone like any other and nothing tells it apart. A rater
who had an item before gets a copy of it, with the sides exchanged. Votes on anchors are kept, and are no votes on the pair.
"""

from collections.abc import Sequence
from typing import Literal, cast

import sqlalchemy as sa

from fairlead.feedback.anchors import AnchorChoice, AnchorRule, Gold, Rated, choose_anchor
from fairlead.feedback.tasks import derived_rng
from fairlead.store.annotation.database import Database, Rows, run
from fairlead.store.annotation.schema import Assignment, Event, Item, Progress, Verdict
from fairlead.store.annotation.steering import Anchor, Check, Rater, RoundItem
from fairlead.web.errors import invalid, missing
from fairlead.web.events import record
from fairlead.web.frames import is_swapped
from fairlead.web.importing import NewItem, insert_items
from fairlead.web.people import new_id
from fairlead.web.projects import get_project

MADE, RETIRED = "anchor.made", "anchor.retired"
KINDS = (RETIRED,)
Answer = Literal["a", "b", "tie"]
ANSWERS = ("a", "b", "tie")
MIN_AGREEING = 3
"""Votes that an agreed calibration item needs."""
MIN_SHARE = 0.8
"""Of them for one answer."""
MAX_GOLD = 10_000
"""Pairs of one file of known answers; a few hundred do."""
_OLD_DRAWS = 24
"""Earlier items of a rater that are looked at when one is to come again."""
_NUM_SERVED = 500
"""Anchors of a rater that are looked back on."""
_PROJECT_ID, _PERSON_ID = sa.bindparam("project"), sa.bindparam("person")
_GOLD = (
    sa.select(Anchor.root_id, Anchor.answer).join(Progress, Progress.item_id == Anchor.item_id)
    .where(Anchor.project_id == _PROJECT_ID, Anchor.kind == "gold", Anchor.qualifies == "", ~Anchor.is_retired,
           Progress.needs.in_(sa.bindparam("needs", expanding=True)))
)  # fmt: skip
_VOTE = (Assignment.position, Assignment.shown, sa.func.coalesce(Verdict.verdict, ""))
_IS_MINE = sa.and_(Assignment.project_id == _PROJECT_ID, Assignment.person_id == _PERSON_ID)
_SERVED = (
    sa.select(Anchor.root_id, *_VOTE).join(Check, Check.item_id == Anchor.item_id).join(Assignment, Assignment.id == Check.assignment_id)
    .outerjoin(Verdict, Verdict.assignment_id == Assignment.id)
    .where(Check.project_id == _PROJECT_ID, Check.person_id == _PERSON_ID).order_by(Check.position.desc()).limit(_NUM_SERVED)
)  # fmt: skip
_SEEN = (
    sa.select(Anchor.root_id, *_VOTE).join(Assignment, Assignment.item_id == Anchor.root_id)
    .outerjoin(Verdict, Verdict.assignment_id == Assignment.id).where(Anchor.project_id == _PROJECT_ID, Anchor.kind == "gold", _IS_MINE)
)  # fmt: skip
"""Known pairs that came without being asked as anchors."""
_OLD = (
    sa.select(Assignment.item_id, *_VOTE).join(Verdict, Verdict.assignment_id == Assignment.id).join(Item, Item.id == Assignment.item_id)
    .where(_IS_MINE, Assignment.position.in_(sa.bindparam("places", expanding=True)), Item.use != "anchor")
)  # fmt: skip


def make_anchor(database: Database, item_id: str, *, answer: str, by: str | None) -> str:
    """Serve an item to raters to see whether they answer as expected; return the anchor's own item.

    Raises:
        Refused: no such item, no such answer, or it is an anchor already.
    """
    with database.write() as rows:
        item = rows.get(Item, item_id)
        if item is None:
            raise missing("This item")
        return make_anchor_in(rows, item, answer=answer, by=by, source="lead")


def make_anchor_in(rows: Rows, item: Item, *, answer: str, by: str | None, source: str, qualifies: str = "") -> str:
    """`make_anchor` within a running transaction.

    Args:
        qualifies: the language or skill whose test it is of (`qualification`); empty for a hidden anchor.
    """
    if answer not in ANSWERS:
        raise invalid(f"{answer} is no answer of an anchor. Choose a, b or tie.")
    taken = sa.select(Anchor.item_id).where(Anchor.root_id == item.id, Anchor.kind == "gold", ~Anchor.is_retired)
    if rows.scalar(taken.limit(1)) is not None:
        raise invalid("This pair is an anchor already. Retire that one first.")
    own = item if item.use == "anchor" else _copy(rows, item)
    rows.add(Anchor(item_id=own.id, project_id=item.project_id, root_id=item.id, kind="gold", answer=answer, is_retired=False,
                    qualifies=qualifies))  # fmt: skip
    content = {"item": own.id, "root": item.id, "answer": answer, "source": source, "qualifies": qualifies}
    record(rows, MADE, person_id=by, project_id=item.project_id, content=content)
    return own.id


def _copy(rows: Rows, item: Item) -> Item:
    """The same texts as an item that is only ever an anchor."""
    made = Item(id=new_id(), project_id=item.project_id, content_id=f"copy-{new_id()}", prompt_id=item.prompt_id,
                completions=item.completions, use="anchor", rank=item.rank, needs=item.needs)  # fmt: skip
    rows.add(made)
    rows.flush()
    rows.add(Progress(item_id=made.id, project_id=item.project_id, use="anchor", rank=item.rank, num_votes=0, num_skips=0, pattern="",
                      num_extra=0, num_lacking=0, needs=item.needs))  # fmt: skip
    rows.flush()
    return made


def retire_anchor(database: Database, item_id: str, *, by: str) -> None:
    """Serve an anchor no more, and count what was said of it no more: its answer was wrong, or raters talk about it."""
    with database.write() as rows:
        anchor = rows.get(Anchor, item_id)
        if anchor is None or anchor.kind != "gold":
            raise missing("This anchor")
        follow(rows, record(rows, RETIRED, person_id=by, project_id=anchor.project_id, content={"item": item_id}))


def anchors_from_calibration(database: Database, project_id: str, *, by: str | None) -> int:
    """Make anchors of the pairs of calibration rounds on which nearly all raters agree; return how many are new."""
    with database.write() as rows:
        get_project(rows, project_id)
        of_rounds = sa.select(RoundItem.item_id).where(RoundItem.project_id == project_id)
        counts: dict[str, dict[str, int]] = {}
        for item_id, label, num in rows.execute(
            sa.select(Verdict.item_id, Verdict.verdict, sa.func.count())
            .where(Verdict.item_id.in_(of_rounds), Verdict.verdict != "skip").group_by(Verdict.item_id, Verdict.verdict)
        ).all():  # fmt: skip
            counts.setdefault(item_id, {})[label] = num
        taken = set(rows.scalars(sa.select(Anchor.root_id).where(Anchor.project_id == project_id, Anchor.kind == "gold")))  # fmt: skip
        agreed = {item_id: answer for item_id, labels in counts.items() if (answer := _agreed(labels)) and item_id not in taken}  # fmt: skip
        for item_id, answer in sorted(agreed.items()):
            item = rows.get(Item, item_id)
            assert item is not None, f"round item {item_id} is not there"
            make_anchor_in(rows, item, answer=answer, by=by, source="calibration")
        return len(agreed)


def add_gold(
    database: Database, project_id: str, pairs: Sequence[NewItem], *, by: str | None, qualifies: str = ""
) -> tuple[int, int]:
    """Make anchors of pairs whose answer their file says; return how many are new, and how many were anchors already.

    A pair that the project has already is served in a copy; the votes on the pair itself go on as before.

    Args:
        qualifies: the language or skill whose test they are to be; empty for hidden anchors.
    Raises:
        Refused: the source does not say which reply is better.
    """
    if any(pair.answer not in ANSWERS for pair in pairs):
        raise invalid("The source does not say which reply is better. Name a file of preferences.")
    if len(pairs) > MAX_GOLD:
        raise invalid(f"{len(pairs):,} pairs are more than anchors can be ({MAX_GOLD:,}). Take a sample.")
    with database.write() as rows:
        project = get_project(rows, project_id)
        given = {pair.content_id: pair for pair in pairs}
        same = sa.select(Item).where(Item.project_id == project_id, Item.content_id.in_(given))
        known = {item.content_id: item for item in rows.scalars(same)}
        new = [pair for name, pair in given.items() if name not in known]
        inserted = insert_items(rows, project, new, ["anchor"] * len(new))
        gold = (Anchor.project_id == project_id, Anchor.kind == "gold", ~Anchor.is_retired)
        taken = set(rows.scalars(sa.select(Anchor.root_id).where(*gold)))
        items = {row["content_id"]: rows.get_one(Item, row["id"]) for row in inserted} | known
        for name, item in items.items():
            if item.id not in taken:
                make_anchor_in(rows, item, answer=given[name].answer, by=by, source="file", qualifies=qualifies)
        num_taken = sum(item.id in taken for item in items.values())
        return len(items) - num_taken, num_taken


def _agreed(labels: dict[str, int]) -> str | None:
    total, answer = sum(labels.values()), max(labels, key=lambda label: labels[label])
    return answer if answer in ("a", "b") and total >= MIN_AGREEING and labels[answer] >= MIN_SHARE * total else None


def choose(rows: Rows, rater: Rater, rule: AnchorRule, *, needs: Sequence[str]) -> tuple[str, AnchorChoice] | None:
    """The item to serve this rater as an anchor now, and what is expected; None when there is none that would not be remembered.

    Args:
        needs: what items may ask for so that this rater gets them.
    """
    gold = run(rows, _GOLD, {"project": rater.project_id, "needs": needs}).all()
    choice = choose_anchor(
        rule, gold=[Gold(item=root, answer=cast(Answer, answer)) for root, answer in gold], history=_history(rows, rater, rule),
        key=(rater.project_id, rater.person_id, rater.num_given), now=rater.num_given,
    )  # fmt: skip
    return None if choice is None else (unseen_copy(rows, rater.project_id, rater.person_id, choice.item), choice)


def _history(rows: Rows, rater: Rater, rule: AnchorRule) -> list[Rated]:
    """What the choice needs of a rater's work: anchors served, known pairs seen otherwise, and a few earlier items."""
    rng = derived_rng("anchor history", rater.project_id, rater.person_id, rater.num_given)
    last = rater.num_given - rule.gap - 1
    places = sorted({int(place) for place in rng.integers(0, last, _OLD_DRAWS)}) if last > 0 else []
    asked = {"project": rater.project_id, "person": rater.person_id}
    found = {(row[1], row[0]): row for query in (_SERVED, _SEEN) for row in run(rows, query, asked)}
    found |= {(row[1], row[0]): row for row in run(rows, _OLD, {**asked, "places": places})}
    return [
        Rated(item=row[0], order=row[1], verdict=row[3], swapped=is_swapped(row[2])) for _, row in sorted(found.items())
    ]


def unseen_copy(rows: Rows, project_id: str, person_id: str, root_id: str) -> str:
    """An item with the texts of `root_id` that this rater has not had: one that is there, or a new copy."""
    mine = sa.select(Assignment.id).where(Assignment.item_id == Anchor.item_id, Assignment.person_id == person_id)
    found = rows.scalar(
        sa.select(Anchor.item_id)
        .where(Anchor.project_id == project_id, Anchor.root_id == root_id, ~mine.exists())
        .limit(1)
    )
    if found is not None:
        return found
    root = rows.get(Item, root_id)
    assert root is not None, f"anchor root {root_id} is not there"
    made = _copy(rows, root)
    rows.add(
        Anchor(
            item_id=made.id,
            project_id=made.project_id,
            root_id=root_id,
            kind="repeat",
            answer="",
            is_retired=False,
            qualifies="",
        )
    )
    rows.flush()
    return made.id


def serve(rows: Rows, assignment: Assignment, expected: str) -> None:
    """Note what is expected of an anchor that is handed out."""
    rows.flush()
    rows.add(Check(assignment_id=assignment.id, project_id=assignment.project_id, person_id=assignment.person_id, item_id=assignment.item_id,
                   position=assignment.position, expected=expected, is_right=None))  # fmt: skip


def check(rows: Rows, assignment: Assignment, progress: Progress, verdict: str | None) -> None:
    """Compare a verdict with the expected one, where the item is an anchor; a skip or a withdrawal says nothing."""
    found = rows.get(Check, assignment.id) if progress.use == "anchor" else None
    if found is not None:
        found.is_right = None if verdict in (None, "skip") else verdict == found.expected


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event about anchors what is true now."""
    anchor = rows.get(Anchor, event.content["item"])
    assert anchor is not None, f"event {event.number} names no anchor"
    rows.execute(sa.update(Anchor).where(Anchor.root_id == anchor.root_id).values(is_retired=True))


def forget_derived(rows: Rows) -> None:
    """Before a replay: no answer is known."""
    rows.execute(sa.update(Check).values(is_right=None))
    rows.execute(sa.update(Anchor).values(is_retired=False))


def checks_since(rows: Rows, project_id: str, person_id: str, *, position: int) -> list[tuple[int, bool]]:
    """(position, is_right) of a rater's answered anchors after a position, in order; retired ones are left out."""
    found = rows.execute(_answered(project_id).where(Check.person_id == person_id, Check.position > position)).all()
    return [(row.position, bool(row.is_right)) for row in found]


def checks_of_all(rows: Rows, project_id: str) -> list[tuple[str, int, bool]]:
    """(person, position, is_right) of all raters' answered anchors, each rater's in order; retired ones are left out."""
    return [(row.person_id, row.position, bool(row.is_right)) for row in rows.execute(_answered(project_id))]


def _answered(project_id: str) -> sa.Select[str, int, bool | None]:
    return (
        sa.select(Check.person_id, Check.position, Check.is_right).join(Anchor, Anchor.item_id == Check.item_id)
        .where(Check.project_id == project_id, Check.is_right.is_not(None), ~Anchor.is_retired).order_by(Check.person_id, Check.position)
    )  # fmt: skip
