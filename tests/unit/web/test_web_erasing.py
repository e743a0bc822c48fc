"""Erasing a person: name and free text are nowhere in the database any more, votes and exports stay as they were."""

import pytest
import sqlalchemy as sa
from test_web_database import derived
from web_example import take, vote

from fairlead.store.annotation.schema import Event, Person
from fairlead.web import calibration, erasing, exporting, people, policy, tokens, verdicts
from fairlead.web.errors import Refused

WORDS = ("Real-Name", "private-rationale", "private-note", "private-draft", "private-reason", "private-change")


def fill(database, project, join):
    ann = join("Ann Real-Name")
    for i in range(3):
        assignment = take(database, ann, project)
        verdicts.submit(database, ann, assignment.id, vote(rationale="private-rationale"))
        if i == 0:
            verdicts.submit(database, ann, assignment.id, vote("right", rationale="private-change"))
        verdicts.flag(database, ann, assignment.id, note="private-note", key=f"flag-ann-{i}")
    verdicts.save_draft(database, ann, take(database, ann, project).id, {"rationale": "private-draft"})
    calibration.waive(database, project.id, ann.person_id, by=ann.person_id, reason="private-reason")
    return ann


def everything(database):
    found = []
    with database.engine.connect() as connection:
        for name in sa.inspect(database.engine).get_table_names():
            found.append(str(connection.execute(sa.text(f'SELECT * FROM "{name}"')).all()))
    return " ".join(found)


def test_nothing_of_a_person_is_left_but_the_votes(database, project, join, tmp_path):
    ann, bob = fill(database, project, join), join("Bob")
    verdicts.submit(database, bob, take(database, bob, project).id, vote(rationale="stays"))
    exporting.export_project(database, project, tmp_path / "before")
    assert all(word in everything(database) for word in WORDS)
    done = erasing.erase_person(database, ann.person_id, by=bob.person_id)
    assert (done.pseudonym, done.num_texts, done.num_votes_kept) == ("rater-001", 8, 3)
    left = everything(database)
    assert not [word for word in WORDS if word in left] and "stays" in left
    exporting.export_project(database, project, tmp_path / "after")
    before, after = ((tmp_path / name / "votes.jsonl").read_text() for name in ("before", "after"))
    blank = before.replace(', "rationale": "private-rationale"', "").replace(', "rationale": "private-change"', "")
    assert after == blank and "rater-001" in after
    state = derived(database)
    verdicts.rebuild(database)
    assert derived(database) == state
    with database.read() as rows:
        event = rows.scalars(sa.select(Event).where(Event.kind == "person.erased")).one()
        assert (event.person_id, event.content["person"]) == (bob.person_id, ann.person_id)


def test_the_bytes_are_gone_from_the_file_too(database, project, join):
    if not database.is_sqlite:
        pytest.skip("SQLite only")
    ann = fill(database, project, join)
    erasing.erase_person(database, ann.person_id, by=None)
    files = [database.file, *database.file.parent.glob("votes.db-*")]
    content = b"".join(file.read_bytes() for file in files)
    assert not [word for word in WORDS if word.encode() in content]


def test_the_erased_get_in_no_more_by_any_way(database, project, join):
    ann = fill(database, project, join)
    session = people.log_in(database, name="Ann Real-Name", password="a long password", address="1.2.3.4")
    token = tokens.make_token(database, ann, name="x", scope="rate", num_days=1).secret
    erasing.erase_person(database, ann.person_id, by=None)
    assert people.actor_of(database, session) is None and tokens.access_of(database, token) is None
    for name in ("Ann Real-Name", "erased rater-001"):
        with pytest.raises(Refused, match="wrong"):
            people.log_in(database, name=name, password="a long password", address="1.2.3.4")
    with pytest.raises(Refused, match="cannot be changed"):
        people.set_state(database, ann.person_id, state="active", by=None)
    with pytest.raises(Refused, match="not there"):
        erasing.erase_person(database, ann.person_id, by=None)


def test_the_name_is_free_again_and_a_pseudonym_is_never_used_twice(database, project, join):
    ann = fill(database, project, join)
    join("erased rater-001")
    erasing.erase_person(database, ann.person_id, by=None)
    join("Ann Real-Name")
    with database.read() as rows:
        names = dict(rows.execute(sa.select(Person.pseudonym, Person.name)).all())
    assert names["rater-001"].startswith("erased rater-001 ") and names["rater-003"] == "Ann Real-Name"


def test_only_an_admin_erases_and_never_oneself(database, join):
    lead, admin = join("lea", "lead"), join("boss", "admin")
    with pytest.raises(Refused, match="Only an admin"):
        policy.may_erase(lead, person_id=admin.person_id)
    with pytest.raises(Refused, match="yourself"):
        policy.may_erase(admin, person_id=admin.person_id)
    policy.may_erase(admin, person_id=lead.person_id)
