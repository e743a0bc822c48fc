"""The application over HTTP: a rater logs in and rates without scripts; roles and routes; CSRF, origin, host, size, rate; headers; blindness."""

import re

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from web_browser import ORIGIN, PLACE, Browser, without_ids
from web_example import pairs, take, vote
from web_payloads import PAYLOADS

from fairlead.store.annotation.schema import Assignment, Completion, Item, Verdict
from fairlead.web import importing, people, projects, tokens, verdicts, webhooks
from fairlead.web.app import make_app
from fairlead.web.demonstrations import desk, transfer
from fairlead.web.place import Place


def test_a_rater_is_invited_rates_and_the_vote_is_there(app, database, project):
    secret = people.make_invite(database, role="rater")
    visitor = Browser(app)
    assert "invited as rater" in visitor.get(f"/invite/{secret}").text
    assert visitor.post(f"/invite/{secret}", name="Ann", password="a long password").status_code == 303
    assert visitor.get("/").headers["location"].endswith(f"/p/{project.id}/rate")
    assignment, answer = visitor.rate(project, rationale="shorter")
    assert answer.status_code == 303
    with database.read() as rows:
        found = rows.get(Verdict, assignment)
        assert (found.rationale, abs(found.strength), found.guideline_version) == ("shorter", 2, 1)
    assert "Left better" in visitor.get(f"/p/{project.id}/mine").text


def test_json_answers_say_what_is_saved_and_a_repeat_is_told(browser, project):
    ann = browser()
    ann.get(f"/p/{project.id}/rate")
    assignment = re.search(r'data-assignment="([^"]+)"', ann.page)[1]
    fields = {"key": "abcdefgh12345678", "choice": "right1", "guideline_version": "1", "active_ms": "4000"}
    first, again = (
        ann.post(f"/a/{assignment}/verdict", headers={**ORIGIN, "accept": "application/json"}, **fields).json()
        for _ in range(2)
    )
    assert first["saved"] == again["saved"] and (first["repeat"], again["repeat"]) == (False, True)
    refused = ann.post(
        f"/a/{assignment}/verdict", headers={**ORIGIN, "accept": "application/json"}, **{**fields, "choice": "best"}
    )
    assert refused.status_code == 422 and refused.json()["error"]["code"] == "invalid"


def test_undo_and_change_without_scripts(browser, project, database):
    ann = browser()
    assignment, _ = ann.rate(project)
    answer = ann.post(f"/p/{project.id}/undo", key="undo-key-1")
    assert answer.headers["location"].endswith(f"rate?a={assignment}")
    ann.rate(project, "right3")
    page = ann.get(f"/p/{project.id}/rate?a={assignment}").text
    assert re.search(r'value="right3"[^>]* checked', page)


def test_the_next_item_is_another_and_is_given_while_this_one_is_on_screen(browser, project):
    ann = browser()
    ann.get(f"/p/{project.id}/rate")
    first = re.search(r'data-assignment="([^"]+)"', ann.page)[1]
    part = ann.client.get(f"/p/{project.id}/next", params={"without": first}).text
    assert re.search(r'data-assignment="([^"]+)"', part)[1] != first and "<html" not in part


def test_nothing_in_a_page_tells_the_model_or_the_order(browser, project, database):
    ann = browser()
    page = ann.get(f"/p/{project.id}/rate").text
    with database.read() as rows:
        secrets = {row.id for row in rows.scalars(sa.select(Completion))} | {
            row.id for row in rows.scalars(sa.select(Item))
        }
        secrets |= {row.content_id for row in rows.scalars(sa.select(Item))} | {
            row.prompt_id for row in rows.scalars(sa.select(Item))
        }
    assert not [secret for secret in secrets if secret in page]
    assert not re.search(r"\b(m1|m2|swapped|canonical|rejected|completion_[ab])\b", without_ids(page))


