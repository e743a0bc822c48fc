"""The database of votes: settings that survive a power cut, migrations up and down on a filled one, one writer, rebuild from events."""

import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from web_example import pairs, sets, take, vote

from fairlead.core.errors import StoreError
from fairlead.store.annotation import database as databases
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Table, Verdict
from fairlead.web import backup, importing, people, projects, verdicts


def test_sqlite_syncs_every_commit(tmp_path):
    with databases.open_database(tmp_path / "votes.db") as database, database.engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert found == ["wal", 2, 1]
        assert database.file.stat().st_mode & 0o777 == 0o600


def test_migrations_make_the_tables_of_the_schema(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, Table.metadata) == []


def rate_some(database, project, join):
    """Votes of all kinds, changed and taken back."""
    for name in ("ann", "bob"):
        actor = join(name)
        for i, choice in enumerate(("left", "right", "tie", "both_bad", "skip", "left")):
            assignment = take(database, actor, project)
            verdicts.submit(database, actor, assignment.id, vote(choice))
            if i == 1:
                verdicts.submit(database, actor, assignment.id, vote("left", strength=1))
                verdicts.flag(database, actor, assignment.id, note="odd", key=f"flag-{name}-1")
        verdicts.withdraw_last(database, actor, project.id, key=f"undo-{name}-1")


def test_a_filled_database_goes_down_to_each_version_and_up_again(database, project, join):
    rate_some(database, project, join)
    before, kept = derived(database), contents(database)
    steps = [step.down_revision for step in databases.migrations().walk_revisions()]
    for version in steps[:-1]:
        databases.downgrade(database, version)
        assert databases.version_of(database) == version
        databases.upgrade(database)
        assert contents(database) == kept
        verdicts.rebuild(database)
        assert derived(database) == before
    databases.downgrade(database, "base")
    assert databases.version_of(database) is None
    assert set(sa.inspect(database.engine).get_table_names()) <= {"alembic_version"}
    databases.upgrade(database)
    assert contents(database) == {"events": [], "people": [], "items": []}


def test_an_empty_postgresql_database_gets_its_tables(postgres):
    with databases.open_database(postgres(is_empty=True)) as database:
        assert databases.version_of(database) == databases.migrations().get_current_head()


def contents(database):
    """What no version may lose."""
    with database.engine.connect() as connection:
        return {
            name: sorted(
                connection.execute(sa.select(*Table.metadata.tables[name].primary_key.columns)).scalars().all()
            )
            for name in ("events", "people", "items")
        }


def test_pairs_of_the_first_version_become_items_and_go_back(database, project, join):
    """Every row of the old tables, through the new ones and back, with what the new ones add dropped."""
    actor = join("ann")
    for choice in ("left", "right", "tie", "skip"):
        assignment = take(database, actor, project)
        verdicts.submit(database, actor, assignment.id, vote(choice))
    verdicts.save_draft(database, actor, assignment.id, {"rationale": "half a tho"})
    before = derived(database)
    databases.downgrade(database, "0005")
    with database.engine.connect() as connection:
        old = sorted(
            map(
                tuple,
                connection.exec_driver_sql(
                    "SELECT i.id, completion_a, completion_b, pair_id, swapped, a.id FROM items i JOIN assignments a ON a.item_id = i.id"
                ),
            )
        )
        assert {row[4] for row in old} <= {0, 1} and len(old) == 4
        assert connection.exec_driver_sql("SELECT text FROM drafts").scalar() == "half a tho"
    databases.upgrade(database)
    assert derived(database) == before
    with database.read() as rows:
        for item_id, a, b, content_id, swapped, assignment_id in old:
            item, assignment = rows.get(Item, item_id), rows.get(Assignment, assignment_id)
            assert (item.completions, item.content_id) == ([a, b], content_id)
            assert assignment.shown == ("10" if swapped else "01")
    before = derived(database)
    verdicts.rebuild(database)
    assert derived(database) == before


def test_a_ranking_goes_back_as_the_pair_that_its_verdict_speaks_of(database, join):
    project = projects.create_project(database, "ranked", votes_per_item=1, calibration_items=0)
    importing.add_items(database, project.id, sets(1))
    actor = join("ann")
    assignment = take(database, actor, project)
    verdicts.submit(database, actor, assignment.id, vote("ranked", strength=0, ranking=((2,), (0,), (3,), (1,))))
    with database.read() as rows:
        item = rows.get(Item, assignment.item_id)
    databases.downgrade(database, "0005")
    with database.engine.connect() as connection:
        found = connection.execute(sa.text("SELECT completion_a, completion_b FROM items")).one()
        assert list(found) == item.completions[:2]
        assert connection.execute(sa.text("SELECT verdict FROM verdicts")).scalar() in ("a", "b")
    databases.upgrade(database)


def set_version(database, name):
    with database.write() as rows:
        rows.execute(sa.text("UPDATE alembic_version SET version_num = :name"), {"name": name})


def test_a_database_of_a_newer_version_is_refused(database):
    current = databases.version_of(database)
    set_version(database, "9999")
    with pytest.raises(StoreError, match="newer Fairlead"):
        databases.upgrade(database)
    set_version(database, current)


@pytest.mark.parametrize(
    ("place", "words"), [("mysql://host/name", "sqlite or postgresql"), ("://", "no database URL")]
)
def test_other_databases_are_refused(place, words):
    with pytest.raises(StoreError, match=words):
        databases.open_database(place)


def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        databases.open_database(tmp_path / "x.db")


