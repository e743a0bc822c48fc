"""Live conversations: two replies a turn, on from the chosen one, votes like others; failures, a policy that is slow, the tables made again."""

import re
import threading
import time

import pytest
import sqlalchemy as sa
from web_browser import ORIGIN, PLACE, Browser
from web_example import pairs, vote
from web_payloads import PAYLOADS

from fairlead.core.protocols import Reply
from fairlead.core.records import Completion
from fairlead.feedback.collected import read_collected
from fairlead.store.annotation.schema import Assignment, Event, Verdict
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web import contents, exporting, importing, projects, queue, verdicts
from fairlead.web.app import make_app
from fairlead.web.chats.talker import MAX_TOGETHER, Talker
from fairlead.web.chats.talking import ask_again, latest_chat, say, stand
from fairlead.web.chats.turns import Turns
from fairlead.web.errors import Refused
from fairlead.web.pages.talking import waiting_words

RULES = projects.Rules(ties="allowed", both_bad=True)


class Parrot:
    """A policy that says what was said last, in two ways."""

    name = "weights-of-the-parrot"

    def __init__(self, *, same=0, delay_s=0.0, fault=None):
        self.same, self.delay_s, self.fault, self.requests = same, delay_s, fault, []

    def reply(self, requests):
        for request in requests:
            self.requests.append(request)
            time.sleep(self.delay_s)
            if self.fault:
                raise self.fault
            said = request.prompt.messages[-1].content
            texts = [said, said] if len(self.requests) <= self.same else [f"{said} one", f"{said} two"]
            completions = [
                Completion(prompt_id=request.prompt.id, text=text, model=self.name, seed=request.seed, sample_index=i, meta={"key": request.key})
                for i, text in enumerate(texts[: request.num_samples])
            ]  # fmt: skip
            yield Reply(key=request.key, completions=completions)


def answer(database, parrot=None, **options):
    """Everything that waits, to its end."""
    talker = Talker(database, parrot or Parrot(), **options)
    while talker.answer_next():
        pass


@pytest.fixture
def project(database):
    return projects.create_project(database, "talk", kind="chat", votes_per_item=1, calibration_items=0, rules=RULES)


def standing(database, actor, project):
    with database.read() as rows:
        return stand(rows, actor, project.id, latest_chat(rows, actor, project.id))


def speak(database, actor, project, text, *, parrot=None, chat=None, key=None):
    """Say something and let the policy answer; return the assignment."""
    now = standing(database, actor, project)
    say(
        database,
        actor,
        project.id,
        chat_id=now.chat_id if chat is None else chat,
        text=text,
        key=key or verdicts.new_key(),
    )
    answer(database, parrot)
    with database.read() as rows:
        return rows.get(Assignment, standing(database, actor, project).assignment_id or "none")


def texts(now):
    return [(message.role, message.content) for message in now.messages]


@pytest.mark.parametrize(
    ("choice", "goes_on"), [("left", "left"), ("right", "right"), ("tie", "left"), ("both_bad", None), ("skip", None)]
)
def test_it_goes_on_from_the_chosen_reply(database, project, join, choice, goes_on):
    ann = join("ann")
    assignment = speak(database, ann, project, "Hi")
    assert standing(database, ann, project).state == "vote"
    with database.read() as rows:
        shown = [
            contents.content_of(rows, assignment.item_id).completions[int(digit)].text for digit in assignment.shown
        ]
    verdicts.submit(database, ann, assignment.id, vote(choice))
    now = standing(database, ann, project)
    expected = [] if goes_on is None else [("user", "Hi"), ("assistant", shown[goes_on == "right"])]
    assert (now.state, texts(now), now.is_left_out) == ("say", expected, goes_on is None)
    parrot = Parrot()
    speak(database, ann, project, "More", parrot=parrot)
    assert [(m.role, m.content) for m in parrot.requests[0].prompt.messages] == [*expected, ("user", "More")]


def test_a_vote_is_asked_for_before_more_is_said(database, project, join):
    ann = join("ann")
    say(database, ann, project.id, chat_id="", text="Hi", key="first-message")
    chat = standing(database, ann, project).chat_id
    for state in ("waiting", "vote"):
        assert standing(database, ann, project).state == state
        with pytest.raises(Refused, match="Choose a reply first"):
            say(database, ann, project.id, chat_id=chat, text="More", key=f"too-soon-{state}".replace("_", "-"))
        answer(database)


def test_the_same_message_is_stored_once(database, project, join):
    ann = join("ann")
    first, again = (say(database, ann, project.id, chat_id="", text="Hi", key="one-message") for _ in range(2))
    assert first == again
    with database.read() as rows:
        assert len(rows.scalars(sa.select(ChatTurn)).all()) == 1


