"""Languages and skills: what files ask for, who gets what, tests that grant a skill, coverage, the pages and the API; all of it from events."""

import dataclasses
import json
import re

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner
from web_browser import PLACE, Browser
from web_example import pairs, take, vote

from fairlead.cli.main import app as cli
from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.io import read_rows
from fairlead.formats.oasst_export import write_tree
from fairlead.stats.intervals import wilson
from fairlead.store.annotation.schema import Assignment, Completion, Item, Progress
from fairlead.store.annotation.skills import Qualification
from fairlead.store.annotation.steering import Check
from fairlead.web import (  # fmt: skip
    abilities,
    anchors,
    exporting,
    importing,
    matching,
    people,
    projects,
    qualification,
    queue,
    rated,
    reading,
    steering,
    verdicts,
)
from fairlead.web.app import make_app
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped
from fairlead.web.needs import abilities_from, in_words, need_of, needs_of

SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
CODE = "skill:code"


def asking(made, **meta):
    """The same pairs, with what they ask for."""
    return [dataclasses.replace(item, prompt=dataclasses.replace(item.prompt, meta=meta)) for item in made]


def mixed(database, *, votes=1, calibration=0):
    """Six pairs for everybody, six in German, six in German about code."""
    made = projects.create_project(database, "mixed", votes_per_item=votes, calibration_items=calibration)
    german = asking(pairs(6, prefix="frage"), language="DE")
    importing.add_items(
        database, made.id, [*pairs(6), *german, *asking(pairs(6, prefix="quelltext"), language="de", skills=["code"])]
    )
    steering.change_settings(database, made.id, by=None, votes_per_item=votes, anchor_share=0)
    return made


def with_test(database, *, num=20):
    made = mixed(database)
    gold = [
        dataclasses.replace(pair, answer="a" if pair.completions[0].text.startswith("good") else "b")
        for pair in pairs(num, prefix="gold")
    ]
    assert anchors.add_gold(database, made.id, gold, by=None, qualifies=CODE) == (num, 0)
    return made


def rate(database, project, actor, num, *, is_right=lambda _: True):
    """Vote for the reply that says good, or against it; return what the items ask for, in order."""
    done = []
    for i in range(num):
        found = queue.next_assignment(database, actor, project.id)
        if isinstance(found, queue.Nothing):
            break
        with database.read() as rows:
            item = rows.get(Item, found.item_id)
            is_good_first = rows.get(Completion, (project.id, item.completions[0])).record["text"].startswith("good")
        sent = is_right(i)
        is_a = is_good_first == sent
        verdicts.submit(
            database,
            actor,
            found.id,
            vote(sent) if isinstance(sent, str) else vote("left" if is_a != is_swapped(found.shown) else "right"),
        )
        done.append(item.needs if item.use != "anchor" else "test")
    return done


def why(database, project, actor):
    return queue.next_assignment(database, actor, project.id).reason


@pytest.mark.parametrize(("meta", "expected"), [
    ({}, ()), ({"language": " DE "}, ("language:de",)), ({"skills": "code, maths"}, ("skill:code", "skill:maths")),
    ({"language": "pt-br", "skills": ["C++", "code"]}, ("language:pt-br", "skill:c++", "skill:code")), ({"language": None, "skills": []}, ()),
])  # fmt: skip
def test_what_a_row_asks_for(meta, expected):
    assert needs_of(meta) == expected


@pytest.mark.parametrize("meta", [{"language": "en, de"}, {"language": 3}, {"skills": ["a b"]}, {"skills": [1]}, {"skills": ["x" * 30]},
                                  {"skills": list("abcdef")}, {"skills": {"a": 1}}, {"language": "a\0"}, {"language": "skill:x"}])  # fmt: skip
def test_what_cannot_be_asked(meta):
    with pytest.raises(ValueError):
        needs_of(meta)


