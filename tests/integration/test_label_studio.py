"""A real Label Studio: it imports our export through its API, and we read its exports back. Run by `make test-label-studio`.

FAIRLEAD_LABEL_STUDIO names its program; without it the test is skipped, unless FAIRLEAD_REQUIRE asks for it.
"""

import dataclasses
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.io import Rejects, write_text
from fairlead.core.records import Message
from fairlead.formats import detect_format, read_annotations
from fairlead.formats.label_studio import ONLY_NUMBER, label_config, write_task

START_S = 300
PROMPT = (Message(role="system", content="Be brief."), Message(role="user", content="How are you?"))
PAIRS = [
    RatedItem(
        item=f"pair-{i}", prompt=PROMPT, slice="chat", source="pilot", split="heldout", meta={"batch": i},
        replies=(Reply(id="a", text=f"Fine {i}. <b>&amp;</b> $x^2$", model="m1"), Reply(id="b", text=f"Well {i}, thänks 🙂!", model="m2")),
        ratings=(
            Rating(rater="ann", verdict="a", strength=-2, swapped=True, rationale="shorter\nand kinder",
                   answers={"helpful": 4, "tags": ["calm", "warm"], "mood": ["good"], "why": "tone"},
                   confidence=0.75, cost=0.3, duration_ms=36800, guideline_version="v2", created_at="2026-11-21T10:00:00Z", source_id="s1",
                   edits={"b": "Well, thanks."}),
            Rating(rater="bob", verdict="tie", is_anchor=True, source_id="s2", created_at="2026-11-21T10:00:00Z", duration_ms=5),
            Rating(rater="cem", verdict="both_bad", swapped=True, source_id="s3", created_at="2026-11-21T10:00:00Z", duration_ms=5),
            Rating(rater="dan", verdict="skip", skip_reason="language", source_id="s4", created_at="2026-11-21T10:00:00Z", duration_ms=5),
            Rating(rater="judge-1", rater_kind="judge", verdict="b", strength=1, confidence=0.5, source_id="s5", created_at="2026-11-21T10:00:00Z"),
        ),
    )
    for i in range(3)
]  # fmt: skip
RANKED = [
    RatedItem(
        item="rank-1", source="pilot", prompt=PROMPT[1:], replies=tuple(Reply(id=n, text=f"reply {n}") for n in ("x", "y", "z")),
        ratings=(
            Rating(rater="ann", ranking=(("y",), ("x",), ("z",)), source_id="t1", created_at="2026-11-21T10:00:00Z", duration_ms=5),
            Rating(rater="bob", ranking=(("x", "z"), ("y",)), source_id="t2", created_at="2026-11-21T10:00:00Z", duration_ms=5),
        ),
    )
]  # fmt: skip


