"""What creates things carries a key: a round, an invitation, a webhook and more votes that are asked for twice with one key are one."""

import re

import pytest
import sqlalchemy as sa
from web_browser import Browser
from web_example import pairs

from fairlead.store.annotation.outside import Delivery, Webhook
from fairlead.store.annotation.schema import Event, Invite, Item, Progress
from fairlead.store.annotation.steering import Round
from fairlead.web import importing, people, projects, rounds
from fairlead.web.client_lead import Lead
from fairlead.web.errors import Refused

KEY = "a-key-made-once"
HOOK = {"url": "https://93.184.215.14/hook", "events": ["alarm", "rater.passed"]}


def num(database, table):
    with database.read() as rows:
        return rows.scalar(sa.select(sa.func.count()).select_from(table))


@pytest.fixture
def large(database):
    """Enough pairs for two rounds."""
    made = projects.create_project(database, "large", votes_per_item=1, calibration_items=0)
    importing.add_items(database, made.id, pairs(40))
    return made


def asked(project):
    return {
        "round": (f"projects/{project.id}/rounds", {"reason": "version 2"}, {"reason": "version 3"}, Round),
        "invite": ("invites", {"role": "rater", "skills": ["code"]}, {"role": "rater"}, Invite),
        "webhook": (f"projects/{project.id}/webhooks", HOOK, {**HOOK, "events": ["alarm"]}, Webhook),
    }


@pytest.mark.parametrize("what", ["round", "invite", "webhook"])
def test_the_same_key_again_is_the_same_thing(database, large, join, program, what):
    path, body, other, table = asked(large)[what]
    lea = join("lea", "lead")
    before, client = num(database, table), program(lea)
    first, again = (client.post(path, json={**body, "key": KEY}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201) and again.json() == first.json()
    assert num(database, table) == before + 1
    assert num(database, Delivery) == (what == "webhook")  # one ping
    changed = client.post(path, json={**other, "key": KEY})
    assert (changed.status_code, changed.json()["error"]["code"]) == (409, "key_used")
    for wrong in ("short", "x" * 65, "no key!!", "\0" * 9):
        assert client.post(path, json={**body, "key": wrong}).status_code == 422
    assert client.post(path, json=body).status_code == 422  # a key is asked for
    assert num(database, table) == before + 1
    other_lead = program(join("lou", "lead"))  # keys are each person's own
    second = other_lead.post(path, json={**body, "key": KEY})
    assert second.status_code == 201 and second.json() != first.json()
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.key.like(f"%:{KEY}"))) == 2


def test_the_link_of_a_key_lets_one_person_in(database, join, program):
    client = program(join("lea", "lead"))
    links = [client.post("invites", json={"key": KEY, "role": "rater"}).json()["link"] for _ in range(2)]
    secret = links[0].rsplit("/", 1)[1]
    assert links[0] == links[1] and len(secret) == 43
    assert people.accept_invite(database, secret, name="new", password="a long password")
    with pytest.raises(Refused, match="used or has expired"):
        people.accept_invite(database, secret, name="newer", password="a long password")
    again = client.post("invites", json={"key": KEY, "role": "rater"}).json()["link"]
    assert again == links[0]  # and lets nobody else in
    assert client.post("invites", json={"key": f"{KEY}-2", "role": "rater"}).json()["link"] != links[0]


def test_a_webhook_that_was_removed_does_not_come_back(database, large, join, program):
    client = program(join("lea", "lead"))
    path = f"projects/{large.id}/webhooks"
    made = client.post(path, json={**HOOK, "key": KEY}).json()
    assert client.delete(f"{path}/{made['id']}").status_code == 204
    assert client.post(path, json={**HOOK, "key": KEY}).status_code == 404 and num(database, Webhook) == 0


def test_one_key_for_two_kinds_of_things_is_refused(large, join, program):
    client = program(join("lea", "lead"))
    assert client.post("invites", json={"key": KEY, "role": "rater"}).status_code == 201
    assert client.post(f"projects/{large.id}/rounds", json={"key": KEY, "reason": "x"}).status_code == 409


def test_more_votes_that_are_asked_for_twice_with_one_key_are_asked_for_once(app, database, large, join, program):
    """Over the API, by the client and by the form of a pair's page."""
    lea = join("lea", "lead")
    client, path = program(lea), f"projects/{large.id}/more-votes"
    with database.read() as rows:
        items = list(rows.scalars(sa.select(Item.id).where(Item.project_id == large.id).limit(3)))

    def extra():
        with database.read() as rows:
            return [rows.get(Progress, item).num_extra for item in items]

    body = {"items": items[:2], "extra": 2, "reason": "two answers"}
    assert client.post(path, json=body).status_code == 422 and extra() == [0, 0, 0]  # a key is asked for
    assert [client.post(path, json={**body, "key": KEY}).status_code for _ in range(2)] == [204, 204]
    assert extra() == [2, 2, 0]
    changed = client.post(path, json={**body, "extra": 3, "key": KEY})
    assert (changed.status_code, changed.json()["error"]["code"]) == (409, "key_used") and extra() == [2, 2, 0]
    assert client.post(path, json={**body, "key": f"{KEY}-2"}).status_code == 204 and extra() == [4, 4, 0]
    sent: list[dict] = []
    asked = Lead(
        lambda method, path, body: sent.append(client.request(method, path[1:], json=body).status_code), large.id
    )
    for _ in range(2):
        asked.ask_more_votes(items[2:], reason="one answer", key=f"{KEY}-3")
    assert sent == [204, 204] and extra() == [4, 4, 1]
    page, place = Browser(app).log_in("lea"), f"/p/{large.id}/items/{items[2]}"
    form = page.get(place).text
    form = form[form.index(f'action="{place}/votes"') :]
    fields = {"extra": "5", "reason": "x", "key": re.search(r'name="key" value="([^"]+)"', form)[1]}
    assert [page.post(f"{place}/votes", **fields).status_code for _ in range(2)] == [303, 303] and extra() == [4, 4, 6]


def test_forms_that_are_sent_twice_make_one(app, database, large, join):
    join("lea", "lead")
    lea = Browser(app).log_in("lea")

    def key_of(page, action):
        form = page[page.index(f'action="{action}"') :]
        return re.search(r'name="key" value="([^"]+)"', form)[1]

    people_page = lea.get("/people").text
    sent = {"role": "rater", "key": key_of(people_page, "/people/invite")}
    links = [re.search(r'class="secret">([^<]+)<', lea.post("/people/invite", **sent).text)[1] for _ in range(2)]
    assert links[0] == links[1] and num(database, Invite) == 2  # lea's own and this one
    place = f"/p/{large.id}/webhooks"
    sent = {"url": HOOK["url"], "events": "alarm", "key": key_of(lea.get(place).text, place)}
    secrets = [re.search(r'class="secret">([^<]+)<', lea.post(place, **sent).text)[1] for _ in range(2)]
    assert secrets[0] == secrets[1] and num(database, Webhook) == 1
    page, place = lea.get(f"/p/{large.id}/steering").text, f"/p/{large.id}/rounds"
    sent = {"reason": "version 2", "key": key_of(page, place)}
    assert [lea.post(place, **sent).status_code for _ in range(2)] == [303, 303] and num(database, Round) == 1
    assert lea.post(place, reason="version 2").status_code == 422 and num(database, Round) == 1


def test_rounds_of_the_server_itself_have_no_key(database, large):
    first, second = (rounds.open_round(database, large.id, reason="again", by=None) for _ in range(2))
    assert second == first + 1