def test_names_as_people_type_them():
    assert (need_of("Code"), need_of("language:DE"), need_of("skill:c++")) == (CODE, "language:de", "skill:c++")
    assert abilities_from(languages="en, DE", skills=["code", "code"]) == ("language:de", "language:en", CODE)
    assert in_words("language:de skill:code") == "de, code" and in_words("") == "anything"
    for text in ("", "level:3", "a b", "language:"):
        with pytest.raises(Refused):
            need_of(text)


FILES = {
    "rows.jsonl": [{"prompt": "q {i}", "chosen": "good {i}", "rejected": "bad {i}", "language": "de", "skills": ["code"]}],
    "studio.json": [{"id": 1, "data": {"prompt": "q {i}", "answer1": "good {i}", "answer2": "bad {i}", "language": "de", "skills": "code"},
                     "annotations": []}],
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_say_what_their_rows_ask_for(tmp_path, name):
    rows = [json.loads(json.dumps(row).replace("{i}", str(i))) for i in range(3) for row in FILES[name]]
    faulty = json.loads(json.dumps(rows[0]).replace('"de"', '"de or en"').replace("q 0", "q 9"))
    text = json.dumps([*rows, faulty]) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in (*rows, faulty))  # fmt: skip
    (tmp_path / name).write_text(text)
    found = reading.read_source(tmp_path / name, seed=0, rejects_file=tmp_path / "rejects.jsonl")
    assert [item.needs for item in found.items] == ["language:de skill:code"] * 3
    assert [num for reason, num in found.left_out.items() if "language or skills are not a word" in reason] == [1]


def test_an_item_goes_only_to_raters_who_have_what_it_asks_for(database, join):
    made = mixed(database)
    ann, bob, cem = join("ann"), join("bob"), join("cem")
    abilities.set_abilities(database, bob.person_id, ["language:de", "language:en"], by=ann.person_id)
    with database.read() as rows:
        found = {row.needs: (row.num_items, row.num_raters, row.names) for row in matching.coverage(rows, made)}
    assert found == {
        "": (6, 3, ("ann", "bob", "cem")),
        "language:de": (6, 1, ("bob",)),
        "language:de skill:code": (6, 0, ()),
    }
    assert rate(database, made, ann, 20) == [""] * 6 and why(database, made, ann) == "unmatched"
    assert rate(database, made, bob, 20) == ["language:de"] * 6 and why(database, made, bob) == "unmatched"
    abilities.set_abilities(database, cem.person_id, ["language:de", CODE], by=ann.person_id)
    assert rate(database, made, cem, 20) == ["language:de skill:code"] * 6 and why(database, made, cem) == "finished"
    assert_replay(database)


@SQLITE
def test_items_that_lack_fewest_votes_come_first_across_all_that_a_rater_may_get(database, join):
    made = mixed(database, votes=2)
    ann, bob = join("ann"), join("bob")
    for actor in (ann, bob):
        abilities.set_abilities(database, actor.person_id, ["language:de"], by=None)
    first = rate(database, made, ann, 5)
    assert sorted(rate(database, made, bob, 5)) == sorted(first)
    assert sorted([*first, *rate(database, made, bob, 20)]) == [""] * 6 + ["language:de"] * 6


@SQLITE
def test_matching_can_be_switched_off_and_an_empty_project_says_so(database, join):
    made, ann = mixed(database), join("ann")
    steering.change_settings(database, made.id, by=None, votes_per_item=1, matches=False)
    assert len(rate(database, made, ann, 30)) == 18 and why(database, made, ann) == "finished"
    empty = projects.create_project(database, "empty")
    assert why(database, empty, ann) == "empty"


@SQLITE
def test_rounds_and_the_pace_hold_only_what_a_rater_may_get(database, join):
    from fairlead.web.status import pace_of

    made = mixed(database, calibration=18)
    importing.add_items(database, made.id, asking(pairs(30, prefix="more"), language="de"))
    ann = join("ann")
    with database.read() as rows:
        assert pace_of(rows, made, ann.person_id).num_left == 6
    assert rate(database, made, ann, 30) == [""] * 6 and why(database, made, ann) == "calibration"
    bob = join("bob")
    abilities.set_abilities(database, bob.person_id, ["language:fr"], by=None)
    only = projects.create_project(database, "german", calibration_items=3)
    importing.add_items(database, only.id, asking(pairs(9), language="de"))
    assert why(database, only, bob) == "unmatched"