def test_an_earlier_choice_is_taken_back_and_what_came_later_stays(database, project, join):
    ann = join("ann")
    first = speak(database, ann, project, "Hi")
    verdicts.submit(database, ann, first.id, vote("left"))
    say(database, ann, project.id, chat_id=latest(database, ann, project), text="More", key="the-second")
    assert verdicts.withdraw_last(database, ann, project.id, key="undo-number-1") == first.id
    now = standing(database, ann, project)
    assert (now.state, now.number, texts(now)) == ("vote", 0, [("user", "Hi")])
    verdicts.submit(database, ann, first.id, vote("right"))
    assert standing(database, ann, project).state == "waiting"


def latest(database, actor, project):
    with database.read() as rows:
        return latest_chat(rows, actor, project.id)


def test_conversations_of_others_are_missing(database, project, join):
    ann, bob = join("ann"), join("bob")
    assignment = speak(database, ann, project, "Hi")
    chat = latest(database, ann, project)
    for act in (
        lambda: say(database, bob, project.id, chat_id=chat, text="Hi", key="of-another"),
        lambda: ask_again(database, bob, project.id, chat_id=chat, key="of-another"),
        lambda: verdicts.submit(database, bob, assignment.id, vote()),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.status == 404


@pytest.mark.parametrize(("parrot", "words"), [
    (Parrot(same=9), "no two different replies"), (Parrot(fault=ValueError("weights-of-the-parrot broke")), "could not answer"),
    (Parrot(delay_s=0.4), "within 0.05 seconds"),
])  # fmt: skip
def test_a_policy_that_fails_is_told_without_its_name_and_asked_again(database, project, join, parrot, words):
    ann = join("ann")
    say(database, ann, project.id, chat_id="", text="Hi", key="first-message")
    answer(database, parrot, timeout_s=0.05 if parrot.delay_s else 5)
    now = standing(database, ann, project)
    assert now.state == "failed" and words in now.failure and "parrot" not in now.failure
    for _ in range(2):
        ask_again(database, ann, project.id, chat_id=now.chat_id, key="ask-again-1")
    assert standing(database, ann, project).state == "waiting"
    answer(database)
    assert standing(database, ann, project).state == "vote"


def test_after_a_failure_it_can_be_said_another_way(database, project, join):
    ann = join("ann")
    speak(database, ann, project, "Hi", parrot=Parrot(same=9))
    parrot = Parrot()
    speak(database, ann, project, "Hello", parrot=parrot)
    assert [m.content for m in parrot.requests[0].prompt.messages] == ["Hello"]


def test_equal_replies_are_drawn_again(database, project, join):
    ann, parrot = join("ann"), Parrot(same=2)
    speak(database, ann, project, "Hi", parrot=parrot)
    assert len({request.key for request in parrot.requests}) == 3 and standing(database, ann, project).state == "vote"


def test_a_late_reply_to_a_turn_that_was_asked_again_is_dropped(database, project, join):
    ann = join("ann")
    say(database, ann, project.id, chat_id="", text="Hi", key="first-message")
    chat = latest(database, ann, project)

    class Meanwhile(Parrot):
        def reply(self, requests):
            turns = Turns(database)
            turns.fail(turns.waiting(limit=1)[0], "slow", "slow")
            ask_again(database, ann, project.id, chat_id=chat, key="ask-again-1")
            return super().reply(requests)

    Talker(database, Meanwhile()).answer_next()
    assert standing(database, ann, project).state == "waiting"


def test_turns_are_exported_as_votes_with_policy_and_seed(database, project, join, tmp_path):
    ann = join("ann")
    for text in ("Hi", "More"):
        verdicts.submit(database, ann, speak(database, ann, project, text).id, vote("left", rationale="so"))
    done = exporting.export_project(database, project, tmp_path)
    assert (done.num_comparisons, done.num_votes) == (2, 2)
    found = sorted(read_collected(tmp_path / "comparisons.jsonl"), key=lambda each: len(each.prompt.messages))
    assert [len(each.prompt.messages) for each in found] == [1, 3]
    with database.read() as rows:
        seeds = list(rows.scalars(sa.select(ChatTurn.seed).order_by(ChatTurn.number)))
    for each, seed in zip(found, seeds, strict=True):
        assert each.a.model == each.b.model == Parrot.name and each.a.seed == each.b.seed == seed
        assert {each.a.sample_index, each.b.sample_index} == {0, 1} and each.a.meta["key"] == each.b.meta["key"]
        assert each.judgments[0].rater == "rater-001" and each.judgments[0].meta["rationale"] == "so"


def test_turns_are_never_handed_to_others(database, project, join):
    speak(database, join("ann"), project, "Hi")
    assert queue.next_assignment(database, join("bob"), project.id) == queue.Nothing(reason="finished")
    with pytest.raises(Refused, match="people write"):
        importing.add_items(database, project.id, pairs(1))


def test_the_turns_are_made_again_from_the_events(database, project, join):
    ann = join("ann")
    verdicts.submit(database, ann, speak(database, ann, project, "Hi").id, vote("left"))
    speak(database, ann, project, "More", parrot=Parrot(same=9))
    ask_again(database, ann, project.id, chat_id=latest(database, ann, project), key="ask-again-1")

    def derived():
        with database.engine.connect() as connection:
            return [
                sorted(map(tuple, connection.execute(sa.select(table.__table__)).all()))
                for table in (ChatTurn, Verdict)
            ]

    before = derived()
    verdicts.rebuild(database)
    assert derived() == before and len(before[0]) == 2


def test_a_turn_that_waited_when_the_server_stopped_is_answered_by_the_next(database, project, join):
    ann = join("ann")
    say(database, ann, project.id, chat_id="", text="Hi", key="first-message")
    talker = Talker(database, Parrot())
    talker.wake()
    end = time.monotonic() + 60
    while standing(database, ann, project).state == "waiting" and time.monotonic() < end:
        time.sleep(0.02)
    talker.stop()
    assert standing(database, ann, project).state == "vote"


@pytest.fixture
def log_in(database, join):
    talker = Talker(database, Parrot())
    talker.wake = lambda: None  # the test answers
    app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6, talker=talker)

    def made(name="ann", role="rater"):
        join(name, role)
        return Browser(app).log_in(name)

    yield made, talker
    talker.stop()


