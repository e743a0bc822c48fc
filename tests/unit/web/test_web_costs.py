"""Costs by hand, the budget stop and its override on record; labels by every method; versions of a guideline before and after."""

import math
import re

import pytest
from web_browser import Browser
from web_example import pairs, take, vote

from fairlead.stats.intervals import Interval, difference_interval, wilson
from fairlead.store.annotation.leading import Budget
from fairlead.store.annotation.schema import Item
from fairlead.web import anchors, budget, importing, projects, queue, verdicts
from fairlead.web.dashboard import labels, sheet, versions
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped
from fairlead.web.verdicts import new_key


def rate(database, who, project, num, choice="left"):
    for _ in range(num):
        verdicts.submit(database, who, take(database, who, project).id, vote(choice))


def costs(database, project):
    with database.read() as rows:
        return budget.costs_of(rows, project.id)


def test_costs_by_hand(database, project, join):
    """3 votes at 0.30, then 2 at 0.50, 1.20 to models and 2 to people: 0.90 + 1.00 + 1.20 + 2.00 = 5.10; two usable pairs cost 2.55 each."""
    lea, ann = join("lea", "lead"), join("ann")
    rate(database, ann, project, 2)
    rate(database, ann, project, 1, "skip")
    budget.set_budget(database, project.id, budget.Terms(dollars_per_vote=0.5, limit_dollars=6.0), by=lea.person_id)
    rate(database, ann, project, 2)
    budget.add_payment(database, project.id, kind="ai", dollars=1.2, note="judge", by=lea.person_id, key=new_key())
    budget.add_payment(
        database, project.id, kind="human", dollars=2.0, note="training", by=lea.person_id, key=new_key()
    )
    found = costs(database, project)
    ledger = found.ledger(num_usable=2)
    assert (found.votes_dollars, ledger.human, ledger.ai) == pytest.approx((1.9, 3.9, 1.2))
    assert ledger.total == pytest.approx(5.1) and ledger.per_usable_pair == pytest.approx(2.55)
    assert found.state(2).left == pytest.approx(0.9) and found.state(2).may_spend
    assert math.isnan(found.ledger(0).per_usable_pair)


def test_usable_pairs_by_hand(database, project, join):
    """Of five pairs with two votes each: a a usable, a b not, a tie 0.75 usable, tie tie not; one decided for a, so usable."""
    from fairlead.web import adjudication

    people = [join("ann"), join("bob")]
    items = []
    for given in ("aa", "ab", "at", "tt", "ab"):
        for who, label in zip(people, given, strict=True):
            assignment = take(database, who, project)
            choice = "tie" if label == "t" else "left" if (label == "a") != is_swapped(assignment.shown) else "right"
            verdicts.submit(database, who, assignment.id, vote(choice))
        items.append(assignment.item_id)
    with database.read() as rows:
        assert budget.usable_pairs(rows, project.id) == 2
    ada = join("ada", "adjudicator")
    for number, choice in ((4, "left"), (0, "tie")):
        ruling = adjudication.Ruling(key=f"a-key-of-{number}", choice=choice, reason="x", guideline_version=1)
        adjudication.decide(database, ada, project.id, items[number], ruling)
    with database.read() as rows:
        assert budget.usable_pairs(rows, project.id) == 2


def test_a_spent_budget_stops_the_work_and_an_override_is_on_record(app, browser, database, project, join):
    lea = browser("lea", "lead")
    ann = join("ann")
    lea.get(f"/p/{project.id}/costs")
    assert lea.post(f"/p/{project.id}/costs", dollars_per_vote="0.30", limit_dollars="0.75").status_code == 303
    rate(database, ann, project, 2)
    nothing = queue.next_assignment(database, ann, project.id)
    assert isinstance(nothing, queue.Nothing) and nothing.reason == "budget"
    assert "The budget of this project is spent" in Browser(app).log_in("ann").get(f"/p/{project.id}/rate").text
    assert "STOP" in lea.get(f"/p/{project.id}/costs").text
    assert lea.post(f"/p/{project.id}/costs/override", reason=" ").status_code == 422
    assert lea.post(f"/p/{project.id}/costs/override", reason="paid from elsewhere").status_code == 303
    page = lea.get(f"/p/{project.id}/costs").text
    assert "goes on beyond the limit: paid from elsewhere" in page and "0.300 dollars a vote" in page
    rate(database, ann, project, 1)
    lea.post(f"/p/{project.id}/costs", dollars_per_vote="0.30", limit_dollars="0.80")
    assert isinstance(queue.next_assignment(database, ann, project.id), queue.Nothing)


