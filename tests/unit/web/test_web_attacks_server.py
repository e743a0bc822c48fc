"""Attacks on the server that no other file of tests makes: what is named here stands in the table of test_web_attacks_listed.py."""

import io
import json
import re
import secrets
import socket
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from test_web_api import PAIRS
from test_web_app import FIELDS, ROUTES
from web_browser import ORIGIN, PLACE, Browser
from web_example import take, vote

import fairlead
from fairlead.core.errors import StoreError
from fairlead.store.annotation.schema import Completion, Event, Person, Prompt, Verdict
from fairlead.web import people, projects, verdicts
from fairlead.web.people import new_id
from fairlead.web.server import read_secret

on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
"""What does not depend on the database runs on one."""
QUERIES = ["'", "x' OR 1=1 --", "1); DROP TABLE verdicts; --", "person__password_hash", "people.password_hash", "project_id", "__class__",
           "../../etc/passwd", "rank DESC", "1 UNION SELECT password_hash FROM people", "\u202e", "<script>"]  # fmt: skip


PARAMETERS = ("a", "without", "t", "chat", "new", "example", "version", "method", "part", "kind", "state", "use", "sort", "format", "before",
              "page")  # fmt: skip
"""That any page reads from its address."""
ODD = (
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "/etc/passwd",
    "s3://bucket/key",
    "gopher://127.0.0.1:6379/_x",
)


def place_of(path, project):
    """A page's path, where ids that are not the project's are nobody's."""
    return re.sub(r"\{\w+\}", "1", path.replace("{p}", project.id).replace("{secret}", "x"))