def test_a_failed_transaction_leaves_nothing(database, join):
    with pytest.raises(ZeroDivisionError), database.write() as rows:
        rows.add(Person(id="x", name="x", pseudonym="x", password_hash="x", role="rater", state="active", created_at=0))
        rows.flush()
        1 / 0  # noqa: B018
    with database.read() as rows:
        assert rows.get(Person, "x") is None


def test_a_view_is_of_one_moment(database, project, join):
    actor = join("ann")
    count = sa.select(sa.func.count()).select_from(Event)
    with database.read() as rows:
        before = rows.scalar(count)
        verdicts.submit(database, actor, take(database, actor, project).id, vote())
        assert rows.scalar(count) == before
    with database.read() as rows:
        assert rows.scalar(count) == before + 1


def test_writers_stand_in_line(database, project, join):
    actors = [join(f"rater {i}") for i in range(4)]
    faults = []

    def rate(actor):
        try:
            for _ in range(3):
                verdicts.submit(database, actor, take(database, actor, project).id, vote())
        except Exception as error:  # reported below
            faults.append(error)

    threads = [threading.Thread(target=rate, args=(actor,)) for actor in actors]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with database.read() as rows:
        assert not faults and rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 12


def derived(database):
    with database.engine.connect() as connection:
        return {
            name: sorted(map(tuple, connection.execute(sa.select(Table.metadata.tables[name]))))
            for name in ("verdicts", "flags", "progress", "checks", "alarms", "rounds", "round_items", "anchors", "abilities",
                         "demands", "batches", "choices", "tallies")
        }, [sorted(map(tuple, connection.execute(sa.text(query)))) for query in (
            "SELECT id, state FROM assignments",
            "SELECT person_id, num_given, side_lead, num_production, passed_round, is_waived FROM raters",
        )]  # fmt: skip


def test_state_is_derived_from_events(database, project, join):
    rate_some(database, project, join)
    before = derived(database)
    assert verdicts.rebuild(database) > 14
    assert derived(database) == before


def test_events_are_only_ever_added(database, project, join):
    actor = join("ann")
    assignment = take(database, actor, project)
    verdicts.submit(database, actor, assignment.id, vote("left"))
    verdicts.submit(database, actor, assignment.id, vote("right"))
    verdicts.withdraw_last(database, actor, project.id, key="undo-ann-1")
    with database.read() as rows:
        kinds = rows.scalars(
            sa.select(Event.kind).where(Event.assignment_id == assignment.id).order_by(Event.number)
        ).all()
    assert kinds == ["verdict.submitted", "verdict.submitted", "verdict.withdrawn"]


def test_a_backup_made_while_in_use_is_put_back(database, project, join, tmp_path):
    if not database.is_sqlite:
        with pytest.raises(StoreError, match="pg_dump"):
            backup.back_up(database, tmp_path / "copy.db")
        return
    actor = join("ann")
    verdicts.submit(database, actor, take(database, actor, project).id, vote())
    backup.back_up(database, tmp_path / "copy.db")
    verdicts.submit(database, actor, take(database, actor, project).id, vote())
    database.close()
    with pytest.raises(StoreError, match="--replace"):
        backup.restore(tmp_path / "copy.db", database.file, replaces=False)
    backup.restore(tmp_path / "copy.db", database.file, replaces=True)
    with databases.open_database(database.file) as again, again.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 1
    with databases.open_database(database.file.with_name("votes.db.before-restore")) as kept, kept.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 2


def test_a_backup_taken_while_votes_come_in_holds_all_that_was_acknowledged_before(tmp_path):
    """Four raters vote without a pause. A copy holds each vote acknowledged before it began, and agrees with its own events."""
    acknowledged, is_over = [], threading.Event()
    with databases.open_database(tmp_path / "votes.db") as database:
        project = projects.create_project(database, "busy", votes_per_item=4, calibration_items=0)
        importing.add_items(database, project.id, pairs(400))

        def rate(name):
            secret = people.accept_invite(database, people.make_invite(database, role="rater"), name=name, password="a long password")  # fmt: skip
            actor = people.actor_of(database, secret)
            while not is_over.is_set():
                found = take(database, actor, project)
                acknowledged.append(verdicts.submit(database, actor, found.id, vote()).event_number)

        threads = [threading.Thread(target=rate, args=(f"rater {number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        before = []
        for number in range(3):
            while len(acknowledged) < 20 * (number + 1):
                is_over.wait(0.001)
            before.append(list(acknowledged))
            backup.back_up(database, tmp_path / f"copy-{number}.db")
        is_over.set()
        for thread in threads:
            thread.join(30)
    for number, known in enumerate(before):
        target = tmp_path / f"restored-{number}.db"
        backup.restore(tmp_path / f"copy-{number}.db", target, replaces=False)
        with databases.open_database(target) as restored:
            found = derived(restored)
            with restored.read() as rows:
                stored = list(rows.scalars(sa.select(Event.number).where(Event.kind == "verdict.submitted")))
                of_verdicts = list(rows.scalars(sa.select(Verdict.event_number)))
            assert set(known) <= set(stored) and len(known) >= 20 * (number + 1)
            assert sorted(stored) == sorted(of_verdicts)
            verdicts.rebuild(restored)
            assert derived(restored) == found


def test_a_damaged_backup_is_refused(tmp_path):
    (tmp_path / "copy.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="no whole database"):
        backup.restore(tmp_path / "copy.db", tmp_path / "votes.db", replaces=False)
