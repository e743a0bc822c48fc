"""Drafts by the served policy, asked for by who writes: written outside the request, offered and never filled in, recorded, failing in words."""

import re

import pytest
import sqlalchemy as sa
from web_browser import PLACE, Browser

from fairlead.core.protocols import Reply
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.schema import Event
from fairlead.store.annotation.written import Demonstration, DraftAsk
from fairlead.web import projects, verdicts
from fairlead.web.app import make_app
from fairlead.web.chats.talker import Talker
from fairlead.web.demonstrations import actions, desk, transfer
from fairlead.web.demonstrations.drafts import ask_draft
from fairlead.web.errors import Refused

DRAFT = "This is what the model would have said of it."


class Writer:
    """A policy that always writes the same."""

    name = "weights-of-the-writer"

    def __init__(self, text=DRAFT, *, fault=""):
        self.text, self.fault, self.requests = text, fault, []

    def reply(self, requests):
        for request in requests:
            self.requests.append(request)
            draft = Completion(
                prompt_id=request.prompt.id,
                text=self.text,
                model=self.name,
                seed=request.seed,
                meta={"key": request.key},
            )
            yield (
                Reply(key=request.key, fault=self.fault) if self.fault else Reply(key=request.key, completions=[draft])
            )


@pytest.fixture
def project(database):
    made = projects.create_project(database, "own", kind="demonstration", votes_per_item=1, calibration_items=0)
    wanted = [
        transfer.Wanted(prompt=Prompt(messages=(Message(role="user", content=f"question {i}"),))) for i in range(2)
    ]
    transfer.add_wanted(database, made.id, wanted)
    return made


def asked(database, actor, project, *, key="ask-for-a-draft"):
    task = desk.next_task(database, actor, project.id)
    ask_draft(database, actor, task.id, key=key)
    return task


def of(database, task):
    with database.read() as rows:
        return rows.get(DraftAsk, task.writing_id)


def test_a_draft_is_written_once_and_what_is_kept_of_it_is_recorded(database, project, join, tmp_path):
    ann, bob, writer = join("ann"), join("bob"), Writer()
    task = asked(database, ann, project)
    for key in ("ask-for-a-draft", "ask-once-more"):
        ask_draft(database, ann, task.id, key=key)
    talker = Talker(database, writer)
    while talker.answer_next():
        pass
    ask_draft(database, ann, task.id, key="ask-after-it")
    assert [request.num_samples for request in writer.requests] == [1] and of(database, task).state == "ready"
    reply = actions.Reply(key="the-reply-of-ann", text=f"{DRAFT} And so do I.", guideline_version=1)
    actions.hand_in(database, ann, task.id, reply)
    other = desk.next_task(database, bob, project.id)
    actions.review(database, bob, other.id, actions.Review(key="bob-accepts", decision="accept", guideline_version=1))
    before = derived(database)
    verdicts.rebuild(database)
    assert derived(database) == before
    transfer.export_demonstrations(database, project, tmp_path)
    text = (tmp_path / "demonstrations.jsonl").read_text()
    assert '"is_drafted":true' in text.replace(" ", "") and Writer.name in text


def derived(database):
    with database.engine.connect() as connection:
        return [
            sorted(map(tuple, connection.execute(sa.select(table.__table__)).all()))
            for table in (DraftAsk, Demonstration)
        ]


def test_a_policy_that_fails_is_told_and_asked_again(database, project, join):
    ann = join("ann")
    task = asked(database, ann, project)
    Talker(database, Writer(fault="weights-of-the-writer ran out of memory")).answer_next()
    found = of(database, task)
    assert found.state == "failed" and "write without one" in found.failure and "memory" not in found.failure
    with database.read() as rows:
        assert "memory" in rows.scalar(sa.select(Event).where(Event.kind == "draft.failed")).content["cause"]
    ask_draft(database, ann, task.id, key="ask-once-more")
    Talker(database, Writer()).answer_next()
    assert (of(database, task).state, of(database, task).tries) == ("ready", 1)


def test_who_may_ask(database, project, join):
    ann, bob = join("ann"), join("bob")
    task = desk.next_task(database, ann, project.id)
    with pytest.raises(Refused, match="not there"):
        ask_draft(database, bob, task.id, key="of-somebody-else")
    with_draft = Prompt(messages=(Message(role="user", content="with a draft"),))
    other = projects.create_project(database, "drafted", kind="demonstration", votes_per_item=1, calibration_items=0)
    draft = Completion(prompt_id=with_draft.id, text=DRAFT, model="m")
    transfer.add_wanted(database, other.id, [transfer.Wanted(prompt=with_draft, draft=draft)])
    with pytest.raises(Refused, match="has a draft already"):
        ask_draft(database, ann, desk.next_task(database, ann, other.id).id, key="one-is-there")


@pytest.mark.parametrize("gives_drafts", [True, False])
def test_the_page_without_scripts(database, project, join, gives_drafts):
    join("ann")
    talker = Talker(database, Writer(), gives_drafts=gives_drafts)
    talker.wake = lambda: None  # the test answers
    app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6, talker=talker)
    ann = Browser(app).log_in("ann")
    page = ann.get(f"/p/{project.id}/write").text
    task = re.search(r'data-task="([^"]+)"', page)[1]
    assert ("Ask a model for a draft" in page) == gives_drafts
    answer = ann.post(f"/w/{task}/ask", key="ask-from-the-page", text="My beginning.")
    if not gives_drafts:
        assert answer.status_code == 409
        return
    page = ann.get(answer.headers["location"]).text
    assert "A model writes a draft" in page and "My beginning." in page
    assert ann.client.get(f"/w/{task}/asked").json() == {"state": "waiting", "failure": ""}
    talker.answer_next()
    page = ann.get(f"/p/{project.id}/write").text
    assert DRAFT in page and Writer.name not in page and "A draft by a model" in page
    assert re.search(r'<textarea id="text"[^>]*>\s*My beginning\.</textarea>', page), "nothing is filled in"
