"""Every page of the rating application, and a server with made-up raters on which to look at them.

The one list of pages: pictures (`annotation_screens.py`), the tests of accessibility and the tests of payloads go through it, and a test
fails when a route that answers with a page is not named here.

Example:
    with open_database("votes.db") as database, serve(database) as url:
        ids = fill(database)
        for page in PAGES:
            print(page.name, url + page.path.format(**ids))
"""

import contextlib
import dataclasses
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from annotation_deciding import fill_deciding
from annotation_skills import fill_skills
from annotation_states import fill_states
from annotation_writing import AtRest, TwoGardeners, fill_talking, fill_writing
from fastapi import FastAPI

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.web import (
    adjudication,
    anchors,
    budget,
    calibration,
    discussion,
    disputes,
    drift,
    importing,
    people,
    projects,
    queue,
    verdicts,
    webhooks,
)
from fairlead.web.app import make_app
from fairlead.web.chats.talker import Talker
from fairlead.web.events import record
from fairlead.web.frames import is_swapped
from fairlead.web.place import Place

PASSWORD = "a long password"
CRITERIA = (
    projects.Criterion(name="correct", question="Is what it says right?", low="wrong", high="right"),
    projects.Criterion(name="brief", question="Is it as short as it can be?", points=3),
)
FIRST = """Here is a function that does it:

```python
def median(values: list[float]) -> float:
    # sort a copy, the input stays
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
```

It takes $O(n \\log n)$ time. For an even count the median is

$$\\frac{x_{n/2} + x_{n/2+1}}{2}$$

- An empty list raises `IndexError`.
- The input is not changed.
"""
SECOND = """You can use the `statistics` module:

```python
import statistics

print(statistics.median([3, 1, 2]))
```

| input | result |
|---|---|
| `[1, 2, 3]` | 2 |
| `[1, 2, 3, 4]` | 2.5 |

See [the documentation](https://docs.python.org/3/library/statistics.html).
It also has `median_low` and `median_high`, which return values of the list.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page in one state."""

    name: str
    route: str
    """As the router has it."""
    path: str
    """With the ids of `fill` in braces."""
    who: str = ""
    """Who looks at it; empty for somebody who is not logged in."""
    then: str = ""
    """Script that brings it into the state, run when it has loaded."""
    kept: tuple[str, ...] = ()
    """Sizes of which the picture is committed: light, dark, phone."""


def _dialog(name: str, *, then: str = "") -> Page:
    return Page(name=f"rate-{name}", route="/p/{project_id}/rate", path="/p/{project}/rate", who="Ann",
                then=then or f"document.querySelector('[data-open={name}]').click()")  # fmt: skip


