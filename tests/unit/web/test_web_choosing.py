"""Active choice of pairs: off by default, batches with a random arm and stored probabilities, scores of a reward model, weights in exports."""

import dataclasses
import json

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner
from web_browser import PLACE, Browser
from web_example import pairs, sets, vote

from fairlead.cli.main import app as cli
from fairlead.core.annotations import INCLUSION, RatedItem
from fairlead.core.io import read_records, read_rows
from fairlead.feedback.collected import read_collected
from fairlead.store.annotation.choosing import Batch, PairChoice
from fairlead.store.annotation.schema import Completion, Item, Progress
from fairlead.web import (
    abilities,
    choosing,
    drift,
    exporting,
    importing,
    inclusion,
    projects,
    queue,
    rated,
    rounds,
    scoring,
    steering,
    tokens,
    verdicts,
)
from fairlead.web.app import make_app
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped

SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


def project_of(database, made, *, votes=1, random_share=0.2, choice_batch=10):
    project = projects.create_project(database, "chosen", votes_per_item=votes, calibration_items=0)
    importing.add_items(database, project.id, made)
    steering.change_settings(
        database,
        project.id,
        by=None,
        votes_per_item=votes,
        anchor_share=0,
        random_share=random_share,
        choice_batch=choice_batch,
    )
    return project


def sliced(num, name, **meta):
    return [
        dataclasses.replace(item, prompt=dataclasses.replace(item.prompt, slice=name, meta=meta))
        for item in pairs(num, prefix=name)
    ]


def rate(database, project, actor, num):
    """Vote for the first on the left of every second pair; return the items."""
    done = []
    for _ in range(num):
        found = queue.next_assignment(database, actor, project.id)
        if isinstance(found, queue.Nothing):
            break
        verdicts.submit(database, actor, found.id, vote("left" if is_swapped(found.shown) else "right"))
        done.append(found.item_id)
    return done


def stored(database, table):
    with database.read() as rows:
        return list(rows.scalars(sa.select(table).order_by(*table.__table__.primary_key.columns)))


def assert_replay(database):
    names = ("verdicts", "progress", "batches", "choices", "raters")

    def read():
        with database.engine.connect() as connection:
            return {name: sorted(map(str, connection.execute(sa.select(Item.metadata.tables[name])))) for name in names}

    before = read()
    verdicts.rebuild(database)
    assert read() == before


def test_pairs_are_opened_in_batches_and_all_are_rated_in_the_end(database, join):
    project, ann, bob = project_of(database, pairs(24), votes=2), join("ann"), join("bob")
    first = rate(database, project, ann, 10)
    choices = {row.item_id: row for row in stored(database, PairChoice)}
    assert set(first) == set(choices) and [batch.num_pool for batch in stored(database, Batch)] == [24]
    arms = [choices[item].arm for item in first]
    assert arms.count("random") == 2 and sum(row.inclusion for row in choices.values()) == pytest.approx(10 * 10 / 24)
    assert set(rate(database, project, bob, 10)) == set(first)
    assert len(stored(database, Batch)) == 1  # pairs that were begun come before new ones
    assert len(rate(database, project, ann, 30)) == 14 and len(rate(database, project, bob, 30)) == 14
    assert [batch.num_pool for batch in stored(database, Batch)] == [24, 14, 4]
    assert [row.inclusion for row in stored(database, PairChoice) if row.number == 3] == [1.0] * 4
    assert_replay(database)


@SQLITE
def test_it_is_off_unless_a_lead_switches_it_on(database, project, join):
    rate(database, project, join("ann"), 5)
    assert stored(database, Batch) == []
    for wrong in ({"random_share": 0.1}, {"random_share": 1.5}, {"choice_batch": 2}):
        with pytest.raises(Refused, match="at random"):
            steering.change_settings(database, project.id, by=None, votes_per_item=2, **wrong)


def put_scores(database, project, gap_of):
    """Scores whose difference on pair i is `gap_of(i)`."""
    given = [scoring.GivenScore(completion_id="", text=f"{word} reply to {i}", value=gap_of(i) if word == "good" else 0.0)
             for i in range(200) for word in ("good", "bad")]  # fmt: skip
    return scoring.put_scores(database, project.id, given, by=None)


