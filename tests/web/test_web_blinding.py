"""What a rater's browser is given tells nothing of models, of the canonical order, of lengths or of other raters.

Two raters who see one pair on opposite sides, and two projects that differ in nothing but in which model wrote which reply, get the same
pages, requests and cookies, but for ids, which are drawn at random.
"""

import json
import re

import pytest
import sqlalchemy as sa
import watching
from served import Rater, wait
from web_example import pairs

from fairlead.core.records import Completion
from fairlead.store.annotation.schema import Assignment, Item, Person
from fairlead.store.annotation.schema import Completion as Stored
from fairlead.web import queue
from fairlead.web.importing import NewItem
from fairlead.web.policy import Actor

MODELS = ("zebra-70b-instruct", "quokka-8b-chat")
VISIBLE = """
return {html: document.documentElement.outerHTML, cookies: document.cookie,
  storage: Object.keys(localStorage).filter((key) => !key.startsWith("fairlead.rest.")),
  panes: [...document.querySelectorAll('.pane')].map((p) => [p.offsetWidth, p.offsetHeight, p.querySelector('.body').offsetHeight]),
  loads: performance.getEntriesByType('resource').map((e) => e.name).sort()};
"""


def written_by(first: str, second: str, *, num: int = 3) -> list[NewItem]:
    """Pairs of a short and a long reply by these models."""
    found = []
    for pair in pairs(num):
        texts = [
            Completion(
                prompt_id=pair.prompt.id, text=text, model=model, meta={"model": model, "file": f"{model}.jsonl"}
            )
            for text, model in (("A short reply.", first), ("A much longer reply, in many more words. " * 12, second))
        ]
        found.append(NewItem.of(pair.prompt, texts))
    return found


def stand(served, *, long_is_left: bool) -> None:
    """Put the long reply of every assignment on this side."""
    with served.database.write() as rows:
        for assignment in rows.scalars(sa.select(Assignment)).all():
            item = rows.get(Item, assignment.item_id)
            is_first = completion_text(rows, item, item.completions[0]).startswith("A much")
            assignment.shown = "01" if is_first == long_is_left else "10"


def completion_text(rows, item, completion_id: str) -> str:
    """The text of a completion."""
    return rows.get(Stored, (item.project_id, completion_id)).record["text"]


def bare(text: str, *names: str) -> str:
    """Without what is drawn at random for each answer: ids, nonces, tokens; and without the names of person and project."""
    for name in names:
        text = text.replace(name, "NAME")
    return re.sub(r"[A-Za-z0-9_-]{16,64}(?=[\"/&?<;]|\\\"|$)", "ID", text)


def look(driver, served, name: str, *, long_is_left: bool) -> tuple[dict, Rater]:
    """Everything that this rater's browser knows, when the pairs stand so."""
    rater = Rater(driver, served, name)
    stand(served, long_is_left=long_is_left)
    watching.requests(driver)
    driver.refresh()
    wait("the page", lambda: rater.assignment)
    rater.until_prepared()
    return driver.execute_script(VISIBLE), rater


@pytest.fixture
def secrets_of(served):
    """Everything of a project that a rater may not know: ids of content, models, names of files."""

    def found() -> set[str]:
        with served.database.read() as rows:
            items = rows.scalars(sa.select(Item)).all()
            ids = {value for item in items for value in (item.id, item.content_id, item.prompt_id, *item.completions)}  # fmt: skip
        return ids | set(MODELS)

    return found


def test_pages_and_requests_name_no_model_item_or_completion(watched, served, secrets_of):
    served.project(written_by(*MODELS))
    served.join("ann")
    seen, ann = look(watched, served, "ann", long_is_left=True)
    said = json.dumps(seen)
    ann.vote("1")
    wait("the vote", lambda: served.verdicts())
    watched.get(watched.current_url.replace("/rate", "/mine"))
    said += watched.page_source + json.dumps(watching.requests(watched)) + json.dumps(watched.get_cookies())
    assert [secret for secret in secrets_of() if secret in said] == []
    assert "swapped" not in said and "canonical" not in said


