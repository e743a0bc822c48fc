"""Bad input over the command line and over the API, with and without strict: a clear message, nothing lost, nothing half imported."""

import dataclasses
import gzip
import json

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from fairlead.cli.main import app as command_line
from fairlead.core import untrusted
from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.errors import DataError, FairleadError
from fairlead.core.io import write_jsonl
from fairlead.core.records import Message
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.outside import OutsideRating
from fairlead.store.annotation.schema import Completion, Event, Guideline, Item, Project, Prompt
from fairlead.web import importing, people, projects

pytestmark = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
WAYS = ("cli", "api")
GOOD = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(3)]
ODD_TURNS = {
    "prompt": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "There?"}],
    "chosen": "a",
    "rejected": "b",
}


@pytest.fixture
def put(db, tmp_path, monkeypatch, request):
    """Import a file; return (what was said, is it refused)."""
    monkeypatch.chdir(tmp_path)

    def over_cli(file, *, strict=False, mapping=None):
        words = ["annotate", "import", str(file), "--project", "p", "--votes", "1", "--calibration", "0", "--db", db]
        words += ["--strict"] * strict + (["--mapping", str(mapping)] if mapping else [])
        done = CliRunner().invoke(command_line, words)
        assert done.exception is None or isinstance(done.exception, (FairleadError, SystemExit)), done.exception
        return f"{done.output} {done.exception or ''}", done.exit_code != 0

    def over_api(file, *, strict=False, mapping=None):
        with open_database(db) as database:
            made = projects.find_project(database, "p") or projects.create_project(
                database, "p", votes_per_item=1, calibration_items=0
            )
            client = request.getfixturevalue("program_of")(database)
            asked = {
                "ending": "".join(file.suffixes),
                "strict": strict,
                "mapping": mapping.read_text() if mapping else "",
            }
            answer = client.post(f"projects/{made.id}/import", params=asked, content=file.read_bytes())
        assert answer.status_code in (200, 413, 422), answer.text
        return answer.text, answer.status_code != 200

    return {"cli": over_cli, "api": over_api}


@pytest.fixture
def program_of(join_in):
    from starlette.testclient import TestClient
    from web_browser import PLACE

    from fairlead.web import tokens
    from fairlead.web.app import make_app

    def made(database):
        secret = tokens.make_token(database, join_in(database), name="x", scope="lead", num_days=1).secret
        here = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
        return TestClient(here, base_url=f"{PLACE.url}/api/v1/", headers={"authorization": f"Bearer {secret}"})

    return made


@pytest.fixture
def join_in():
    def made(database):
        secret = people.accept_invite(
            database, people.make_invite(database, role="lead"), name=people.new_id(), password="a long password"
        )
        return people.actor_of(database, secret)

    return made


def stored(db):
    """How many items, texts, votes of others there are; None where not even a database is."""
    with open_database(db) as database, database.read() as rows:
        return [
            rows.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (Item, Prompt, Completion, OutsideRating)
        ]


def lines(*rows):
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)