@SQLITE
def test_pairs_of_which_the_reward_model_is_unsure_come_first_and_the_random_arm_does_not_care(database, join):
    project = project_of(database, pairs(200), choice_batch=50)
    assert put_scores(database, project, lambda i: 0.0 if i < 50 else 8.0).num_scores == 400
    rate(database, project, join("ann"), 50)
    with database.read() as rows:
        texts = {
            item.id: rows.get(Completion, (project.id, item.completions[0])).record["text"]
            for item in rows.scalars(sa.select(Item))
        }
    unsure = {item for item, text in texts.items() if int(text.rsplit(" ", 1)[1]) < 50}
    chosen = stored(database, PairChoice)
    assert stored(database, Batch)[0].num_scored == 200
    active = [row.item_id in unsure for row in chosen if row.arm == "active"]
    at_random = [row.item_id in unsure for row in chosen if row.arm == "random"]
    assert (
        len(active) == 40 and sum(active) >= 28
    )  # 40 on average, 10 without regard to scores; by chance fewer: < 1e-7
    assert len(at_random) == 10 and sum(at_random) < 10
    assert (
        min(row.inclusion for row in chosen if row.item_id in unsure)
        > 0.75
        > max(row.inclusion for row in chosen if row.item_id not in unsure)
    )


@SQLITE
def test_slices_that_were_rated_less_are_sought(database, join):
    """Of 80 pairs 60 weigh 1 and 20, forty like which were rated, 1/41; together 60.4878. A pair of the 60 is one of the 16 of the active
    arm with probability 16 / 60.4878 = 0.26452, one of the 20 with 0.00645; else it is one of the 4 at random of the 64 that are left.
    """
    project = project_of(database, [*sliced(60, "much"), *sliced(60, "little")], choice_batch=20, random_share=1.0)
    ann = join("ann")
    with database.write() as rows:  # forty pairs of one slice were rated before
        much = rows.scalars(
            sa.select(Item.id)
            .join(choosing.Prompt, choosing.Prompt.id == Item.prompt_id)
            .where(choosing.Prompt.record["slice"].as_string() == "much")
        ).all()
        rows.execute(sa.update(Progress).where(Progress.item_id.in_(much[:40])).values(rank=-1))
    rate(database, project, ann, 40)
    steering.change_settings(database, project.id, by=None, votes_per_item=1, random_share=0.2)
    done = rate(database, project, ann, 20)
    of = {row.item_id: row.inclusion for row in stored(database, PairChoice) if row.item_id in done}
    assert [of[item] for item in done] == pytest.approx(
        [0.06855 if item in much else 0.31049 for item in done], abs=1e-5
    )
    with database.read() as rows:
        arms = {
            item: found.arm
            for item, found in inclusion.inclusions(rows, rows.get(projects.Project, project.id)).items()
        }
    assert [arms[item] for item in much[:40]] == ["before"] * 40


def test_exports_hold_arm_probability_and_weight_and_weights_stand_for_all_pairs(database, join, tmp_path):
    project, ann = project_of(database, pairs(60), choice_batch=12), join("ann")
    put_scores(database, project, lambda i: i / 10)
    rate(database, project, ann, 24)
    exporting.export_project(database, project, tmp_path / "votes")
    items = [row.values for row in read_rows(tmp_path / "votes" / "items.jsonl")]
    tasks = [comparison.task.meta for comparison in read_collected(tmp_path / "votes" / "comparisons.jsonl")]
    assert len(items) == 24 and {row["arm"] for row in items} == {"active", "random"}
    assert [row["inclusion_weight"] for row in items] == [meta["inclusion_weight"] for meta in tasks] and all(
        0 < row["inclusion"] <= 1 and row["inclusion_weight"] > 0 for row in items
    )
    assert 30 < sum(row["inclusion_weight"] for row in items) < 120  # 60 expected
    for to in (
        "trl",
        "fairlead_items",
    ):  # what these hold, and all others, is read back in test_preferences_inclusion.py
        rated.export_as(database, project, tmp_path / f"{to}.jsonl", to=to)
    as_trl = {row.values["prompt"][0]["content"]: row.values for row in read_rows(tmp_path / "trl.jsonl")}
    as_items = {item.item: item.meta for item in read_records(tmp_path / "fairlead_items.jsonl", RatedItem)}
    for row in items:
        want = [row[name] for name in INCLUSION]
        assert (
            want
            == [as_trl[row["prompt"]][name] for name in INCLUSION]
            == [as_items[row["item"]][name] for name in INCLUSION]
        )
    steering.change_settings(database, project.id, by=None, votes_per_item=1, random_share=1.0)
    rate(database, project, ann, 100)
    with database.read() as rows:
        found = inclusion.inclusions(rows, rows.get(projects.Project, project.id))
    assert len(found) == 60
    last = [each for each in found.values() if each.probability == 1.0 and each.arm == "random"]
    assert len(last) >= 36  # what was opened after the end of the choice is all that was left


