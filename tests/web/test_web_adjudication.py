"""Adjudication in a real browser, by keyboard alone: the most disputed pair, a decision with a reason, until nothing is left; the lead amends."""

import json

import sqlalchemy as sa
from served import Rater, is_at, later, wait
from web_example import pairs, sets, take, vote

from fairlead.store.annotation.leading import Decision
from fairlead.web import cases, exporting, people, projects, verdicts
from fairlead.web.frames import is_swapped

CTRL_ENTER, ESCAPE = "\ue009\ue007\ue000", "\ue00c"


def disputes(served, num):
    """A project whose first `num` pairs two raters judge differently; the rest alike."""
    project = served.project(pairs(5), rules=projects.Rules(ties="allowed", both_bad=True), votes_per_item=2)
    raters = []
    for name in ("ann", "bob"):
        secret = people.accept_invite(
            served.database, people.make_invite(served.database, role="rater"), name=name, password="a long password"
        )
        raters.append(people.actor_of(served.database, secret))
    for number in range(5):
        for who, is_a in zip(raters, (True, number >= num), strict=True):
            assignment = take(served.database, who, project)
            choice = "left" if is_a != is_swapped(assignment.shown) else "right"
            verdicts.submit(
                served.database, who, assignment.id, vote(choice, rationale=f"reason {number} of {who.name}")
            )
    return project


def decisions(served):
    with served.database.read() as rows:
        return list(rows.scalars(sa.select(Decision).order_by(Decision.event_number)))


def test_an_adjudicator_decides_by_keyboard_until_nothing_is_left(driver, served, tmp_path):
    project = disputes(served, 2)
    served.join("ada", "adjudicator")
    ada = Rater(driver, served, "ada")
    driver.get(f"{served.url}/p/{project.id}/disagreements")
    assert "2 pairs on which raters disagree" in driver.page_source
    driver.get(f"{served.url}/p/{project.id}/adjudicate")
    for number, key in enumerate((" ", "\ue014 "), start=1):
        wait("a case", lambda: is_at(driver, "/items/"))
        here = driver.current_url
        assert "reason" in driver.page_source and "Rater A" in driver.page_source and ">ann<" not in driver.page_source
        driver.find_element("css selector", ".option input").send_keys(key)
        driver.find_element("name", "reason").send_keys(f"because {number}", "\t\ue007")
        wait("the next case", lambda here=here: driver.current_url != here)
    wait("the end", lambda: "Nothing to decide for now" in driver.page_source)
    found = decisions(served)
    assert [decision.reason for decision in found] == ["because 1", "because 2"] and len(
        {d.item_id for d in found}
    ) == 2
    assert len(served.verdicts()) == 10 and ada.complaints() == []
    done = exporting.export_project(served.database, project, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert done.num_decisions == len(rows) == 2 and {row["reason"] for row in rows} == {"because 1", "because 2"}


def test_a_ranking_is_decided_by_the_keys_of_raters(driver, served):
    """Places by numbers, ratings by digits from R on, the reason, Ctrl+Enter; what lacks a place is told first."""
    rules = projects.Rules(
        ties="allowed", criteria=(projects.Criterion(name="correct", question="Is it right?", points=3),)
    )
    project = served.project(sets(1), rules=rules, votes_per_item=2)
    for name, order in (("ann", (0, 1, 2, 3)), ("bob", (3, 2, 1, 0))):
        secret = people.accept_invite(
            served.database, people.make_invite(served.database, role="rater"), name=name, password="a long password"
        )
        who = people.actor_of(served.database, secret)
        assignment = take(served.database, who, project)
        ranking = tuple((assignment.shown.index(str(position)),) for position in order)
        sent = vote("ranked", strength=0, ranking=ranking, criteria={"correct": (1, 2, 3, 1)})
        verdicts.submit(served.database, who, assignment.id, sent)
    served.join("ada", "adjudicator")
    ada = Rater(driver, served, "ada")
    driver.get(f"{served.url}/p/{project.id}/adjudicate")
    wait("the ranking", lambda: driver.find_elements("css selector", ".ranking"))
    later(driver)
    ada.press("3", "1", "n", "because", CTRL_ENTER)
    wait("what is missing", lambda: "Give every reply a place: 2, 4" in driver.find_element("id", "alert").text)
    ada.press(ESCAPE, "=", "2", "4", "r", "3", "2", "1", "2", CTRL_ENTER)
    wait("the end", lambda: "Nothing to decide for now" in driver.page_source)
    (found,) = decisions(served)
    at = [int(digit) for digit in cases.order_for(found.item_id, found.person_id, 4)]
    assert found.ranking == [[at[2]], sorted([at[0], at[1]]), [at[3]]] and found.reason == "because"
    assert [found.criteria["correct"][position] for position in at] == [3, 2, 1, 2] and ada.complaints() == []


def test_a_lead_amends_the_guideline_by_a_disputed_pair(driver, served):
    project = disputes(served, 1)
    served.join("lea", "lead")
    lea = Rater(driver, served, "lea")
    driver.get(f"{served.url}/p/{project.id}/disagreements")
    driver.find_element("css selector", "tbody a").click()
    wait("the pair", lambda: is_at(driver, "/items/"))
    driver.find_element("link text", "Amend the guideline").click()
    wait("the editor", lambda: is_at(driver, "/guideline/edit"))
    text = driver.find_element("name", "text").get_attribute("value")
    assert "## Borderline examples" in text and "1 for the first, 1 for the second" in text
    driver.find_element("css selector", "form.wide .primary").click()
    wait("version 2", lambda: is_at(driver, "version=2"))
    assert "Borderline examples" in driver.page_source and lea.complaints() == []
