"""Disagreements are found, filtered by names alone, shown without names, decided beside the votes; the discussion opens after the round."""

import itertools
import re

import pytest
import sqlalchemy as sa
from web_browser import ORIGIN
from web_example import pairs, take, vote

from fairlead.core.io import read_rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Verdict
from fairlead.store.annotation.steering import Anchor
from fairlead.web import adjudication, disputes, exporting, importing, projects, verdicts
from fairlead.web.adjudication import Ruling
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped
from fairlead.web.policy import Actor


def vote_for(database, who, project, label):
    """A vote for a or b, whatever the sides; return the item."""
    assignment = take(database, who, project)
    choice = label if label not in ("a", "b") else "left" if (label == "a") != is_swapped(assignment.shown) else "right"
    verdicts.submit(database, who, assignment.id, vote(choice, rationale=f"why {who.name}"))
    return assignment.item_id


@pytest.fixture
def disputed(database, project, join):
    """ann and bob differ on the first two of four items; on the third one calls a tie; the fourth is equal."""
    ann, bob = join("ann"), join("bob")
    return [
        (vote_for(database, ann, project, first), vote_for(database, bob, project, second))[0]
        for first, second in (("a", "b"), ("b", "a"), ("a", "tie"), ("b", "b"))
    ]


def found(database, project, **wanted):
    return [row.item_id for row in disputes.find_disputes(database, project.id, disputes.Wanted(**wanted)).rows]


def test_what_differs_is_found_by_kind_and_order(database, project, disputed):
    assert set(found(database, project)) == set(disputed[:3])
    assert set(found(database, project, kind="sides")) == set(disputed[:2])
    assert found(database, project, sort="oldest") == disputed[:3]
    assert found(database, project, sort="newest") == disputed[2::-1]
    assert found(database, project, use="calibration") == []
    row = disputes.find_disputes(database, project.id, disputes.Wanted(sort="oldest")).rows[2]
    assert row.counts == (1, 0, 1, 0) and row.disagreement == 1.0


def test_disagreement_by_hand():
    """3 against 1: of 12 ordered pairs 6 are equal. 2, 1, 1: of 12 ordered pairs 2 are equal."""
    import numpy as np

    assert disputes.disagreement(np.array([[3.0, 1, 0, 0], [2, 1, 1, 0], [4, 0, 0, 0], [1, 0, 0, 0]])).tolist() == [
        0.5,
        1 - 2 / 12,
        0.0,
        0.0,
    ]


HOSTILE = [
    "'",
    "x' OR 1=1 --",
    "verdict; DROP TABLE verdicts",
    "../../etc/passwd",
    "disagreement DESC",
    "1) UNION SELECT",
    "\u202e",
    "<script>",
    "0",
]


def test_filters_and_sorts_take_names_only(browser, database, project, disputed):
    ada = browser("ada", "adjudicator")
    for name, text in itertools.product(("kind", "state", "use", "sort", "part"), HOSTILE):
        answer = ada.client.get(f"/p/{project.id}/disagreements", params={name: text})
        assert answer.status_code == 422, (name, text)
        assert "<script>" not in answer.text, (name, text)
        with database.read() as rows:
            assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 8, (name, text)


def test_votes_are_shown_without_names_and_in_an_order_that_says_nothing(browser, database, project, disputed):
    ada = browser("ada", "adjudicator")
    page = ada.get(f"/p/{project.id}/items/{disputed[0]}").text
    assert "Rater A" in page and "Rater B" in page and "why ann" in page
    body = page[page.index('id="votes"') :]
    assert not re.search(r">\s*(ann|bob)\s*<|rater-00\d", body)
    with database.read() as rows:
        item = rows.get(Item, disputed[0])
        hidden = [
            item.content_id,
            item.prompt_id,
            *item.completions,
            *rows.scalars(sa.select(Assignment.id)),
        ]
    assert not [name for name in hidden if name in page]