def test_the_page_is_the_same_whoever_wrote_the_replies(watched, served):
    seen = []
    served.join("ann")
    for number, models in enumerate((MODELS, MODELS[::-1])):
        project = served.project(written_by(*models), name=f"project-{number}")
        with served.database.write() as rows:  # the rater has this project alone
            rows.execute(sa.text("UPDATE projects SET state = 'paused' WHERE id != :id"), {"id": project.id})
        rater = Rater(watched, served, "ann")
        watched.get(f"{served.url}/p/{project.id}/rate")
        wait("the page", lambda rater=rater: rater.assignment)
        stand(served, long_is_left=True)
        watched.get(f"{served.url}/p/{project.id}/rate")
        wait("the page", lambda rater=rater: rater.assignment)
        rater.until_prepared()
        page = watched.execute_script(VISIBLE)
        asked = re.search(r"question \d", page["html"])[0]  # items come in an order of their own in each project
        seen.append({key: bare(json.dumps(value), f"project-{number}", asked) for key, value in page.items()})
    assert seen[0] == seen[1]


def test_two_raters_on_opposite_sides_get_the_same_page_but_for_the_replies(watched, served):
    served.project(written_by(*MODELS, num=1), votes_per_item=2)
    seen = []
    for name, long_is_left in (("ann", True), ("bob", False)):
        served.join(name)
        seen.append(look(watched, served, name, long_is_left=long_is_left)[0])
    assert seen[0]["panes"] == seen[1]["panes"] and len({str(pane) for pane in seen[0]["panes"]}) == 1, "a pane's size tells the length"  # fmt: skip
    kept = [bare(page["html"], "ann", "bob") for page in seen]
    replies = re.compile(r'(?s)(<div class="prose" dir="auto">|<pre class="marked"[^>]*>).*?(</div>|</pre>)')
    frames = [replies.sub(r"\1\2", text) for text in kept]
    assert frames[0] == frames[1]
    assert kept[0] != kept[1], "the replies stand on opposite sides"
    for part in ("cookies", "storage", "loads"):
        assert bare(json.dumps(seen[0][part])) == bare(json.dumps(seen[1][part]))


def test_no_rater_is_told_of_anothers_vote(watched, served):
    served.project(pairs(2), votes_per_item=3)
    for name in ("ann", "bob"):
        served.join(name)
    ann = Rater(watched, served, "ann")
    before = [bare(watched.execute_script(VISIBLE)["html"])]
    watched.delete_all_cookies()
    bob = Rater(watched, served, "bob")
    bob.later()
    bob.press("n", "Because of the tone.", "\ue00c")
    bob.vote("1")
    wait("the vote", lambda: len(served.verdicts()) == 1)
    ann = Rater(watched, served, "ann")
    wait("the page", lambda: ann.assignment)
    before.append(bare(watched.execute_script(VISIBLE)["html"]))
    assert "Because of the tone" not in before[1]
    assert before[0] == before[1]


def test_sides_are_drawn_without_regard_to_the_model(served):
    """400 draws for two raters: either model stands on the left within 5 standard errors of half the time (by chance not: 4e-7)."""
    project = served.project(written_by(*MODELS, num=200), votes_per_item=2)
    left = 0
    for name in ("ann", "bob"):
        served.join(name)
        with served.database.read() as rows:
            person = rows.scalar(sa.select(Person).where(Person.name == name))
        who = Actor(person_id=person.id, name=person.name, role=person.role)
        for _ in range(200):
            found = queue.next_assignment(served.database, who, project.id, without=())
            with served.database.write() as rows:
                kept = rows.get(Assignment, found.id)
                kept.state = "done"
                item = rows.get(Item, found.item_id)
                left += completion_text(rows, item, item.completions[int(found.shown[0])]).startswith("A much")
    assert abs(left - 200) <= 5 * 10
