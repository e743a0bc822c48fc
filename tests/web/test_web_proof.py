"""The whole way by keyboard alone: log in, calibrate, rate fifty items, lose the network and get it back, undo, change, adjudicate, export.

What is exported is read by a recipe (`feedback.path`), in a second test with rankings, ratings by criterion and an edited reply.
"""

import json
import zipfile

import pytest
from served import PASSWORD, Rater, is_at, wait
from test_web_answers import CRITERIA
from typer.testing import CliRunner
from web_example import pairs, sets, take, vote

from fairlead.cli.main import app
from fairlead.core.io import read_rows
from fairlead.store.annotation.schema import Assignment
from fairlead.web import exporting, people, projects, verdicts
from fairlead.web.answers import texts_on_screen

NUM_CALIBRATION, NUM_PRODUCTION = 20, 50
GOOD_KEY = """
const side = [...document.querySelectorAll('.pane')].findIndex((pane) => pane.textContent.includes('good reply'));
return document.querySelector('.option input') ? ['2', '6'][side] : '';
"""
HAS_NO_FOCUS = "return document.activeElement === document.body"


@pytest.fixture
def prefer(tmp_path, monkeypatch):
    """Run `fairlead prefer` on exported votes; returns the preferences."""
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "home"))

    def run(comparisons, *, allow=None):
        how = {"min_votes": 1, "num_resamples": 100}
        recipe = {
            "name": "proof",
            "scope": "toy",
            "feedback": {"path": str(comparisons)},
            "preferences": how,
            "allow": allow or {},
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
        done = CliRunner().invoke(app, ["prefer", str(tmp_path / "recipe.yaml")])
        assert done.exit_code == 0, (done.output, done.exception)
        return [row.values for row in read_rows(next((tmp_path / "home").rglob("preferences.jsonl")))]

    return run


def calibrate(served, project, name: str, *, wrong: int | None = None) -> None:
    """A rater who chooses the good reply of every calibration item but one."""
    secret = people.accept_invite(served.database, people.make_invite(served.database, role="rater"), name=name, password=PASSWORD)  # fmt: skip
    who = people.actor_of(served.database, secret)
    for number in range(NUM_CALIBRATION):
        found = take(served.database, who, project)
        with served.database.read() as rows:
            is_left = texts_on_screen(rows, found)[0].startswith("good")
        verdicts.submit(served.database, who, found.id, vote("left" if is_left == (number != wrong) else "right"))


def test_from_the_login_to_preferences_by_keyboard_alone(driver, served, prefer, tmp_path):
    project = served.project(pairs(NUM_CALIBRATION + NUM_PRODUCTION), calibration_items=NUM_CALIBRATION)
    calibrate(served, project, "bob")
    calibrate(served, project, "cem", wrong=7)
    served.join("ann")
    ann = Rater(driver, served, "ann")
    rate_through_a_lost_network(ann)
    served.join("ada", "adjudicator")
    adjudicate(Rater(driver, served, "ada"), project)
    served.join("lea", "admin")
    folder = export(Rater(driver, served, "lea"), project, tmp_path)
    votes = [json.loads(line) for line in (folder / "votes.jsonl").read_text().splitlines()]
    assert len(votes) == 3 * NUM_CALIBRATION + NUM_PRODUCTION
    (decision,) = (json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines())
    assert decision["reason"] == "It answers what was asked."
    found = prefer(folder / "comparisons.jsonl")
    assert len(found) == NUM_CALIBRATION + NUM_PRODUCTION - 1, "the pair that ann changed to a tie is none"
    bad = [row for row in found if not row["chosen"].startswith("good")]
    assert [row["meta"]["task_id"] for row in bad] in ([], [decision["item"]]), (
        "what ada chose, whichever reply stood first"
    )
    assert sorted(row["num_votes"] for row in found) == [1] * (NUM_PRODUCTION - 1) + [3] * NUM_CALIBRATION


def rate_through_a_lost_network(ann: Rater) -> None:
    """Everything that there is, with a vote while the network is gone and a reload before it is back, and one that is taken back; then
    the newest is changed."""
    driver, mine, num_items = ann.driver, list[str](), NUM_CALIBRATION + NUM_PRODUCTION
    for number in range(2 * num_items):
        key = driver.execute_script(GOOD_KEY)
        if not key and number >= num_items:  # some of them were own pairs again, with the sides exchanged
            break
        assert key, f"no item after {number} votes: {driver.execute_script('return document.body.innerText')}"
        if number == NUM_CALIBRATION + 10:
            ann.until_prepared()
            ann.offline(True)
        mine.append(ann.vote(key))
        assert not driver.execute_script(HAS_NO_FOCUS), "the focus is lost when the next item comes"
        if number == NUM_CALIBRATION + 10:
            wait("the chip", lambda: "1 vote kept here" in ann.chip)
            ann.offline(False)
            driver.refresh()  # the vote is still in the browser and is sent now, and the page goes on from the item that it is of
            wait("the page", lambda: ann.assignment not in ("", mine[-1]))
            ann.until_saved()
        if number == NUM_CALIBRATION + 20:
            ann.later()
            ann.press("u")
            wait("the last item", lambda: ann.assignment == mine[-1])
            assert not driver.execute_script(HAS_NO_FOCUS), "the focus is lost when undo brings an item back"
            assert ann.vote(key) == mine[-1]
    wait("the end", lambda: "You have rated everything" in driver.page_source)
    ann.until_saved()
    assert num_items <= len(set(mine)) == len(mine) <= 1.2 * num_items
    ann.tab_to(".nothing a")  # to the list of own votes, where the newest stands first
    ann.press("\ue007")
    wait("own votes", lambda: is_at(driver, "/mine"))
    ann.tab_to("tbody td a")
    ann.press("\ue007")
    wait("the item", lambda: ann.assignment == mine[-1])
    ann.vote("4")
    wait("the change", lambda: [v.verdict for v in ann.served.verdicts() if v.assignment_id == mine[-1]] == ["tie"])


def adjudicate(ada: Rater, project) -> None:
    """The one pair on which raters differ."""
    driver = ada.driver
    ada.tab_to(f"a[href='/p/{project.id}/disagreements']")
    ada.press("\ue007")
    wait("the disagreements", lambda: is_at(driver, "/disagreements"))
    ada.tab_to("a.primary")  # decide the next
    ada.press("\ue007")
    wait("the pair", lambda: is_at(driver, "/items/") and driver.find_elements("css selector", "[name=choice]"))
    ada.tab_to("[name=choice]")
    ada.press(" ", "\t", "It answers what was asked.")
    ada.tab_to("button.primary")
    ada.press("\ue007")
    wait("the decision", lambda: "Nothing to decide for now" in driver.page_source)


def export(lea: Rater, project, folder):
    """The lead downloads everything; returns where it is unpacked."""
    driver = lea.driver
    download = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": False}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", download)
    lea.tab_to(f"a[href='/p/{project.id}']")
    lea.press("\ue007")
    wait("the overview", lambda: is_at(driver, f"/p/{project.id}"))
    lea.tab_to("a[href$='export.zip']")
    lea.press("\ue007")
    wait("the file", lambda: (folder / "votes.zip").exists() and zipfile.is_zipfile(folder / "votes.zip"))
    with zipfile.ZipFile(folder / "votes.zip") as archive:
        archive.extractall(folder / "votes")
    return folder / "votes"


