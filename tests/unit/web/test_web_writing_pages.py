"""The pages of demonstrations over HTTP: without scripts, JSON answers, roles, payloads, what is not told."""

import re

import pytest
import sqlalchemy as sa
from test_web_demonstrations import DRAFT, wanted
from web_browser import ORIGIN, Browser, without_ids
from web_payloads import PAYLOADS

from fairlead.core.records import Message, Prompt
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web import projects
from fairlead.web.app import make_app
from fairlead.web.demonstrations import transfer
from fairlead.web.place import Place

JSON = {**ORIGIN, "accept": "application/json"}


@pytest.fixture
def log_in(database, join):
    """Make and log in people of a role."""
    app = make_app(database, place=Place.of(host="127.0.0.1", port=8643, url=None), secret=b"s" * 32, rate_per_s=1e6, burst=10**6)  # fmt: skip

    def made(name="ann", role="rater"):
        join(name, role)
        return Browser(app).log_in(name)

    return made


@pytest.fixture
def writing(database):
    made = projects.create_project(database, "writing", kind="demonstration", votes_per_item=1, calibration_items=0)
    transfer.add_wanted(database, made.id, wanted(2))
    return made


def task_of(page):
    return re.search(r'data-task="([^"]+)"', page)[1]


def key_of(page):
    return re.search(r'name="key" value="([0-9a-f]+)[-"]', page)[1]


def hand_in(browser, project, text="A reply of my own, written with care.", **fields):
    page = browser.get(f"/p/{project.id}/write").text
    return browser.post(f"/w/{task_of(page)}/reply", key=key_of(page), text=text, guideline_version="1", **fields)


def review(browser, project, decision="accept", **fields):
    page = browser.get(f"/p/{project.id}/write").text
    return browser.post(f"/w/{task_of(page)}/review", key=key_of(page), decision=decision, guideline_version="1", **fields)  # fmt: skip


def test_from_the_start_page_to_an_accepted_reply_without_scripts(database, writing, log_in):
    ann, bob, lea = log_in("ann"), log_in("bob"), log_in("lea", "lead")
    assert ann.get("/").headers["location"] == f"/p/{writing.id}/rate"
    assert ann.get(f"/p/{writing.id}/rate").headers["location"] == f"/p/{writing.id}/write"
    assert hand_in(ann, writing, "First.\r\nSecond.").headers["location"] == f"/p/{writing.id}/write"
    page = without_ids(bob.get(f"/p/{writing.id}/write").text)
    assert "The reply of another rater" in page and "ann" not in page.replace("another", "") and "rater-0" not in page
    assert review(bob, writing, "return", reason="Say **more**.").status_code == 303
    assert "Say <strong>more</strong>." in ann.get(f"/p/{writing.id}/written").text
    page = without_ids(ann.get(f"/p/{writing.id}/write").text)
    assert "<strong>more</strong>" in page and "First.\nSecond.</textarea>" in page and "bob" not in page
    hand_in(ann, writing, "First, second and third.")
    assert review(bob, writing).status_code == 303
    page = lea.get(f"/p/{writing.id}").text
    assert "1 of 2 conversations has an accepted reply" in page and "Who writes" in page
    archive = lea.client.get(f"/p/{writing.id}/export.zip")
    assert archive.status_code == 200 and archive.content[:2] == b"PK"


def test_a_draft_is_offered_not_filled_in_and_says_no_model(database, writing, log_in):
    ann = log_in()
    page = ann.get(f"/p/{writing.id}/write").text
    assert DRAFT in page and re.search(r'<textarea id="text"[^>]*>\n</textarea>', page)
    assert not re.search(r"\bm1\b", without_ids(page))
    with database.read() as rows:
        names = [name for row in rows.scalars(sa.select(Writing)) for name in (row.id, row.prompt_id, row.draft_id)]
    assert not [name for name in names if name in page]
    task = task_of(page)
    assert (
        ann.post(f"/w/{task}/draft", text="Mine.", takes="true").headers["location"]
        == f"/p/{writing.id}/write?t={task}"
    )
    page = ann.get(f"/p/{writing.id}/write?t={task}").text
    assert f"Mine.\n\n{DRAFT}</textarea>" in page and 'name="took_draft" value="true"' in page
    hand_in(ann, writing, "Wholly other words, after all.")
    with database.read() as rows:
        found = rows.scalar(sa.select(Demonstration).where(Demonstration.state == "written"))
    assert found.is_drafted and found.from_draft == 0.0