PAGES = (
    Page(name="login", route="/login", path="/login"),
    Page(name="login-refused", route="/login", path="/login", then="""
        document.querySelector('[name=name]').value = 'Nobody'; document.querySelector('[name=password]').value = 'wrong';
        document.querySelector('main form').submit()"""),
    Page(name="invite", route="/invite/{secret}", path="/invite/{secret}"),
    Page(name="invite-gone", route="/invite/{secret}", path="/invite/nobody-made-this"),
    Page(name="refused", route="/p/{project_id}", path="/p/none", who="Lea"),
    Page(name="projects", route="/", path="/", who="Lea"),
    Page(name="rate", route="/p/{project_id}/rate", path="/p/{project}/rate", who="Ann", kept=("light", "dark", "phone")),
    _dialog("keys"),
    _dialog("skip"),
    _dialog("flag"),
    _dialog("guideline"),
    _dialog("differences", then="document.querySelector('[data-act=differences]').click()"),
    Page(name="rate-ranking", route="/p/{project_id}/rate", path="/p/{ranked}/rate", who="Ann", kept=("light", "phone")),
    Page(name="rate-criteria", route="/p/{project_id}/rate", path="/p/{asked}/rate", who="Ann", kept=("light", "dark")),
    Page(name="rate-passages", route="/p/{project_id}/rate", path="/p/{asked}/rate", who="Ann", then="""
        document.querySelector('[data-act=passages]').click();
        if (document.querySelector('.passages li')) return;  // kept as a draft
        const pre = document.querySelector('.written'), range = document.createRange();
        range.setStart(pre.firstChild, 0); range.setEnd(pre.firstChild, Math.min(12, (pre.firstChild.data || '').length));
        getSelection().removeAllRanges(); getSelection().addRange(range); document.querySelector('[data-act=bad]').click()""", kept=("light",)),
    Page(name="rate-edit", route="/p/{project_id}/rate", path="/p/{asked}/rate", who="Ann", then="""
        document.querySelector('.option input').checked = true; document.querySelector('[data-act=edit]').click()"""),
    Page(name="rate-nothing", route="/p/{project_id}/rate", path="/p/{empty}/rate", who="Ann"),
    Page(name="rate-done", route="/p/{project_id}/rate", path="/p/{done}/rate", who="Bob"),
    Page(name="rate-held", route="/p/{project_id}/rate", path="/p/{held}/rate", who="Ann"),
    Page(name="rate-unmatched", route="/p/{project_id}/rate", path="/p/{finnish}/rate", who="Ann"),
    Page(name="rate-paused", route="/p/{project_id}/rate", path="/p/{paused}/rate", who="Ann"),
    Page(name="rate-earlier", route="/p/{project_id}/rate", path="/p/{done}/rate?a={earlier}", who="Bob"),
    Page(name="rate-rest", route="/p/{project_id}/rate", path="/p/{project}/rate", who="Ann", then="""
        const rest = document.getElementById('rest'); rest.hidden = false;
        rest.querySelector('span').textContent =
          'You have worked for 50 minutes. A short break is good for eyes and judgement; your votes are safe.'"""),
    Page(name="rate-offline", route="/p/{project_id}/rate", path="/p/{cut}/rate", who="Ann", then="""
        const now = performance.now.bind(performance); performance.now = () => now() + 500;
        window.fetch = () => Promise.reject(new TypeError('no network'));
        document.querySelector('.option input').click(); document.querySelector('.send').click();
        setTimeout(() => Object.keys(localStorage).filter((key) => key.includes('outbox')).forEach((key) => localStorage.removeItem(key)), 100)"""),
    Page(name="rate-waiting", route="/p/{project_id}/rate", path="/p/{project}/rate", who="Eva"),
    Page(name="mine", route="/p/{project_id}/mine", path="/p/{project}/mine", who="Bob", kept=("light",)),
    Page(name="mine-empty", route="/p/{project_id}/mine", path="/p/{empty}/mine", who="Bob"),
    Page(name="guideline", route="/p/{project_id}/guideline", path="/p/{project}/guideline", who="Ann"),
    Page(name="edit", route="/p/{project_id}/guideline/edit", path="/p/{project}/guideline/edit", who="Lea", kept=("light",)),
    Page(name="overview", route="/p/{project_id}", path="/p/{project}", who="Lea", kept=("light", "dark", "phone")),
    Page(name="overview-paused", route="/p/{project_id}", path="/p/{paused}", who="Lea"),
    Page(name="overview-done", route="/p/{project_id}", path="/p/{done}", who="Lea"),
    Page(name="overview-empty", route="/p/{project_id}", path="/p/{empty}", who="Lea"),
    Page(name="agreement", route="/p/{project_id}/agreement", path="/p/{project}/agreement", who="Lea", kept=("light", "dark", "phone")),
    Page(name="agreement-empty", route="/p/{project_id}/agreement", path="/p/{empty}/agreement", who="Lea"),
    Page(name="agreement-criteria", route="/p/{project_id}/agreement", path="/p/{decide}/agreement", who="Lea"),
    Page(name="raters-empty", route="/p/{project_id}/raters", path="/p/{empty}/raters", who="Lea"),
    Page(name="raters", route="/p/{project_id}/raters", path="/p/{project}/raters", who="Lea", kept=("light",)),
    Page(name="calibration", route="/p/{project_id}/calibration", path="/p/{project}/calibration", who="Lea", kept=("light",)),
    Page(name="calibration-empty", route="/p/{project_id}/calibration", path="/p/{empty}/calibration", who="Lea"),
    Page(name="disagreements-empty", route="/p/{project_id}/disagreements", path="/p/{empty}/disagreements", who="Lea"),
    Page(name="disagreements", route="/p/{project_id}/disagreements", path="/p/{project}/disagreements", who="Ada", kept=("light",)),
    Page(name="dispute", route="/p/{project_id}/items/{item_id}", path="/p/{project}/items/{disputed}", who="Ada", kept=("light", "phone")),
    Page(name="dispute-decided", route="/p/{project_id}/items/{item_id}", path="/p/{project}/items/{decided}", who="Lea"),
    Page(name="dispute-ranking", route="/p/{project_id}/items/{item_id}", path="/p/{decide}/items/{ranking}", who="Ada", kept=("light", "phone")),
    Page(name="adjudicated", route="/p/{project_id}/adjudicate", path="/p/{empty}/adjudicate", who="Ada"),
    Page(name="discussion", route="/p/{project_id}/discussion", path="/p/{project}/discussion", who="Bob",
         then="[...document.querySelectorAll('.case')].slice(4).forEach((pair) => pair.remove())"),  # all of them are alike
    Page(name="discussion-empty", route="/p/{project_id}/discussion", path="/p/{done}/discussion", who="Lea"),
    Page(name="labels-empty", route="/p/{project_id}/labels", path="/p/{empty}/labels", who="Lea"),
    Page(name="costs-empty", route="/p/{project_id}/costs", path="/p/{empty}/costs", who="Lea"),
    Page(name="labels", route="/p/{project_id}/labels", path="/p/{project}/labels", who="Lea", kept=("light",)),
    Page(name="costs", route="/p/{project_id}/costs", path="/p/{project}/costs", who="Lea", kept=("light",)),
    Page(name="costs-spent", route="/p/{project_id}/costs", path="/p/{spent}/costs", who="Lea"),
    Page(name="rate-budget", route="/p/{project_id}/rate", path="/p/{spent}/rate", who="Ann"),
    Page(name="history", route="/p/{project_id}/guideline/history", path="/p/{project}/guideline/history", who="Lea", kept=("light",)),
    Page(name="document", route="/p/{project_id}/guideline/document", path="/p/{project}/guideline/document", who="Ann"),
    Page(name="edit-example", route="/p/{project_id}/guideline/edit", path="/p/{project}/guideline/edit?example={disputed}", who="Lea"),
    Page(name="steering", route="/p/{project_id}/steering", path="/p/{project}/steering", who="Lea", kept=("light",)),
    Page(name="steering-choice", route="/p/{project_id}/steering", path="/p/{skilled}/steering", who="Lea", kept=("light",)),
    Page(name="steering-empty", route="/p/{project_id}/steering", path="/p/{empty}/steering", who="Lea"),
    Page(name="skills", route="/p/{project_id}/skills", path="/p/{skilled}/skills", who="Lea", kept=("light", "dark", "phone")),
    Page(name="skills-empty", route="/p/{project_id}/skills", path="/p/{empty}/skills", who="Lea"),
    Page(name="tests", route="/p/{project_id}/qualification", path="/p/{skilled}/qualification", who="Dan"),
    Page(name="tests-begin", route="/p/{project_id}/qualification", path="/p/{skilled}/qualification", who="Ann", kept=("light",)),
    Page(name="tests-begun", route="/p/{project_id}/qualification", path="/p/{skilled}/qualification", who="Cem"),
    Page(name="tests-passed", route="/p/{project_id}/qualification", path="/p/{skilled}/qualification", who="Bob", kept=("phone",)),
    Page(name="tests-failed", route="/p/{project_id}/qualification", path="/p/{skilled}/qualification", who="Eva"),
    Page(name="tests-none", route="/p/{project_id}/qualification", path="/p/{empty}/qualification", who="Ann"),
    Page(name="rate-test", route="/p/{project_id}/rate", path="/p/{skilled}/rate", who="Cem", kept=("light",)),
    Page(name="people", route="/people", path="/people", who="Lea", kept=("light",)),
    Page(name="people-invited", route="/people", path="/people", who="Lea", then="document.querySelector('main form').submit()"),
    Page(name="tokens", route="/tokens", path="/tokens", who="Lea"),
    Page(name="tokens-made", route="/tokens", path="/tokens", who="Lea", then="""
        document.querySelector('main [name=name]').value = 'export at night'; document.querySelector('main form').submit()"""),
    Page(name="erase", route="/people/{person_id}/erase", path="/people/{person}/erase", who="Lea"),
    Page(name="log", route="/log", path="/log", who="Lea"),
    Page(name="webhooks", route="/p/{project_id}/webhooks", path="/p/{project}/webhooks", who="Lea"),
    Page(name="webhooks-refused", route="/p/{project_id}/webhooks", path="/p/{empty}/webhooks", who="Lea", then="""
        document.querySelector('main [name=url]').value = 'https://127.0.0.1/'; document.querySelector('main form').submit()"""),
    Page(name="webhooks-made", route="/p/{project_id}/webhooks", path="/p/{done}/webhooks", who="Lea", then="""
        document.querySelector('main [name=url]').value = 'https://93.184.215.14/hook'; document.querySelector('main form').submit()"""),
    Page(name="talk", route="/p/{project_id}/talk", path="/p/{talk}/talk", who="Tom", kept=("light", "dark", "phone")),
    Page(name="talk-begin", route="/p/{project_id}/talk", path="/p/{talk}/talk?new=true", who="Tom"),
    Page(name="talk-waiting", route="/p/{project_id}/talk", path="/p/{talk}/talk", who="Ann"),
    Page(name="talk-say", route="/p/{project_id}/talk", path="/p/{talk}/talk", who="Bob"),
    Page(name="talk-failed", route="/p/{project_id}/talk", path="/p/{talk}/talk", who="Cem"),
    Page(name="write", route="/p/{project_id}/write", path="/p/{writing}/write", who="Wim", kept=("light", "dark", "phone")),
    Page(name="write-draft", route="/p/{project_id}/write", path="/p/{writing}/write", who="Wim",
         then="document.getElementById('draft').open = true; document.getElementById('guide').open = true"),
    Page(name="write-again", route="/p/{project_id}/write", path="/p/{writing}/write?t={returned}", who="Ira"),
    Page(name="review", route="/p/{project_id}/write", path="/p/{writing}/write", who="Rio", kept=("light", "phone")),
    Page(name="review-open", route="/p/{project_id}/write", path="/p/{writing}/write", who="Rio",
         then="document.querySelectorAll('details').forEach((details) => { details.open = true; })"),
    Page(name="write-nothing", route="/p/{project_id}/write", path="/p/{blank}/write", who="Wim"),
    Page(name="written", route="/p/{project_id}/written", path="/p/{writing}/written", who="Ira", kept=("light",)),
    Page(name="written-empty", route="/p/{project_id}/written", path="/p/{blank}/written", who="Wim"),
    Page(name="demonstrations", route="/p/{project_id}", path="/p/{writing}", who="Lea", kept=("light",)),
    Page(name="demonstrations-empty", route="/p/{project_id}", path="/p/{blank}", who="Lea"),
    Page(name="reviews", route="/p/{project_id}/agreement", path="/p/{writing}/agreement", who="Lea", kept=("light",)),
    Page(name="reviews-empty", route="/p/{project_id}/agreement", path="/p/{blank}/agreement", who="Lea"),
    Page(name="replies", route="/p/{project_id}/labels", path="/p/{writing}/labels", who="Lea"),
    Page(name="replies-empty", route="/p/{project_id}/labels", path="/p/{blank}/labels", who="Lea"),
    Page(name="style-guide-history", route="/p/{project_id}/guideline/history", path="/p/{writing}/guideline/history", who="Lea"),
    Page(name="write-ask", route="/p/{project_id}/write", path="/p/{plain}/write", who="Wim"),
    Page(name="write-asked", route="/p/{project_id}/write", path="/p/{plain}/write", who="Ira"),
    Page(name="write-ask-failed", route="/p/{project_id}/write", path="/p/{plain}/write", who="Rio"),
    Page(name="talks", route="/p/{project_id}", path="/p/{talk}", who="Lea", kept=("light",)),
    Page(name="talks-empty", route="/p/{project_id}", path="/p/{silent}", who="Lea"),
    Page(name="talk-criteria", route="/p/{project_id}/talk", path="/p/{judged}/talk", who="Tom", kept=("phone",)),
    Page(name="style-guide-edit", route="/p/{project_id}/guideline/edit", path="/p/{writing}/guideline/edit", who="Lea"),
)  # fmt: skip
NOT_PAGES = {
    "/p/{project_id}/next": "a part of the rating page",
    "/p/{project_id}/talk/state": "a state for the page that waits",
    "/w/{task_id}/asked": "a state for the page that waits",
    "/p/{project_id}/export.zip": "a file",
    "/p/{project_id}/guideline/document.md": "a file",
}
"""Routes that answer GET with something else, and with what. Those under /api are not pages either."""


