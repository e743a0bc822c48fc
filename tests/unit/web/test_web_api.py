"""The API: scopes and routes, tokens that end, one shape of refusals, and a project from its texts to its votes by HTTP alone."""

import json
import logging
import secrets

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from fairlead.store.annotation.outside import Token
from fairlead.store.annotation.schema import Event, Person, Verdict
from fairlead.web import people, projects, tokens
from fairlead.web.errors import Refused
from fairlead.web.place import Place

PLACE = Place.of(host="127.0.0.1", port=8643, url=None)


def key():
    return secrets.token_hex(16)


PAIRS = "".join(json.dumps({"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"}) + "\n" for i in range(6))


def test_a_project_from_texts_to_votes_by_http_alone(program, join, database):
    lead, rater = program(join("lea", "lead")), program(join("ann"), scope="rate")
    made = lead.post("projects", json={"name": "api", "votes_per_item": 1, "calibration_items": 0})
    assert made.status_code == 201
    project = made.json()["id"]
    put = lead.post(f"projects/{project}/import", content=PAIRS.encode())
    assert put.status_code == 200 and put.json()["num_items"] == 6 and put.json()["left_out"] == {}
    assert lead.post(f"projects/{project}/import", content=PAIRS.encode()).json()["num_known"] == 6
    for _ in range(6):
        given = rater.post(f"projects/{project}/next", json={}).json()["assignment"]
        assert {turn["role"] for turn in given["prompt"]} == {"user"} and len(given["replies"]) == 2
        choice = "left" if given["replies"][0].startswith("good") else "right"
        sent = {"key": key(), "choice": choice, "strength": 2, "guideline_version": given["guideline_version"]}
        first = rater.post(f"assignments/{given['id']}/verdict", json=sent)
        again = rater.post(f"assignments/{given['id']}/verdict", json=sent)
        assert first.status_code == 200 and (first.json()["repeat"], again.json()["repeat"]) == (False, True)
        assert first.json()["event"] == again.json()["event"]
    assert rater.post(f"projects/{project}/next", json={}).json() == {"assignment": None, "reason": "finished"}
    assert lead.get(f"projects/{project}/status").json()["num_finished"] == 6
    votes = lead.get(f"projects/{project}/votes").json()
    assert len(votes) == 6 and {v["rater"] for v in votes} == {"rater-002"} and all(v["strength"] for v in votes)
    assert len(lead.get(f"projects/{project}/votes", params={"after": votes[3]["event"]}).json()) == 2
    archive = lead.get(f"projects/{project}/export")
    assert archive.status_code == 200 and archive.content[:2] == b"PK"


def test_undo_flag_draft_and_own_votes(program, join, project, database):
    rater = program(join("ann"), scope="rate")
    given = rater.post(f"projects/{project.id}/next", json={}).json()["assignment"]
    sent = {"key": key(), "choice": "left", "strength": 3, "guideline_version": 1, "rationale": "clear"}
    rater.post(f"assignments/{given['id']}/verdict", json=sent)
    assert rater.post(f"assignments/{given['id']}/flag", json={"key": key(), "note": "odd"}).status_code == 204
    assert rater.put(f"assignments/{given['id']}/draft", json={"text": "half"}).status_code == 204
    own = rater.get(f"projects/{project.id}/mine").json()
    assert [(v["given"], v["rationale"]) for v in own] == [("left3", "clear")]
    undo = key()
    assert rater.post(f"projects/{project.id}/undo", json={"key": undo}).json() == {"assignment": given["id"]}
    assert rater.post(f"projects/{project.id}/undo", json={"key": undo}).status_code == 200
    assert rater.get(f"projects/{project.id}/mine").json() == []
    assert rater.get(f"assignments/{given['id']}").json()["given"] == ""
    assert rater.get(f"projects/{project.id}/pace").json()["num_done"] == 0


def test_a_guideline_is_published_over_the_version_that_was_read(program, join, project):
    lead = program(join("lea", "lead"))
    sent = {"text": "# Two", "rules": {"scale": "binary", "ties": "forced", "rationale": "off"}, "replaces": 1}
    assert lead.post(f"projects/{project.id}/guideline", json=sent).json()["version"] == 2
    again = lead.post(f"projects/{project.id}/guideline", json=sent)
    assert again.status_code == 409 and again.json()["error"]["code"] == "stale"
    shown = lead.get(f"projects/{project.id}/guideline", params={"version": 1}).json()
    assert (shown["version"], shown["newest"]) == (1, 2)


def test_no_token_has_the_powers_of_an_admin(program, database, join):
    boss, other = join("boss", "admin"), join("lea", "lead")
    client = program(boss)
    assert client.get("me").json()["role"] == "lead"
    assert client.post("invites", json={"key": key(), "role": "admin"}).status_code == 403
    assert client.post(f"people/{other.person_id}/state", json={"state": "disabled"}).status_code == 403


def test_a_scope_beyond_the_role_is_refused_and_a_lower_role_lowers_old_tokens(program, database, join):
    with pytest.raises(Refused, match="Only a lead"):
        tokens.make_token(database, join("ann"), name="x", scope="lead", num_days=1)
    lea = join("lea", "lead")
    client = program(lea)
    assert client.get("people").status_code == 200
    with database.write() as rows:
        rows.get_one(Person, lea.person_id).role = "rater"
    assert client.get("people").status_code == 403