def test_a_test_grants_the_skill_at_16_of_20_and_not_at_15(database, join, tmp_path):
    made = with_test(database)
    ann, bob = join("ann"), join("bob")
    for actor in (ann, bob):
        abilities.set_abilities(database, actor.person_id, ["language:de", CODE], by=None)
        assert sorted(rate(database, made, actor, 6)) != ["test"] * 6  # nothing of the test before it is begun
        assert qualification.begin(database, actor, made.id, CODE) == qualification.begin(
            database, actor, made.id, CODE
        )
    assert rate(database, made, ann, 20, is_right=lambda i: i >= 4) == ["test"] * 20
    assert rate(database, made, bob, 20, is_right=lambda i: i >= 5) == ["test"] * 20
    with database.read() as rows:
        found = {each.name: each for each in qualification.attempts(rows, made.id)}
        assert (
            rows.scalar(sa.select(sa.func.count()).select_from(Check)) == 0
        )  # hidden anchors and drift know nothing of it
    assert [(found[name].state, found[name].num_right, found[name].num_used) for name in ("ann", "bob")] == [
        ("passed", 16, 20),
        ("failed", 15, 20),
    ]
    assert (found["ann"].share.low, found["ann"].share.high) == (wilson(16, 20).low, wilson(16, 20).high)
    assert set(rate(database, made, ann, 20)) == {"language:de skill:code"} and why(database, made, bob) in (
        "unmatched",
        "finished",
    )
    with pytest.raises(Refused, match="taken this test"):
        qualification.begin(database, bob, made.id, CODE)
    done = exporting.export_project(database, made, tmp_path)
    answers = [row.values for row in read_rows(tmp_path / "qualifications.jsonl")]
    assert done.num_votes == 18 and len(answers) == 40
    assert sum(row["correct"] for row in answers) == 31 and {row["test"] for row in answers} == {CODE}
    assert_replay(database)


@SQLITE
def test_a_test_is_taken_again_only_when_a_lead_allows_it_with_other_pairs_first(database, join):
    made = with_test(database, num=30)
    ann, lea = join("ann"), join("lea", "lead")
    qualification.begin(database, ann, made.id, CODE)
    assert rate(database, made, ann, 20, is_right=lambda _: False) == ["test"] * 20
    qualification.let_try_again(database, made.id, 1, by=lea.person_id)
    with pytest.raises(Refused, match="not failed"):
        qualification.let_try_again(database, made.id, 1, by=lea.person_id)
    assert qualification.begin(database, ann, made.id, CODE) == 2
    assert rate(database, made, ann, 20) == ["test"] * 20
    with database.read() as rows:
        assert [each.state for each in qualification.attempts(rows, made.id)] == ["passed", "again"]
        had = rows.scalars(sa.select(Assignment.item_id).where(Assignment.person_id == ann.person_id)).all()
        assert len(set(had)) == 40
    assert_replay(database)


@SQLITE
def test_a_skip_is_no_right_answer_and_a_distressing_text_is_left_out(database, join):
    made, ann = with_test(database), join("ann")
    qualification.begin(database, ann, made.id, CODE)
    for i in range(20):
        assignment = take(database, ann, made)
        if i < 6:
            sent = vote("skip", skip_reason="distressing" if i < 5 else "unclear")
            verdicts.submit(database, ann, assignment.id, sent)
        else:
            verdicts.save_draft(database, ann, assignment.id, {"rationale": "x"})
            assert rate(database, made, ann, 1, is_right=lambda _, i=i: i > 7) == ["test"]
    with database.read() as rows:
        test = rows.get(Qualification, (made.id, 1))
        assert (test.num_right, test.num_used, test.state) == (12, 15, "passed")  # 12 of 15 is 80 %