def page_routes(app: FastAPI) -> set[str]:
    """Routes that answer GET with a page."""
    routes = [
        route for outer in app.routes for route in getattr(getattr(outer, "original_router", None), "routes", [outer])
    ]
    paths = {str(getattr(route, "path", "")) for route in routes if "GET" in (getattr(route, "methods", None) or ())}
    return {path for path in paths if path not in NOT_PAGES and not path.startswith("/api")}


Say = Callable[[str], str]


def pair(number: int, say: Say = str) -> importing.NewItem:
    """A question with two answers. Args: say: what stands in place of a text that somebody wrote."""
    turns = (("user", "Hi, I am learning Python."), ("assistant", "Welcome. What would you like to do?"),
             ("user", f"Write me a function that finds the **median** of a list of {number} numbers, please."))  # fmt: skip
    messages = tuple(Message(role=role, content=say(text)) for role, text in turns)  # pyright: ignore[reportArgumentType]
    prompt = Prompt(messages=messages, slice=say("code"), source=say("forum"), meta={"topic": say("lists")})
    meta = {"note": say("sampled")}
    texts = (Completion(prompt_id=prompt.id, text=say(text), model=say("m"), meta=meta) for text in (FIRST, SECOND))
    return importing.NewItem.of(prompt, texts)