def test_a_decision_stands_beside_the_votes(browser, database, project, disputed):
    ada = browser("ada", "adjudicator")
    page = ada.get(f"/p/{project.id}/items/{disputed[0]}").text
    left = re.search(r'aria-label="Left reply".*?((?:good|bad) reply to \d+)', page, flags=re.S)[1]
    key = re.search(r'name="key" value="([^"]+)"', page)[1]
    fields = {"key": key, "choice": "left0", "reason": "It is right.", "guideline_version": "1"}
    for _ in range(2):
        assert ada.post(f"/p/{project.id}/items/{disputed[0]}/decision", **fields).status_code == 303
    with database.read() as rows:
        decision = rows.get(Decision, disputed[0])
        first, second = (c.text for c in importing.texts_of(rows, rows.get(Item, disputed[0])).completions)
        assert (first if decision.verdict == "a" else second) == left and decision.reason == "It is right."
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "item.decided")) == 1
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 8
    assert "Decided: left is better" in ada.get(f"/p/{project.id}/items/{disputed[0]}").text
    assert found(database, project, state="decided") == [disputed[0]] and disputed[0] not in found(database, project)


def test_the_queue_goes_from_one_to_the_next_until_nothing_is_left(database, project, disputed, join):
    ada = join("ada", "adjudicator")
    seen = []
    while (item := adjudication.next_case(database, ada, project.id)) is not None:
        seen.append(item)
        adjudication.decide(
            database,
            ada,
            project.id,
            item,
            Ruling(key=f"key-of-{len(seen)}-xx", choice="left", reason="x", guideline_version=1),
        )
    assert sorted(seen) == sorted(disputed[:3])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"choice": "best"}, "No decision"),
        ({"guideline_version": 9}, "guideline is not there"),
        ({"key": "x"}, "no proper key"),
        ({"reason": "x\0"}, "too long"),
    ],
)
def test_a_faulty_decision_stores_nothing(database, project, disputed, join, changes, words):
    ruling = {"key": "a-key-of-a-ruling", "choice": "left", "reason": "x", "guideline_version": 1, **changes}
    with pytest.raises(Refused, match=words):
        adjudication.decide(database, join("ada", "adjudicator"), project.id, disputed[0], Ruling(**ruling))
    with database.read() as rows:
        assert rows.get(Decision, disputed[0]) is None


def test_a_guideline_that_forces_a_choice_forces_the_adjudicator_too(database, project, disputed, join):
    projects.publish_guideline(database, project.id, text="# x", rules=projects.Rules(), by=None)
    with pytest.raises(Refused, match="a tie is not allowed"):
        adjudication.decide(database, join("ada", "adjudicator"), project.id, disputed[0],
                            Ruling(key="a-key-of-a-ruling", choice="tie", reason="x", guideline_version=2))  # fmt: skip


def test_another_projects_item_is_not_there(browser, database, project, disputed):
    other = projects.create_project(database, "other", calibration_items=0)
    ada = browser("ada", "adjudicator")
    assert ada.get(f"/p/{other.id}/items/{disputed[0]}").status_code == 404
    ada.get(f"/p/{project.id}/disagreements")
    answer = ada.post(
        f"/p/{other.id}/items/{disputed[0]}/decision",
        key="a-key-of-ada",
        choice="left0",
        reason="x",
        guideline_version="1",
    )
    assert answer.status_code == 404


def test_who_has_an_item_to_rate_sees_no_votes_on_it_and_who_decided_it_never_gets_it(database, project, join):
    ann, ada = join("ann"), join("ada", "adjudicator")
    item = vote_for(database, ann, project, "a")
    assignment = take(database, ada, project)
    assert assignment.item_id == item
    with database.read() as rows, pytest.raises(Refused, match="Rate or skip it first"):
        adjudication.read_case(rows, ada, project.id, item)
    bea = join("bea", "adjudicator")
    adjudication.decide(
        database, bea, project.id, item, Ruling(key="a-key-of-bea", choice="left", reason="x", guideline_version=1)
    )
    assert all(take(database, bea, project).item_id != item for _ in range(2))


def test_a_decision_is_changed_taken_back_and_made_again_from_the_events(database, project, disputed, join):
    ada = join("ada", "adjudicator")
    for number, choice in enumerate(("left", "right")):
        adjudication.decide(
            database,
            ada,
            project.id,
            disputed[0],
            Ruling(key=f"key-number-{number}", choice=choice, reason="x", guideline_version=1),
        )
    adjudication.decide(
        database,
        ada,
        project.id,
        disputed[1],
        Ruling(key="key-number-3", choice="tie", reason="y", guideline_version=1),
    )
    adjudication.revoke(database, ada, project.id, disputed[1], key="key-number-4")

    def stored():
        with database.read() as rows:
            return [(d.item_id, d.verdict, d.reason, d.event_number) for d in rows.scalars(sa.select(Decision))]

    before = stored()
    assert len(before) == 1
    verdicts.rebuild(database)
    assert stored() == before
    with pytest.raises(Refused, match="no decision"):
        adjudication.revoke(database, ada, project.id, disputed[1], key="key-number-5")