@SQLITE
def test_a_lead_lets_somebody_in_on_record_and_too_few_pairs_make_no_test(database, join):
    made, ann, lea = with_test(database, num=19), join("ann"), join("lea", "lead")
    with pytest.raises(Refused, match="19 of the 20 pairs"):
        qualification.begin(database, ann, made.id, CODE)
    with pytest.raises(Refused):
        qualification.begin(database, ann, made.id, "skill:none")
    with pytest.raises(Refused, match="needs a reason"):
        qualification.waive(database, made.id, ann.person_id, CODE, by=lea.person_id, reason=" ")
    abilities.set_abilities(database, ann.person_id, ["language:de", CODE], by=None)
    assert "language:de skill:code" not in rate(database, made, ann, 30)
    qualification.waive(database, made.id, ann.person_id, CODE, by=lea.person_id, reason="wrote the test")
    assert set(rate(database, made, ann, 30)) == {"language:de skill:code"}
    assert_replay(database)


def assert_replay(database):
    """What events derive is what the tables hold."""
    names = (
        "verdicts",
        "progress",
        "raters",
        "checks",
        "abilities",
        "qualifications",
        "qualification_items",
        "anchors",
    )

    def stored():
        with database.engine.connect() as connection:
            return {name: sorted(map(str, connection.execute(sa.select(Item.metadata.tables[name])))) for name in names}

    before = stored()
    verdicts.rebuild(database)
    assert stored() == before and any(before.values())


@SQLITE
def test_an_invitation_carries_skills_and_a_round_of_one_rater_asks_only_what_fits(database):
    from fairlead.web import rounds

    made = projects.create_project(database, "two", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, [*pairs(20), *asking(pairs(20, prefix="frage"), language="de")])
    secret = people.make_invite(database, role="rater", abilities=["language:de"])
    ann = people.actor_of(database, people.accept_invite(database, secret, name="ann", password="a long password"))
    bob = people.actor_of(
        database,
        people.accept_invite(
            database, people.make_invite(database, role="rater"), name="bob", password="a long password"
        ),
    )
    with database.read() as rows:
        assert abilities.abilities_of(rows) == {ann.person_id: ["language:de"]}
    rounds.open_round(database, made.id, reason="again", by=None, person_id=bob.person_id)
    with database.read() as rows:
        asked = rows.scalars(
            sa.select(Progress.needs).join(rounds.RoundItem, rounds.RoundItem.item_id == Progress.item_id)
        ).all()
    assert asked == [""] * 13


@SQLITE
def test_drawing_a_round_sorts_no_table(database, project, join):
    """The write transaction that opens a round reads pairs in the order of the index."""
    from fairlead.web import rounds

    seen = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: seen.append((given[2], given[3])))
    for person in (None, join("ann").person_id):
        with database.read() as rows:
            assert len(rounds._drawn(rows, project, person, num=5)) == 5
    drawn = [given for given in seen if "progress.rank" in given[0]]
    with database.engine.connect() as connection:
        plans = [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given).all()) for text, given in drawn]
    assert len(plans) == 2 and all("progress_in_order" in plan and "TEMP B-TREE" not in plan for plan in plans), plans


@SQLITE
def test_pages_of_lead_and_rater_work_without_scripts(database, join):
    made = with_test(database)
    app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
    ann, _ = join("ann"), join("lea", "lead")
    lea, rater = Browser(app).log_in("lea"), Browser(app).log_in("ann")
    page = lea.get(f"/p/{made.id}/skills").text
    assert "6 pairs that ask for de, code wait, and no rater can get them" in page and "16 of 20 right pass" in page
    assert lea.post(f"/people/{ann.person_id}/abilities", languages="DE, en", skills="x y").status_code == 422
    assert lea.post(f"/people/{ann.person_id}/abilities", languages="DE, en", skills="").status_code == 303
    assert 'value="de, en"' in lea.get("/people").text
    assert "Begin" in rater.get(f"/p/{made.id}/qualification").text
    assert rater.post(f"/p/{made.id}/qualification", need=CODE).headers["location"].endswith("/rate")
    assert "Test of code: pair 1 of 20" in rater.get(f"/p/{made.id}/rate").text
    assert rate(database, made, ann, 20) == ["test"] * 20
    assert re.search(
        r"<b>Passed\.</b> 20 of 20 right: 100 %, 95 % interval 84 % to 100 %",
        rater.get(f"/p/{made.id}/qualification").text,
    )
    assert "no rater can get them" not in lea.get(f"/p/{made.id}/skills").text
    assert "0 pairs have a known answer and are served among the others" in lea.get(f"/p/{made.id}/steering").text
    assert lea.post(f"/p/{made.id}/skills", act="waive", need=CODE, person_id="nobody", reason="x").status_code == 422