CASES = {
    "an empty response": (lines(*GOOD, {"prompt": "q", "chosen": " ", "rejected": "b"}), "empty chosen"),
    "a missing field": (lines(GOOD[0], {"prompt": "q", "chosen": "b"}, *GOOD[1:]), "rejected"),
    "equal responses": (lines(*GOOD, {"prompt": "q", "chosen": "b", "rejected": "b"}), "identical"),
    "NUL": (lines(*GOOD, {"prompt": "q", "chosen": "a\0b", "rejected": "b"}), "NUL character"),
    "invalid UTF-8": (lines(*GOOD, b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}'), "not UTF-8"),
    "cut off": (lines(*GOOD, b'{"prompt": "q", "cho'), "not JSON"),
    "a text beyond what can be read": (lines(*GOOD, {"prompt": "q", "chosen": "x" * 400_001, "rejected": "b"}), "beyond 400,000 characters"),
    "deep nesting": (lines(*GOOD, b'{"prompt": ' + b"[" * 99_999 + b"]" * 99_999 + b"}"), "nested too deep"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_a_bad_row_is_named_and_the_rest_goes_in_or_nothing_does(db, put, tmp_path, way, name):
    content, words = CASES[name]
    (tmp_path / "in.jsonl").write_bytes(content)
    said, is_refused = put[way](tmp_path / "in.jsonl", strict=True)
    assert is_refused and words in said and "fairlead-import" not in said and "Traceback" not in said
    assert stored(db) == [0, 0, 0, 0]
    said, is_refused = put[way](tmp_path / "in.jsonl")
    assert not is_refused and words in said and "fairlead-import" not in said
    assert stored(db) == [3, 3, 6, 0]


@pytest.mark.parametrize("way", WAYS)
def test_duplicates_and_turns_that_do_not_alternate_are_said_and_kept(db, put, tmp_path, way):
    """Neither is a fault: strict takes the file too."""
    (tmp_path / "in.jsonl").write_bytes(lines(*GOOD, *GOOD[:2], ODD_TURNS))
    said, is_refused = put[way](tmp_path / "in.jsonl", strict=True)
    assert not is_refused and stored(db) == [4, 4, 8, 0]
    expected = (
        ("2 stand in the file more than once", "1 holds two turns")
        if way == "cli"
        else ('"num_repeats":2', '"num_uneven":1')
    )
    assert all(words in said for words in expected), said
    said, _ = put[way](tmp_path / "in.jsonl")
    assert ("4 are in it already" if way == "cli" else '"num_known":4') in said and stored(db) == [4, 4, 8, 0]


def test_a_mark_of_the_encoding_at_the_beginning_is_no_fault(db, put, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(*GOOD))
    said, is_refused = put["cli"](tmp_path / "in.jsonl", strict=True)
    assert not is_refused and stored(db) == [3, 3, 6, 0], said


@pytest.mark.parametrize("way", WAYS)
def test_a_response_of_100_mb(db, put, tmp_path, way):
    """By the line it is left out unread; as a whole file the API refuses it by its size."""
    row = b'{"prompt": "q", "chosen": "' + b"x" * 100_000_000 + b'", "rejected": "b"}'
    (tmp_path / "in.jsonl").write_bytes(lines(GOOD[0], row, *GOOD[1:]))
    said, is_refused = put[way](tmp_path / "in.jsonl")
    if way == "api":
        assert is_refused and "larger than 64,000,000 bytes" in said and stored(db) == [0, 0, 0, 0]
    else:
        assert not is_refused and "line 2: longer than 16 MB" in said and stored(db) == [3, 3, 6, 0]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_grows_when_it_is_unpacked(db, put, tmp_path, monkeypatch, way):
    monkeypatch.setattr(untrusted, "FREE_BYTES", 10_000)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines(*GOOD) + b"\n" + b" " * 5_000_000))
    said, is_refused = put[way](tmp_path / "in.jsonl.gz")
    assert is_refused and "when unpacked" in said and stored(db) == [0, 0, 0, 0]


WHOLE = {
    "a table that is not UTF-8": (".csv", b"prompt,chosen,rejected\nq,\xff\xfe,b\n"),
    "a list that is cut off": (".json", b'[{"prompt": "q",'),
    "nothing": (".jsonl", b""),
    "only bad lines": (".jsonl", b"{\n[\n\xff\n"),
    "a picture": (".jsonl", b"\x89PNG\r\n\x1a\n" + bytes(200)),
    "no gzip": (".jsonl.gz", b"not packed"),
    "a gzip that is cut off": (".jsonl.gz", gzip.compress(lines(*GOOD) * 99)[:-30]),
    "no parquet": (".parquet", b"PAR1 and nothing"),
    "unknown columns": (".jsonl", b'{"foo": 1}\n'),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_taken(db, put, tmp_path, way, name):
    ending, content = WHOLE[name]
    (tmp_path / f"in{ending}").write_bytes(content)
    said, is_refused = put[way](tmp_path / f"in{ending}")
    assert is_refused and len(said.strip()) > 30 and "fairlead-import" not in said and "Traceback" not in said, said
    assert stored(db) == [0, 0, 0, 0]


PAIR = RatedItem(
    item="1",
    prompt=(Message(role="user", content="Hi"),),
    replies=(Reply(id="x", text="Fine."), Reply(id="y", text="Well.")),
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("rating", "reason"), [
    (Rating(rater=" ", verdict="a"), "without a rater"), (Rating(rater="z", ranking=(("nobody",),)), "ranking"),
    (Rating(rater="z", verdict="a", confidence=9), "confidence"),
])  # fmt: skip
def test_votes_of_nobody_and_on_nothing_are_named_and_the_others_kept(db, put, tmp_path, way, rating, reason):
    """Raters that nobody knows are no fault: they are kept apart under pseudonyms."""
    odd = dataclasses.replace(PAIR, item="2", prompt=(Message(role="user", content="odd"),), ratings=(rating,))
    write_jsonl(
        tmp_path / "in.jsonl", [dataclasses.replace(PAIR, ratings=(Rating(rater="stranger", verdict="b"),)), odd]
    )
    said, is_refused = put[way](tmp_path / "in.jsonl", strict=True)
    assert is_refused and reason in said and stored(db) == [0, 0, 0, 0]
    said, is_refused = put[way](tmp_path / "in.jsonl")
    assert not is_refused and reason in said and stored(db)[3] == 1


def test_votes_of_several_rows_on_one_item_are_all_kept(db, put, tmp_path):
    (tmp_path / "map.yaml").write_text("prompt: q\nreplies: [one, two]\nratings:\n  - {rater: w, verdict: p}\n")
    (tmp_path / "v.csv").write_text("q,one,two,w,p\nWhy?,yes,no,kim,a\nWhy?,yes,no,lee,b\nWhy?,yes,no,kim,b\n")
    said, _ = put["cli"](tmp_path / "v.csv", mapping=tmp_path / "map.yaml")
    assert stored(db)[0] == 1 and stored(db)[3] == 2 and "1 were there already" in said


def test_what_fails_in_the_middle_leaves_nothing(db, monkeypatch):
    def full(*_args, **_kwargs):
        raise DataError("the votes cannot be kept")

    monkeypatch.setattr(importing, "keep_ratings", full)
    from web_example import pairs

    with open_database(db) as database:
        made = projects.create_project(database, "p", votes_per_item=1, calibration_items=0)
        with pytest.raises(DataError):
            importing.add_items(database, made.id, pairs(3), ratings={"x": (Rating(rater="z", verdict="a"),)})
        with database.read() as rows:
            assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "items.imported")) == 0
    assert stored(db) == [0, 0, 0, 0]


