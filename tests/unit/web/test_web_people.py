"""Accounts: invitations for one person, passwords, one answer to every wrong login, the growing delay, sessions that end."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import argon2
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from web_browser import ORIGIN, PLACE, Browser

from fairlead.store.annotation.schema import Invite, Person, Session
from fairlead.web import people, policy
from fairlead.web.errors import Refused


def log_in(database, **changes):
    return people.log_in(database, **{"name": "ann", "password": "a long password", "address": "1.2.3.4", **changes})


def test_an_invitation_lets_one_person_in(database):
    secret = people.make_invite(database, role="lead")
    session = people.accept_invite(database, secret, name=" Ann  Lee ", password="a long password")
    actor = people.actor_of(database, session)
    assert actor is not None and (actor.name, actor.role) == ("Ann Lee", "lead") and people.has_lead(database)
    with pytest.raises(Refused, match="used or has expired"):
        people.accept_invite(database, secret, name="Bob", password="a long password")


def test_an_invitation_expires(database, monkeypatch):
    secret = people.make_invite(database, role="rater")
    later = people.now_ms() + people.INVITE_MS + 1
    monkeypatch.setattr(people, "now_ms", lambda: later)
    with pytest.raises(Refused, match="expired"):
        people.accept_invite(database, secret, name="Ann", password="a long password")


def test_secrets_are_kept_as_hashes_only(database, join):
    join("ann")
    secret = people.make_invite(database, role="rater")
    session = log_in(database)
    with database.read() as rows:
        hashes = [*rows.scalars(sa.select(Invite.secret_hash)), *rows.scalars(sa.select(Session.secret_hash))]
        assert secret not in hashes and session not in hashes and people.hashed(session) in hashes
        assert rows.scalar(sa.select(Person.password_hash)).startswith("$argon2id$")


@pytest.mark.parametrize(("name", "password", "words"), [
    ("", "a long password", "name"), ("x" * 81, "a long password", "name"), ("a\x07b", "a long password", "name"),
    ("ANN", "a long password", "already"),
    ("bob", "short", "password"), ("bob", "x" * 201, "password"),
])  # fmt: skip
def test_bad_accounts_are_refused_and_leave_the_invitation(database, join, name, password, words):
    join("ann")
    secret = people.make_invite(database, role="rater")
    with pytest.raises(Refused, match=words):
        people.accept_invite(database, secret, name=name, password=password)
    people.accept_invite(database, secret, name="cem", password="a long password")


def test_wrong_name_and_wrong_password_have_one_answer(database, join):
    join("ann")
    answers = set()
    for changes in ({"name": "nobody"}, {"password": "wrong password"}):
        with pytest.raises(Refused) as refused:
            log_in(database, **changes)
        answers.add((refused.value.status, refused.value.message))
    assert len(answers) == 1


def test_failures_delay_the_account_and_the_address(database, join, monkeypatch):
    join("ann")
    join("bob")
    for _ in range(people.FREE_FAILURES):
        with pytest.raises(Refused, match="wrong"):
            log_in(database, password="wrong password")
    for changes in (
        {"address": "9.9.9.9"},
        {"name": "bob"},
    ):  # the right password of the account; another account from the address
        with pytest.raises(Refused, match="Too many"):
            log_in(database, **changes)
    later = people.now_ms() + 2000
    monkeypatch.setattr(people, "now_ms", lambda: later)
    with pytest.raises(Refused, match="wrong"):
        log_in(database, password="wrong password")
    with pytest.raises(Refused, match="Too many"):  # the delay has doubled
        log_in(database)
    far = later + people.MAX_DELAY_MS
    monkeypatch.setattr(people, "now_ms", lambda: far)
    assert log_in(database)


def test_sessions_end(database, join, monkeypatch):
    join("ann")
    first, second = log_in(database), log_in(database)
    assert first != second
    people.log_out(database, first)
    assert people.actor_of(database, first) is None and people.actor_of(database, second) is not None
    third = log_in(database)
    people.log_out(database, third, everywhere=True)
    assert people.actor_of(database, second) is None
    fourth = log_in(database)
    person = people.actor_of(database, fourth)
    people.set_state(database, person.person_id, state="disabled", by=None)
    assert people.actor_of(database, fourth) is None
    with pytest.raises(Refused, match="wrong"):
        log_in(database)
    people.set_state(database, person.person_id, state="active", by=None)
    fifth = log_in(database)
    later = people.now_ms() + people.SESSION_MS + 1
    monkeypatch.setattr(people, "now_ms", lambda: later)
    assert people.actor_of(database, fifth) is None


def test_a_login_changes_the_session_of_its_browser_and_leaves_others(app, join, database):
    """Session rotation (FEEDBACK 4.2): what a browser held before a login is worth nothing after it, be it one's own session, another
    person's or a planted one; who is logged in elsewhere stays so until they log out everywhere."""
    join("ann")
    elsewhere, here = Browser(app).log_in("ann"), Browser(app)
    cookie = "fairlead"
    here.client.cookies.set(cookie, "planted", domain="127.0.0.1", path="/")
    secrets = ["planted"]
    for _ in range(2):  # a second login with the first one's cookie
        here.get("/login")
        here.get("/tokens")
        assert here.post("/login", name="ann", password="a long password").status_code == 303
        secrets.append(here.client.cookies.get(cookie))
        assert people.actor_of(database, secrets[-2]) is None and people.actor_of(database, secrets[-1]) is not None
        here.get("/")
    assert len(set(secrets)) == 3 and elsewhere.get("/tokens").status_code == 200
    invited = people.make_invite(database, role="rater")
    here.get(f"/invite/{invited}")
    assert here.post(f"/invite/{invited}", name="bob", password="a long password").status_code == 303
    assert people.actor_of(database, secrets[-1]) is None, (
        "the account that was made in the browser of another ends the other's session"
    )
    assert elsewhere.get("/tokens").status_code == 200
    assert elsewhere.post("/logout", everywhere="true").status_code == 303
    with database.read() as rows:
        ann = rows.scalar(sa.select(Person.id).where(Person.name == "ann"))
        assert rows.scalars(sa.select(Session).where(Session.person_id == ann)).all() == []


