"""Adjudicators decide all replies of a ranking, with ratings where the guideline asks for them; the decision reaches export and preferences."""

import re

import pytest
from web_browser import without_ids
from web_example import sets, take, vote

from fairlead.core.io import read_rows
from fairlead.core.services import Services
from fairlead.feedback.collected import read_collected
from fairlead.feedback.stage import FeedbackConfig
from fairlead.feedback.stage import run as run_feedback
from fairlead.preferences.stage import PreferencesConfig
from fairlead.preferences.stage import run as run_preferences
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Item
from fairlead.web import adjudication, cases, disputes, exporting, importing, projects, rated, verdicts
from fairlead.web.adjudication import Ruling
from fairlead.web.answers import Edit, Span, texts_on_screen
from fairlead.web.errors import Refused

RULES = projects.Rules(ties="allowed", both_bad=True, spans=True, edits=True,
                       criteria=(projects.Criterion(name="correct", question="Is it right?"),))  # fmt: skip


@pytest.fixture
def disputed(database, join):
    """One set of four replies. Ann and Bob agree on 0 and 1 and differ on 2 and 3; project and item."""
    made = projects.create_project(database, "ranked", votes_per_item=2, calibration_items=0, rules=RULES)
    importing.add_items(database, made.id, sets(1))
    for name, order in (("ann", "0123"), ("bob", "0132")):
        actor = join(name)
        assignment = take(database, actor, made)
        with database.read() as rows:
            at = {text.split()[1]: place for place, text in enumerate(texts_on_screen(rows, assignment))}
        best = at["0"]
        sent = vote("ranked", strength=0, ranking=tuple((at[q],) for q in order), criteria={"correct": (1, 2, 3, 4)},
                    spans=(Span(place=best, start=0, end=7, label="bad", note="<b>note</b>"),), rationale=f"why {name}",
                    edit=Edit(place=best, text=f"quality 0 by {name}"))  # fmt: skip
        verdicts.submit(database, actor, assignment.id, sent)
    return made, assignment.item_id


def ruling(database, actor, item_id, *, order="1032", **changes):
    """The order of qualities, best first, in the frame of this adjudicator's page."""
    with database.read() as rows:
        texts = importing.texts_of(rows, rows.get(Item, item_id)).completions
    shown = cases.order_for(item_id, actor.person_id, 4)
    at = {texts[int(digit)].text.split()[1]: place for place, digit in enumerate(shown)}
    values = {"key": "k" * 16, "choice": "ranked", "ranking": tuple((at[q],) for q in order), "reason": "r", "guideline_version": 1,
              "criteria": {"correct": tuple(5 - int(texts[int(digit)].text.split()[1]) for digit in shown)}}  # fmt: skip
    return Ruling(**{**values, **changes})


def test_a_dispute_about_the_last_replies_is_one(database, disputed, join):
    """One of six pairs of replies differs, on both (2) votes: 1/6. The first two completions may agree."""
    made, item_id = disputed
    (row,) = disputes.find_disputes(database, made.id, disputes.Wanted()).rows
    assert (row.item_id, row.disagreement) == (item_id, pytest.approx(1 / 6))
    assert adjudication.next_case(database, join("eve", "adjudicator"), made.id) == item_id