class LabelStudio:
    """One running server and its API."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self._token = url, token

    def call(self, path, data=None):
        request = urllib.request.Request(
            self.url + path, data=None if data is None else json.dumps(data).encode(),
            headers={"Authorization": f"Token {self._token}", "Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:2000]!r}") from error

    def project(self, items):
        made = self.call("/api/projects", {"title": "fairlead", "label_config": label_config(items)})
        done = self.call(f"/api/projects/{made['id']}/import", [write_task(item) for item in items])
        assert done["task_count"] == len(items)
        assert done["annotation_count"] == sum(r.rater_kind != "judge" for item in items for r in item.ratings)
        return made["id"]

    def export(self, project, kind):
        return self.call(f"/api/projects/{project}/export?exportType={kind}&download_all_tasks=true")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory):
    program = os.environ.get("FAIRLEAD_LABEL_STUDIO", "")
    if not Path(program).is_file():
        if "label-studio" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail("FAIRLEAD_REQUIRE=label-studio, and FAIRLEAD_LABEL_STUDIO names no program")
        pytest.skip("FAIRLEAD_LABEL_STUDIO names no program; make test-label-studio installs it")
    folder, port, token = tmp_path_factory.mktemp("label_studio"), _free_port(), secrets.token_hex(20)
    log = folder / "log.txt"
    environment = {**os.environ, "LABEL_STUDIO_BASE_DATA_DIR": str(folder), "COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False",
                   "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "", "PYTHONPATH": "", "LABEL_STUDIO_HOST": ""}  # fmt: skip
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder), "--username",
               "lead@example.org", "--password", secrets.token_hex(12), "--user-token", token, "--enable-legacy-api-token"]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, stdin=subprocess.DEVNULL
        )
    try:
        yield _wait(LabelStudio(f"http://127.0.0.1:{port}", token), process, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server, process, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            server.call("/api/projects")
            return server
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
    raise AssertionError(f"Label Studio did not start in {START_S} s: {log.read_text()[-3000:]}")


def _read(tmp_path, rows, *, name, expected, left_out=None):
    path = tmp_path / name
    write_text(path, json.dumps(rows))
    assert detect_format(path).name == expected
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        reading = read_annotations(path, rejects=rejects)
        found = sorted(reading, key=lambda item: item.item)
    assert (rejects.total, reading.report.left_out) == (0, left_out or {})
    return found


def _same(found, expected):
    assert [item.item for item in found] == [item.item for item in expected]
    for got, want in zip(found, expected, strict=True):
        for name in ("prompt", "replies", "slice", "source", "split", "meta"):
            assert getattr(got, name) == getattr(want, name), name
        by_rater = {rating.rater: rating for rating in got.ratings}
        assert set(by_rater) == {rating.rater for rating in want.ratings}
        for rating in want.ratings:
            for part in dataclasses.fields(Rating):
                read, sent = getattr(by_rater[rating.rater], part.name), getattr(rating, part.name)
                assert json.dumps(read) == json.dumps(sent), (rating.rater, part.name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("items", [PAIRS, RANKED], ids=["pairs", "rankings"])
def test_label_studio_reads_our_export_and_we_read_its(label_studio, tmp_path, items):
    """Every field of every rating, through a real server: tasks of its API, its JSON export (which names predictions by number only) and its
    JSON_MIN export (which has no cancelled annotations either)."""
    project = label_studio.project(items)
    tasks = label_studio.call(f"/api/tasks?project={project}&fields=all&page_size=100")["tasks"]
    _same(_read(tmp_path, tasks, name="tasks.json", expected="label_studio"), items)
    people = [_only(item, lambda r: r.rater_kind != "judge") for item in items]
    num_judges = sum(r.rater_kind == "judge" for item in items for r in item.ratings)
    left_out = {ONLY_NUMBER: num_judges} if num_judges else {}
    rows = label_studio.export(project, "JSON")
    _same(_read(tmp_path, rows, name="export.json", expected="label_studio", left_out=left_out), people)
    kept = [_only(item, lambda r: r.verdict != "skip") for item in people]
    _same(_read(tmp_path, label_studio.export(project, "JSON_MIN"), name="min.json", expected="label_studio_min"), kept)


def _only(item, keep):
    return dataclasses.replace(item, ratings=tuple(r for r in item.ratings if keep(r)), id="")


@pytest.mark.timeout(600)
def test_a_rating_made_in_label_studio_is_read(label_studio, tmp_path):
    """What a person clicks there: no hidden field, the user's number as rater, seconds as lead time."""
    bare = [dataclasses.replace(PAIRS[0], ratings=(), id="")]
    project = label_studio.project(bare)
    (task,) = label_studio.export(project, "JSON")
    label_studio.call(f"/api/tasks/{task['id']}/annotations", {"lead_time": 12.5, "result": [
        {"id": "x1", "from_name": "preference", "to_name": "preference", "type": "pairwise", "value": {"selected": "right"}},
        {"id": "x2", "from_name": "rationale", "to_name": "prompt", "type": "textarea", "value": {"text": ["kinder"]}}]})  # fmt: skip
    (item,) = _read(tmp_path, label_studio.export(project, "JSON"), name="export.json", expected="label_studio")
    (rating,) = item.ratings
    assert (rating.verdict, rating.rationale, rating.duration_ms, rating.rater_kind) == ("b", "kinder", 12500, "human")
    (low,) = _read(tmp_path, label_studio.export(project, "JSON_MIN"), name="min.json", expected="label_studio_min")
    assert (low.ratings[0].verdict, low.ratings[0].rationale, low.ratings[0].duration_ms) == ("b", "kinder", 12500)