@pytest.mark.parametrize("secret", [None, "", "x", "../../etc", "\0"])
def test_no_cookie_is_nobody(database, secret):
    assert people.actor_of(database, secret) is None


def allowed(act):
    try:
        act()
    except Refused:
        return False
    return True


def test_roles_and_actions():
    table = {role: policy.Actor(person_id=role, name=role, role=role) for role in policy.ROLES}
    actions = {
        "rate": policy.may_rate, "read": policy.may_read_guideline, "own": policy.may_see_own_votes, "votes": policy.may_see_votes,
        "guideline": policy.may_edit_guideline, "project": policy.may_change_project, "export": policy.may_export,
        "invite rater": lambda a: policy.may_invite(a, "rater"), "invite lead": lambda a: policy.may_invite(a, "lead"),
        "disable rater": lambda a: policy.may_disable(a, person_id="x", role="rater"),
        "disable lead": lambda a: policy.may_disable(a, person_id="x", role="lead"),
        "disable self": lambda a: policy.may_disable(a, person_id=a.person_id, role="rater"),
    }  # fmt: skip
    found = {
        role: [name for name, act in actions.items() if allowed(lambda act=act, actor=actor: act(actor))]
        for role, actor in table.items()
    }
    lead = ["rate", "read", "own", "votes", "guideline", "project", "export", "invite rater", "disable rater"]
    assert found["rater"] == found["adjudicator"] == ["rate", "read", "own"]
    assert found["lead"] == lead
    assert found["admin"] == [*lead[:8], "invite lead", "disable rater", "disable lead"]


class SlowHasher(argon2.PasswordHasher):
    """Checks no password before it is told to, and counts how many it has in hand."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go_on, self.num, self.most = threading.Event(), 0, 0
        self._lock = threading.Lock()

    def verify(self, hash, password):
        with self._lock:
            self.num += 1
            self.most = max(self.most, self.num)
        assert self.go_on.wait(60)
        with self._lock:
            self.num -= 1
        return super().verify(hash, password)


def test_a_draft_goes_through_while_a_morning_of_logins_is_being_checked(app, project, browser, monkeypatch):
    """More logins than the 40 threads that pages share; two are hashed at once, and no thread of the others is taken."""
    rater, door = browser("ann"), Browser(app)
    rater.get(f"/p/{project.id}/rate")
    assignment = re.search(r'data-assignment="([^"]+)"', rater.page)[1]
    door.get("/login")
    hasher = SlowHasher()
    monkeypatch.setattr(people, "_HASHER", hasher)

    ann = {**ORIGIN, "cookie": f"fairlead={rater.client.cookies['fairlead']}"}
    nobody = {**ORIGIN, "cookie": f"fairlead_visit={door.client.cookies['fairlead_visit']}"}
    form = {"csrf": door.csrf, "name": "ann", "password": "a long password"}
    with TestClient(app, base_url=PLACE.url, follow_redirects=False) as client, ThreadPoolExecutor(51) as threads:
        logins = [threads.submit(client.post, "/login", data=form, headers=nobody) for _ in range(50)]
        try:
            while hasher.num < 2:
                time.sleep(0.01)
            written = {"csrf": rater.csrf, "rationale": "so far"}
            draft = threads.submit(client.post, f"/a/{assignment}/draft", data=written, headers=ann)
            assert draft.result(20).json() == {"saved": True} and not any(login.done() for login in logins)
        finally:
            hasher.go_on.set()
        assert {login.result().status_code for login in logins} == {303}
    assert hasher.most == 2