def test_json_answers_say_what_is_saved_and_a_repeat_is_told(writing, log_in):
    ann = log_in()
    task = task_of(ann.get(f"/p/{writing.id}/write").text)
    assert ann.post(f"/w/{task}/draft", headers=JSON, text="half", took_draft="false").json() == {"saved": True}
    fields = {"key": "abcdefgh12345678", "text": "Whole.", "guideline_version": "1", "active_ms": "4000"}
    first, again = (ann.post(f"/w/{task}/reply", headers=JSON, **fields).json() for _ in range(2))
    assert first["saved"] == again["saved"] and (first["repeat"], again["repeat"]) == (False, True)
    refused = ann.post(f"/w/{task}/reply", headers=JSON, **{**fields, "key": "abcdefgh12345679"})
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "over"
    assert "done meanwhile" in ann.get(f"/p/{writing.id}/write?t={task}").text


def test_a_reply_is_taken_back_from_the_list(writing, log_in):
    ann = log_in()
    hand_in(ann, writing)
    page = ann.get(f"/p/{writing.id}/written").text
    found = re.search(r'action="(/w/[^/]+/take-back)".*?name="key" value="([0-9a-f]+)"', page, flags=re.S)
    assert ann.post(found[1], key=found[2]).status_code == 303
    assert "written with care.</textarea>" in ann.get(f"/p/{writing.id}/write").text


def test_a_skip_without_scripts(database, writing, log_in):
    ann = log_in()
    page = ann.get(f"/p/{writing.id}/write").text
    assert ann.post(f"/w/{task_of(page)}/skip", key=f"{key_of(page)}-s", reason="distressing").status_code == 303
    assert task_of(ann.get(f"/p/{writing.id}/write").text) != task_of(page)


def test_a_style_guide_has_versions_and_says_nothing_of_scales(writing, log_in, database):
    lea = log_in("lea", "lead")
    page = lea.get(f"/p/{writing.id}/guideline/edit").text
    assert "Scale" not in page
    fields = dict(re.findall(r'type="hidden" name="(scale|ties|rationale)" value="([^"]+)"', page))
    assert (
        lea.post(f"/p/{writing.id}/guideline/edit", text="# Shorter", **fields)
        .headers["location"]
        .endswith("version=2")
    )
    assert "Scale" not in lea.get(f"/p/{writing.id}/guideline").text
    ann = log_in("ann")
    page = ann.get(f"/p/{writing.id}/write").text
    assert "Style guide, version 2" in page
    ann.post(f"/w/{task_of(page)}/reply", key=key_of(page), text="Short.", guideline_version="2")
    with database.read() as rows:
        assert rows.scalar(sa.select(Demonstration.guideline_version).where(Demonstration.state == "written")) == 2


def test_payloads_are_text_in_every_page(database, log_in):
    """Prompt, draft, reply, reviewer's reason, edit: what the server sends has no tag of theirs."""
    made = projects.create_project(database, "payloads", kind="demonstration", votes_per_item=1, calibration_items=0)
    everything = "\n\n".join(PAYLOADS)
    prompt = Prompt(messages=(Message(role="user", content=everything),))
    draft = transfer.Completion(prompt_id=prompt.id, text=everything, model="m")
    transfer.add_wanted(database, made.id, [transfer.Wanted(prompt=prompt, draft=draft)])
    ann, bob, lea = log_in("ann"), log_in("bob"), log_in("lea", "lead")
    pages = [ann.get(f"/p/{made.id}/write").text]
    hand_in(ann, made, everything)
    pages.append(bob.get(f"/p/{made.id}/write").text)
    review(bob, made, "return", reason=everything[:2000])
    pages += [ann.get(f"/p/{made.id}/{name}").text for name in ("write", "written")]
    hand_in(ann, made, f"{everything} again")
    review(bob, made, "edit", text=f"{everything} changed")
    pages += [lea.get(f"/p/{made.id}").text, ann.get(f"/p/{made.id}/written").text]
    for page in pages:
        assert not re.search(r"<script(?! src=\"/static/)", page)
        assert not re.search(r"<(img|svg|iframe|object|embed|style|base|meta http)", page)
        assert not re.search(r"<[^>]+ on\w+=", page)


def test_tasks_of_others_are_missing_and_old_desks_are_told(database, writing, log_in):
    ann, bob = log_in("ann"), log_in("bob")
    task = task_of(ann.get(f"/p/{writing.id}/write").text)
    assert bob.get(f"/p/{writing.id}/write?t={task}").status_code == 404
    bob.get(f"/p/{writing.id}/write")
    for name, fields in {"draft": {}, "skip": {"key": "abcdefgh"}, "take-back": {"key": "abcdefgh"}}.items():
        answer = bob.post(f"/w/{task}/{name}", **{"reason": "unclear", "text": "x", **fields})
        assert answer.status_code == 404
    with database.read() as rows:
        assert rows.get(WritingTask, task).text is None