def several(num: int, say: Say = str) -> importing.NewItem:
    """A question with several answers."""
    prompt = Prompt(messages=(Message(role="user", content=say("How do I keep basil alive on a window sill?")),))
    advice = (
        "Water it from below.",
        "Give it six hours of sun a day.",
        "Pinch off the tips every week.",
        "Keep it away from cold glass.",
    )
    texts = ("\n\n".join(f"{n + 1}. {line}" for n, line in enumerate(advice[: i + 1])) for i in range(num))
    return importing.NewItem.of(prompt, (Completion(prompt_id=prompt.id, text=say(text), model="m") for text in texts))


def join(database: Database, name: str, role: str) -> people.Actor:
    """Make an account."""
    secret = people.accept_invite(database, people.make_invite(database, role=role), name=name, password=PASSWORD)
    actor = people.actor_of(database, secret)
    assert actor is not None, f"{name} has just come in"
    return actor


def fill(database: Database, say: Say = str) -> dict[str, str]:
    """A project in the middle of its work and an empty one; return the ids that the paths of `PAGES` name.

    Args:
        say: what stands in place of a text that a model or a person wrote; tests put attacks there.
    """
    rules = projects.Rules(ties="allowed", both_bad=True)
    project = projects.create_project(database, "helpful", votes_per_item=3, calibration_items=30, rules=rules)
    importing.add_items(database, project.id, [pair(i, say) for i in range(3, 103)])
    ranked = projects.create_project(database, "ranked", calibration_items=0, rules=rules)
    importing.add_items(database, ranked.id, [several(4, say)])
    asks = dataclasses.replace(rules, criteria=CRITERIA, spans=True, edits=True)
    asked = projects.create_project(database, "asked", calibration_items=0, rules=asks)
    importing.add_items(database, asked.id, [pair(2, say)])
    empty = projects.create_project(database, "harmless", rules=rules)
    rng = random.Random(0)
    lead = join(database, "Lea", "admin")
    join(database, "Ann", "rater")
    raters: dict[str, people.Actor] = {}
    for name, skill in (("Bob", 0.95), ("Cem", 0.92), ("Dan", 0.9), ("Eva", 0.5)):
        who = raters[name] = join(database, name, "rater")
        for _ in range(30):
            rate(database, project.id, who, rng, skill, say)
    with database.read() as rows:
        found = calibration.read_calibration(rows, project.id)
    assert found is not None, "the project has calibration items"
    standings = found.standings
    calibration.waive(database, project.id, standings[0].person_id, by=lead.person_id, reason=say("a linguist")[:500])
    anchors.anchors_from_calibration(database, project.id, by=lead.person_id)
    with database.write() as rows:
        facts = {"position": 29, "since": 12, "num": 9, "num_right": 3}
        drift.follow(
            rows, record(rows, drift.ALARM, person_id=standings[1].person_id, project_id=project.id, content=facts)
        )
    webhooks.make_webhook(
        database, lead, project.id, url="https://93.184.215.14/hook", events=["item.finished"], allow_local=False
    )
    ada = join(database, "Ada", "adjudicator")
    disputed, decided = (
        row.item_id for row in disputes.find_disputes(database, project.id, disputes.Wanted()).rows[:2]
    )
    ruling = adjudication.Ruling(
        key="a-key-of-ada", choice="left", reason="It answers what was asked, with a test.", guideline_version=1
    )
    adjudication.decide(database, ada, project.id, decided, ruling)
    discussion.set_discussion(database, project.id, is_open=True, by=lead.person_id)
    text = f"{projects.FIRST_GUIDELINE}\nCode that runs is better than code that does not.\n"
    projects.publish_guideline(database, project.id, text=text, rules=rules, by=lead.person_id)
    budget.set_budget(database, project.id, budget.Terms(limit_dollars=100.0), by=lead.person_id)
    budget.add_payment(
        database,
        project.id,
        kind="ai",
        dollars=4.2,
        note="a judge model on the first batch",
        by=lead.person_id,
        key=verdicts.new_key(),
    )
    spent = projects.create_project(database, "spent", rules=rules)
    budget.set_budget(database, spent.id, budget.Terms(limit_dollars=0.1), by=lead.person_id)
    return {"project": project.id, "empty": empty.id, "ranked": ranked.id, "asked": asked.id,
            "spent": spent.id, "disputed": disputed, "decided": decided,
            "secret": people.make_invite(database, role="rater"), "person": standings[0].person_id,
            **fill_skills(database, lead, raters, say), **fill_states(database, raters, say),
            **fill_deciding(database, several(4, say), list(raters.values())[:3], rules=asks, say=say),
            **fill_talking(database, join(database, "Tom", "rater"), CRITERIA),
            **fill_writing(database, {name: join(database, name, "rater") for name in ("Wim", "Ira", "Rio")})}  # fmt: skip