def test_a_project_without_a_limit_goes_on(database, project, join):
    with database.read() as rows:
        assert not budget.is_spent(rows, project.id) and rows.get(Budget, project.id) is None
    assert costs(database, project).terms.dollars_per_vote == 0.30


@pytest.mark.parametrize(
    "fields",
    [{"dollars_per_vote": "-1"}, {"dollars_per_vote": "nan"}, {"dollars_per_vote": "x"}, {"dollars_per_vote": "0.3", "limit_dollars": "1e99"}],
)  # fmt: skip
def test_faulty_terms_are_refused(browser, project, fields):
    lea = browser("lea", "lead")
    lea.get(f"/p/{project.id}/costs")
    assert lea.post(f"/p/{project.id}/costs", **fields).status_code == 422


def test_payments_need_a_purpose_and_never_fall_below_nothing(database, project, join):
    lea = join("lea", "lead")
    for kind, dollars, note in (("ai", 1.0, " "), ("ai", math.inf, "x"), ("robot", 1.0, "x"), ("ai", -1.0, "x")):
        with pytest.raises(Refused):
            budget.add_payment(
                database, project.id, kind=kind, dollars=dollars, note=note, by=lea.person_id, key=new_key()
            )
    budget.add_payment(database, project.id, kind="ai", dollars=2.0, note="x", by=lea.person_id, key=new_key())
    budget.add_payment(database, project.id, kind="ai", dollars=-0.5, note="a refund", by=lea.person_id, key=new_key())
    assert costs(database, project).ai == 1.5


def test_a_payment_that_is_sent_twice_is_entered_once(browser, database, project):
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{project.id}/costs").text
    fields = {"key": re.search(r'name="key" value="([^"]+)"', page)[1], "kind": "ai", "dollars": "2", "note": "judge"}
    for _ in range(2):
        assert lea.post(f"/p/{project.id}/costs/payment", **fields).status_code == 303
    assert costs(database, project).ai == 2
    assert lea.post(f"/p/{project.id}/costs/payment", **{**fields, "dollars": "3"}).status_code == 409


def test_the_budget_is_made_again_from_the_events(database, project, join):
    lea, ann = join("lea", "lead"), join("ann")
    rate(database, ann, project, 2)
    budget.set_budget(database, project.id, budget.Terms(dollars_per_vote=0.5, limit_dollars=1.0), by=lea.person_id)
    budget.add_payment(database, project.id, kind="human", dollars=1.0, note="x", by=lea.person_id, key=new_key())
    budget.override(database, project.id, reason="x", by=lea.person_id)

    def stored():
        with database.read() as rows:
            row = rows.get(Budget, project.id)
            return (
                row.dollars_per_vote,
                row.limit_dollars,
                row.settled_votes,
                row.settled_dollars,
                row.other_human,
                row.other_ai,
                row.is_overridden,
            )

    before = stored()
    assert before == (0.5, 1.0, 2, pytest.approx(0.6), 1.0, 0.0, True)
    verdicts.rebuild(database)
    assert stored() == before


def test_labels_of_every_method_and_their_raters(browser, database, project, join):
    names = [join(name) for name in ("ann", "bob")]
    for who in names:
        for _ in range(12):
            assignment = take(database, who, project)
            is_a = sum(assignment.item_id.encode()) % 3 > 0
            verdicts.submit(
                database, who, assignment.id, vote("left" if is_a != is_swapped(assignment.shown) else "right")
            )
    reading = labels.labels_of(database, project.id).value
    rows = {row.method: row for row in reading.rows}
    assert set(rows) == set(labels.METHODS) and not [row.fault for row in reading.rows if row.fault]
    assert all(row.num_pairs == 12 and row.num_tied == 0 and row.num_other == 0 for row in reading.rows)
    assert rows["majority"].mean_p == 1.0 and rows["majority"].num_usable == 12 and 0.6 < rows["one_coin"].mean_p < 1
    assert {row.name for row in reading.raters} == {"ann", "bob"}
    assert all(row.discrimination > 1 and 0 < row.discrimination_error < 2 for row in reading.raters)
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{project.id}/labels?method=majority").text
    assert "Bradley-Terry with raters" in page and "Least certain pairs" in page
    assert lea.get(f"/p/{project.id}/labels?method=best").status_code == 422
    with database.read() as rows:
        assert budget.usable_pairs(rows, project.id) == 12


