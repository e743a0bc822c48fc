"""Demonstrations to SFT, and live conversations with the bundled policy: traced, and through kills of the server."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from micro import artifacts, fairlead, folder_of, write_recipe

from ports import kept_port

pytest.importorskip("fastapi", reason="the extra web is not installed")

from fairlead.cli.talking import open_policy
from fairlead.core.io import write_jsonl
from fairlead.core.protocols import ReplyRequest
from fairlead.core.records import Message, Prompt
from fairlead.feedback.collected import read_collected
from fairlead.store.annotation.database import open_database
from fairlead.web import people, projects, queue, verdicts
from fairlead.web.answers import Edit, Submission
from fairlead.web.demonstrations import actions, desk


def test_demonstrations_from_import_to_a_trained_policy(tmp_path):
    home, db = tmp_path / "home", tmp_path / "home" / "annotate" / "votes.db"
    reply = {"role": "assistant", "content": "it sat on the mat"}
    rows = [{"messages": [{"role": "user", "content": f"the cat number {i}"}, reply]} for i in range(12)]
    write_jsonl(tmp_path / "asked.jsonl", rows)
    outcome = fairlead(
        "annotate",
        "import",
        tmp_path / "asked.jsonl",
        "--kind",
        "demonstration",
        "--drafts",
        "--project",
        "cats",
        home=home,
    )
    assert outcome.code == 0 and "12 conversations into cats, 12 with a draft" in outcome.out, outcome.err
    with open_database(db) as database:
        ann, bob = (people.actor_of(database, join(database, name)) for name in ("ann", "bob"))
        project = next(iter(read_projects(database)))
        for who in (ann, bob):
            while not isinstance(task := desk.next_task(database, who, project), desk.Nothing):
                key = secrets.token_hex(8)
                if task.part == "write":
                    actions.hand_in(
                        database,
                        who,
                        task.id,
                        actions.Reply(key=key, text="it sat on the red mat and slept", guideline_version=1),
                    )
                else:
                    actions.review(
                        database, who, task.id, actions.Review(key=key, decision="accept", guideline_version=1)
                    )
    assert "12 of 12 conversations" in fairlead("annotate", "status", home=home).out
    outcome = fairlead("annotate", "export", tmp_path / "out", "--project", "cats", home=home)
    assert outcome.code == 0 and "12 accepted replies by 1 person" in outcome.out, outcome.err
    path = str(tmp_path / "out" / "demonstrations.jsonl")
    recipe = write_recipe(tmp_path, {"sft": {"data": [{"path": path}], "heldout_share": 0.25}}, keep=("prompts", "sft"))
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err


def test_a_vote_with_an_edit_trains_a_policy(tmp_path):
    """The edited reply is what SFT imitates: the export names the file, the recipe reads it, and every edit is a row of it."""
    home, db = tmp_path / "home", tmp_path / "home" / "annotate" / "votes.db"
    pair = {"chosen": "it sat on the mat", "rejected": "it ran"}
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": f"the cat number {i}", **pair} for i in range(12)])
    importing = (
        "annotate",
        "import",
        tmp_path / "pairs.jsonl",
        "--project",
        "cats",
        "--calibration",
        "0",
        "--votes",
        "1",
    )
    assert fairlead(*importing, home=home).code == 0
    with open_database(db) as database:
        (project,) = read_projects(database)
        rules = projects.Rules(edits=True)
        version = projects.publish_guideline(database, project, text="# Edit", rules=rules, by=None)
        ann = people.actor_of(database, join(database, "ann"))
        for i in range(12):
            assignment = queue.next_assignment(database, ann, project)
            edit = Edit(place=0, text=f"it sat on the red mat and slept {i}")
            sent = Submission(key=secrets.token_hex(8), choice="left", strength=2, guideline_version=version, edit=edit)
            verdicts.submit(database, ann, assignment.id, sent)
    outcome = fairlead("annotate", "export", tmp_path / "out", "--project", "cats", home=home)
    path = tmp_path / "out" / "demonstrations.jsonl"
    assert f"12 edited replies are demonstrations: sft.data: [{{path: {path}}}]" in outcome.out, outcome.err
    recipe = write_recipe(
        tmp_path, {"sft": {"data": [{"path": str(path)}], "heldout_share": 0.25}}, keep=("prompts", "sft")
    )
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err
    folder = folder_of(home, artifacts(home)["sft"])
    kept = (folder / "summary.json").read_text()
    assert "9 demonstrations" in kept, kept


def join(database, name):
    return people.accept_invite(
        database, people.make_invite(database, role="rater"), name=name, password="a long password"
    )


def read_projects(database):
    import sqlalchemy as sa

    from fairlead.store.annotation.schema import Project

    with database.read() as rows:
        return list(rows.scalars(sa.select(Project.id)))


def test_replies_of_a_policy_can_be_sampled_again():
    policy = open_policy("bundled", template=None, temperature=1.0, max_new_tokens=12)
    prompt = Prompt(messages=(Message(role="user", content="tell me a story"),))
    request = ReplyRequest(key="chat:0:0:0", prompt=prompt, num_samples=2, seed=7)
    first, again = (one(policy.reply([request])) for _ in range(2))
    assert [each.token_ids for each in first] == [each.token_ids for each in again] and first[0].token_ids != first[
        1
    ].token_ids
    assert {each.model for each in first} == {policy.name} and policy.name.startswith("weights-")
    other, beside = policy.reply([ReplyRequest(key="chat:1:0:0", prompt=prompt, num_samples=2, seed=8), request])
    other, beside = sorted((other, beside), key=lambda reply: reply.key != "chat:1:0:0")
    assert [each.token_ids for each in beside.completions] == [each.token_ids for each in first], (
        "what is sampled beside it changes nothing"
    )
    other = other.completions
    assert [each.token_ids for each in other] != [each.token_ids for each in first]


def test_a_conversation_without_room_for_a_reply_is_a_fault_of_its_own():
    policy = open_policy("bundled", template=None, temperature=1.0, max_new_tokens=12)
    long, short = (Prompt(messages=(Message(role="user", content=text),)) for text in ("word " * 20_000, "hello"))
    asked = [
        ReplyRequest(key=name, prompt=prompt, num_samples=2, seed=1)
        for name, prompt in (("long", long), ("short", short))
    ]
    found = {reply.key: reply for reply in policy.reply(asked)}
    assert found["long"].fault and not found["long"].completions and len(found["short"].completions) == 2


def one(replies):
    (reply,) = replies
    return reply.completions


class Talk:
    """A rater without a browser."""

    def __init__(self, url, secret):
        self.url, self.cookie = url, f"fairlead={secret}"

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"cookie": self.cookie})
        return urllib.request.urlopen(request, timeout=30).read().decode()

    def post(self, path, page, **fields):
        csrf = re.search(r'name="csrf" content="([^"]+)"', page)[1]
        body = urllib.parse.urlencode({"csrf": csrf, "key": secrets.token_hex(16), **fields}).encode()
        headers = {"cookie": self.cookie, "origin": self.url, "accept": "application/json"}
        return urllib.request.urlopen(
            urllib.request.Request(self.url + path, data=body, headers=headers), timeout=30
        ).read()

    def until(self, place, state, limit_s=90):
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                page = self.get(place)
                if f'data-state="{state}"' in page:
                    return page
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"waited in vain for {state}")


def killed_and_started(server, serve):
    """Another server, after this one was killed."""
    server.send_signal(signal.SIGKILL)
    server.wait()
    return serve()


@pytest.fixture
def port():
    with kept_port() as kept:
        yield kept


def test_a_conversation_goes_on_after_kills_and_exports_as_votes(port, tmp_path):
    db = tmp_path / "votes.db"
    with open_database(db) as database:
        secret = join(database, "ann")

    def serve():
        command = [
            sys.executable,
            "-m",
            "fairlead.cli.main",
            "annotate",
            "serve",
            "--db",
            str(db),
            "--port",
            str(port),
            "--policy",
            "bundled",
        ]
        return subprocess.Popen([*command, "--max-new-tokens", "12"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env={**os.environ, "FAIRLEAD_HOME": str(tmp_path)})  # fmt: skip

    server = serve()
    try:
        ann = Talk(f"http://127.0.0.1:{port}", secret)
        end = time.monotonic() + 90
        project = None
        while project is None and time.monotonic() < end:
            with open_database(db) as database:
                project = next(iter(read_projects(database)), None)
            time.sleep(0.2)
        place = f"/p/{project}/talk"
        page = ann.until(place, "say")
        for turn in range(2):
            chat = re.search(r'data-chat="([^"]*)"', page)[1]
            ann.post(f"/p/{project}/say", page, chat=chat, text=f"tell me story number {turn}")
            if turn == 0:
                server = killed_and_started(server, serve)  # acknowledged, and perhaps being answered
            page = ann.until(place, "vote")
            action = re.search(r'action="(/a/[^"]+/verdict)"', page)[1]
            ann.post(action, page, choice="left2", guideline_version="1")
            if turn == 0:
                server = killed_and_started(server, serve)
            page = ann.until(place, "say")
    finally:
        server.kill()
        server.wait()
    assert page.count('class="turn"') == 4
    outcome = fairlead("annotate", "export", tmp_path / "votes", "--project", "chat", "--db", db, home=tmp_path)
    assert outcome.code == 0 and "2 votes and 0 skips" in outcome.out, outcome.err
    found = list(read_collected(tmp_path / "votes" / "comparisons.jsonl"))
    assert sorted(len(each.prompt.messages) for each in found) == [1, 3]
    policy = open_policy("bundled", template=None, temperature=1.0, max_new_tokens=12)
    for each in found:
        request = ReplyRequest(key=each.a.meta["key"], prompt=each.prompt, num_samples=2, seed=each.a.seed)
        assert {reply.text for reply in one(policy.reply([request]))} == {each.a.text, each.b.text}