def helpsteer3(domain, language, number):
    return {"domain": domain, "language": language, "context": [{"role": "user", "content": f"{language} {number}?"}], "response1": "Oak.",
            "response2": "Rock.", "overall_preference": -2, "individual_preference": []}  # fmt: skip


def read(tmp_path, rows, **changes):
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return reading.read_source(file, seed=0, rejects_file=tmp_path / "rejects.jsonl", **changes)


ODD = "Visual Basic / .NET and whatever else stands there"
"""No word; the row goes in all the same, under its first 29 characters."""


def test_the_language_of_helpsteer3_is_one_that_people_speak_but_of_code_rows(tmp_path):
    found = read(tmp_path, [helpsteer3("general", "english", 1), helpsteer3("multilingual", "korean", 2), helpsteer3("code", "python", 3),
                            helpsteer3("code", "C++", 4), helpsteer3("code", ODD, 5), helpsteer3("stem", "Klingon", 6)])  # fmt: skip
    assert found.left_out == {}
    needs = {item.prompt.messages[0].content.rsplit(" ", 1)[0]: item.needs for item in found.items}
    assert needs == {"english": "language:en", "korean": "language:ko", "python": "skill:python", "C++": "skill:c++",
                     ODD: "skill:visual-basic-.net-and-whateve", "Klingon": "language:klingon"}  # fmt: skip
    said = {item.prompt.slice: item.prompt.meta for item in found.items if "C++" in item.prompt.messages[0].content}
    assert said["code"]["programming_language"] == "C++" and "language" not in said["code"]


@SQLITE
def test_an_import_says_which_language_no_rater_has_and_who_has_it_gets_it(database, tmp_path, monkeypatch, db, join):
    monkeypatch.chdir(tmp_path)
    rows = [helpsteer3("code", "python", i) for i in range(2)] + [helpsteer3("general", "english", i) for i in range(3)]
    read(tmp_path, rows)
    words = ["annotate", "import", "in.jsonl", "--project", "steer", "--db", db, "--votes", "1", "--calibration", "0"]
    said = CliRunner().invoke(cli, words).output
    assert "2 items ask for python, which no rater has yet" in said and "3 items ask for en, which" in said, said
    ann, made = join("ann"), projects.find_project(database, "steer")
    assert isinstance(queue.next_assignment(database, ann, made.id), queue.Nothing)
    abilities.set_abilities(
        database, ann.person_id, list(abilities_from(languages="English", skills="python")), by=None
    )
    asked = []
    while not isinstance(found := queue.next_assignment(database, ann, made.id), queue.Nothing):
        verdicts.submit(database, ann, found.id, vote("left"))
        with database.read() as rows_:
            asked.append(rows_.get(Item, found.item_id).needs)
    assert sorted(asked) == ["language:en"] * 3 + ["skill:python"] * 2
    rated.export_as(database, made, tmp_path / "items.jsonl", to="fairlead_items")
    again = reading.read_source(tmp_path / "items.jsonl", seed=0, rejects_file=tmp_path / "r.jsonl")
    assert sorted(item.needs for item in again.items) == sorted(asked)  # what is exported asks for the same again


