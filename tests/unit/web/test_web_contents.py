"""Texts of items and versions of guidelines are read once, and only what was committed is kept; a vote and the next item take few statements."""

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.store.annotation.schema import Item
from fairlead.web import importing, projects, steering, verdicts
from fairlead.web.contents import Kept, content_of


def _asked(database, work) -> list[str]:
    """Statements of a block."""
    found: list[str] = []

    def note(_connection, _cursor, statement, *_):
        found.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
    return [each for each in found if not each.startswith("BEGIN")]


def test_the_texts_of_an_item_are_read_once(database, project):
    with database.read() as rows:
        item = rows.scalars(sa.select(Item).limit(1)).one()
        expected = importing.texts_of(rows, item)

    def look() -> None:
        with database.read() as rows:
            found = content_of(rows, item.id)
        assert (found.prompt, found.completions, found.use) == (expected.prompt, expected.completions, item.use)

    assert len(_asked(database, look)) == 2
    assert _asked(database, look) == []


def test_what_a_write_sees_is_not_kept_for_it_may_be_undone(database, project):
    with pytest.raises(ZeroDivisionError), database.write() as rows:
        importing.put_items(rows, projects.get_project(rows, project.id), pairs(1, prefix="new"), by=None)
        new = rows.scalars(sa.select(Item.id).order_by(Item.rank).where(Item.project_id == project.id)).all()
        for item_id in new:
            content_of(rows, item_id)
        raise ZeroDivisionError
    with database.read() as rows:
        gone = set(new) - set(rows.scalars(sa.select(Item.id)))
        assert len(gone) == 1
        with pytest.raises(AssertionError, match="is not there"):
            content_of(rows, gone.pop())


def test_a_version_that_was_undone_is_not_taken_for_the_one_that_came_after(database, project):
    with pytest.raises(ZeroDivisionError), database.write() as rows:
        number = projects._publish(rows, project.id, text="undone", rules=projects.Rules(), by=None)
        rows.flush()
        assert projects.current_guideline(rows, project.id).text == "undone"
        raise ZeroDivisionError
    assert projects.publish_guideline(database, project.id, text="kept", rules=projects.Rules(), by=None) == number
    for _ in range(2):
        with database.read() as rows:
            assert projects.current_guideline(rows, project.id).text == "kept"


def test_what_was_asked_for_least_recently_is_forgotten_first():
    kept = Kept[str, int](2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert [kept.get(name) for name in "abc"] == [1, None, 3]


def test_a_vote_and_the_next_item_take_few_statements(database, project, join):
    """Each costs the processor of a crowded server, and PostgreSQL an exchange of messages."""
    steering.change_settings(database, project.id, by=None, votes_per_item=2, anchor_share=0)  # else one may be due
    ann = join("ann")
    for _ in range(3):
        verdicts.submit(database, ann, take(database, ann, project).id, vote())
    given: list[str] = []
    assert len(_asked(database, lambda: given.append(take(database, ann, project).id))) <= 9
    assert len(_asked(database, lambda: verdicts.submit(database, ann, given[0], vote()))) <= 8