def test_tokens_end(program, database, join, monkeypatch):
    ann = join("ann")
    client = program(ann, "read")
    assert client.get("me").status_code == 200
    with database.read() as rows:
        token = rows.scalars(sa.select(Token)).one()
    assert token.used_at is not None
    with pytest.raises(Refused, match="not yours"):
        tokens.revoke_token(database, token.id, by=join("bob"))
    tokens.revoke_token(database, token.id, by=ann)
    assert client.get("me").status_code == 401
    second = program(ann, "read")
    people.set_state(database, ann.person_id, state="disabled", by=None)
    assert second.get("me").status_code == 401
    people.set_state(database, ann.person_id, state="active", by=None)
    assert second.get("me").status_code == 200
    later = people.now_ms() + 25 * 3600 * 1000
    monkeypatch.setattr(tokens, "now_ms", lambda: later)
    assert second.get("me").status_code == 401


def test_a_token_is_kept_as_a_hash_and_never_logged(program, database, join, caplog):
    caplog.set_level(logging.DEBUG)
    ann = join("ann")
    made = tokens.make_token(database, ann, name="x", scope="read", num_days=1)
    client = program()
    client.headers["authorization"] = f"Bearer {made.secret}"
    assert client.get("me").status_code == 200
    client.headers["authorization"] = f"Bearer {made.secret}x"
    refused = client.get("me")
    with database.engine.connect() as connection:
        stored = " ".join(
            str(row) for name in ("tokens", "events") for row in connection.execute(sa.text(f"SELECT * FROM {name}"))
        )
    assert made.secret not in stored + caplog.text + refused.text and people.hashed(made.secret) in stored
    assert made.secret.startswith(made.token.prefix) and len(made.secret) - len(made.token.prefix) >= 36


def test_a_cookie_says_nothing_to_the_api_and_a_foreign_page_is_refused(app, program, join):
    join("ann")
    session = people.log_in(app.state.around.database, name="ann", password="a long password", address="1.2.3.4")
    client = program()
    client.cookies.set("fairlead", session)
    assert client.get("me").status_code == 401
    assert client.post("projects", json={"name": "x"}).status_code == 401
    lead = program(join("lea", "lead"))
    foreign = lead.post("projects", json={"name": "x"}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers


def test_a_token_that_asks_too_often_waits(database, join):
    from fairlead.web.api import make_api
    from fairlead.web.pages.context import Around

    secret = tokens.make_token(database, join("ann"), name="x", scope="read", num_days=1).secret
    api = make_api(Around(database=database, place=PLACE, secret=b"s" * 32), rate_per_s=0.001, burst=3)
    client = TestClient(api, headers={"authorization": f"Bearer {secret}"})
    assert [client.get("/me").status_code for _ in range(5)] == [200] * 3 + [429] * 2


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("projects", {"name": "x", "admin": True}, "admin"),
        ("projects", {"name": 5}, "name"),
        ("projects", {"name": "x", "votes_per_item": -1}, "votes_per_item"),
        ("projects", {"name": ""}, "empty"),
        ("projects", {"name": "x" * 81}, "too long"),
        ("projects", {"name": "nul\0"}, "name"),
        ("projects", [], "body"),
        ("invites", {"key": "a-key-of-an-invite", "role": "god"}, "god is not a role"),
    ],
)
def test_faults_are_named_and_nothing_is_stored(program, join, database, route, body, words):
    answer = program(join("lea", "lead")).post(route, json=body)
    assert answer.status_code == 422 and words in answer.json()["error"]["message"]
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "project.created")) == 0


def test_a_verdict_with_a_field_that_is_not_known_is_refused(program, join, project, database):
    rater = program(join("ann"), "rate")
    given = rater.post(f"projects/{project.id}/next", json={}).json()["assignment"]
    sent = {"key": key(), "choice": "left", "strength": 1, "guideline_version": 1}
    for change in ({"person_id": "x"}, {"choice": "a"}, {"key": "short"}, {"strength": 9}, {"guideline_version": 7}):
        answer = rater.post(f"assignments/{given['id']}/verdict", json={**sent, **change})
        assert answer.status_code in (404, 422), (change, answer.text)
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 0


def test_items_are_listed_in_pages_and_in_every_allowed_order(program, join, project):
    lead = program(join("lea", "lead"))
    for sort in ("rank", "num_votes", "num_skips"):
        seen, after = [], ""
        while True:
            page = lead.get(f"projects/{project.id}/items", params={"sort": sort, "limit": 5, "after": after}).json()
            seen += [item["id"] for item in page["items"]]
            after = page["next"]
            if not after:
                break
        assert len(seen) == len(set(seen)) == 12


def test_an_import_lists_bad_rows_or_takes_nothing(program, join, project):
    lead = program(join("lea", "lead"))
    bad = PAIRS + json.dumps({"prompt": "q", "chosen": "", "rejected": "x"}) + "\n"
    strict = lead.post(f"projects/{project.id}/import", params={"strict": True}, content=bad.encode())
    assert strict.status_code == 422 and "7: empty chosen" in strict.json()["error"]["message"]
    assert lead.get(f"projects/{project.id}/status").json()["num_items"] == 12
    done = lead.post(f"projects/{project.id}/import", content=bad.encode()).json()
    assert done["num_items"] == 6 and done["faults"] == ["line 7: empty chosen"]
    assert lead.post(f"projects/{project.id}/import", params={"ending": "/../../x"}, content=b"x").status_code == 422
    assert lead.post("projects/none/import", content=PAIRS.encode()).status_code == 404


def test_the_api_and_the_pages_make_the_same_events(program, join, project, database):
    lead = program(join("lea", "lead"))
    lead.post(f"projects/{project.id}/state", json={"state": "paused"})
    with database.read() as rows:
        assert rows.scalars(sa.select(Event.kind).order_by(Event.number.desc())).first() == "project.paused"
        assert projects.get_project(rows, project.id).state == "paused"