def test_both_sides_have_the_same_markup(browser, project):
    ann = browser()
    page = ann.get(f"/p/{project.id}/rate").text
    left, right = re.findall(r'<section class="pane.*?</section>', page, flags=re.S)
    plain = [
        re.sub(r"(good|bad) reply to \d+|Left|Right| is-front", "", re.sub("</?mark>", "", side))
        for side in (left, right)
    ]
    assert plain[0] == plain[1]


ROUTES = {
    "GET /": "rater", "GET /p/{p}/rate": "rater", "GET /p/{p}/next": "rater", "GET /p/{p}/mine": "rater", "GET /p/{p}/guideline": "rater",
    "POST /p/{p}/undo": "rater", "POST /a/{a}/verdict": "rater", "POST /a/{a}/flag": "rater", "POST /a/{a}/draft": "rater",
    "GET /p/{p}": "lead", "GET /p/{p}/agreement": "lead", "GET /p/{p}/raters": "lead", "GET /p/{p}/calibration": "lead",
    "GET /p/{p}/disagreements": "adjudicator", "GET /p/{p}/adjudicate": "adjudicator", "GET /p/{p}/items/{i}": "adjudicator",
    "POST /p/{p}/items/{i}/decision": "adjudicator", "POST /p/{p}/items/{i}/revoke": "adjudicator",
    "POST /p/{p}/items/{i}/anchor": "lead",
    "GET /p/{p}/discussion": "rater", "POST /p/{p}/discussion": "lead",
    "GET /p/{p}/labels": "lead", "GET /p/{p}/costs": "lead", "POST /p/{p}/costs": "lead", "POST /p/{p}/costs/payment": "lead",
    "POST /p/{p}/costs/override": "lead", "GET /p/{p}/guideline/history": "lead",
    "GET /p/{p}/guideline/document": "rater", "GET /p/{p}/guideline/document.md": "rater",
    "POST /p/{p}/state": "lead", "POST /p/{p}/waive": "lead",
    "GET /p/{p}/guideline/edit": "lead", "POST /p/{p}/guideline/edit": "lead",
    "GET /p/{p}/export.zip": "lead", "GET /people": "lead", "POST /people/invite": "lead", "POST /people/{u}/state": "lead",
    "POST /logout": "rater", "GET /tokens": "rater", "POST /tokens": "rater", "POST /tokens/{t}/revoke": "rater", "GET /log": "admin",
    "GET /people/{u}/erase": "admin", "POST /people/{u}/erase": "admin",
    "GET /p/{p}/webhooks": "lead", "POST /p/{p}/webhooks": "lead", "POST /p/{p}/webhooks/{w}/remove": "lead",
    "GET /p/{p}/write": "rater", "GET /p/{p}/written": "rater", "POST /w/{d}/reply": "rater", "POST /w/{d}/review": "rater",
    "GET /p/{p}/talk": "rater", "GET /p/{p}/talk/state": "rater", "POST /p/{p}/say": "rater", "POST /p/{p}/again": "rater",
    "POST /w/{d}/skip": "rater", "POST /w/{d}/draft": "rater", "POST /w/{d}/take-back": "rater",
    "POST /w/{d}/ask": "rater", "GET /w/{d}/asked": "rater",
    "GET /p/{p}/steering": "lead", "POST /p/{p}/steering": "lead", "POST /p/{p}/scale": "lead", "POST /p/{p}/rounds": "lead",
    "POST /p/{p}/alarms/{n}": "lead", "POST /p/{p}/anchors": "lead",
    "POST /p/{p}/items/{i}/votes": "lead",
    "GET /p/{p}/skills": "lead", "POST /p/{p}/skills": "lead", "POST /people/{u}/abilities": "lead",
    "GET /p/{p}/qualification": "rater", "POST /p/{p}/qualification": "rater",
}  # fmt: skip
PUBLIC = {"GET /login", "POST /login", "GET /invite/{secret}", "POST /invite/{secret}"}
FIELDS = {
    "key": "a-key-of-the-matrix", "choice": "left2", "guideline_version": "1", "state": "open", "text": "# x", "scale": "binary", "ties": "forced",
    "rationale": "off", "role": "rater", "note": "x", "reason": "unclear", "name": "x", "scope": "read", "decision": "accept",
    "dollars_per_vote": "0.3", "dollars": "1", "kind": "ai",
    "url": "https://93.184.215.14/x", "events": "alarm", "act": "close",
    "votes_per_item": "2", "anchor_per_cent": "7.5", "every_items": "500", "every_days": "14", "cap_before_round": "50", "pilot_raters": "10",
    "test_items": "20", "test_per_cent": "80",
    "random_per_cent": "100", "choice_batch": "100", "extra": "1", "need": "skill:code", "languages": "de", "skills": "code",
}  # fmt: skip