def test_methods_say_the_same_where_completions_are_too_many_to_be_read(database, project, join, monkeypatch):
    """Bradley-Terry alone needs to know them; a decision and an answer of an anchor hold without."""
    for name in ("ann", "bob", "cas"):
        who = join(name)
        for number in range(4):
            choice = "tie" if number == 3 else "left"
            verdicts.submit(database, who, take(database, who, project).id, vote(choice))
    found = sheet.sheet_of(database, project.id).value
    with database.write() as rows:
        anchors.make_anchor_in(rows, rows.get(Item, found.item_ids[0]), answer="b", by=None, source="test")
    whole = labels._read(database, project.id)
    monkeypatch.setattr(labels, "_MAX_PAIRS", 3)
    large = labels._read(database, project.id)
    assert large.rows[:4] == whole.rows[:4] and not any(row.fault for row in large.rows[:4])
    assert "pairs are too many for a page" in large.rows[4].fault and not whole.rows[4].fault
    assert large.num_decisions == whole.num_decisions == 1
    assert large.unsure == {method: rows for method, rows in whole.unsure.items() if method != "bradley_terry"}


def test_a_decision_fixes_a_pair_under_every_method(database, project, join):
    for name, label in (("ann", "a"), ("bob", "b")):
        who = join(name)
        assignment = take(database, who, project)
        verdicts.submit(
            database, who, assignment.id, vote("left" if (label == "a") != is_swapped(assignment.shown) else "right")
        )
    found = sheet.sheet_of(database, project.id).value
    item = found.item_ids[0]
    (pair,) = labels._pairs(item, ("x", "y"))
    plain = labels.read_labels(found, pairs={item: pair}, decided={})
    decided = labels.read_labels(found, pairs={item: pair}, decided={item: "b"})
    ran = [row for row in plain.rows if not row.fault]
    assert [row.num_tied for row in ran if row.method == "majority"] == [1]
    assert all(row.num_usable == 1 for row in decided.rows if not row.fault) and decided.num_decisions == 1


def test_a_difference_is_newcombes_interval_for_shares():
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 differ by .2000 [.0524, .3339]."""
    found = difference_interval(wilson(48, 80), wilson(56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert math.isnan(difference_interval(Interval(math.nan, math.nan, math.nan, 0, "x"), wilson(1, 2)).value)


def test_versions_are_measured_apart(browser, database, join):
    made = projects.create_project(database, "versions", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, pairs(24))
    ann, bob = join("ann"), join("bob")
    for version in (1, 2):
        for number in range(12):
            for who in (ann, bob):
                assignment = take(database, who, made)
                is_a = number % 2 == 0 or (version == 1 and who is bob)
                verdicts.submit(
                    database,
                    who,
                    assignment.id,
                    vote("left" if is_a != is_swapped(assignment.shown) else "right", guideline_version=version),
                )
        if version == 1:
            projects.publish_guideline(
                database,
                made.id,
                text="# Which reply is better?\n\nRead twice.",
                rules=projects.Rules(ties="allowed"),
                by=None,
            )
    found = versions.read_versions(sheet.sheet_of(database, made.id).value)
    assert found[1].num_votes == found[2].num_votes == 24 and found[1].percent_change is None
    assert found[1].percent.value == 0.5 and found[2].percent.value == 1.0 and found[2].percent_change.value == 0.5
    page = browser("lea", "lead").get(f"/p/{made.id}/guideline/history").text
    assert "+ Read twice." in page and "Ties: forced to allowed" in page and "cannot be compared" in page


def test_the_document_stands_alone(browser, project):
    ann = browser()
    page = ann.get(f"/p/{project.id}/guideline/document").text
    assert "What a verdict may be" in page and "Ties are allowed" in page
    answer = ann.client.get(f"/p/{project.id}/guideline/document.md")
    assert (
        answer.headers["content-type"].startswith("text/markdown")
        and "guideline-1.md" in answer.headers["content-disposition"]
    )
    assert answer.text.startswith("# Which reply is better?") and '"Both bad" is a verdict' in answer.text


def test_lines_of_a_difference():
    found = versions.difference("a\nb\nc\nd\ne\nf\ng", "a\nb\nc\nd\ne\nF\ng\nh")
    assert [(line.kind, line.text) for line in found] == [
        ("same", "d"),
        ("same", "e"),
        ("gone", "f"),
        ("new", "F"),
        ("same", "g"),
        ("new", "h"),
    ]


def test_own_figures_tell_what_was_chosen_and_how_long_it_takes(app, database, project, join):
    ann, bob = join("ann"), join("bob")
    for number in range(10):
        verdicts.submit(
            database, ann, take(database, ann, project).id, vote("left" if number < 7 else "right", active_ms=30_000)
        )
    rate(database, bob, project, 3, "tie")
    page = Browser(app).log_in("ann").get(f"/p/{project.id}/mine").text
    assert (
        "Left 7, Right 3" in page
        and "Left in 70 % of your choices" in page
        and "about 1 min" in page
        and "Equally good" not in page
    )