def test_decisions_are_exported_beside_the_votes_and_the_recipe_names_the_rule(
    database, project, disputed, join, tmp_path
):
    from fairlead.feedback.collected import read_collected
    from fairlead.preferences.aggregate import Verdicts
    from fairlead.preferences.decisions import aggregate_decided, decisions_in

    ada = join("ada", "adjudicator")
    for number, item in enumerate(disputed[:2]):
        adjudication.decide(
            database,
            ada,
            project.id,
            item,
            Ruling(key=f"key-number-{number}", choice="left", reason="r", guideline_version=1),
        )
    done = exporting.export_project(database, project, tmp_path)
    assert done.num_decisions == 2 and done.num_votes == 8
    rows = [row.values for row in read_rows(tmp_path / "decisions.jsonl")]
    comparisons = list(read_collected(tmp_path / "comparisons.jsonl"))
    decided = decisions_in(comparison.task for comparison in comparisons)
    assert decided == {row["item"]: row["label"] for row in rows} and rows[0]["adjudicator"].startswith("rater-")
    verdicts_ = Verdicts.from_judgments(vote for comparison in comparisons for vote in comparison.judgments)
    outcome = aggregate_decided(verdicts_, decided, method="majority")
    assert all(outcome.pairs[task].p_a == (1.0 if label == "a" else 0.0) for task, label in decided.items())
    undecided = aggregate_decided(verdicts_, {}, method="majority")
    assert {p.p_a for t, p in undecided.pairs.items() if t in decided} == {0.5}


def test_amend_the_guideline_opens_it_with_the_item_as_an_example(browser, database, project, disputed):
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{project.id}/guideline/edit?example={disputed[0]}").text
    assert "## Borderline examples" in page and "1 for the first, 1 for the second" in page and "reply to" in page
    assert lea.get(f"/p/{project.id}/guideline/edit?example=nothing").status_code == 404


@pytest.fixture
def round_(database, join):
    """A calibration round of three pairs: ann and bob finish it and differ on one; cem has rated none."""
    made = projects.create_project(database, "round", votes_per_item=2, calibration_items=3)
    importing.add_items(database, made.id, pairs(5, prefix="round"))
    ann, bob = join("ann"), join("bob")
    for number in range(3):
        vote_for(database, ann, made, "a")
        vote_for(database, bob, made, "b" if number == 1 else "a")
    join("cem")
    return made


def test_the_discussion_opens_after_the_round_to_those_who_rated_it(app, browser, round_):
    from web_browser import Browser

    lea = browser("lea", "lead")
    page = lea.get(f"/p/{round_.id}/discussion").text
    assert "1 calibration pair on which" in page and "why ann" in page and "Only leads can read" in page
    ann, cem = Browser(app).log_in("ann"), Browser(app).log_in("cem")
    assert ann.get(f"/p/{round_.id}/discussion").status_code == 409
    assert lea.post(f"/p/{round_.id}/discussion", state="open").status_code == 303
    shown = ann.get(f"/p/{round_.id}/discussion")
    assert f"/p/{round_.id}/discussion" in ann.get(f"/p/{round_.id}/mine").text
    assert shown.status_code == 200 and "why bob" in shown.text and not re.search(r">\s*bob\s*<", shown.text)
    assert (
        cem.get(f"/p/{round_.id}/discussion").status_code == 409
        and "why ann" not in cem.get(f"/p/{round_.id}/discussion").text
    )
    lea.post(f"/p/{round_.id}/discussion", state="closed")
    assert ann.get(f"/p/{round_.id}/discussion").status_code == 409


def test_a_page_of_a_dispute_is_refused_to_raters(browser, project, disputed):
    zoe = browser("zoe")
    for path in (f"items/{disputed[0]}", "disagreements", "adjudicate"):
        assert zoe.get(f"/p/{project.id}/{path}").status_code == 403
    zoe.get("/")
    assert (
        zoe.client.post(
            f"/p/{project.id}/items/{disputed[0]}/decision",
            headers=ORIGIN,
            data={"csrf": "x", "key": "abcdefgh", "choice": "left", "reason": "x", "guideline_version": "1"},
        ).status_code
        == 403
    )