GUIDELINES = {
    "an unknown rule": {"rules": {"tie": "forced"}}, "a rule of another kind": {"rules": {"ties": "maybe"}}, "no text": {"text": " "},
    "NUL": {"text": "a\0b"}, "too long": {"text": "x" * 200_001}, "no list": {"rules": {"criteria": "help"}},
    "a name that is none": {"rules": {"criteria": [{"name": "<script>", "question": "?", "points": 5}]}},
    "two of one name": {"rules": {"criteria": [{"name": "a", "question": "?", "points": 5}] * 2}},
    "no points": {"rules": {"criteria": [{"name": "a", "question": "?", "points": 0}]}},
    "too many": {"rules": {"criteria": [{"name": f"a{i}", "question": "?", "points": 5} for i in range(9)]}},
    "another in between": {"replaces": 7}, "a field of nobody": {"version": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDELINES)
def test_a_guideline_that_breaks_the_schema_is_not_published(db, program_of, name):
    with open_database(db) as database:
        made = projects.create_project(database, "p", votes_per_item=1, calibration_items=0)
        client = program_of(database)
        answer = client.post(f"projects/{made.id}/guideline", json={"text": "# Two", "replaces": 1, **GUIDELINES[name]})
        assert answer.status_code in (409, 422) and len(answer.json()["error"]["message"]) > 20, answer.text
        with database.read() as rows:
            assert rows.scalar(sa.select(sa.func.count()).select_from(Guideline)) == 1
            assert rows.scalar(sa.select(sa.func.count()).select_from(Project)) == 1


def test_unknown_people_items_and_projects_are_named_over_the_api(db, program_of):
    with open_database(db) as database:
        made = projects.create_project(database, "p", votes_per_item=1, calibration_items=0)
        client = program_of(database)
        sent = {"key": "a-key-of-nothing", "choice": "left", "strength": 1, "guideline_version": 1}
        ruling = {"key": "a-key-of-nothing", "choice": "left", "reason": "x", "guideline_version": 1}
        answers = [
            client.post("assignments/none/verdict", json=sent), client.post(f"projects/{made.id}/waive", json={"person": "none", "reason": "x"}),
            client.post("people/none/state", json={"state": "disabled"}), client.post("projects/none/import", content=lines(*GOOD)),
            client.get("projects/none/votes"), client.get(f"projects/{made.id}/items/none"),
            client.post(f"projects/{made.id}/items/none/decision", json=ruling),
        ]  # fmt: skip
        for answer in answers:
            assert answer.status_code in (404, 422) and "not there" in answer.text, answer.text