def test_a_decision_on_a_ranking_reaches_the_preferences(database, disputed, join, tmp_path):
    """Decided 1 > 0 > 3 > 2 against all votes: every pair follows it, and the ratings are the adjudicator's."""
    made, item_id = disputed
    eve = join("eve", "adjudicator")
    adjudication.decide(database, eve, made.id, item_id, ruling(database, eve, item_id))
    adjudication.decide(
        database, eve, made.id, item_id, ruling(database, eve, item_id)
    )  # the same key twice is one decision
    verdicts.rebuild(database)
    done = exporting.export_project(database, made, tmp_path / "out")
    assert done.num_decisions == 1 and done.num_overruled == 2, "both edits were of quality 0, which 1 beats"
    assert len(list(read_rows(tmp_path / "out" / "decisions.jsonl"))) == 6
    rated.export_as(database, made, tmp_path / "pairs.jsonl", to="trl", method="majority")
    rows = [row.values for row in read_rows(tmp_path / "pairs.jsonl")]
    best = {
        tuple(each["content"] if isinstance(each, dict) else each for each in (row["chosen"][-1], row["rejected"][-1]))
        for row in rows
    }
    assert ("quality 1 of 0", "quality 0 of 0") in best and ("quality 3 of 0", "quality 2 of 0") in best
    place = {"1": 0, "0": 1, "3": 2, "2": 3}
    for each in read_collected(tmp_path / "out" / "comparisons.jsonl"):
        if "edited_from" not in each.task.meta:
            a, b = (text.split()[1] for text in (each.a.text, each.b.text))
            decision = each.task.meta["decision"]
            assert decision["verdict"] == ("a" if place[a] < place[b] else "b")
            assert decision["criteria"] == {"correct": [5 - int(a), 5 - int(b)]}
    services = Services(work=tmp_path, extras={"find_file": lambda path: tmp_path / path, "scope": "toy"})
    given = dict.fromkeys(("feedback", "prompts", "completions"), tmp_path / "feedback")
    for name in ("feedback", "decide", "beside"):
        (tmp_path / name).mkdir()
    run_feedback(FeedbackConfig(path="out/comparisons.jsonl"), inputs={}, out=tmp_path / "feedback", services=services)
    for rule in ("decide", "beside"):
        run_preferences(
            PreferencesConfig(heldout=0.0, decisions=rule), inputs=given, out=tmp_path / rule, services=services
        )
        rows = [row.values for row in read_rows(tmp_path / rule / "preferences.jsonl")]
        shown = {(row["chosen"][8], row["rejected"][8]): row["meta"] for row in rows if " by " not in row["chosen"]}
        if rule == "decide":
            assert set(shown) == {("1", "0"), ("1", "3"), ("1", "2"), ("0", "3"), ("0", "2"), ("3", "2")}
            assert all(meta["chosen_correct"] == 5 - int(pair[0]) for pair, meta in shown.items())
        else:
            assert ("0", "1") in shown and ("1", "0") not in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranking": ((0,), (1,), (2,))}, "each of the 4 replies once"),
        ({"choice": "left", "ranking": ()}, "no verdict on 4 replies"),
        ({"criteria": {}}, "correct"),
        ({"criteria": {"correct": (6, 1, 1, 1)}}, "from 1 to 5"),
        ({"choice": "skip", "ranking": ()}, "No decision"),
    ],
)
def test_what_cannot_be_decided(database, disputed, join, changes, words):
    made, item_id = disputed
    eve = join("eve", "adjudicator")
    with pytest.raises(Refused, match=words):
        adjudication.decide(database, eve, made.id, item_id, ruling(database, eve, item_id, **changes))
    with database.read() as rows:
        assert rows.get(Decision, item_id) is None


def test_all_bad_says_so_of_every_pair(database, disputed, join, tmp_path):
    made, item_id = disputed
    eve = join("eve", "adjudicator")
    sent = ruling(database, eve, item_id, choice="both_bad", ranking=())
    adjudication.decide(database, eve, made.id, item_id, sent)
    exporting.export_project(database, made, tmp_path)
    assert {row.values["label"] for row in read_rows(tmp_path / "decisions.jsonl")} == {"both_bad"}


def test_the_page_shows_all_replies_with_passages_and_edits_and_takes_the_same_fields(browser, database, disputed):
    made, item_id = disputed
    eve = browser("eve", "adjudicator")
    place = f"/p/{made.id}/items/{item_id}"
    page = eve.get(place).text
    assert (
        len(set(re.findall(r"quality (\d) of 0", page))) == 4 and "&lt;b&gt;note" in page and "quality 0 by ann" in page
    )
    assert all(f'name="rank_{i}"' in page and f'name="rate_correct_{i}"' in page for i in range(4)) and "&gt;" in page
    assert "ann" not in re.sub("by ann|why ann", "", without_ids(page)), "nobody is named"
    key = re.search(r'name="key" value="([^"]+)"', page)[1]
    fields = {"key": key, "reason": "so", "guideline_version": "1", **{f"rate_correct_{i}": "3" for i in range(4)}}
    answer = eve.post(f"{place}/decision", **fields, rank_0="1", rank_1="1", rank_2="2", rank_3="3")
    assert answer.status_code == 303
    page = eve.get(place).text
    assert "Decided: 1 = 2 &gt; 3 &gt; 4." in page and 'value="2" selected' in page
    lea = browser("lea", "lead")
    text = lea.get(f"/p/{made.id}/guideline/edit?example={item_id}").text
    assert "Reply 4:" in text and re.search(r"By this guideline\*\*: [1-4]( = | &gt; )", text)


def test_decisions_of_the_first_version_speak_of_the_first_two(database, disputed, join):
    """An event that names a side and `swapped`, as they were recorded before: positions 0 and 1 only."""
    from fairlead.web import decisions
    from fairlead.web.events import record

    made, item_id = disputed
    eve = join("eve", "adjudicator")
    content = {"item": item_id, "choice": "left", "swapped": True, "reason": "old", "guideline_version": 1}
    with database.write() as rows:
        decisions.follow(
            rows, record(rows, decisions.DECIDED, person_id=eve.person_id, project_id=made.id, content=content)
        )
    with database.read() as rows:
        found = rows.get(Decision, item_id)
        assert (found.verdict, found.ranking, found.criteria) == ("b", [[1], [0]], {})
        assert decisions.decision_on(found, 0, 1) == "b" and decisions.decision_on(found, 0, 2) is None
        case = cases.case_of(rows, rows.get(Item, item_id), eve.person_id)
        assert case.decided == "ranked" and case.decided_words.count(">") == 1