def test_the_servers_key_is_random_and_its_owners_alone(tmp_path):
    first, second = read_secret(tmp_path / "a" / "secret"), read_secret(tmp_path / "b" / "secret")
    assert first != second and len(first) == 32 and read_secret(tmp_path / "a" / "secret") == first
    assert (tmp_path / "a" / "secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "a" / "secret").chmod(0o644)
    with pytest.raises(StoreError, match="may be read by others"):
        read_secret(tmp_path / "a" / "secret")
    (tmp_path / "b" / "secret").write_bytes(b"short")
    with pytest.raises(StoreError):
        read_secret(tmp_path / "b" / "secret")


@on_sqlite
def test_who_knows_the_servers_key_cannot_make_a_session(app, database, join):
    """Sessions are random and looked up; nothing is signed that says who somebody is."""
    join("ann")
    visitor = Browser(app)
    for forged in (people.hashed("ann"), "ann", "s" * 32, json.dumps({"name": "ann", "role": "admin"})):
        visitor.client.cookies.set("fairlead", forged)
        assert visitor.get("/tokens").status_code == 401


@on_sqlite
def test_nobody_registers_without_an_invitation_and_there_is_no_account_to_begin_with(app, database):
    with database.read() as rows:
        assert rows.scalars(sa.select(Person)).all() == []
    visitor = Browser(app)
    visitor.get("/login")
    for path in ("/signup", "/register", "/user/signup", "/api/v1/signup", "/invite/guess"):
        answer = visitor.post(path, name="eve", password="a long password")
        assert answer.status_code in (403, 404, 405), path
    for name in ("admin", "argilla", "root"):
        assert visitor.post("/login", name=name, password="1234").status_code == 401
    with database.read() as rows:
        assert rows.scalars(sa.select(Person)).all() == []


@on_sqlite
def test_no_form_is_taken_without_its_token(browser, project):
    """Every unsafe method of every page, the login and the invitation too."""
    lea = browser("lea", "admin")
    fields = {**FIELDS, "person_id": "x", "csrf": "0" * 64, "password": "a long password"}
    for route in (*ROUTES, "POST /login", "POST /invite/{secret}"):
        method, path = route.split()
        if method == "POST":
            place = place_of(path, project)
            assert lea.client.post(place, data=fields, headers=ORIGIN).status_code == 403, route
            foreign = lea.client.post(
                place, data={**fields, "csrf": lea.csrf}, headers={"origin": "https://evil.example"}
            )
            assert foreign.status_code == 403, route


@on_sqlite
def test_no_page_says_back_what_its_address_says(browser, project, database):
    """Reflected scripts: in every parameter of every page, and in pages that are not there."""
    lea = browser("lea", "admin")
    payload = "\"'><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
    for route in ROUTES:
        method, path = route.split()
        if method == "GET":
            for params in ({name: payload} for name in PARAMETERS):
                answer = lea.client.get(place_of(path, project), params=params)
                assert answer.status_code < 500 and "<script>window" not in answer.text, (route, params)
                assert not re.search(r"<img[^>]*onerror", answer.text), (route, params)
    for path in (f"/{payload}", f"/p/{payload}/rate", f"/people/{payload}/erase", f"/api/v1/{payload}"):
        answer = lea.client.get(path)
        assert answer.status_code in (401, 404) and "<script>" not in answer.text, path


@on_sqlite
def test_a_form_takes_no_file(browser, project, join, database):
    """No avatars, no attachments: nothing that is uploaded is ever given out again."""
    ann = browser("ann")
    ann.get(f"/p/{project.id}/rate")
    picture = ("x.svg", b"<svg onload=window.pwned=1>", "image/svg+xml")
    for path, field in (("/a/x/verdict", "rationale"), ("/a/x/draft", "rationale"), (f"/p/{project.id}/undo", "key")):
        answer = ann.client.post(path, data={"csrf": ann.csrf}, files={field: picture}, headers=ORIGIN)
        assert answer.status_code in (400, 404, 422), path
    assert not [route for route in ROUTES if any(word in route for word in ("avatar", "upload", "attachment", "file"))]


@on_sqlite
def test_an_import_reads_no_address_and_no_path(program, join, project, database, monkeypatch):
    """What looks like one is text; nothing is looked up and nothing is opened."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a name was looked up")

    lead = program(join("lea", "lead"))
    rows = [{"prompt": text, "chosen": text, "rejected": "x", "image": text} for text in ODD]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert lead.post(f"projects/{project.id}/import", content=lines.encode()).json()["num_items"] == len(ODD)
    with database.read() as rows:
        said = {row.record["text"] for row in rows.scalars(sa.select(Completion))}
        asked = {row.record["messages"][0]["content"] for row in rows.scalars(sa.select(Prompt))}
    assert set(ODD) <= said and set(ODD) <= asked


def test_filters_and_sorts_of_the_api_take_names_only(program, join, project, database):
    """Every parameter of every list, on both databases: refused or found nothing, and never an error of the database."""
    ann = join("ann")
    verdicts.submit(database, ann, take(database, ann, project).id, vote())
    lea = join("lea", "lead")
    lists = {
        "items": ("sort", "use", "after", "limit"), "votes": ("after", "limit"), "demonstrations": ("state", "after", "limit"),
        "chats": ("after", "limit"), "talk": ("chat",), "disagreements": ("kind", "state", "use", "sort", "field", "page"),
        "adjudicate": ("without",), "guideline": ("version",), "export": ("format", "method"),
    }  # fmt: skip
    asked = [(name, parameter) for name, parameters in lists.items() for parameter in parameters]
    for text in QUERIES:
        lead = program(lea)  # a token of its own: none may ask as often as all of them together
        for name, parameter in asked:
            answer = lead.get(f"projects/{project.id}/{name}", params={parameter: text})
            assert answer.status_code in (200, 404, 422), (text, name, parameter, answer.text)
            assert "password" not in answer.text.replace(text, "") and "argon2" not in answer.text, (text, name)
            if answer.status_code == 200:  # an id or a mark of a page that nobody has
                body = answer.json()
                found = (name, parameter)
                assert found in {("demonstrations", "after"), ("adjudicate", "without")}, (text, *found)
                assert not body.get("demonstrations") and not body.get("item"), (text, *found)
        for path in (f"projects/{text}", f"projects/{text}/items", f"assignments/{text}", f"writing/{text}"):
            assert lead.get(path).status_code in (404, 405), path
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 1


BOMBS = {
    "deep list": b"[" * 200_000 + b"]" * 200_000, "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 400,000 digits": b'{"name": "x", "votes_per_item": ' + b"9" * 400_000 + b"}", "no number": b'{"name": "x", "votes_per_item": NaN}',
    "not UTF-8": b'{"name": "\xff\xfe"}', "NUL": b'{"name": "a\x00b"}', "half a character": b'{"name": "\\ud800"}', "cut off": b'{"name": "x',
    "a key 90,000 times": b"{" + b",".join(b'"name": "x"' for _ in range(50_000)) + b', "admin": true}', "another type": b'"name=x"',
}  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("name", BOMBS)
def test_json_bombs_are_refused_and_the_server_goes_on(program, join, database, name):
    lead = program(join("lea", "lead"))
    answer = lead.post("projects", content=BOMBS[name], headers={"content-type": "application/json"})
    assert answer.status_code in (400, 413, 422) and answer.json()["error"]["message"], (answer.status_code, answer.text[:200])  # fmt: skip
    assert len(answer.content) < 2000 and lead.get("me").status_code == 200
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "project.created")) == 0


@on_sqlite
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".exe", ".jsonl/../x", "/etc/passwd", "\0", ".jsonl\n"])
def test_archives_and_paths_are_no_import(program, join, project, ending):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.jsonl", PAIRS)
    lead = program(join("lea", "lead"))
    answer = lead.post(f"projects/{project.id}/import", params={"ending": ending}, content=content.getvalue())
    assert answer.status_code in (404, 422) and answer.json()["error"]["message"]
    as_lines = lead.post(f"projects/{project.id}/import", content=content.getvalue())
    assert as_lines.status_code == 422 and "fairlead-import" not in as_lines.text


@on_sqlite
def test_names_lead_to_no_place_in_an_export(program, join, database, tmp_path):
    """Whatever a project is called and whatever is asked for, files lie flat in the archive under names of ours."""
    made = projects.create_project(database, "../../../tmp/evil", votes_per_item=1, calibration_items=0)
    lead, ann = program(join("lea", "lead")), join("../ann")
    lead.post(f"projects/{made.id}/import", content=PAIRS.encode())
    verdicts.submit(database, ann, take(database, ann, made).id, vote())
    for params in ({}, {"format": "label_studio"}, {"format": "trl"}):
        answer = lead.get(f"projects/{made.id}/export", params=params)
        names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
        assert names and all("/" not in name and ".." not in name and "\\" not in name for name in names)
        assert answer.headers["content-disposition"] == 'attachment; filename="votes.zip"'
    for odd in ("../../x", "trl/../../x", "/etc/passwd", "trl\n"):
        assert lead.get(f"projects/{made.id}/export", params={"format": odd}).status_code == 422


@on_sqlite
def test_what_one_person_did_is_in_no_list_of_another(program, join, project, database):
    """Lists of one's own: votes, replies, tokens, conversations, figures."""
    ann, bob = join("ann"), join("bob")
    first = program(ann, "rate")
    given = first.post(f"projects/{project.id}/next", json={}).json()["assignment"]
    sent = {
        "key": secrets.token_hex(8),
        "choice": "left",
        "strength": 1,
        "guideline_version": 1,
        "rationale": "anns-words",
    }
    first.post(f"assignments/{given['id']}/verdict", json=sent)
    other = program(bob, "read")
    for name in ("mine", "written", "own", "pace", "talk"):
        text = other.get(f"projects/{project.id}/{name}").text
        assert "anns-words" not in text and given["id"] not in text, name
    assert len(other.get("tokens").json()) == 1 and "secret" not in other.get("tokens").text
    assert other.get(f"assignments/{given['id']}").status_code == 404


def test_ids_say_nothing_and_cannot_be_guessed():
    made = {new_id() for _ in range(2000)}
    assert len(made) == 2000 and all(re.fullmatch(r"[A-Za-z0-9_-]{16}", name) for name in made)


@on_sqlite
def test_a_token_is_shown_once_and_in_no_later_answer(browser, program, join, database):
    ann = browser("ann")
    ann.get("/tokens")
    secret = re.search(r"fairlead_[A-Za-z0-9_-]{40,}", ann.post("/tokens", name="x", scope="read", num_days=9).text)[0]
    client = program()
    client.headers["authorization"] = f"Bearer {secret}"
    answers = [ann.get("/tokens").text, ann.get("/").text, client.get("me").text, client.get("tokens").text, client.get("projects").text]  # fmt: skip
    assert client.get("me").status_code == 200 and not [text for text in answers if secret in text]


@on_sqlite
def test_an_error_of_ours_shows_no_trace_and_no_secret(app, database, browser, monkeypatch):
    from fairlead.web.pages import accounts

    ann = browser("ann")

    def broken(*_args, **_kwargs):
        raise RuntimeError("the-inner-words")

    monkeypatch.setattr(accounts, "render", broken)
    client = TestClient(app, base_url=PLACE.url, raise_server_exceptions=False, cookies=dict(ann.client.cookies))
    with database.write() as rows:
        rows.execute(sa.update(Person).values(role="lead"))
    answer = client.get("/")
    assert answer.status_code == 500 and "the-inner-words" not in answer.text and "Traceback" not in answer.text


@on_sqlite
def test_no_other_origin_is_let_in(program, join):
    client = program(join("ann"), "read")
    for method in ("GET", "OPTIONS"):
        answer = client.request(method, "me", headers={"origin": "https://evil.example", "access-control-request-method": "GET"})  # fmt: skip
        assert not [name for name in answer.headers if name.startswith("access-control")]


@on_sqlite
def test_no_console_and_no_documents_of_the_framework(app):
    client = TestClient(app, base_url=PLACE.url)
    for path in (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/admin",
        "/django-rq",
        "/metrics",
        "/debug",
        "/api/v1/docs",
        "/.env",
        "/.git/config",
    ):
        assert client.get(path).status_code in (401, 404), path


def test_nothing_that_is_read_is_run():
    """No pickle, no yaml that makes objects, no torch.load of anything but weights, anywhere in the package."""
    banned = (
        r"pickle\.loads?\(",
        r"yaml\.(unsafe_)?load\(",
        r"weights_only=False",
        r"shell=True",
        r"trust_remote_code=True",
        r"(?<![.\w])eval\(",
    )
    for file in Path(fairlead.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for words in banned:
            found = [
                line for line in text.splitlines() if re.search(words, line) and "yaml.load(text, Loader=" not in line
            ]
            assert not [line for line in found if not line.lstrip().startswith("#")], (file, words, found)


@on_sqlite
def test_formulas_are_text_in_every_table_that_goes_out(program, join, project, database, tmp_path):
    from fairlead.web import rated

    ann = join("=cmd|' /C calc'!A0")
    for start in ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1"):
        verdicts.submit(database, ann, take(database, ann, project).id, vote(rationale=f"{start}x"))
    rated.export_as(database, project, tmp_path / "votes.csv", to="votes")
    cells = re.split(r",|\r?\n(?=[^\"]*(?:\"[^\"]*\"[^\"]*)*$)", (tmp_path / "votes.csv").read_bytes().decode())
    assert not [cell for cell in cells if re.match(r'"?[=+@\t\r]|"?-[^0-9"]', cell)]
    assert "calc" not in "".join(cells)


@on_sqlite
def test_a_login_of_any_size_and_form_is_refused_alike(app, database):
    visitor = Browser(app)
    visitor.get("/login")
    for name, password in (("x" * 900_000, "y"), ("\0", "\0"), ("<script>", "y" * 900_000), ("' OR 1=1 --", "x")):
        answer = visitor.post("/login", name=name, password=password)
        assert answer.status_code in (401, 413, 422, 429) and "<script>" not in answer.text