def test_every_route_is_in_the_table(app):
    names = {
        "{project_id}": "{p}",
        "{assignment_id}": "{a}",
        "{person_id}": "{u}",
        "{token_id}": "{t}",
        "{webhook_id}": "{w}",
        "{item_id}": "{i}",
        "{task_id}": "{d}",
        "{number}": "{n}",
    }
    found = set()
    for route in [
        inner
        for outer in app.routes
        for inner in getattr(outer, "original_router", app).routes
        if outer is inner or hasattr(outer, "original_router")
    ]:
        for method in getattr(route, "methods", None) or ():
            path = route.path
            for long, short in names.items():
                path = path.replace(long, short)
            if method != "HEAD":
                found.add(f"{method} {path}")
    assert found == set(ROUTES) | PUBLIC


def task_of_another(database, owner):
    """A conversation that the owner replies to, in a project of its own."""
    made = projects.create_project(database, "writing", kind="demonstration", votes_per_item=1, calibration_items=0)
    transfer.add_wanted(database, made.id, [transfer.Wanted(prompt=pairs(1)[0].prompt)])
    return desk.next_task(database, owner, made.id).id


@pytest.mark.parametrize("role", [None, "rater", "adjudicator", "lead"])
def test_roles_and_routes(app, browser, database, project, join, role):
    """Nobody: to the login. Too low a role: 403. Another's item: 404, whatever the role."""
    owner = join("owner")
    assignment = take(database, owner, project)
    verdicts.submit(database, owner, assignment.id, vote())
    token = tokens.make_token(database, owner, name="x", scope="read", num_days=1).token.id
    hook = webhooks.make_webhook(
        database, owner, project.id, url="https://93.184.215.14/", events=["alarm"], allow_local=False
    )
    task = task_of_another(database, owner)
    ids = {
        "p": project.id,
        "a": assignment.id,
        "u": owner.person_id,
        "t": token,
        "w": hook.id,
        "i": assignment.item_id,
        "n": 1,
        "d": task,
    }
    who = browser("zoe", role) if role else Browser(app)
    wrong = []
    for number, route in enumerate(sorted(ROUTES, key=place_of)):
        method, path = route.split()
        if method == "POST":
            who.get("/login" if role is None else f"/p/{project.id}/guideline")
        changes = {
            "key": f"a-key-of-the-matrix-{number}",
            "state": "active" if "{u}" in path else "open",
            "choice": "left0" if "{i}" in path else "left2",
        }
        place = path.format(**ids)
        answer = (
            who.client.get(place)
            if method == "GET"
            else who.post(place, **{**FIELDS, "person_id": owner.person_id, **changes})
        )
        code, words = expected(route, role)
        if answer.status_code not in code or words not in answer.text + answer.headers.get("location", ""):
            wrong.append((route, answer.status_code, answer.text[:300]))
    assert wrong == []