def rate(
    database: Database, project_id: str, who: people.Actor, rng: random.Random, skill: float, say: Say = str
) -> None:
    """One vote for what most would choose, with the chance `skill`."""
    assignment = queue.next_assignment(database, who, project_id)
    assert isinstance(assignment, queue.Assignment)
    is_a = (sum(assignment.item_id.encode()) % 2 == 0) == (rng.random() < skill)
    sent = verdicts.Submission(
        key=verdicts.new_key(), choice="left" if is_a != is_swapped(assignment.shown) else "right", strength=rng.choice([1, 2, 3]),
        guideline_version=1, rationale=say("It answers what was asked."), active_ms=rng.randint(9_000, 60_000),
    )  # fmt: skip
    verdicts.submit(database, who, assignment.id, sent)


@contextlib.contextmanager
def serve(database: Database, *, talker: Talker | None = None) -> Iterator[str]:
    """The application on a free port of this machine, without limits on the rate; gives its address.

    Args:
        talker: answers in conversations and writes drafts; None for one at rest.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    place = Place.of(host="127.0.0.1", port=port, url=None)
    app = make_app(
        database,
        place=place,
        secret=b"s" * 32,
        rate_per_s=1e6,
        burst=10**6,
        talker=talker or AtRest(database, TwoGardeners(), gives_drafts=True),
    )
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise SystemExit("the server ended before it began to answer")
        time.sleep(0.02)
    try:
        yield place.url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
