"""*Disagreements* and *Labels* read every pair of a ranking: what raters dispute among the last replies is found, shown and counted."""

import re

import pytest
from web_example import pairs, sets, take, vote

from fairlead.preferences.label_table import label_table
from fairlead.web import adjudication, cases, disputes, importing, projects, rated, verdicts
from fairlead.web.dashboard import labels

RULES = projects.Rules(ties="allowed", both_bad=True)


def project_of(database, items, *, votes=2):
    made = projects.create_project(database, "ranked", votes_per_item=votes, calibration_items=0, rules=RULES)
    importing.add_items(database, made.id, items)
    return made


def rank(database, actor, made, order):
    """Place the completions by their canonical positions, best first; return the item."""
    assignment = take(database, actor, made)
    ranking = tuple(tuple(assignment.shown.index(position) for position in tied) for tied in order)
    verdicts.submit(database, actor, assignment.id, vote("ranked", strength=0, ranking=ranking))
    return assignment.item_id


@pytest.fixture
def last_two(database, join):
    """Ann and Bob agree on the first two completions and differ on the last two; project and item."""
    made = project_of(database, sets(1))
    items = {rank(database, join(name), made, order) for name, order in (("ann", "0123"), ("bob", "0132"))}
    return made, items.pop()


@pytest.mark.parametrize("kind", ["any", "sides", "no_majority"])
def test_filters_find_a_dispute_about_the_last_two(database, last_two, kind):
    """Of six pairs of replies one differs, one vote against one: 1/6."""
    made, item = last_two
    (row,) = disputes.find_disputes(database, made.id, disputes.Wanted(kind=kind)).rows
    assert (row.item_id, row.counts, row.num_pairs, row.num_differ) == (item, (1, 1, 0, 0), 6, 1)
    assert row.disagreement == pytest.approx(1 / 6)


def test_a_difference_without_sides_and_with_a_majority_is_only_a_difference(database, join):
    """Two rank 0123, one ties the last two: no votes for both sides anywhere, and two of three are a majority everywhere."""
    made = project_of(database, sets(1), votes=3)
    for name, order in (("ann", "0123"), ("bob", "0123"), ("cem", ("0", "1", "23"))):
        rank(database, join(name), made, order)
    found = {kind: disputes.find_disputes(database, made.id, disputes.Wanted(kind=kind)).num for kind in disputes.KINDS}
    assert found == {"any": 1, "sides": 0, "no_majority": 0}


def test_the_list_says_which_pairs_the_votes_are_of(browser, last_two):
    made, _ = last_two
    page = browser("ada", "adjudicator").get(f"/p/{made.id}/disagreements?kind=no_majority").text
    assert "1 against 1" in page and "on the most disputed of 6 pairs of replies; votes differ on 1" in page


def test_labels_count_every_pair_and_name_the_unsure_one(browser, database, last_two):
    made, item = last_two
    reading = labels.labels_of(database, made.id).value
    (majority,) = [row for row in reading.rows if row.method == "majority"]
    assert (majority.num_pairs, majority.num_tied, majority.num_usable, reading.has_rankings) == (6, 1, 5, True)
    first = reading.unsure["majority"][0]
    assert (first.item_id, first.pair, first.p_chosen, first.num_votes) == (item, (2, 3), 0.5, 2)
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{made.id}/labels?method=majority").text
    assert "A ranking counts with every pair of its replies" in page
    said = re.findall(r"replies (\d) and (\d)", page)
    assert len(said) == 6
    words = lea.get(f"/p/{made.id}/items/{item}").text  # numbered as on the page that the line leads to
    texts = re.findall(r'aria-label="Reply (\d)".*?(quality \d of 0)', words, flags=re.S)
    with database.read() as rows:
        whole = importing.texts_of(rows, rows.get(adjudication.Item, item)).completions
    assert {texts[int(place) - 1][1] for place in said[0]} == {whole[2].text, whole[3].text}


def test_a_decision_on_a_ranking_holds_all_its_pairs(database, last_two, join):
    made, item = last_two
    ada = join("ada", "adjudicator")
    shown = cases.order_for(item, ada.person_id, 4)
    ranking = tuple((shown.index(position),) for position in "0132")
    ruling = adjudication.Ruling(
        key="a-key-of-a-ruling", choice="ranked", ranking=ranking, reason="r", guideline_version=1
    )
    adjudication.decide(database, ada, made.id, item, ruling)
    reading = labels.labels_of(database, made.id).value
    ran = [row for row in reading.rows if not row.fault]
    assert reading.num_decisions == 6 and ran and all((row.num_tied, row.num_usable) == (0, 6) for row in ran)


def test_the_page_and_the_exported_table_are_one_result(database, join):
    """Rankings and pairs together: under each method the same probabilities, pair by pair."""
    made = project_of(database, [*sets(2), *pairs(4)], votes=3)
    for number, name in enumerate(("ann", "bob", "cem")):
        actor = join(name)
        for i in range(6):
            assignment = take(database, actor, made)
            if len(assignment.shown) == 2:
                place = 0 if (i + number) % 3 else 1
                verdicts.submit(
                    database, actor, assignment.id, vote(("left", "right")[assignment.shown[0] != str(place)])
                )
            else:
                order = ("0123", "1023", ("0", "3", "12"))[(i + number) % 3]
                ranking = tuple(tuple(assignment.shown.index(position) for position in tied) for tied in order)
                verdicts.submit(database, actor, assignment.id, vote("ranked", strength=0, ranking=ranking))
    reading = labels.labels_of(database, made.id).value
    with database.read() as rows:
        table = list(label_table(rated.rated_items(rows, made.id), method="one_coin").rows())
    assert len(table) == 16
    for method in ("majority", "weighted", "one_coin"):
        want = sorted(max(row[f"p_a_{method}"], 1 - row[f"p_a_{method}"]) for row in table)
        assert [each.p_chosen for each in reading.unsure[method]] == pytest.approx(
            want, abs=2e-6
        )  # the table is rounded
