"""Webhooks: where they may go (SSRF, redirects, rebinding), what is sent, and that it arrives once the receiver is back."""

import contextlib
import hmac
import http.server
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
import sqlalchemy as sa
from web_example import take, vote

from fairlead.store.annotation.outside import Delivery, Webhook
from fairlead.store.annotation.schema import Event
from fairlead.web import calibration, outgoing, projects, verdicts, webhooks
from fairlead.web.errors import Refused
from fairlead.web.outgoing import Answer, Target, check_target, is_public, post

SECRET = b"s" * 32
PUBLIC = "93.184.215.14"


def leads_to(*addresses):
    """A lookup whose answers change from call to call."""
    answers = list(addresses)

    def lookup(host, port, **_):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return lookup


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.9.9.9", "localhost.", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::a9fe:a9fe]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[2001:db8::1]",
])  # fmt: skip
def test_addresses_inside_a_network_are_refused_in_every_dress(host):
    lookup = leads_to(["127.0.0.1"])
    with pytest.raises(Refused) as refused:
        check_target(f"https://{host}/", lookup=lookup)
    assert refused.value.code == "address"


@pytest.mark.parametrize("host", [
    "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.0.0.1", "0x7f.1", "017700000001", "1.2.3.4.5", "08.8.8.8", "0x", "256.1.1.1",
    "4294967297", "8.8.8.08", "1.2.3.4.",
])  # fmt: skip
def test_numbers_that_some_programs_read_as_addresses_are_refused(host):
    with pytest.raises(Refused, match=r"number|not found|inside"):
        check_target(f"https://{host}/", lookup=leads_to(["127.0.0.1"]))


@pytest.mark.parametrize("url", [
    "http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "//example.org/", "example.org", "https://", "https:///x",
    "https://user:pass@example.org/", "https://example.org@127.0.0.1/", "https://exa mple.org/", "https://example.org\\@evil.org/", "https://example.org:99999/",
    "https://exämple.org/", "https://example.org/\r\nHost: x", "https://[fe80::1%25eth0]/", "https://[::1/", "javascript:alert(1)", "https://%6cocalhost/",
    "https://ex_.ample..org-/", "https://example.org/" + "x" * 2000, "",
])  # fmt: skip
def test_odd_addresses_are_refused(url):
    with pytest.raises(Refused):
        check_target(url, lookup=leads_to([PUBLIC]))


def test_an_address_of_the_internet_is_taken():
    found = check_target("https://example.org:8443/hook?x=1", lookup=leads_to([PUBLIC]))
    assert found == Target(scheme="https", host="example.org", port=8443, path="/hook?x=1", address=PUBLIC)
    assert check_target(f"https://{PUBLIC}").path == "/"
    assert is_public(ipaddress.ip_address("2606:4700::1111")) and is_public(ipaddress.ip_address("::ffff:8.8.8.8"))


def test_mixed_records_are_refused():
    with pytest.raises(Refused, match="inside a network"):
        check_target("https://example.org/", lookup=leads_to([PUBLIC, "10.0.0.1"]))


def test_a_name_that_is_not_found_is_refused():
    def lookup(*_, **__):
        raise socket.gaierror("no such host")

    with pytest.raises(Refused, match="not found"):
        check_target("https://nowhere.example/", lookup=lookup)


def test_loopback_needs_the_switch_and_opens_nothing_else():
    assert check_target("http://127.0.0.1:9/", allow_local=True).address == "127.0.0.1"
    for url, found in (
        ("http://example.org/", PUBLIC),
        ("https://example.org/", "10.0.0.1"),
        ("https://example.org/", "169.254.169.254"),
    ):
        with pytest.raises(Refused):
            check_target(url, allow_local=True, lookup=leads_to([found]))
    with pytest.raises(Refused):
        check_target("http://example.org/", allow_local=True, lookup=leads_to(["127.0.0.1", PUBLIC]))


def test_rebinding_changes_nothing_for_the_address_that_was_checked_is_connected_to():
    """The name leads to a public address when it is checked and to this machine from then on."""
    lookup, connected = leads_to([PUBLIC], ["127.0.0.1"]), []

    def connect(address, **_):
        connected.append(address)
        raise OSError("far enough")

    target = check_target("https://rebind.example/", lookup=lookup)
    with pytest.raises(OSError, match="far enough"):
        post(target, b"{}", {}, connect=connect)
    assert connected == [(PUBLIC, 443)]
    with pytest.raises(Refused):  # the next delivery looks again, and refuses
        check_target("https://rebind.example/", lookup=lookup)


