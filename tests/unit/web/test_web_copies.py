"""Copies of what was read of a project's votes: a server that starts again reads only what changed, and never trusts a copy of another database."""

import json
import os
import time

import numpy as np
import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.store.annotation.schema import Assignment, Event
from fairlead.web import importing, verdicts
from fairlead.web.dashboard import copies, keeping, sheet
from fairlead.web.frames import is_swapped


@pytest.fixture
def read_twice(database, project, join, tmp_path, monkeypatch):
    """Two raters on all pairs, read and copied; return them and the copy. The next reading is that of a process that has just started."""
    monkeypatch.setattr(keeping, "MAX_AGE_S", -1.0)
    monkeypatch.setattr(sheet, "LARGE", 3)
    monkeypatch.setattr(sheet, "_LAST", {})
    raters = join("ann of the copy"), join("bob")
    for number in range(12):
        for who in raters:
            choice = ("left", "right", "tie", "skip")[number % 4]
            verdicts.submit(database, who, take(database, who, project).id, vote(choice, active_ms=None if number % 3 else 5000))  # fmt: skip
    monkeypatch.setattr(copies, "SAVE_EVERY", 5)
    monkeypatch.setattr(copies, "_FOLDERS", {})
    copies.keep_in(database, tmp_path / "sheets")
    sheet.sheet_of(database, project.id)
    sheet._LAST.clear()
    return raters, tmp_path / "sheets" / f"{project.id}.npz"


def rows_of(one):
    columns = (
        one.labels,
        one.strengths,
        one.swapped,
        one.positions,
        one.at_ms,
        np.nan_to_num(one.active_s, nan=-1),
        one.versions,
    )
    texts = [
        json.dumps({name: each.values[each.numbers[i]] for name, each in sorted(one.slices.items())})
        for i in range(len(one.item_ids))
    ]
    return {
        (
            one.item_ids[i],
            one.rater_ids[r],
            *(column[n].item() for column in columns),
            *one.lengths[i].tolist(),
            texts[i],
        )
        for n, (i, r) in enumerate(zip(one.items.tolist(), one.raters.tolist(), strict=True))
    }


def anew(database, project):
    with database.read() as rows:
        return rows_of(sheet.as_sheet(sheet.read(rows, project.id, None), sheet.names_of(rows)))


def test_after_a_start_only_what_changed_is_read(database, project, read_twice, monkeypatch):
    (ann, bob), copy = read_twice
    assert copy.stat().st_mode & 0o077 == 0 and b"ann of" not in copy.read_bytes()
    with database.read() as rows:
        first = rows.scalar(
            sa.select(Assignment.id).where(Assignment.person_id == ann.person_id, Assignment.position == 0)
        )
    verdicts.submit(database, ann, first, vote("right"))
    verdicts.withdraw_last(database, bob, project.id, key="a-key-of-bob")
    asked = []
    real = sheet._verdicts
    monkeypatch.setattr(
        sheet, "_verdicts", lambda rows, name, changed: asked.append(changed) or real(rows, name, changed)
    )
    found = rows_of(sheet.sheet_of(database, project.id).value)
    assert len(asked) == 1 and len(asked[0]) == 2 and first in asked[0]
    assert found == anew(database, project) and len(found) == 23


def test_a_copy_is_written_again_after_many_events(database, project, read_twice):
    (ann, _), copy = read_twice
    before = copy.read_bytes()
    for _ in range(2):
        sheet.sheet_of(database, project.id)
        assert copy.read_bytes() == before
    with database.read() as rows:
        own = rows.scalars(
            sa.select(Assignment.id).where(Assignment.person_id == ann.person_id).order_by(Assignment.position)
        ).all()
    for name in own[:5]:
        verdicts.submit(database, ann, name, vote("left"))
    sheet.sheet_of(database, project.id)
    with np.load(copy) as stored, database.read() as rows:
        assert int(stored["last_event"]) == rows.scalar(sa.select(sa.func.max(Event.number)))


@pytest.mark.parametrize("fault", ["another event", "no such event", "another version", "cut", "no copy"])
def test_a_copy_that_is_not_of_this_database_is_left_alone(database, project, read_twice, monkeypatch, fault):
    """Of an older or another database the event with which it ends is missing or differs."""
    _, copy = read_twice
    with np.load(copy) as stored:
        kept = dict(stored)
    if fault == "another event":
        with database.write() as rows:
            rows.execute(sa.update(Event).where(Event.number == int(kept["last_event"])).values(at=Event.at + 1))
    elif fault == "no such event":
        np.savez(copy, **{**kept, "last_event": kept["last_event"] + 50})
    elif fault == "another version":
        monkeypatch.setattr(copies, "__version__", "0.0.1")
    elif fault == "cut":
        copy.write_bytes(copy.read_bytes()[:-500])
    else:
        copy.unlink()
    with database.read() as rows:
        assert copies.load(rows, copy, project.id) is None
    assert rows_of(sheet.sheet_of(database, project.id).value) == anew(database, project)


def test_after_a_start_disagreements_are_listed_from_the_copy_with_its_age(
    browser, database, project, read_twice, monkeypatch
):
    """The first look is not told that the list is being made, and what was decided since stands in it; newer votes follow.

    The copy is read once, for the page and for what is made beside it.
    """
    (ann, bob), copy = read_twice
    lea = browser("lea", "lead")
    for name in ("_KEPT", "_BUSY", "_REMEMBERED"):  # as in a process that has just started
        monkeypatch.setattr(keeping, name, {})
    monkeypatch.setattr(keeping, "MAX_AGE_S", 60.0)
    monkeypatch.setattr(keeping, "LARGE", 3)
    os.utime(copy, (time.time() - 900,) * 2)
    importing.add_items(database, project.id, pairs(1, prefix="newer"))
    for who, choice in ((ann, "a"), (bob, "b")):
        given = take(database, who, project)
        verdicts.submit(
            database, who, given.id, vote("left" if (choice == "a") != is_swapped(given.shown) else "right")
        )
    loads, real = [], copies.load
    monkeypatch.setattr(copies, "load", lambda *given: loads.append(given) or real(*given))
    first = lea.get(f"/p/{project.id}/disagreements?state=all")
    assert first.status_code == 200 and "Computed 15 minutes ago; newer figures are being made" in first.text
    assert "newer 0" not in first.text and lea.get(f"/p/{project.id}/adjudicate").status_code in (200, 303)
    for busy in list(keeping._BUSY.values()):  # until the threads beside the pages are done
        with busy:
            pass
    second = lea.get(f"/p/{project.id}/disagreements?state=all").text
    assert "newer 0" in second and "at most a minute behind the votes" in second and len(loads) == 1


def test_a_full_disk_costs_no_reading(database, project, read_twice, monkeypatch):
    _, copy = read_twice
    copy.unlink()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(rows_of(sheet.sheet_of(database, project.id).value)) == 24 and list(copy.parent.iterdir()) == []