def place_of(route):
    """What other routes would make possible comes first, then items that nobody has on the screen; the end of a person and of the session last."""
    if route.endswith(("/rounds", "/revoke", "/anchor", "/votes")):
        return 0
    return 1 if "{i}" in route else 4 if route.endswith("/logout") else 3 if route.endswith("/erase") else 2


def expected(route, role):
    """Status codes of a route, and words of its answer."""
    order, path = ["rater", "adjudicator", "lead", "admin"], route.split()[1]
    if role is None:
        return ((303,), "/login") if route == "GET /" else ((401,), "")
    if order.index(role) < order.index(ROUTES[route]):
        return (403,), ""
    has_no_test = route in ("POST /p/{p}/skills", "POST /p/{p}/qualification")
    if has_no_test or any(part in path for part in ("{a}", "{t}", "{d}", "{n}")):
        return (404,), ""
    is_early = route == "GET /p/{p}/discussion" and role != "lead"
    if path.endswith(("/undo", "/revoke", "/say", "/again", "/anchor")) or is_early:
        return (409,), ""
    if path.endswith("/override"):
        return (422,), "not spent"
    return ((422,), "there are 11") if path.endswith("/rounds") else ((200, 303), "")


def test_another_raters_item_is_not_shown(browser, project, database, join):
    assignment = take(database, join("owner"), project)
    zoe = browser("zoe")
    assert zoe.get(f"/p/{project.id}/rate?a={assignment.id}").status_code == 404
    assert zoe.get(f"/p/{project.id}/next?a={assignment.id}").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.example"}, {"origin": "null"}, {"referer": "http://127.0.0.1:8643.evil.example/"}],
)
def test_a_form_of_another_site_is_refused(browser, project, headers):
    assert browser().post("/logout", headers=headers).status_code == 403


@pytest.mark.parametrize("token", ["", "x", "0" * 64])
def test_a_form_without_our_token_is_refused(browser, project, token):
    ann = browser()
    for path in ("/logout", f"/p/{project.id}/undo"):
        assert ann.client.post(path, data={"csrf": token, "key": "abcdefgh"}, headers=ORIGIN).status_code == 403


def test_a_token_of_another_session_is_refused(browser, project):
    ann, bob = browser("ann"), browser("bob")
    assert ann.client.post("/logout", data={"csrf": bob.csrf}, headers=ORIGIN).status_code == 403


def test_other_hosts_are_refused(app):
    client = TestClient(app, base_url="http://evil.example")
    assert client.get("/login").status_code == 421


def test_large_requests_are_refused_whatever_they_say_of_their_size(app, browser, project):
    ann = browser()
    assert ann.post(f"/p/{project.id}/undo", key="x" * 1_100_000).status_code == 413

    def chunks():
        for _ in range(20):
            yield b"x" * 100_000

    answer = ann.client.post(
        "/login", content=chunks(), headers={**ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 413


def test_an_address_that_asks_too_often_waits(database):
    client = TestClient(
        make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=0.001, burst=5), base_url=PLACE.url
    )
    assert [client.get("/login").status_code for _ in range(7)] == [200] * 5 + [429] * 2


def test_answers_carry_a_strict_policy_with_a_nonce_of_their_own(app, browser, project):
    ann = browser()
    nonces = set()
    for path in (f"/p/{project.id}/rate", f"/p/{project.id}/mine", "/nowhere"):
        answer = ann.get(path)
        policy = answer.headers["content-security-policy"]
        nonce = re.search(r"script-src 'nonce-([^']+)'", policy)[1]
        nonces.add(nonce)
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        for tag in re.findall(r"<script[^>]*>", answer.text):
            assert f'nonce="{nonce}"' in tag and 'src="/static/' in tag
        assert not re.search(r"<[^>]+ (on\w+|style)=", answer.text)
    assert len(nonces) == 3


def test_cookies_are_for_the_server_only(app, database, join):
    join("ann")
    plain = Browser(app)
    plain.get("/login")
    cookie = next(
        c
        for c in plain.post("/login", name="ann", password="a long password").headers.get_list("set-cookie")
        if c.startswith("fairlead=")
    )
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    secure = Place.of(host="0.0.0.0", port=8643, url="https://rate.example.org")
    behind_tls = Browser(make_app(database, place=secure, secret=b"s" * 32))
    behind_tls.client = TestClient(behind_tls.client.app, base_url=secure.url, follow_redirects=False)
    behind_tls.get("/login")
    answer = behind_tls.post("/login", name="ann", password="a long password", headers={"origin": secure.url})
    cookie = next(c for c in answer.headers.get_list("set-cookie") if "__Host-" in c)
    assert "Secure" in cookie and "Path=/" in cookie and answer.headers["strict-transport-security"]


def test_the_session_changes_at_login_and_ends_at_logout(browser):
    ann = browser()
    first = ann.client.cookies["fairlead"]
    ann.post("/logout")
    ann.client.cookies.set("fairlead", first)
    assert ann.get("/people").status_code == 401
    assert Browser(ann.client.app).log_in("ann").client.cookies["fairlead"] != first


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/invite/../../etc/passwd",
        "/p/%00/rate",
        "/p/x'--/rate",
    ],
)
def test_no_path_leads_out(browser, project, path):
    assert browser().get(path).status_code in (404, 405)