def fields(page, action):
    """Hidden fields of the form with this action."""
    form = re.search(rf'<form[^>]*action="{action}".*?</form>', page, flags=re.S)[0]
    return {
        name: value
        for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)
        if name != "csrf"
    }


def test_a_conversation_without_scripts_that_says_nothing_of_the_policy(database, project, log_in):
    made, talker = log_in
    ann = made()
    place = f"/p/{project.id}/talk"
    assert ann.get(f"/p/{project.id}/rate").headers["location"] == place
    page = ann.get(place).text
    answer = ann.post(f"/p/{project.id}/say", text="What is **two**?", **fields(page, f"/p/{project.id}/say"))
    page = ann.get(answer.headers["location"]).text
    assert "being written" in page and 'http-equiv="refresh"' in page and 'name="text"' not in page
    state = ann.client.get(f"{place}/state", params={"chat": latest_of(page)}).json()
    assert (state["state"], state["number"]) == ("waiting", 0) and state["words"].startswith(
        "Two replies are being written"
    )
    talker.answer_next()
    page = ann.get(place).text
    with database.read() as rows:
        turn = rows.scalar(sa.select(ChatTurn))
        hidden = [
            turn.prompt_id,
            str(turn.seed),
            Parrot.name,
            *(c.id for c in rows.scalars(sa.select(importing.schema.Completion))),
        ]
    assert not [word for word in hidden if word in page] and "refresh" not in page
    action = re.search(r'action="(/a/[^"]+/verdict)"', page)[1]
    assert ann.post(action, choice="left2", rationale="", **fields(page, action)).status_code == 303
    page = ann.get(place).text
    assert "What is <strong>two</strong>?" in page and page.count('class="turn"') == 2 and 'name="text"' in page
    assert "Left better" in ann.get(f"/p/{project.id}/mine").text
    lead = made("lea", "lead")
    assert lead.get(f"/p/{project.id}").status_code == 200


def latest_of(page):
    return re.search(r'data-chat="([^"]*)"', page)[1]


def test_a_server_without_a_policy_refuses_what_is_said(database, project, join):
    join("ann")
    ann = Browser(make_app(database, place=PLACE, secret=b"s" * 32)).log_in("ann")
    page = ann.get(f"/p/{project.id}/talk").text
    headers = {**ORIGIN, "accept": "application/json"}
    answer = ann.post(f"/p/{project.id}/say", headers=headers, text="Hi", **fields(page, f"/p/{project.id}/say"))
    assert answer.status_code == 409 and "no policy" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("text", "words"), [(" ", "empty"), ("x" * 20_001, "too long")])
def test_what_cannot_be_said_is_refused(database, project, join, text, words):
    with pytest.raises(Refused, match=words):
        say(database, join("ann"), project.id, chat_id="", text=text, key="first-message")


def test_payloads_in_messages_and_replies_are_text(database, project, log_in):
    made, talker = log_in
    ann = made()
    everything = "\n\n".join(PAYLOADS)
    page = ann.get(f"/p/{project.id}/talk").text
    ann.post(f"/p/{project.id}/say", text=everything, **fields(page, f"/p/{project.id}/say"))
    talker.answer_next()
    page = ann.get(f"/p/{project.id}/talk").text
    assert page.count("two</p>") >= 1 or "two" in page
    assert not re.search(r"<script(?! src=\"/static/)", page) and not re.search(r"<[^>]+ on\w+=", page)
    assert not re.search(r"<(img|svg|iframe|object|embed|style|base|meta http)", page)


