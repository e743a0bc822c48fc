"""What a lead sees of projects in which people write or talk: pages that mean something there, and none that do not."""

import dataclasses

import pytest
from test_web_demonstrations import through_everything, writing  # noqa: F401 - a fixture
from web_browser import without_ids

from fairlead.store.annotation.schema import Event
from fairlead.web import projects
from fairlead.web.dashboard import keeping
from fairlead.web.demonstrations.derive import REVIEWED, WRITTEN
from fairlead.web.demonstrations.reviews import reviews_of, tally

PAGES = (
    "",
    "/agreement",
    "/labels",
    "/raters",
    "/calibration",
    "/steering",
    "/skills",
    "/disagreements",
    "/adjudicate",
    "/discussion",
    "/costs",
    "/guideline/history",
)
OF_KIND = {"demonstration": {"", "/agreement", "/labels", "/guideline/history"}, "chat": {"", "/labels", "/costs", "/guideline/history"},
           "comparison": set(PAGES) - {"/adjudicate"}}  # fmt: skip


@pytest.mark.parametrize("kind", OF_KIND)
def test_an_empty_project_has_the_pages_of_its_kind_and_no_chart(database, browser, kind):
    made = projects.create_project(database, "empty", kind=kind, votes_per_item=1, calibration_items=0)
    lea = browser("lea", "lead")
    answers = {path: lea.get(f"/p/{made.id}{path}") for path in PAGES}
    shown = {path for path, answer in answers.items() if answer.status_code == 200 and path != "/adjudicate"}
    assert shown == OF_KIND[kind]
    if kind != "comparison":
        assert all("<svg" not in answers[path].text and "nan" not in without_ids(answers[path].text) for path in shown)
        assert {answer.status_code for path, answer in answers.items() if path not in shown} == {404}
        links = answers[""].text
        assert all(
            (f'href="/p/{made.id}{path}"' in links) == (path in OF_KIND[kind])
            for path in PAGES
            if path != "/adjudicate"
        )


def event(number, kind, person, task, **content):
    return Event(number=number, kind=kind, person_id=person, content={"task": task, **content})


def test_reviews_are_counted_by_writer_and_by_reviewer():
    """Ann's reply is sent back, then changed a little; Bob's is rewritten by Ann, whose text Bob accepts."""
    names, writing_of = {"a": "ann", "b": "bob"}, {"t1": "w1", "t2": "w1", "t3": "w2", "t4": "w2"}
    events = [
        event(1, WRITTEN, "a", "t1"), event(2, REVIEWED, "b", "t2", decision="return"), event(3, WRITTEN, "a", "t1"),
        event(4, REVIEWED, "b", "t2", decision="edit", kept=0.9), event(5, WRITTEN, "b", "t3"),
        event(6, REVIEWED, "a", "t4", decision="edit", kept=0.1), event(7, REVIEWED, "b", "t3", decision="accept"),
    ]  # fmt: skip
    writers, reviewers, everybody = tally(events, names, writing_of)
    assert [(each.name, each.num_written, each.outcomes) for each in writers] == [
        ("ann", 3, {"accepted": 1, "changed": 1, "rewritten": 0, "returned": 1}),
        ("bob", 1, {"accepted": 0, "changed": 0, "rewritten": 1, "returned": 0}),
    ]
    assert [(each.name, each.num) for each in reviewers] == [("ann", 1), ("bob", 3)] and everybody.num == 4
    share = everybody.share("accepted")
    assert (
        share.value == 0.25 and 0.04 < share.low < 0.06 and 0.69 < share.high < 0.71
    )  # Wilson, 1 of 4: 0.046 to 0.699


def test_pages_of_a_project_in_the_middle_of_its_work(database, writing, join, browser):  # noqa: F811
    through_everything(database, writing, join)
    keeping._KEPT.clear()
    found = reviews_of(database, writing.id).value
    assert found.num_accepted == 2 and found.num_drafted == 1 and dataclasses.asdict(found)["num_words"]
    lea = browser("lea", "lead")
    for path, words in (
        ("", "Reviews that accept as it stands"),
        ("/agreement", "Do reviewers judge alike?"),
        ("/labels", "2 accepted replies"),
    ):
        assert words in lea.get(f"/p/{writing.id}{path}").text