def test_head_answers_as_get_does_without_a_body(app, browser, database, join, project):
    bob = join("bob")
    verdicts.submit(database, bob, take(database, bob, project).id, vote())
    nobody, lea = TestClient(app, base_url=PLACE.url, follow_redirects=False), browser("lea", "lead").client
    for client, path in [
        *((nobody, path) for path in ("/login", "/", "/people", "/nowhere", "/static/app.css", "/api/v1/me")),
        *((lea, path) for path in ("/people", f"/p/{project.id}", f"/p/{project.id}/guideline/document.md", f"/p/{project.id}/export.zip")),
    ]:  # fmt: skip
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert got.content or path == "/", path
        assert set(head.headers) == set(got.headers), path
        assert head.headers.get("content-type") == got.headers.get("content-type"), path
    secret = tokens.make_token(database, bob, name="x", scope="read", num_days=1).secret
    got, head = (
        nobody.request(method, "/api/v1/me", headers={"authorization": f"Bearer {secret}"})
        for method in ("GET", "HEAD")
    )
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(got.content)))
    refused = TestClient(app, base_url="http://elsewhere.example").head("/login")
    assert (refused.status_code, refused.content) == (421, b"")


def test_head_does_nothing_that_needs_post(app, browser, project):
    """Every route that takes POST alone: 405, and who asked is still logged in."""
    lea = browser("lea", "lead")
    paths = {route.split()[1] for route in [*ROUTES, *PUBLIC] if route.startswith("POST")}
    paths -= {route.split()[1] for route in [*ROUTES, *PUBLIC] if route.startswith("GET")}
    assert "/logout" in paths
    for path in paths:
        place = path.format(p=project.id, **dict.fromkeys("autwidn", "1"), secret="x")
        assert lea.client.head(place).status_code in (404, 405), path
    assert lea.get("/people").status_code == 200


def test_a_nul_character_is_refused_wherever_it_comes(browser, project):
    """PostgreSQL takes no text with it; SQLite would."""
    lea = browser("lea", "lead")
    assert lea.get(f"/p/{project.id}/next?without=%00").status_code == 404
    lea.get(f"/p/{project.id}/guideline")
    forms = {"waive": {"person_id": "\0", "reason": "x"}, "state": {"state": "\0"}, "undo": {"key": "\0" * 9}}
    for name, fields in forms.items():
        path = f"/p/{project.id}/{name}"
        assert lea.post(path, **fields).status_code == 422
    visitor = Browser(lea.client.app)
    visitor.get("/login")
    assert visitor.post("/login", name="le\0x", password="a long\0 password").status_code == 401