class Receiver:
    """A server on this machine that answers as told and keeps what it got."""

    def __init__(self, tls=None):
        self.got, self.status, self.headers, self.body, self.drip_s = [], 200, {}, b"ok", 0.0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((self.path, dict(self.headers), body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # the other side had enough: that is what is tested
                    for i in range(0, len(receiver.body), 1024):
                        self.wfile.write(receiver.body[i : i + 1024])
                        time.sleep(receiver.drip_s)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def deliver(database, **changes):
    return webhooks.deliver_due(database, **{"server_secret": SECRET, "allow_local": True, **changes})


def hook(database, join, project, receiver, events):
    return webhooks.make_webhook(
        database, join("lea", "lead"), project.id, url=receiver.url, events=events, allow_local=True
    )


def test_what_happens_is_sent_signed_and_names_nobody(database, project, join, receiver):
    made = hook(database, join, project, receiver, ["item.finished", "project.paused", "rater.passed"])
    for name in ("Ann Real-Name", "Bob Real-Name"):
        actor = join(name)
        verdicts.submit(database, actor, take(database, actor, project).id, vote(rationale="private words"))
    calibration.waive(database, project.id, actor.person_id, by=actor.person_id, reason="private reason")
    projects.set_project_state(database, project.id, state="paused", by=None)
    assert deliver(database) == 3
    events = {headers["Fairlead-Event"]: json.loads(body) for _, headers, body in receiver.got}
    assert set(events) == {"webhook.ping", "item.finished", "project.paused"}
    assert sum(events["item.finished"]["data"]["votes"].values()) == 2
    text = json.dumps(events)
    assert "Real-Name" not in text and "private" not in text
    for path, headers, body in receiver.got:
        stamp, _, signature = headers["Fairlead-Signature"].partition(",v1=")
        at = stamp.removeprefix("t=")
        expected = hmac.new(webhooks.secret_of(SECRET, made.id).encode(), f"{at}.".encode() + body, "sha256").hexdigest()  # fmt: skip
        assert hmac.compare_digest(signature, expected) and abs(int(at) - time.time()) < 60
        assert path == "/hook" and headers["Fairlead-Id"] == json.loads(body)["id"]
    assert deliver(database) == 0
    assert webhooks.list_webhooks(database, project.id)[0].num_done == 3


def test_an_item_is_told_once_however_often_minds_change(database, project, join, receiver):
    hook(database, join, project, receiver, ["item.finished"])
    for name in ("ann", "bob"):
        actor = join(name)
        assignment = take(database, actor, project)
        verdicts.submit(database, actor, assignment.id, vote())
    for choice in ("right", "tie", "left"):
        verdicts.submit(database, actor, assignment.id, vote(choice))
    verdicts.withdraw_last(database, actor, project.id, key="undo-bob-1")
    verdicts.submit(database, actor, assignment.id, vote())
    assert deliver(database) == 2  # the ping and the item


def test_what_fails_is_sent_again_later_with_the_same_id_and_then_given_up(
    database, project, join, receiver, monkeypatch
):
    hook(database, join, project, receiver, ["alarm"])
    receiver.status, clock = 500, [webhooks.now_ms()]
    monkeypatch.setattr(webhooks, "now_ms", lambda: clock[0])
    waits = []
    for _ in range(webhooks.MAX_ATTEMPTS):
        assert deliver(database) == 0 and deliver(database) == 0  # the second finds nothing due
        with database.read() as rows:
            delivery = rows.scalars(sa.select(Delivery)).one()
        waits.append((delivery.next_at - clock[0]) / 1000)
        clock[0] = max(delivery.next_at, clock[0] + 60_000)
    assert len(receiver.got) == webhooks.MAX_ATTEMPTS and len({h["Fairlead-Id"] for _, h, _ in receiver.got}) == 1
    for wait, expected in zip(waits[:4], (10, 40, 160, 640), strict=True):
        assert 0.8 * expected <= wait <= 1.2 * expected
    standing = webhooks.list_webhooks(database, project.id)[0]
    assert standing.num_given_up == 1 and standing.last_outcome == "answered 500"
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "webhook.given_up")) == 1


def test_a_receiver_that_comes_back_gets_everything(database, project, join, receiver, monkeypatch):
    hook(database, join, project, receiver, ["project.paused"])
    receiver.status = 503
    projects.set_project_state(database, project.id, state="paused", by=None)
    assert deliver(database) == 0
    receiver.status, later = 200, webhooks.now_ms() + 60_000
    monkeypatch.setattr(webhooks, "now_ms", lambda: later)
    assert deliver(database) == 2


def test_redirects_are_not_followed(database, project, join, receiver):
    hook(database, join, project, receiver, ["alarm"])
    receiver.status, receiver.headers = 302, {"Location": receiver.url.replace("/hook", "/inside")}
    assert deliver(database) == 0
    assert [path for path, _, _ in receiver.got] == ["/hook"]
    assert "redirects are not followed" in webhooks.list_webhooks(database, project.id)[0].last_outcome


