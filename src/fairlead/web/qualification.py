"""The test of a language or skill: pairs with a known answer, of which a rater answers so many rightly before items that ask for it come.

The pairs are anchors that say which test they are of (`import --gold --test code`). A rater begins a test; its pairs come before anything
else and say that they are a test. When all are answered the result is an event: passed at `test_share` right of `test_items` (16 of 20 by
default), else not passed, and not again before a lead allows it. A skip is no right answer; a text that was too distressing is left out.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from fairlead.stats.intervals import Interval, wilson
from fairlead.stats.power import pass_probability
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Verdict
from fairlead.store.annotation.skills import Qualification, QualificationItem
from fairlead.store.annotation.steering import Anchor
from fairlead.web import matching
from fairlead.web.anchors import unseen_copy
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import record
from fairlead.web.needs import in_words
from fairlead.web.policy import Actor
from fairlead.web.projects import checked_reason, get_project
from fairlead.web.steering import steering_of

BEGUN, ENDED, WAIVED, AGAIN = "qualification.begun", "qualification.ended", "qualification.waived", "qualification.again"  # fmt: skip
KINDS = (BEGUN, ENDED, WAIVED, AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A test that a project has."""

    __test__ = False
    need: str
    num_pairs: int
    """That it can draw from."""
    num_items: int
    """That it asks; it cannot begin with fewer."""
    num_to_pass: int
    """Right answers, of all."""
    curve: tuple[tuple[float, float], ...]
    """(true share of right answers, chance to pass)."""

    @property
    def words(self) -> str:
        """Of what."""
        return in_words(self.need)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Where one person stands with one test."""

    number: int
    person_id: str
    name: str
    need: str
    state: str
    num_done: int
    num_items: int
    num_right: int
    num_used: int
    share: Interval
    """Of right answers; not before the end."""

    @property
    def words(self) -> str:
        """Of what."""
        return in_words(self.need)


def tests_of(rows: Rows, project_id: str) -> list[Test]:
    """All tests of a project by name."""
    settings = steering_of(get_project(rows, project_id))
    num, share = settings.test_items, settings.test_share
    pools = rows.execute(
        sa.select(Anchor.qualifies, sa.func.count()).where(*_pool(project_id)).group_by(Anchor.qualifies).order_by(Anchor.qualifies)
    ).all()  # fmt: skip
    curve = tuple((p, pass_probability(p, num_items=num, threshold=share)) for p in (0.5, 0.65, 0.8, 0.9))
    return [
        Test(need=need, num_pairs=num_pairs, num_items=num, num_to_pass=num_to_pass(share, num), curve=curve)
        for need, num_pairs in pools
    ]


def num_to_pass(share: float, num: int) -> int:
    """The fewest right answers of `num` that pass."""
    return -int(-(share * num - 1e-9) // 1)


def _pool(project_id: str, need: str = "") -> tuple[sa.ColumnElement[bool], ...]:
    is_of = Anchor.qualifies == need if need else Anchor.qualifies != ""
    return Anchor.project_id == project_id, Anchor.kind == "gold", ~Anchor.is_retired, is_of


def begin(database: Database, actor: Actor, project_id: str, need: str) -> int:
    """Begin a test; its pairs are the rater's next items. Beginning one that is open goes on with it.

    Raises:
        Refused: no such test, too few pairs, or it was taken already.
    """
    with database.write() as rows:
        tests = {test.need: test for test in tests_of(rows, project_id)}
        test = tests.get(need)
        if test is None:
            raise missing("This test")
        last = _last(rows, project_id, actor.person_id, need)
        if last is not None and last.state == "open":
            return last.number
        if last is not None and last.state != "again":
            raise Refused(409, "taken", "You have taken this test already. The lead can let you try again.")
        if test.num_pairs < test.num_items:
            raise Refused(409, "too_few", f"The test has {test.num_pairs} of the {test.num_items} pairs that it needs. Tell the lead.")  # fmt: skip
        pairs = _draw(rows, project_id, actor.person_id, need, num=test.num_items)
        share = steering_of(get_project(rows, project_id)).test_share
        content = {"qualification": _next_number(rows, project_id), "need": need, "share": share, "pairs": pairs}
        follow(rows, record(rows, BEGUN, person_id=actor.person_id, project_id=project_id, content=content))
        return content["qualification"]


def _draw(rows: Rows, project_id: str, person_id: str, need: str, *, num: int) -> list[list[str]]:
    """[item, answer] of random pairs; those that this rater has seen only where there are too few others, and then in a copy."""
    pool = [(row[0], row[1]) for row in rows.execute(sa.select(Anchor.root_id, Anchor.answer).where(*_pool(project_id, need)))]  # fmt: skip
    seen_items = sa.select(Assignment.item_id).where(Assignment.project_id == project_id, Assignment.person_id == person_id)  # fmt: skip
    seen = set(rows.scalars(sa.select(Anchor.root_id).where(Anchor.project_id == project_id, Anchor.item_id.in_(seen_items))))  # fmt: skip
    seen |= set(rows.scalars(sa.select(Anchor.root_id).where(Anchor.project_id == project_id, Anchor.root_id.in_(seen_items))))  # fmt: skip
    secrets.SystemRandom().shuffle(pool)
    chosen = sorted(pool, key=lambda pair: pair[0] in seen)[:num]
    secrets.SystemRandom().shuffle(chosen)
    return [[unseen_copy(rows, project_id, person_id, root), answer] for root, answer in chosen]


def _next_number(rows: Rows, project_id: str) -> int:
    newest = sa.select(sa.func.max(Qualification.number)).where(Qualification.project_id == project_id)
    return (rows.scalar(newest) or 0) + 1


def _last(rows: Rows, project_id: str, person_id: str, need: str) -> Qualification | None:
    of = (Qualification.project_id == project_id, Qualification.person_id == person_id, Qualification.need == need)
    return rows.scalar(sa.select(Qualification).where(*of).order_by(Qualification.number.desc()).limit(1))


def next_item(rows: Rows, project_id: str, person_id: str) -> str | None:
    """The next pair of a test that this rater has begun."""
    mine = sa.select(Assignment.id).where(Assignment.item_id == QualificationItem.item_id, Assignment.person_id == person_id)  # fmt: skip
    return rows.scalar(
        _items_of(project_id, person_id).with_only_columns(QualificationItem.item_id).where(Qualification.state == "open", ~mine.exists())
        .order_by(Qualification.number, QualificationItem.rank).limit(1)
    )  # fmt: skip


def _items_of(project_id: str, person_id: str) -> sa.Select[Qualification]:
    is_item = sa.and_(
        QualificationItem.project_id == Qualification.project_id, QualificationItem.number == Qualification.number
    )
    return sa.select(Qualification).join(QualificationItem, is_item).where(
        Qualification.project_id == project_id, Qualification.person_id == person_id
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an item stands in a test, for its rater."""

    words: str
    number: int
    """From 1."""
    num_items: int