def test_a_ranking_ratings_and_an_edit_by_keyboard_reach_a_recipe(driver, served, prefer, tmp_path):
    """Of three replies, the better a text the higher it is rated; the best is edited. Each pair becomes a preference with its ratings,
    and the edit beats all three."""
    rules = projects.Rules(ties="allowed", both_bad=True, criteria=CRITERIA, edits=True)
    project = served.project(sets(2, size=3), rules=rules)
    served.join("ann")
    ann = Rater(driver, served, "ann")
    for number in range(2):
        ann.later()
        with served.database.read() as rows:
            found = [int(text.split()[1]) for text in texts_on_screen(rows, rows.get(Assignment, ann.assignment))]
        ann.press(*(str(found.index(quality) + 1) for quality in range(3)))
        ann.press("r", *(str(5 - quality) for quality in found), *(str(3 - quality) for quality in found))
        ann.press("e", "Well, ", "\ue00c")
        before = ann.assignment
        ann.press("\ue007")
        wait("the next item", lambda before=before: ann.assignment != before)
        wait("the vote", lambda number=number: len(served.verdicts()) == number + 1)
    exporting.export_project(served.database, project, tmp_path / "votes")
    alone = dict.fromkeys(("preferences.agreement", "preferences.alpha"), "one rater")
    found = prefer(tmp_path / "votes" / "comparisons.jsonl", allow=alone)
    told = sorted((row["chosen"][: row["chosen"].index(" of")], row["rejected"].split()[1]) for row in found)
    edited = [("Well, quality 0", quality) for quality in "012"]
    assert told == sorted(2 * [*edited, ("quality 0", "1"), ("quality 0", "2"), ("quality 1", "2")])
    for row in found:
        if not row["chosen"].startswith("Well"):
            best, worse = int(row["chosen"].split()[1]), int(row["rejected"].split()[1])
            told = [
                row["meta"][name] for name in ("chosen_correct", "rejected_correct", "chosen_brief", "rejected_brief")
            ]
            assert told == [5 - best, 5 - worse, 3 - best, 3 - worse]
