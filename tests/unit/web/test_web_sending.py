"""Archives are sent while they are written; one that fails is none to any program, and one that nobody reads leaves nothing behind."""

import hashlib
import http.client
import io
import itertools
import json
import os
import tempfile
import threading
import time
import zipfile

import pytest
from test_web_client import served
from test_web_transfer import rate_all

from fairlead.core.errors import DataError
from fairlead.core.streams import MemberLines
from fairlead.web import exporting, tokens
from fairlead.web.sending import Growing, send

SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


def read_all(growing):
    parts, at = [], 0
    while (piece := growing.read(at)) is not None:
        parts.append(piece)
        at += len(piece)
    return b"".join(parts)


def wait_for(claim):
    end = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.01)


def writers():
    return [thread for thread in threading.enumerate() if thread.name == "archive"]


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Where temporary files go."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_beginning_is_there_before_the_end_is_written():
    go_on, noise = threading.Event(), [os.urandom(600_000).hex() for _ in range(2)]

    def write(archive):
        with MemberLines(archive, "a.jsonl") as lines:
            lines.write({"text": noise[0]})
            assert go_on.wait(20)
            lines.write({"text": noise[1]})
        archive.writestr("b.txt", "after it")

    growing = Growing(write)
    growing.wait_until_begun()
    wait_for(lambda: len(growing.read(0) or b"") > 100_000)  # of what the thread that waits has written so far
    go_on.set()
    content = read_all(growing)
    growing.leave()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None and archive.namelist() == ["a.jsonl", "b.txt"]
        assert [json.loads(line)["text"] for line in archive.read("a.jsonl").splitlines()] == noise


def test_what_fails_before_the_first_byte_is_raised_as_it_is(room):
    def write(_archive):
        raise DataError("nothing to send")

    with pytest.raises(DataError, match="nothing to send"):
        send(write, filename="x.zip")
    assert list(room.iterdir()) == []


def test_what_fails_later_leaves_no_archive():
    """Without its list of contents, also when the writer that failed is forgotten."""

    def write(archive):
        with MemberLines(archive, "a.jsonl") as lines:
            lines.write({"text": os.urandom(500_000).hex()})
            raise DataError("half of it")

    growing = Growing(write)
    growing.wait_until_begun()
    parts = []
    with pytest.raises(DataError, match="half of it"):
        for _ in range(100):
            parts.append(growing.read(sum(map(len, parts))))
    growing.leave()
    assert sum(map(len, parts)) > 100_000 and not zipfile.is_zipfile(io.BytesIO(b"".join(parts)))


def test_who_leaves_stops_the_writing_and_nothing_is_left(room):
    def write(archive):
        with tempfile.TemporaryDirectory() as folder, MemberLines(archive, "a.jsonl") as lines:
            assert folder
            for number in itertools.count():
                lines.write({"number": number, "text": os.urandom(1000).hex()})

    growing = Growing(write)
    growing.wait_until_begun()
    assert writers() and growing.read(0) and list(room.iterdir())
    growing.leave()
    wait_for(lambda: not writers())
    assert list(room.iterdir()) == []


def test_the_archive_of_a_project_holds_its_files_and_their_sums(database, project, join, tmp_path, room):
    rate_all(database, project, join)
    exporting.export_project(database, project, tmp_path / "files")
    growing = Growing(lambda archive: exporting.write_archive(archive, database, project.id))
    with zipfile.ZipFile(io.BytesIO(read_all(growing))) as archive:
        growing.leave()
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {file.name: file.read_bytes() for file in (tmp_path / "files").iterdir()}
    sums = json.loads(found.pop("manifest.json"))["sha256"]
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert next(iter(found)) == "comparisons.jsonl" and list(room.iterdir()) == []


@pytest.fixture
def ask(database, project, join):
    """A request for the archive to a real server, and its connection."""
    rate_all(database, project, join)
    secret = tokens.make_token(database, join("lea", "lead"), name="test", scope="lead", num_days=1).secret
    with served(database) as url:

        def asked():
            line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
            path = f"/api/v1/projects/{project.id}/export"
            line.request("GET", path, headers={"authorization": f"Bearer {secret}"})
            return line, line.getresponse()

        yield asked


@SQLITE
def test_a_download_that_fails_in_the_middle_does_not_look_complete(ask, room, monkeypatch):
    def fail(*_args):
        raise DataError("votes are not what the database holds")

    monkeypatch.setattr(exporting, "_check_complete", fail)
    line, answer = ask()
    assert answer.status == 200 and answer.headers["content-length"] is None
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    line.close()
    monkeypatch.undo()
    line, answer = ask()  # the server goes on
    assert zipfile.ZipFile(io.BytesIO(answer.read())).testzip() is None
    line.close()


@SQLITE
def test_a_browser_that_hangs_up_stops_the_export(ask, room, monkeypatch):
    real = exporting.given_items

    def endless(*args):
        return itertools.cycle(list(real(*args)))

    monkeypatch.setattr(exporting, "given_items", endless)
    line, answer = ask()
    assert len(answer.read(1000)) == 1000 and writers()
    answer.close()
    line.close()
    wait_for(lambda: not writers())
    assert list(room.iterdir()) == []
