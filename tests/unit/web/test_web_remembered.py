"""The last figures of a large project: shown at once by a server that starts again, with their age; forgotten when a person is erased."""

import re

import pytest
import sqlalchemy as sa
from web_example import take, vote

from fairlead.store.annotation.totals import Reading
from fairlead.web import erasing, people, verdicts
from fairlead.web.dashboard import agreement, criteria, keeping, labels, preparing, raters, remembered, versions
from fairlead.web.frames import is_swapped

PAGES = ("agreement", "raters", "labels", "guideline/history")
KINDS = {"agreement": agreement.AgreementReading, "raters": raters.RatersReading, "labels": labels.LabelsReading,
         "versions": dict[int, versions.VersionFigures], "criteria": tuple[criteria.CriterionRow, ...]}  # fmt: skip


@pytest.fixture
def large(database, project, join, monkeypatch):
    """A project that counts as large, with all of its figures made by an earlier process."""
    for name in ("_KEPT", "_REMEMBERED", "_BUSY"):
        monkeypatch.setattr(keeping, name, {})
    monkeypatch.setattr(keeping, "LARGE", 3)
    actors = join("ann"), join("bob")
    for number in range(12):
        for who in actors:
            assignment = take(database, who, project)
            is_a = number % 2 == 0 if who is actors[0] or number >= 3 else number % 2 == 1
            choice = "left" if is_a != is_swapped(assignment.shown) else "right"
            verdicts.submit(database, who, assignment.id, vote(choice, active_ms=4000))
    assert preparing.prepare(database) == 1
    yield actors
    for busy in list(keeping._BUSY.values()):  # threads beside the pages are done before the database is closed
        with busy:
            pass


def start_again():
    made = {name: kept.value for (_, _, name), kept in keeping._KEPT.items()}
    keeping._KEPT.clear()
    keeping._REMEMBERED.clear()
    return made


def written(value):
    """So that nan equals nan, and 100.0 equals 100."""
    return re.sub(r"(\d)\.0\b", r"\1", repr(value))


def later(database, seconds):
    with database.write() as rows:
        rows.execute(sa.update(Reading).values(at=Reading.at - 1000 * seconds))


def test_figures_come_back_as_they_were(database, project, large):
    made = start_again()
    for name, kind in KINDS.items():
        value, age_s = remembered.recall(database, project.id, name, kind)
        assert written(value) == written(made[name]) and 0 <= age_s < 60


def test_after_a_start_pages_show_the_last_figures_with_their_age(browser, database, project, large):
    lea = browser("lea", "lead")
    start_again()
    later(database, 900)
    for path in PAGES:
        answer = lea.get(f"/p/{project.id}/{path}")
        assert answer.status_code == 200
        assert re.search(r"Computed 1\d minutes ago; newer figures are being made", answer.text)
    start_again()
    later(database, 3 * 3600)
    assert "3 hours ago" in lea.get(f"/p/{project.id}/labels").text


def test_a_look_at_old_figures_has_newer_ones_made(database, project, large):
    start_again()
    later(database, 900)
    assert agreement.agreement_of(database, project.id).age_s() >= 900
    (key,) = [key for key in keeping._BUSY if key[2] == "agreement"]
    with keeping._BUSY[key]:  # until the thread beside is done
        assert agreement.agreement_of(database, project.id).age_s() < 60


def test_figures_of_another_version_are_left_alone(browser, database, project, large):
    start_again()
    with database.write() as rows:
        rows.execute(sa.update(Reading).values(body='{"alpha": 0.5}'))
    assert remembered.recall(database, project.id, "labels", labels.LabelsReading) is None
    assert browser("lea", "lead").get(f"/p/{project.id}/labels").status_code == 503


def test_figures_are_written_seldom(database, project, large, monkeypatch):
    def stored():
        with database.read() as rows:
            return rows.scalar(sa.select(Reading.at).where(Reading.name == "agreement"))

    before = stored()
    monkeypatch.setattr(keeping, "MAX_AGE_S", -1.0)
    with keeping.made_here():
        agreement.agreement_of(database, project.id)
        assert stored() == before
        monkeypatch.setattr(keeping, "REMEMBER_EVERY_S", -1.0)
        agreement.agreement_of(database, project.id)
    assert stored() > before


def test_names_of_an_erased_person_do_not_stay(database, project, large, join):
    ann, bob = large
    began_ms = people.now_ms()
    with database.read() as rows:
        assert "ann" in rows.get(Reading, (project.id, "raters")).body
    value = keeping._KEPT[str(database.engine.url), project.id, "raters"].value
    erasing.erase_person(database, ann.person_id, by=bob.person_id)
    remembered.remember(database, project.id, "raters", raters.RatersReading, value, began_ms=began_ms)
    with database.read() as rows:
        assert rows.scalars(sa.select(Reading)).all() == []
    remembered.remember(database, project.id, "raters", raters.RatersReading, value, began_ms=people.now_ms() + 1)
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Reading)) == 1
