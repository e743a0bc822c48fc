"""Nobody decides over an own vote; what nobody may decide is counted on pages, over the API and by `annotate status`, with what to do."""

import json

import pytest
import sqlalchemy as sa
from test_web_disputes import vote_for
from test_web_ranked_pages import project_of, rank
from typer.testing import CliRunner
from web_browser import Browser
from web_example import sets, take

from fairlead.cli.main import app as cli
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Person
from fairlead.web import adjudication, decisions, drift, undecided, verdicts
from fairlead.web.adjudication import Ruling
from fairlead.web.cases import order_for
from fairlead.web.errors import Refused
from fairlead.web.events import record


def ruling(**changes):
    return Ruling(**{"key": "a-key-of-a-ruling", "choice": "left", "reason": "x", "guideline_version": 1, **changes})


@pytest.fixture
def own(database, project, join):
    """Ada, an adjudicator, and ann differ on two items and agree on one; actor and the two items."""
    ada, ann = join("ada", "adjudicator"), join("ann")
    items = []
    for first, second in (("a", "b"), ("b", "a"), ("a", "a")):
        items.append(vote_for(database, ada, project, first))
        assert vote_for(database, ann, project, second) == items[-1]
    return ada, items[:2]


def counted(database, project, actor):
    with database.read() as rows:
        found = undecided.waiting_of(rows, project.id, actor.person_id)
    return found.num_own, found.num_nobody


def test_own_votes_are_left_to_another_adjudicator(database, project, join, own):
    ada, items = own
    assert adjudication.next_case(database, ada, project.id) is None and counted(database, project, ada) == (2, 2)
    with pytest.raises(Refused, match="another adjudicator decides it"):
        adjudication.decide(database, ada, project.id, items[0], ruling())
    with database.read() as rows:
        assert rows.get(Decision, items[0]) is None
    bea = join("bea", "adjudicator")
    assert counted(database, project, ada) == (2, 0) and counted(database, project, bea) == (0, 0)
    first = adjudication.next_case(database, bea, project.id)
    adjudication.decide(database, bea, project.id, first, ruling())
    assert counted(database, project, ada) == (1, 0)


def test_whoever_may_no_longer_decide_does_not_count(database, project, join, own):
    ada, _ = own
    bea, lea = join("bea", "adjudicator"), join("lea", "lead")
    assert counted(database, project, ada) == (2, 0)
    with database.write() as rows:
        rows.execute(sa.update(Person).where(Person.id.in_([bea.person_id, lea.person_id])).values(state="disabled"))
    assert counted(database, project, ada) == (2, 2)


def test_a_skip_is_no_vote_and_a_pair_in_hand_waits(database, project, join):
    """Ann and Bob differ; Ada skipped the first and holds the second."""
    ann, bob, ada = join("ann"), join("bob"), join("ada", "adjudicator")
    skipped = vote_for(database, ann, project, "a")
    assert vote_for(database, ada, project, "skip") == skipped and vote_for(database, bob, project, "b") == skipped
    assert adjudication.next_case(database, ada, project.id) == skipped and counted(database, project, ada) == (0, 0)
    held = vote_for(database, ann, project, "a")
    assert vote_for(database, bob, project, "b") == held
    drift.ask_more_votes(database, project.id, [held], extra=1, by=None, reason="two answers")
    assert take(database, ada, project).item_id == held
    assert counted(database, project, ada) == (1, 1)


def test_rankings_that_differ_anywhere_are_counted(database, join):
    made = project_of(database, sets(2))
    ada, ann = join("ada", "adjudicator"), join("ann")
    for orders in (("0123", "0132"), ("0123", "0123")):
        assert rank(database, ada, made, orders[0]) == rank(database, ann, made, orders[1])
    assert counted(database, made, ada) == (1, 1)


def test_without_anybody_who_may_decide_all_disputes_wait(database, project, join, db):
    ann, bob = join("ann"), join("bob")
    for first, second in (("a", "b"), ("a", "tie"), ("b", "b")):
        assert vote_for(database, ann, project, first) == vote_for(database, bob, project, second)
    said = CliRunner().invoke(cli, ["annotate", "status", "--db", db]).output
    assert "2 disagreements wait that nobody may decide" in said and "annotate invite --role adjudicator" in said


def test_pages_api_and_status_say_so(database, project, join, own, app, browser, program, db):
    ada, items = own
    me = Browser(app).log_in("ada")
    for path in ("disagreements", "adjudicate"):
        page = me.get(f"/p/{project.id}/{path}").text
        assert "2 disagreements wait that nobody may decide" in page and "Ask the lead to invite another" in page, path
    page = me.get(f"/p/{project.id}/items/{items[0]}").text
    assert "You voted on this item, so another adjudicator decides it." in page and "Decide and go on" not in page
    client = program(ada, "adjudicate")
    assert client.get(f"projects/{project.id}/adjudicate").json() == {"item": "", "num_own": 2, "num_nobody": 2}
    assert client.get(f"projects/{project.id}/disagreements").json()["num_nobody"] == 2
    body = {"key": "k" * 16, "choice": "left", "reason": "x", "guideline_version": 1}
    sent = client.post(f"projects/{project.id}/items/{items[0]}/decision", json=body)
    assert (sent.status_code, sent.json()["error"]["code"]) == (409, "own_vote")
    words = ["annotate", "status", "--db", db]
    assert "2 disagreements wait that nobody may decide" in CliRunner().invoke(cli, words).output
    (found,) = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)["projects"]
    assert found["steering"]["num_undecidable"] == 2
    lea = browser("lea", "lead")  # who may decide: nothing waits for nobody any more
    assert "nobody may decide" not in lea.get(f"/p/{project.id}/disagreements").text
    assert (
        "2 on which you voted, or which you have to rate, wait for another adjudicator"
        in me.get(f"/p/{project.id}/adjudicate").text
    )


def test_replays_know_no_such_rule(database, project, join, own):
    """Decisions of an older version over own votes stay what they are when tables are made again."""
    ada, items = own
    with database.write() as rows:
        content = {
            "item": items[0],
            "choice": "left",
            "shown": order_for(items[0], ada.person_id, 2),
            "reason": "x",
            "guideline_version": 1,
        }
        decisions.follow(
            rows, record(rows, decisions.DECIDED, person_id=ada.person_id, project_id=project.id, content=content)
        )
    verdicts.rebuild(database)
    with database.read() as rows:
        assert rows.get(Decision, items[0]).reason == "x"