@SQLITE
def test_a_batch_that_is_not_done_and_a_stretch_of_a_large_pool_count_in_the_probability(database, join, monkeypatch):
    monkeypatch.setattr(choosing, "MAX_SEEN", 20)
    project, ann = project_of(database, pairs(80), choice_batch=10), join("ann")
    rate(database, project, ann, 5)
    assert [(batch.num_pool, batch.num_seen) for batch in stored(database, Batch)] == [(80, 20)]
    assert [row.inclusion for row in stored(database, PairChoice)] == pytest.approx(
        [10 / 80] * 10
    )  # nothing is known, so all are alike
    with database.read() as rows:
        found = inclusion.inclusions(rows, rows.get(projects.Project, project.id))
    assert [each.probability for each in found.values()] == pytest.approx([5 / 80] * 5)
    assert [each.weight for each in found.values()] == pytest.approx([16] * 5)


@SQLITE
def test_batches_are_drawn_from_pairs_that_the_rater_may_get(database, join):
    project = project_of(database, [*pairs(12), *sliced(12, "frage", language="de")], choice_batch=5)
    ann, bob = join("ann"), join("bob")
    abilities.set_abilities(database, bob.person_id, ["language:de"], by=None)
    assert len(rate(database, project, ann, 30)) == 12 and {batch.needs for batch in stored(database, Batch)} == {""}
    assert len(rate(database, project, bob, 30)) == 12 and {batch.needs for batch in stored(database, Batch)} == {
        "",
        "language:de",
    }


@SQLITE
def test_pairs_asked_for_by_name_do_not_wait_for_a_batch_and_rounds_leave_chosen_ones(database, join):
    project, ann = project_of(database, pairs(60), choice_batch=10), join("ann")
    rate(database, project, ann, 1)
    with database.read() as rows:
        asked = rows.scalars(sa.select(Progress.item_id).where(Progress.rank >= 0).limit(2)).all()
    drift.ask_more_votes(database, project.id, list(asked), extra=1, by=None, reason="second look")
    assert set(asked) <= set(rate(database, project, join("bob"), 12))
    rounds.open_round(database, project.id, reason="again", by=None)
    with database.read() as rows:
        of_round = set(rows.scalars(sa.select(rounds.RoundItem.item_id)))
        assert len(of_round) == 13 and not of_round & set(rows.scalars(sa.select(PairChoice.item_id)))
    rate(database, project, ann, 13)
    with database.read() as rows:
        found = inclusion.inclusions(rows, rows.get(projects.Project, project.id))
        assert {found[item].weight for item in of_round} == {None} == {found[item].probability for item in of_round}
    assert_replay(database)


@SQLITE
def test_rankings_are_as_unsure_as_their_closest_two(database, join):
    project = project_of(database, sets(20), choice_batch=5)
    given = [
        scoring.GivenScore(completion_id="", text=f"quality {q} of {i}", value=float(q) if i else 0.0)
        for i in range(20)
        for q in range(4)
    ]
    scoring.put_scores(database, project.id, given, by=None)
    with database.read() as rows:
        seen = choosing._stretch(rows, rows.get(projects.Project, project.id), "", num_pool=20)
        found = sorted(round(p, 3) for p in choosing._p_first(rows, project.id, seen))
    assert found == [round(1 / (1 + np.exp(1)), 3)] * 19 + [0.5]


