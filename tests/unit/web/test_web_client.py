"""The Python client against the real server over HTTP: simulated raters, a network that breaks, votes that are stored once."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
import zipfile

import pytest
import sqlalchemy as sa
import uvicorn
from web_example import pairs

from fairlead.core.errors import ConfigError
from fairlead.store.annotation.schema import Invite
from fairlead.store.annotation.steering import Anchor
from fairlead.web import client as clients
from fairlead.web import importing, tokens, webhooks
from fairlead.web.app import make_app
from fairlead.web.client import ApiError, Client, Unreachable, verify_webhook
from fairlead.web.place import Place


@contextlib.contextmanager
def served(database, **changes):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    place = Place.of(host="127.0.0.1", port=port, url=None)
    app = make_app(database, place=place, secret=b"s" * 32, rate_per_s=1e6, burst=10**6, **changes)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended before it began to answer"
        time.sleep(0.02)
    try:
        yield place.url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def url(database):
    with served(database) as address:
        yield address


@pytest.fixture
def connect(database, join, url):
    opened = []

    def made(name, role="rater", scope="rate", **changes):
        secret = tokens.make_token(database, join(name, role), name="test", scope=scope, num_days=1).secret
        opened.append(Client(url, token=secret, **changes))
        return opened[-1]

    yield made
    for each in opened:
        each.close()


def test_simulated_raters_collect_votes_over_http(connect, tmp_path):
    lead = connect("lea", "lead", "lead")
    assert lead.me() == ("lea", "lead")
    project = lead.create_project("sim", votes_per_item=3, calibration_items=0)
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lead.import_file(project.id, tmp_path / "pairs.jsonl").num_items == 8
    assert lead.import_file(project.id, tmp_path / "pairs.jsonl").num_known == 8
    faults = []

    def rate(client, skill, seed):
        rng = random.Random(seed)
        try:
            while (item := client.take_next(project.id)) is not None:
                is_left = item.replies[0].startswith("good") == (rng.random() < skill)
                assert not client.submit(item, choice="left" if is_left else "right", strength=1, active_ms=5000).repeat
            assert client.reason in ("finished", "waiting")
        except Exception as error:  # reported below
            faults.append(error)

    raters = [connect(name) for name in ("ann", "bob", "cem")]
    threads = [threading.Thread(target=rate, args=(each, 1.0, i)) for i, each in enumerate(raters)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not faults and lead.status(project.id)["num_finished"] == 8
    votes = list(lead.votes(project.id))
    assert len(votes) == 24 and len({(v.item, v.rater) for v in votes}) == 24
    by_item = {v.item: {w.verdict for w in votes if w.item == v.item} for v in votes}
    assert all(len(verdicts) == 1 for verdicts in by_item.values())
    lead.export(project.id, tmp_path / "votes.zip")
    with zipfile.ZipFile(tmp_path / "votes.zip") as archive:
        assert json.loads(archive.read("manifest.json"))["votes"] == 24


def test_undo_flag_and_pause(connect, project):
    lead, ann = connect("lea", "lead", "lead"), connect("ann")
    item = ann.take_next(project.id)
    assert [option.choice for option in item.options].count("left") == 3 and item.given == ""
    ann.submit(item, choice="left", strength=2, rationale="why")
    ann.flag(item.id, "odd")
    assert ann.undo(project.id) == item.id
    assert lead.set_state(project.id, "paused").state == "paused"
    assert ann.take_next(project.id) is None and ann.reason == "paused"
    assert lead.invite().startswith("http") and lead.find_project("test").id == project.id


class Cuts:
    """Stands between client and server: passes requests on and cuts the answer off where told to."""

    def __init__(self, real, cut):
        self.real, self.cut, self.num = real, set(cut), 0

    def request(self, *args, **kwargs):
        self.real.request(*args, **kwargs)

    def getresponse(self):
        answer = self.real.getresponse()
        self.num += 1
        if self.num in self.cut:
            answer.read()  # the server has done it; the client never hears
            self.real.close()
            raise http.client.RemoteDisconnected("cut")
        return answer

    def close(self):
        self.real.close()

    host, port = "127.0.0.1", 0


def test_an_answer_that_is_lost_is_asked_for_again_and_stored_once(connect, project, monkeypatch):
    monkeypatch.setattr(clients, "FIRST_WAIT_S", 0.01)
    lead, ann = connect("lea", "lead", "lead"), connect("ann")
    ann._line = Cuts(ann._line, cut=[1, 3, 4, 7])
    item = ann.take_next(project.id)
    saved = ann.submit(item, choice="left", strength=1)
    assert saved.repeat and len(list(lead.votes(project.id))) == 1
    assert ann.undo(project.id) == item.id and list(lead.votes(project.id)) == []
    lead._line = Cuts(lead._line, cut=[2])
    made = lead.create_project("once")
    assert [each.name for each in lead.list_projects()].count("once") == 1 and made.name == "once"


def test_what_creates_things_is_asked_for_again_and_made_once(connect, project, database, monkeypatch):
    monkeypatch.setattr(clients, "FIRST_WAIT_S", 0.01)
    lead = connect("lea", "lead", "lead")
    importing.add_items(database, project.id, pairs(40, prefix="more"))
    lead._line = Cuts(lead._line, cut=[1, 3, 5])
    link = lead.invite("adjudicator", languages=["de"], skills=["code"])
    desk = lead.lead(project.id)
    number = desk.open_round("version 2")
    made = desk.make_webhook("https://93.184.215.14/hook", ["alarm"])
    assert lead._line.num == 6 and "/invite/" in link and made["secret"].startswith("fairlead_hook_")
    assert [each["id"] for each in desk.webhooks()] == [made["id"]]
    assert [each["number"] for each in desk.watched()["rounds"]] == [number]
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Invite)) == 2  # lea's own and this one


def test_known_answers_come_in_as_anchors_or_as_the_test_of_a_skill(connect, tmp_path, database):
    """Eight pairs as anchors, twenty as the test of a skill; neither is an item to rate, and a file that is sent again adds nothing."""
    lead = connect("lea", "lead", "lead")
    project = lead.create_project("gold", votes_per_item=1, calibration_items=0)
    for name, num in (("anchors", 8), ("code", 20)):
        rows = [{"prompt": f"{name} {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(num)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = lead.import_file(project.id, tmp_path / "anchors.jsonl", is_gold=True)
    assert (added.num_items, added.num_known) == (8, 0)
    again = lead.import_file(project.id, tmp_path / "anchors.jsonl", is_gold=True)
    assert (again.num_items, again.num_known) == (0, 8)
    assert lead.import_file(project.id, tmp_path / "code.jsonl", is_gold=True, test="code").num_items == 20
    assert lead.lead(project.id).watched()["num_gold"] == 8
    with database.read() as rows:
        kept = rows.execute(sa.select(Anchor.qualifies, sa.func.count()).group_by(Anchor.qualifies)).all()
    assert dict(kept) == {"": 8, "skill:code": 20}
    ann = connect("ann")
    assert ann.take_next(project.id) is None  # anchors alone are nothing to rate
    with pytest.raises(ApiError, match="A test needs known answers"):
        lead.import_file(project.id, tmp_path / "code.jsonl", test="code")
    rows = [
        {"id": i, "data": {"prompt": f"q {i}", "answer1": "a", "answer2": "b"}, "annotations": []} for i in range(2)
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(rows))
    with pytest.raises(ApiError, match="does not say which reply is better"):
        lead.import_file(project.id, tmp_path / "tasks.json", is_gold=True)


def test_replies_of_a_prompt_come_in_to_be_ranked(connect, tmp_path):
    lead = connect("lea", "lead", "lead")
    project = lead.create_project("ranked", votes_per_item=1, calibration_items=0)
    rows = [{"prompt": "q", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lead.import_file(project.id, tmp_path / "pairs.jsonl", group_size=4).num_items == 1
    assert len(connect("ann").take_next(project.id).replies) == 4


def test_a_server_that_is_gone_is_said_so(connect, monkeypatch):
    monkeypatch.setattr(clients, "FIRST_WAIT_S", 0.01)
    with pytest.raises(Unreachable, match="no good answer"):
        Client("http://127.0.0.1:9", token="x", max_attempts=2).me()


def test_refusals_keep_status_code_and_sentence(connect, project):
    ann = connect("ann")
    with pytest.raises(ApiError, match="Only a lead") as refused:
        ann.status(project.id)
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    ann._token = "fairlead_wrong"
    with pytest.raises(ApiError, match="missing, wrong") as refused:
        ann.me()
    assert refused.value.status == 401
    with pytest.raises(ConfigError, match="no address"):
        Client("rate.example.org", token="x")


def test_a_webhooks_signature_is_verified():
    signature = webhooks.sign("secret", b'{"a": 1}', at_s=1000)
    assert verify_webhook("secret", signature, b'{"a": 1}', now_s=1200)
    assert not verify_webhook("secret", signature, b'{"a": 2}', now_s=1200)
    assert not verify_webhook("other", signature, b'{"a": 1}', now_s=1200)
    assert not verify_webhook("secret", signature, b'{"a": 1}', now_s=1301)
    for odd in ("", "t=,v1=", "t=x,v1=y", "v1=0", signature.replace("t=1000", "t=1001")):
        assert not verify_webhook("secret", odd, b'{"a": 1}', now_s=1000)