def place_of(rows: Rows, assignment: Assignment) -> Place | None:
    """Of which test an item is, and its place in it; None for all other items."""
    found = rows.execute(
        _items_of(assignment.project_id, assignment.person_id).with_only_columns(Qualification.need, Qualification.number, QualificationItem.rank)
        .where(QualificationItem.item_id == assignment.item_id)
    ).first()  # fmt: skip
    if found is None:
        return None
    return Place(words=in_words(found[0]), number=found[2] + 1, num_items=_num_items(rows, assignment.project_id, found[1]))  # fmt: skip


def _num_items(rows: Rows, project_id: str, number: int) -> int:
    of = (QualificationItem.project_id == project_id, QualificationItem.number == number)
    return rows.scalar(sa.select(sa.func.count()).select_from(QualificationItem).where(*of)) or 0


def watch(rows: Rows, assignment: Assignment) -> None:
    """After an answer: end the test that it completes."""
    test = rows.scalar(
        _items_of(assignment.project_id, assignment.person_id).where(QualificationItem.item_id == assignment.item_id, Qualification.state == "open")
    )  # fmt: skip
    if test is None:
        return
    outcomes = _outcomes(rows, test)
    if len(outcomes) < _num_items(rows, test.project_id, test.number):
        return
    counted = [is_right for is_right in outcomes if is_right is not None]
    num, num_right = len(counted), sum(counted)
    content = {"qualification": test.number, "num": num, "num_right": num_right,
               "is_passed": num > 0 and num_right >= num_to_pass(test.share, num)}  # fmt: skip
    follow(rows, record(rows, ENDED, person_id=test.person_id, project_id=test.project_id, content=content))


def _outcomes(rows: Rows, test: Qualification) -> list[bool | None]:
    """Of the answered pairs: right? None for one that was too distressing."""
    found = rows.execute(
        sa.select(Verdict.verdict, Verdict.skip_reason, QualificationItem.expected)
        .join(QualificationItem, QualificationItem.item_id == Verdict.item_id)
        .where(QualificationItem.project_id == test.project_id, QualificationItem.number == test.number, Verdict.person_id == test.person_id)
    ).all()  # fmt: skip
    return [None if reason == "distressing" else verdict == expected for verdict, reason, expected in found]