def test_payloads_from_every_field_are_text(app, browser, database):
    """The real proof is in the browser tests; this one reads what the server sends."""
    name = "<script>window.pwned=1</script>"
    made = projects.create_project(database, name, votes_per_item=2, calibration_items=0, text="\n\n".join(PAYLOADS))
    found = pairs(1)[0]
    import dataclasses

    prompt = dataclasses.replace(
        found.prompt,
        messages=tuple(dataclasses.replace(m, content="\n\n".join(PAYLOADS)) for m in found.prompt.messages),
        id="",
    )
    a, b = (
        dataclasses.replace(c, prompt_id=prompt.id, text=text, id="")
        for c, text in zip(found.completions, ("\n\n".join(PAYLOADS), PAYLOADS[0]), strict=True)
    )
    importing.add_items(database, made.id, [importing.NewItem.of(prompt, (a, b))])
    ann = browser(name, "lead")
    ann.rate(made, rationale=PAYLOADS[0])
    for path in (
        "/",
        "/people",
        f"/p/{made.id}",
        f"/p/{made.id}/rate",
        f"/p/{made.id}/mine",
        f"/p/{made.id}/guideline",
        f"/p/{made.id}/guideline/edit",
    ):
        page = ann.get(path).text
        assert not re.search(r"<script(?! src=\"/static/)", page), path
        assert not re.search(r"<(img|svg(?! (?:viewBox|class)=)|iframe|object|embed|style|base|meta http)", page), path


def test_a_lead_publishes_a_guideline_and_raters_are_asked_by_it(browser, project, database):
    lead = browser("lea", "lead")
    lead.get(f"/p/{project.id}/guideline/edit")
    fields = {"text": "# Second\r\nShort is good.", "scale": "binary", "ties": "forced", "rationale": "off"}
    assert lead.post(f"/p/{project.id}/guideline/edit", **fields).headers["location"].endswith("version=2")
    page = browser("ann").get(f"/p/{project.id}/rate").text
    assert "Left is better" in page and "Equally good" not in page and "textarea name=" not in page
    lead.get(f"/p/{project.id}/guideline/edit")
    assert (
        "scale of the guideline is wrong"
        in lead.post(f"/p/{project.id}/guideline/edit", **{**fields, "scale": "wrong"}).text
    )


def test_an_overview_shows_agreement_with_intervals(browser, project, database, join):
    for name in ("ann", "bob"):
        actor = join(name)
        for i in range(12):
            verdicts.submit(database, actor, take(database, actor, project).id, vote("left" if i % 3 else "right"))
    lead = browser("lea", "lead")
    page = lead.get(f"/p/{project.id}").text
    assert "12 of 12 pairs are finished" in page and "95 % interval" in page and "Krippendorff" in page
    archive = lead.client.get(f"/p/{project.id}/export.zip")
    assert archive.status_code == 200 and archive.content[:2] == b"PK"


def test_a_full_or_locked_database_is_told_and_nothing_is_half_stored(browser, project, database, monkeypatch):
    from sqlalchemy.exc import OperationalError

    ann = browser()
    ann.get(f"/p/{project.id}/rate")
    assignment = re.search(r'data-assignment="([^"]+)"', ann.page)[1]

    def full(*_args, **_kwargs):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(verdicts, "record", full)
    fields = {"key": "abcdefgh12345678", "choice": "left2", "guideline_version": "1"}
    answer = ann.post(f"/a/{assignment}/verdict", headers={**ORIGIN, "accept": "application/json"}, **fields)
    assert answer.status_code == 503 and "the disk is full" in answer.json()["error"]["message"]
    monkeypatch.undo()
    with database.read() as rows:
        assert rows.get(Verdict, assignment) is None and rows.get(Assignment, assignment).state == "open"
    assert ann.post(f"/a/{assignment}/verdict", **fields).status_code == 303