def test_what_failed_is_kept_for_the_lead_with_its_cause(database, project, join):
    speak(database, join("ann"), project, "Hi", parrot=Parrot(fault=ValueError("out of memory")))
    with database.read() as rows:
        event = rows.scalar(sa.select(Event).where(Event.kind == "chat.failed"))
    assert "out of memory" in event.content["cause"] and event.person_id is None


class Slow(Parrot):
    """Says that it has begun, and waits to be let go on."""

    def __init__(self):
        super().__init__()
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def reply(self, requests):
        self.has_begun.set()
        assert self.may_go_on.wait(60)
        yield from super().reply(requests)


def test_several_people_are_answered_together_and_nobody_waits_to_vote(database, project, join):
    """Ten people speak: eight are in one call of the policy, two in the next; a vote is stored while the policy is at work."""
    people = [join(f"rater {i}") for i in range(MAX_TOGETHER + 2)]
    voted = speak(database, people[0], project, "Hi")
    for number, who in enumerate(people[1:]):
        say(database, who, project.id, chat_id="", text=f"Hello {number}", key=f"message-{number}")
    assert standing(database, people[-1], project).num_before == MAX_TOGETHER
    assert waiting_words(standing(database, people[-1], project)).startswith("8 others are answered first")
    slow = Slow()
    talker = Talker(database, slow)
    talker.wake()
    assert slow.has_begun.wait(60)
    start = time.monotonic()
    verdicts.submit(database, people[0], voted.id, vote("left"))
    assert time.monotonic() - start < 30 and {standing(database, who, project).state for who in people[1:]} == {
        "waiting"
    }
    slow.may_go_on.set()
    end = time.monotonic() + 60
    while {standing(database, who, project).state for who in people[1:]} != {"vote"} and time.monotonic() < end:
        time.sleep(0.02)
    talker.stop()
    assert {standing(database, who, project).state for who in people[1:]} == {"vote"}


def test_a_conversation_that_cannot_be_answered_keeps_nobody_else_waiting(database, project, join):
    ann, bob = join("ann"), join("bob")

    class Partial(Parrot):
        def reply(self, requests):
            for request in requests:
                is_long = request.prompt.messages[-1].content == "long"
                yield Reply(key=request.key, fault="no room") if is_long else next(super().reply([request]))

    for who, text in ((ann, "long"), (bob, "Hi")):
        say(database, who, project.id, chat_id="", text=text, key=f"message-of-{who.name}")
    Talker(database, Partial()).answer_next()
    assert (standing(database, ann, project).state, standing(database, bob, project).state) == ("failed", "vote")
    assert "room" not in standing(database, ann, project).failure


def test_a_round_that_was_given_up_holds_the_policy_and_what_waits_is_answered_after_it(database, project, join):
    ann, bob = join("ann"), join("bob")
    slow = Slow()
    say(database, ann, project.id, chat_id="", text="Hi", key="message-of-ann")
    talker = Talker(database, slow, timeout_s=0.05)
    assert talker.answer_next() and "within 0.05 seconds" in standing(database, ann, project).failure
    say(database, bob, project.id, chat_id="", text="Hi", key="message-of-bob")
    slow.may_go_on.set()
    talker._timeout_s = 60
    assert talker.answer_next() and standing(database, bob, project).state == "vote"
    assert standing(database, ann, project).state == "failed"


CRITERIA = projects.Rules(ties="allowed", criteria=(projects.Criterion(name="kind", question="Is it kind?", points=3),))


def test_a_guideline_with_criteria_is_answered_on_the_page(database, project, log_in):
    made, talker = log_in
    projects.publish_guideline(database, project.id, text="# Kind", rules=CRITERIA, by=None)
    ann = made()
    page = ann.get(f"/p/{project.id}/talk").text
    ann.post(f"/p/{project.id}/say", text="Hi", **fields(page, f"/p/{project.id}/say"))
    talker.answer_next()
    page = ann.get(f"/p/{project.id}/talk").text
    action = re.search(r'action="(/a/[^"]+/verdict)"', page)[1]
    assert "Is it kind?" in page and page.count("data-tab=") == 2
    sent = {**fields(page, action), "choice": "left2", "rate_kind_0": "3", "rate_kind_1": "1"}
    assert ann.post(action, **sent).status_code == 303
    with database.read() as rows:
        assert sorted(rows.scalar(sa.select(Verdict)).criteria["kind"]) == [1, 3]