def test_flagged_items_are_found_even_where_raters_agree(database, project, disputed, join):
    with database.read() as rows:
        assignment = rows.scalar(sa.select(Assignment).where(Assignment.item_id == disputed[3]).limit(1))
    verdicts.flag(
        database,
        Actor(person_id=assignment.person_id, name="x", role="rater"),
        assignment.id,
        note="cut off",
        key="a-key-of-a-flag",
    )
    assert found(database, project, flagged=True) == [disputed[3]]


def test_the_reason_of_an_erased_adjudicator_goes_and_the_decision_stays(database, project, disputed, join):
    from fairlead.web.erasing import erase_person

    ada = join("ada", "adjudicator")
    ruling = Ruling(key="a-key-of-ada", choice="left", reason="my words", guideline_version=1)
    adjudication.decide(database, ada, project.id, disputed[0], ruling)
    erase_person(database, ada.person_id, by=None)
    with database.read() as rows:
        decision = rows.get(Decision, disputed[0])
        assert decision.reason == "" and decision.verdict in ("a", "b")
    verdicts.rebuild(database)
    with database.read() as rows:
        assert rows.get(Decision, disputed[0]).reason == ""


def test_exported_decisions_are_the_known_answers_of_votes_aggregate(database, project, disputed, join, tmp_path):
    from fairlead.preferences.votes import aggregate_votes

    ada = join("ada", "adjudicator")
    for number, choice in enumerate(("left", "tie")):
        ruling = Ruling(key=f"a-key-of-{number}", choice=choice, reason="x", guideline_version=1)
        adjudication.decide(database, ada, project.id, disputed[number], ruling)
    exporting.export_project(database, project, tmp_path)
    decided = {row.values["item"]: row.values["label"] for row in read_rows(tmp_path / "decisions.jsonl")}
    winner = next(item for item, label in decided.items() if label != "tie")
    texts = {row.values["item"]: row.values for row in read_rows(tmp_path / "items.jsonl")}
    for method in ("majority", "one_coin_side_bias"):
        files = (tmp_path / "votes.jsonl", tmp_path / f"{method}.jsonl")
        aggregate_votes(*files, method=method, items=tmp_path / "items.jsonl", gold=tmp_path / "decisions.jsonl")
        chosen = {row.values["chosen"]: row.values["p_chosen"] for row in read_rows(files[1])}
        assert chosen[texts[winner][decided[winner]]] == 1.0


def test_a_decided_pair_becomes_an_anchor_whose_answer_is_the_decision(browser, database, project, disputed):
    lea = browser("lea", "lead")
    place = f"/p/{project.id}/items/{disputed[0]}"
    assert lea.post(f"{place}/anchor").status_code == 409 and "Make it an anchor" not in lea.get(place).text
    ruling = {"choice": "left0", "reason": "it is right", "key": "decide-once", "guideline_version": "1"}
    assert lea.post(f"{place}/decision", **ruling).status_code == 303
    assert "Make it an anchor" in lea.get(place).text
    assert lea.post(f"{place}/anchor").status_code == 303
    with database.read() as rows:
        decision, anchor = rows.get(Decision, disputed[0]), rows.scalar(sa.select(Anchor))
        assert (anchor.root_id, anchor.answer, anchor.kind) == (disputed[0], decision.verdict, "gold")
    assert lea.post(f"{place}/anchor").status_code == 422, "it is one already"


def test_a_pair_in_hand_keeps_its_rater_from_the_discussion(browser, database, round_):
    """Whoever has an item of the round on screen has not rated it yet."""
    browser("lea", "lead").post(f"/p/{round_.id}/discussion", state="open")
    dan = browser("dan")
    with database.read() as rows:
        num = len(rows.scalars(sa.select(Item.id).where(Item.project_id == round_.id, Item.use == "calibration")).all())
        who = Actor(person_id=rows.scalar(sa.select(Person.id).where(Person.name == "dan")), name="dan", role="rater")
    for _ in range(num - 1):
        vote_for(database, who, round_, "a")
    last = take(database, who, round_)
    assert dan.get(f"/p/{round_.id}/discussion").status_code == 409
    verdicts.submit(database, who, last.id, vote("left", rationale="why dan"))
    assert dan.get(f"/p/{round_.id}/discussion").status_code == 200