@SQLITE
def test_files_of_scores_are_read_and_faults_are_told(database, project, tmp_path, db, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with database.read() as rows:
        name = rows.scalars(sa.select(Completion.id)).first()
    lines = [{"completion_id": name, "scorer": "rm", "value": 1.5}, {"completion": "good reply to 3", "score": "-2"},
             {"completion": "nothing", "score": 1},
             {"score": 1}, {"completion_id": name, "completion": "both", "score": 1}, {"completion_id": name, "score": "high"}]  # fmt: skip
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given, faults, where = scoring.read_scores(tmp_path / "scores.jsonl", rejects_file=tmp_path / "rejects.jsonl")
    assert (len(given), sum(faults.values()), len(where)) == (3, 3, 3) and where[0][0].endswith("scores.jsonl:4")
    assert scoring.put_scores(database, project.id, given, by=None) == scoring.ScoresPut(num_scores=2, num_unknown=1)
    words = ["annotate", "scores", str(tmp_path / "scores.jsonl"), "--project", "test", "--db", db]
    assert "2 completions of test have a score" in CliRunner().invoke(cli, words).output
    assert CliRunner().invoke(cli, [*words, "--strict"]).exception is not None
    done = CliRunner().invoke(
        cli,
        ["annotate", "steer", "--project", "test", "--db", db, "--set", "random_share=0.5", "--set", "matches=false"],
    )
    assert "random_share: 0.5" in done.output and "matches: False" in done.output, done.output
    for wrong in ("share=1", "random_share=high", "every_days=1.5", "matches=1"):
        found = CliRunner().invoke(cli, ["annotate", "steer", "--project", "test", "--db", db, "--set", wrong])
        assert isinstance(found.exception, Refused), wrong


@SQLITE
def test_the_page_and_the_api_tell_which_arm_pairs_came_from(database, join):
    project, ann, lea = project_of(database, pairs(40)), join("ann"), join("lea", "lead")
    rate(database, project, ann, 12)
    app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
    page = Browser(app).log_in("lea").get(f"/p/{project.id}/steering").text
    assert (
        "20 % of the pairs that are opened are drawn at random" in page
        and ">chosen</th>" in page
        and "Asks for" in page
    )
    client = Browser(app).client
    client.headers["authorization"] = (
        f"Bearer {tokens.make_token(database, lea, name='t', scope='lead', num_days=1).secret}"
    )
    base = f"/api/v1/projects/{project.id}"
    found = client.get(f"{base}/choice").json()
    assert found["is_on"] and {arm["name"]: arm["num_chosen"] for arm in found["arms"]} == {"active": 16, "random": 4}
    sent = client.post(f"{base}/steering", json={"settings": {"random_share": 1}}).json()
    assert sent["settings"]["random_share"] == 1.0 and not client.get(f"{base}/choice").json()["is_on"]
    assert client.post(f"{base}/scores", json=[{"completion": "good reply to 1", "score": 0.5}]).json() == {
        "num_scores": 1,
        "num_unknown": 0,
    }
    assert client.post(f"{base}/scores", json=[{"score": 0.5}]).status_code == 422
    items = client.get(f"{base}/items", params={"limit": 15}).json()
    assert len(client.get(f"{base}/items", params={"after": items["next"]}).json()["items"]) == 25
    more = {"key": "a-key-of-more-votes", "items": [items["items"][0]["id"]], "reason": "again"}
    assert client.post(f"{base}/more-votes", json=more).status_code == 204


@SQLITE
def test_the_status_of_a_project_tells_what_steers_it(database, join, db):
    project, ann = project_of(database, [*pairs(20), *sliced(5, "frage", language="de")]), join("ann")
    rate(database, project, ann, 12)
    words = ["annotate", "status", "--db", db]
    said = CliRunner().invoke(cli, words).output
    assert (
        "hidden anchors: 0 known answers; alarms open for nobody" in said
        and "5 pairs ask for a language or skill that no rater has" in said
    )
    assert "choice of pairs: 20.0 % at random, 2 batches, 16 chosen and 4 at random" in said, said
    (found,) = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)["projects"]
    assert found["steering"]["num_chosen"] == {"active": 16, "random": 4} and found["steering"]["drifting"] == []


@SQLITE
def test_a_lead_asks_more_raters_for_one_pair_on_its_page(database, join):
    project = project_of(database, pairs(6), votes=2, random_share=1.0)
    for name in ("ann", "bob"):
        rate(database, project, join(name), 6)
    join("lea", "lead")
    lea = Browser(make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)).log_in("lea")
    item = stored(database, Item)[0].id
    assert "Ask more raters" in lea.get(f"/p/{project.id}/items/{item}").text
    sent = {"extra": "1", "key": "a-key-of-more-votes"}
    assert lea.post(f"/p/{project.id}/items/{item}/votes", **sent, reason=" ").status_code == 422
    assert lea.post(f"/p/{project.id}/items/{item}/votes", **sent, reason="two answers").status_code == 303
    assert rate(database, project, join("cem"), 6) == [item]
