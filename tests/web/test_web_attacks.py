"""Attacks on people's browsers: texts that would run or load something, in every field that somebody else controls, in a browser that would.

The detector is tested first: without our rendering and policy these payloads do run and do load.
"""

import dataclasses
import http.server
import importlib
import pkgutil
import threading
from collections.abc import Iterator

import annotation_pages
import annotation_screens
import argon2
import pytest
import sqlalchemy as sa
import watching
from served import Rater, wait
from web_example import pairs
from web_payloads import PAYLOADS

import fairlead.store.annotation
from fairlead.core.records import Message, Prompt
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.schema import Person, Table
from fairlead.web import people
from fairlead.web.importing import NewItem

CODED = {
    "events.key": "made by the browser, checked, shown nowhere", "failures.subject": "a name or address as a key, shown nowhere",
    "items.needs": "words, checked when they are read", "progress.needs": "the same",
    "progress.pattern": "counts", "deliveries.subject": "an id", "deliveries.body": "JSON for another server",
}  # fmt: skip
"""Long texts of the tables that nobody can write into, and why."""


@pytest.fixture(scope="module")
def careless() -> Iterator[str]:
    """A server that puts payload N into the page at /N as it is, without any policy."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            number = self.path.strip("/")
            body = PAYLOADS[int(number)] if number.isdigit() else ""
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(f"<!doctype html><title>x</title><main>{body}</main>".encode())

        def log_message(self, *_: object):
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_detector_sees_what_runs_and_what_loads(watched, careless):
    """Of the payloads that are HTML, most run in this browser where nothing keeps them; those for Markdown and formulas need a renderer."""
    did_run, did_load = [], []
    watching.requests(watched)
    for number in range(len(PAYLOADS)):
        watched.get(f"{careless}/{number}")
        if watching.ran(watched):
            did_run.append(number)
        if watching.active(watched):
            did_load.append(number)
    assert len(PAYLOADS) >= 60 and len(did_run) >= 30, f"{len(did_run)} of {len(PAYLOADS)} ran"
    assert len(did_load) >= 40
    assert len([url for url in watching.strangers(watched, careless) if "tracker.example" in url]) >= 4


def free_texts() -> Iterator[sa.Column]:
    """Columns into which a model or a person can write: long texts that are neither keys nor hashes."""
    for module in pkgutil.iter_modules(fairlead.store.annotation.__path__):
        if module.name != "migrations":
            importlib.import_module(f"fairlead.store.annotation.{module.name}")
    for table in Table.metadata.tables.values():
        for column in table.columns:
            is_long = isinstance(column.type, sa.String) and (column.type.length or 1000) > 40
            is_key = column.primary_key or column.name.endswith(("_hash", "_id"))
            if is_long and not is_key and f"{table.name}.{column.name}" not in CODED:
                yield column


def poison(rows, texts: str) -> None:
    """Put these payloads into every free text of the database, each row's its own where it must be the only one."""
    for column in free_texts():
        table = column.table
        keys = list(table.primary_key.columns)
        for number, key in enumerate(rows.execute(sa.select(*keys)).all()):
            value = f"{texts} {number}" if column.unique else texts
            rows.execute(sa.update(table).where(*(a == b for a, b in zip(keys, key, strict=True))).values({column.name: value}))  # fmt: skip


@pytest.mark.parametrize("start", range(0, len(PAYLOADS), 40))
def test_no_page_runs_or_loads_what_is_in_any_column(watched, votes_db, monkeypatch, start):
    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    texts = "\n\n".join(PAYLOADS[start : start + 40])
    with open_database(votes_db, is_durable=False) as database:
        ids = annotation_pages.fill(database, say=lambda text: f"{texts}\n\n{text}")
        names = {page.who for page in annotation_pages.PAGES if page.who}
        cookies = {
            name: people.log_in(database, name=name, password=annotation_pages.PASSWORD, address="x") for name in names
        }
        with database.write() as rows:
            poison(rows, texts)
            assert all(texts[:40] in name for name in rows.scalars(sa.select(Person.name)))
        with annotation_pages.serve(database) as url:
            watched.get(f"{url}/login")
            watching.requests(watched)
            for page in annotation_pages.PAGES:
                watched.delete_all_cookies()
                if page.who:
                    watched.add_cookie({"name": "fairlead", "value": cookies[page.who], "path": "/"})
                annotation_screens.show(watched, url, page, ids)
                assert watched.execute_script("return document.querySelector('main').textContent.length") > 20, (
                    page.name
                )
                assert not watching.ran(watched), page.name
                assert watching.active(watched) == [], page.name
                assert watching.strangers(watched, url) == [], page.name
            refused = [row for row in watched.get_log("browser") if "Content Security Policy" in row["message"]]
            assert refused == [], "something was kept from running by the policy alone"


@pytest.mark.parametrize("start", range(0, len(PAYLOADS), 20))
def test_each_payload_alone_stays_text_while_it_is_rated(watched, served, start):
    some = PAYLOADS[start : start + 20]
    found = []
    for i, payload in enumerate(some):
        prompt = Prompt(messages=(Message(role="system", content=payload), Message(role="user", content=payload)))
        texts = (
            dataclasses.replace(c, prompt_id=prompt.id, text=f"{payload}\n\n{k}{i}", id="")
            for k, c in enumerate(pairs(1)[0].completions)
        )
        found.append(NewItem.of(prompt, texts))
    project = served.project(found, name=some[0][:80], text="\n\n".join(some))
    served.join("<img src=x onerror=window.pwned=1>", "lead")
    lead = Rater(watched, served, "<img src=x onerror=window.pwned=1>")
    watching.requests(watched)
    watched.get(f"{served.url}/p/{project.id}/rate")
    for payload in some:
        lead.later()
        assert not watching.ran(watched) and watching.active(watched) == []
        watched.execute_script("document.querySelector('textarea').value = arguments[0]", payload)
        lead.vote("1")
    wait("all votes", lambda: len(served.verdicts()) == len(some))
    watched.get(f"{served.url}/p/{project.id}/mine")
    assert not watching.ran(watched) and watching.active(watched) == []
    assert sorted(v.rationale for v in served.verdicts()) == sorted(some)
    assert watching.strangers(watched, served.url) == []
    assert [row for row in lead.complaints() if "Content Security Policy" in row] == []
