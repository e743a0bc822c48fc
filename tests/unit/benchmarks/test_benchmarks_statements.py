"""The count of statements: of the two requests that a page sends for an item, in any order of raters the same few."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra web is not installed")
sys.path.insert(0, str(Path(__file__).parents[3]))

import sqlalchemy as sa
from benchmarks.annotation import statements

from fairlead.store.annotation.database import open_database


def test_what_the_database_is_told_is_counted(tmp_path):
    """A view is begun and asked once: two statements; after the block nothing is counted."""
    with open_database(tmp_path / "votes.db", is_durable=False) as database:
        with statements.told(database) as found, database.read() as rows:
            assert rows.scalar(sa.text("SELECT 1")) == 1
        with database.read() as rows:
            rows.scalar(sa.text("SELECT 2"))
    assert found == ["BEGIN", "SELECT 1"]


def test_a_vote_and_its_next_item_take_few_statements_in_a_filled_project():
    found = statements.measure(4, num_pairs=60, num_before=4)
    assert len(found) == 4 and all(vote >= 3 and after >= 3 and vote + after <= 36 for vote, after in found), found