def test_an_answer_without_end_is_cut_by_size_and_by_time(receiver):
    target = check_target(receiver.url, allow_local=True)
    receiver.body = b"x" * 1_000_000
    assert len(post(target, b"{}", {}).body) == outgoing.MAX_ANSWER
    receiver.drip_s, begun = 0.5, time.monotonic()  # half a minute until it would be cut by size
    with contextlib.suppress(OSError):  # an error or a short answer: both are ends
        post(target, b"{}", {}, timeout_s=1.0)
    assert time.monotonic() - begun < 20


def test_what_is_no_http_is_a_failed_attempt(database, project, join):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble():
            line, _ = listener.accept()
            line.sendall(b"\x00\xff nonsense \r\n\r\n" * 10)
            line.close()

        threading.Thread(target=babble, daemon=True).start()
        with pytest.raises(OSError):
            post(check_target(f"http://127.0.0.1:{listener.getsockname()[1]}/", allow_local=True), b"{}", {})


def test_a_stored_address_is_checked_again_at_every_delivery(database, project, join, receiver):
    """Made while loopback was allowed; the server now runs without the switch."""
    hook(database, join, project, receiver, ["alarm"])
    assert deliver(database, allow_local=False) == 0 and receiver.got == []
    assert "inside a network" in webhooks.list_webhooks(database, project.id)[0].last_outcome


def test_tls_is_checked_by_the_name_while_the_line_goes_to_the_address(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=hook.example",
         "-addext", "subjectAltName=DNS:hook.example", "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    receiver = Receiver(tls=server)
    port = receiver.server.server_port
    trusting = ssl.create_default_context(cafile=str(certificate))

    def target(host):
        return Target(scheme="https", host=host, port=port, path="/", address="127.0.0.1")

    assert post(target("hook.example"), b"{}", {}, context=trusting).status == 200
    assert receiver.got[0][1]["Host"] == f"hook.example:{port}"
    with pytest.raises(ssl.SSLCertVerificationError):
        post(target("other.example"), b"{}", {}, context=trusting)
    with pytest.raises(ssl.SSLCertVerificationError):
        post(target("hook.example"), b"{}", {})
    assert len(receiver.got) == 1
    receiver.server.shutdown()
    receiver.server.server_close()


def test_a_secret_is_stored_nowhere_and_differs_by_webhook(database, project, join, receiver):
    first = hook(database, join, project, receiver, ["alarm"])
    assert webhooks.secret_of(SECRET, first.id) != webhooks.secret_of(SECRET, "other")
    with database.engine.connect() as connection:
        stored = str(connection.execute(sa.text("SELECT * FROM webhooks")).all())
    assert webhooks.secret_of(SECRET, first.id) not in stored and SECRET.decode() not in stored


@pytest.mark.parametrize(("changes", "words"), [
    ({"events": []}, "no event"), ({"events": ["x"]}, "x is no event"), ({"url": "https://127.0.0.1/"}, "inside"),
])  # fmt: skip
def test_a_webhook_that_cannot_be_is_refused_and_not_stored(database, project, join, changes, words):
    sent = {"url": f"https://{PUBLIC}/", "events": ["alarm"], "allow_local": False, **changes}
    with pytest.raises(Refused, match=words):
        webhooks.make_webhook(database, join("lea", "lead"), project.id, **sent)
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Webhook)) == 0


def test_another_projects_webhook_is_not_there(database, project, join, receiver):
    made = hook(database, join, project, receiver, ["alarm"])
    other = projects.create_project(database, "other", calibration_items=0)
    with pytest.raises(Refused, match="not there"):
        webhooks.remove_webhook(database, join("max", "lead"), other.id, made.id)
    webhooks.remove_webhook(database, join("mia", "lead"), project.id, made.id)
    assert webhooks.list_webhooks(database, project.id) == [] and deliver(database) == 0


def test_the_courier_delivers_by_itself_and_outlives_a_busy_database(database, project, join, receiver, monkeypatch):
    busy = [1]
    real = webhooks.deliver_due

    def sometimes(*args, **kwargs):
        if busy:
            busy.pop()
            raise sa.exc.OperationalError("BEGIN", {}, Exception("database is locked"))
        return real(*args, **kwargs)

    monkeypatch.setattr(webhooks, "deliver_due", sometimes)
    hook(database, join, project, receiver, ["alarm"])
    courier = webhooks.Courier(database, server_secret=SECRET, allow_local=True, every_s=0.02)
    courier.start()
    deadline = time.monotonic() + 60
    while not receiver.got and time.monotonic() < deadline:
        time.sleep(0.02)
    courier.stop()
    assert len(receiver.got) == 1


def test_a_delivery_whose_webhook_is_removed_meanwhile_does_no_harm(database, project, join, receiver):
    made = hook(database, join, project, receiver, ["alarm"])
    lead = join("max", "lead")

    def send(*_):
        webhooks.remove_webhook(database, lead, project.id, made.id)
        return Answer(status=200, body=b"")

    assert deliver(database, send=send) == 1
