"""`fairlead annotate serve` killed with SIGKILL while raters vote: what was acknowledged is there, once."""

import http.client
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest
import sqlalchemy as sa
from web_example import pairs

from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.schema import Event, Verdict
from fairlead.web import importing, people, projects
from ports import kept_port

NUM_RATERS, NUM_KILLS = 4, 2


class Client:
    """A rater without a browser."""

    def __init__(self, url, secret):
        self.url, self.cookie, self.acknowledged = url, f"fairlead={secret}", []

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"cookie": self.cookie})
        return urllib.request.urlopen(request, timeout=60).read().decode()

    def rate(self, project_id, pending):
        """Send what is pending again with its key, else the next item; remember what the server says is saved."""
        if not pending:
            page = self.get(f"/p/{project_id}/rate")
            assignment = re.search(r'data-assignment="([^"]+)"', page)[1]
            csrf = re.search(r'name="csrf" content="([^"]+)"', page)[1]
            fields = {"csrf": csrf, "key": secrets.token_hex(16), "choice": "left2", "guideline_version": "1"}
            pending.append((f"/a/{assignment}/verdict", fields))
        path, fields = pending[0]
        body = urllib.parse.urlencode(fields).encode()
        headers = {"cookie": self.cookie, "origin": self.url, "accept": "application/json"}
        urllib.request.urlopen(urllib.request.Request(self.url + path, data=body, headers=headers), timeout=60).read()
        self.acknowledged.append(fields["key"])
        pending.clear()


@pytest.fixture
def port():
    with kept_port() as kept:
        yield kept


def test_no_acknowledged_vote_is_lost_or_stored_twice(db, port, tmp_path):
    with open_database(db) as database:
        project = projects.create_project(database, "kill", votes_per_item=1, calibration_items=0)
        importing.add_items(database, project.id, pairs(1000))
        invites = [people.make_invite(database, role="rater") for _ in range(NUM_RATERS)]
        sessions = [
            people.accept_invite(database, secret, name=f"r{i}", password="a long password")
            for i, secret in enumerate(invites)
        ]
    clients = [Client(f"http://127.0.0.1:{port}", secret) for secret in sessions]
    stop = threading.Event()

    def work(client):
        pending = []
        while not stop.is_set():
            try:
                client.rate(project.id, pending)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for number in range(NUM_KILLS):
        command = [sys.executable, "-m", "fairlead.cli.main", "annotate", "serve", "--db", db, "--port", str(port)]
        server = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "FAIRLEAD_HOME": str(tmp_path)},
            cwd=tmp_path,
        )
        if number == 0:
            [thread.start() for thread in threads]
        before = sum(len(client.acknowledged) for client in clients)
        end = time.monotonic() + 120
        while sum(len(client.acknowledged) for client in clients) < before + 15 + 7 * number and time.monotonic() < end:
            time.sleep(0.01)
        server.send_signal(signal.SIGKILL)
        server.wait()
    stop.set()
    [thread.join() for thread in threads]
    acknowledged = [key for client in clients for key in client.acknowledged]
    assert len(acknowledged) >= 15 * NUM_KILLS
    with open_database(db) as database, database.read() as rows:
        keys = [
            key.split(":")[1] for key in rows.scalars(sa.select(Event.key).where(Event.kind == "verdict.submitted"))
        ]
        num_verdicts = rows.scalar(sa.select(sa.func.count()).select_from(Verdict))
    assert len(keys) == len(set(keys)) == num_verdicts
    assert set(acknowledged) <= set(keys)
