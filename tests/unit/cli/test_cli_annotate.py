"""`fairlead annotate` from files to a recipe: texts in, people vote, votes out, preferences with agreement."""

import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="the extra web is not installed")

from fairlead.cli.main import app
from fairlead.core.errors import FairleadError
from fairlead.core.io import read_rows
from fairlead.store.annotation.database import open_database
from fairlead.web import people, projects, queue, server, verdicts
from fairlead.web.answers import texts_on_screen


def fairlead(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"question {i}", "chosen": f"good reply {i}", "rejected": f"bad reply {i}"} for i in range(30)]
    rows.append({"prompt": "same", "chosen": "x", "rejected": "x"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def rate_everything(db, name, num):
    """Vote for the reply that says good."""
    with open_database(db) as database:
        secret = people.accept_invite(
            database, people.make_invite(database, role="rater"), name=name, password="a long password"
        )
        actor = people.actor_of(database, secret)
        project = projects.find_project(database, "trial")
        for _ in range(num):
            assignment = queue.next_assignment(database, actor, project.id)
            with database.read() as rows:
                is_left = texts_on_screen(rows, assignment)[0].startswith("good")
            sent = verdicts.Submission(
                key=verdicts.new_key(), choice="left" if is_left else "right", strength=1, guideline_version=1
            )
            verdicts.submit(database, actor, assignment.id, sent)


def test_from_files_through_people_to_preferences(folder, db):
    here = ("--db", db)
    done = fairlead("annotate", "import", "pairs.jsonl", "--project", "trial", "--votes", 2, "--calibration", 0, *here)
    assert done.exit_code == 0 and "30 items into trial" in done.output and "left out: 1 rows: " in done.output, (
        done.output
    )
    invited = fairlead("annotate", "invite", "--count", 2, *here)
    links = invited.stdout.split()
    assert len(set(links)) == 2 and all(link.startswith("http://127.0.0.1:8643/invite/") for link in links)
    assert "none was started here yet. For another: --url https://NAME" in invited.stderr
    with pytest.raises(FairleadError, match="no votes yet"):
        raise fairlead("annotate", "export", "votes", "--project", "trial", *here).exception
    for name in ("ann", "bob"):
        rate_everything(db, name, 30)
    status = json.loads(fairlead("annotate", "status", "--json", *here).output)
    assert (
        status["projects"][0]["num_votes"] == 60
        and status["projects"][0]["num_finished"] == 30
        and status["people"] == {"rater": 2}
    )
    done = fairlead("annotate", "export", "votes", "--project", "trial", *here)
    assert "60 votes and 0 skips by 2 raters on 30 pairs" in done.output, done.output
    (folder / "recipe.yaml").write_text(
        "name: trial\nscope: toy\nfeedback: {path: votes/comparisons.jsonl}\npreferences: {min_votes: 2, num_resamples: 100}\n"
    )
    done = fairlead("prefer", "recipe.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    made = list(read_rows(next((folder / "home").rglob("preferences.jsonl"))))
    assert len(made) == 30 and all(
        row.values["chosen"].startswith("good") and row.values["num_votes"] == 2 for row in made
    )
    assert {row.values["split"] for row in made} == {"train", "heldout"}


def test_one_of_a_thing_is_said_in_the_singular(folder, db):
    (folder / "one.jsonl").write_text('{"prompt": "Why?", "chosen": "good", "rejected": "bad"}\n')
    (folder / "two.jsonl").write_text(
        "".join(f'{{"prompt": "Why {i}?", "chosen": "good", "rejected": "bad"}}\n' for i in "ab")
    )
    here = ("--project", "trial", "--votes", 1, "--calibration", 0, "--db", db)
    assert (
        "1 item into trial (0 for calibration), each for 1 vote."
        in fairlead("annotate", "import", "one.jsonl", *here).output
    )
    before = fairlead("annotate", "status", "--db", db).output
    assert "0 of 1 pair has 1 vote; 0 votes and 0 skips by 0 raters" in before, before
    rate_everything(db, "ann", 1)
    after = fairlead("annotate", "status", "--db", db).output
    assert "1 rater\n" in after and "1 of 1 pair has 1 vote; 1 vote and 0 skips by 1 rater," in after, after
    assert "1 is in it already" in fairlead("annotate", "import", "one.jsonl", *here).output
    assert (
        "1 vote and 0 skips by 1 rater on 1 pair"
        in fairlead("annotate", "export", "out", "--project", "trial", "--db", db).output
    )
    fairlead("annotate", "import", "two.jsonl", *here)
    assert "1 of 3 pairs has 1 vote;" in fairlead("annotate", "status", "--db", db).output


def test_links_lead_to_where_the_server_was_started_last(folder, db, monkeypatch):
    def links(*words):
        done = fairlead("annotate", "invite", "--db", db, *words)
        return done.stdout.partition("/invite/")[0], done.stderr

    def started(**faults):
        monkeypatch.setattr(server, "run_server", lambda *_args, **_named: faults.get("then", lambda: None)())
        return fairlead("annotate", "serve", "--db", db, "--port", faults["port"])

    def cannot_listen():
        raise SystemExit(1)

    assert started(port=9100).exit_code == 0
    address, said = links()
    assert address == "http://127.0.0.1:9100"
    assert "http://127.0.0.1:9100, where the server was started last" in said
    assert started(port=9200, then=cannot_listen).exit_code == 1
    assert links()[0] == "http://127.0.0.1:9100", "a server that could not start is none"
    assert links("--url", "https://rate.example.org/") == ("https://rate.example.org", "")
    with pytest.raises(FairleadError, match="no address"):
        raise fairlead("annotate", "invite", "--db", db, "--url", "ftp://x").exception


def test_strict_puts_nothing_in_when_a_row_cannot_be_used(folder):
    with pytest.raises(FairleadError, match="cannot be used whole"):
        raise fairlead("annotate", "import", "pairs.jsonl", "--strict").exception
    assert not (folder / "home" / "annotate" / "votes.db").exists()


def test_a_backup_is_put_back_in_words(folder):
    fairlead("annotate", "import", "pairs.jsonl", "--project", "trial", "--calibration", 0)
    assert "Copied: copy.db" in fairlead("annotate", "backup", "copy.db").output
    with pytest.raises(FairleadError, match="--replace"):
        raise fairlead("annotate", "restore", "copy.db").exception
    assert "Restored" in fairlead("annotate", "restore", "copy.db", "--replace").output
    assert "trial (open): 0 of 30 pairs" in fairlead("annotate", "status").output


@pytest.mark.parametrize(("words", "message"), [
    (("status",), "is not there"), (("export", "out"), "is not there"), (("import", "nothing.jsonl"), "nothing"),
    (("invite", "--role", "king"), "is not there"),
    (("serve", "--host", "0.0.0.0"), "--url"), (("serve", "--url", "ftp://x"), "no address"),
    (("status", "--db", "mysql://h/n"), "sqlite or postgresql"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_one_sentence(folder, words, message):
    with pytest.raises(FairleadError, match=message):
        raise fairlead("annotate", *words).exception