@SQLITE
def test_an_export_to_helpsteer3_says_the_languages_that_came_in(database, tmp_path, join):
    """Read again as ours and, without our columns, as another program's file, its rows ask for what those that came in asked for."""
    given = [helpsteer3("code", "C++", 1), helpsteer3("multilingual", "korean", 2), helpsteer3("general", "english", 3)]
    generic = {"prompt": "Sort it.", "chosen": "sorted(x)", "rejected": "x", "skills": ["python"]}
    made = projects.create_project(database, "there", votes_per_item=1, calibration_items=0)
    for rows in (given, [generic]):
        importing.add_items(database, made.id, read(tmp_path, rows).items)
    ann = join("ann")
    abilities.set_abilities(
        database, ann.person_id, list(abilities_from(languages="en,ko", skills="python,c++")), by=None
    )
    for _ in range(4):
        verdicts.submit(database, ann, take(database, ann, made).id, vote("left"))
    rated.export_as(database, made, tmp_path / "out.jsonl", to="helpsteer3")
    rows = [row.values for row in read_rows(tmp_path / "out.jsonl")]
    said = {(row["domain"], row["language"]) for row in rows}
    assert said == {("code", "C++"), ("multilingual", "korean"), ("general", "english"), ("code", "python")}
    wanted = ["language:en", "language:ko", "skill:c++", "skill:python"]
    own = ("domain", "language", "context", "response1", "response2", "overall_preference", "individual_preference")
    for each in (rows, [{name: row[name] for name in own} for row in rows]):
        assert sorted(item.needs for item in read(tmp_path, each).items) == wanted


def node(text, role, *, lang=None, rank=None, replies=()):
    return {
        "message_id": text,
        "text": text,
        "role": role,
        "rank": rank,
        "replies": list(replies),
        **({"lang": lang} if lang else {}),
    }


@pytest.mark.parametrize(
    ("prompt", "replies", "needs"),
    [
        ("de", ("de", "de"), "language:de"),
        ("pt-BR", ("pt-BR", None), "language:pt-br"),
        ("de", ("en", "en"), "language:en"),  # a translation: raters read the replies
        ("de", ("en", "fr"), "language:de"),
        (None, (None, None), ""),
    ],
)
@pytest.mark.parametrize("group_size", [2, 3])
def test_trees_ask_for_the_language_of_their_replies(tmp_path, prompt, replies, needs, group_size):
    below = [node(f"answer {i}", "assistant", lang=lang, rank=i) for i, lang in enumerate(replies)]
    tree = {
        "message_tree_id": "t",
        "tree_state": "ready",
        "prompt": node("why?", "prompter", lang=prompt, replies=below),
    }
    (item,) = read(tmp_path, [tree], group_size=group_size).items
    assert item.needs == needs


def test_rows_of_single_messages_ask_for_it_too_and_exported_trees_keep_it(tmp_path):
    rows = [{"message_id": "q", "parent_id": None, "text": "warum?", "role": "prompter", "lang": "de"}]
    rows += [
        {"message_id": f"a{i}", "parent_id": "q", "text": f"darum {i}", "role": "assistant", "rank": i, "lang": "de"}
        for i in range(2)
    ]
    (item,) = read(tmp_path, rows).items
    assert item.needs == "language:de"
    replies = (Reply(id="a", text="so"), Reply(id="b", text="anders"))
    rated_item = RatedItem(
        item="1",
        prompt=item.prompt.messages,
        replies=replies,
        ratings=(Rating(rater="r", verdict="a"),),
        meta={"language": "de"},
    )
    (again,) = read(tmp_path, [write_tree(rated_item)]).items
    assert again.needs == "language:de"


def test_languages_by_name_are_those_by_code():
    assert needs_of({"language": "German"}) == ("language:de",) == (need_of("language:german"),)
    assert abilities_from(languages=["english", "pt-br"], skills=["english"]) == (
        "language:en",
        "language:pt-br",
        "skill:english",
    )
    assert needs_of({"programming_language": "Python", "skills": ["python"]}) == ("skill:python",)
    assert needs_of({"programming_language": "???"}) == ()