def waive(database: Database, project_id: str, person_id: str, need: str, *, by: str, reason: str) -> None:
    """Let a rater in without the test, or after it was not passed, on record."""
    reason = checked_reason(reason, why="Letting a rater in without the test")
    with database.write() as rows:
        if need not in matching.tested_needs(rows, project_id):
            raise missing("This test")
        if "\0" in person_id or rows.get(Person, person_id) is None:
            raise invalid("This person is not there. Choose another.")
        content = {"qualification": _next_number(rows, project_id), "need": need, "by": by, "reason": reason}
        follow(rows, record(rows, WAIVED, person_id=person_id, project_id=project_id, content=content))


def let_try_again(database: Database, project_id: str, number: int, *, by: str) -> None:
    """After a test that was not passed."""
    with database.write() as rows:
        found = rows.get(Qualification, (project_id, number))
        if found is None:
            raise missing("This test")
        if found.state != "failed":
            raise Refused(
                409, "not_failed", "This test was not failed, or may be tried again already. Load the page again."
            )
        follow(rows, record(rows, AGAIN, person_id=by, project_id=project_id, content={"qualification": number}))


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event about tests what is true now."""
    content = event.content
    assert event.project_id is not None, f"event {event.number} names no project"
    number = content["qualification"]
    if event.kind in (BEGUN, WAIVED):
        assert event.person_id is not None, f"event {event.number} names no rater"
        is_begun = event.kind == BEGUN
        rows.add(Qualification(project_id=event.project_id, number=number, person_id=event.person_id, need=content["need"], num_used=0, num_right=0,
                               state="open" if is_begun else "waived", share=content["share"] if is_begun else 0.0, at=event.at))  # fmt: skip
        rows.flush()
        rows.add_all(QualificationItem(project_id=event.project_id, number=number, item_id=item, rank=rank, expected=answer)
                     for rank, (item, answer) in enumerate(content.get("pairs", [])))  # fmt: skip
        rows.flush()
        return
    found = rows.get(Qualification, (event.project_id, number))
    assert found is not None, f"event {event.number} names no test"
    if event.kind == AGAIN:
        found.state = "again"
        return
    found.state = "passed" if content["is_passed"] else "failed"
    found.num_used, found.num_right = content["num"], content["num_right"]


def exported(rows: Rows, project_id: str) -> Iterator[dict[str, Any]]:
    """Answers of tests for an export, raters under their pseudonyms: they are no votes on the pairs."""
    is_item = sa.and_(
        QualificationItem.project_id == Qualification.project_id, QualificationItem.number == Qualification.number
    )
    root = aliased(Item)
    found = rows.execute(
        sa.select(Qualification, QualificationItem, root.content_id, Person.pseudonym, Verdict.verdict).join(QualificationItem, is_item)
        .join(Anchor, Anchor.item_id == QualificationItem.item_id).join(root, root.id == Anchor.root_id)
        .join(Person, Person.id == Qualification.person_id)
        .join(Verdict, sa.and_(Verdict.item_id == QualificationItem.item_id, Verdict.person_id == Qualification.person_id))
        .where(Qualification.project_id == project_id).order_by(Person.pseudonym, Qualification.number, QualificationItem.rank)
    ).all()  # fmt: skip
    for test, item, content_id, pseudonym, label in found:
        yield {"item": content_id, "rater": pseudonym, "test": test.need, "attempt": test.number, "state": test.state, "expected": item.expected,
               "label": label, "correct": label == item.expected}  # fmt: skip


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(QualificationItem))
    rows.execute(sa.delete(Qualification))
    rows.expire_all()


def attempts(rows: Rows, project_id: str, person_id: str | None = None) -> list[Attempt]:
    """Newest first; of one person, or of all."""
    answered = (
        sa.select(sa.func.count()).select_from(QualificationItem)
        .join(Verdict, sa.and_(Verdict.item_id == QualificationItem.item_id, Verdict.person_id == Qualification.person_id))
        .where(QualificationItem.project_id == Qualification.project_id, QualificationItem.number == Qualification.number)
        .correlate(Qualification).scalar_subquery()
    )  # fmt: skip
    asked = sa.select(Qualification, Person.name, answered).join(Person, Person.id == Qualification.person_id)
    asked = asked.where(Qualification.project_id == project_id).order_by(Qualification.number.desc())
    if person_id is not None:
        asked = asked.where(Qualification.person_id == person_id)
    return [
        Attempt(number=found.number, person_id=found.person_id, name=name, need=found.need, state=found.state, num_done=num_done,
                num_items=_num_items(rows, project_id, found.number), num_right=found.num_right, num_used=found.num_used,
                share=wilson(found.num_right, found.num_used))
        for found, name, num_done in rows.execute(asked).all()
    ]  # fmt: skip
