"""What the pages do, done over HTTP alone: adjudication, costs, demonstrations, conversations, steering, tokens; with the Python client."""

import pytest
from test_web_chats import Parrot
from test_web_client import served
from web_example import pairs, take, vote

from fairlead.core.io import write_jsonl
from fairlead.store.annotation.schema import Item
from fairlead.web import projects, tokens, verdicts
from fairlead.web.chats.talker import Talker
from fairlead.web.client import ApiError, Client
from fairlead.web.demonstrations import transfer

pytestmark = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


@pytest.fixture
def talker(database):
    made = Talker(database, Parrot())
    yield made
    made.stop()


@pytest.fixture
def connect(database, join, talker):
    opened = []
    with served(database, talker=talker) as url:

        def made(name, role="rater", scope="rate"):
            secret = tokens.make_token(database, join(name, role), name="test", scope=scope, num_days=1).secret
            opened.append(Client(url, token=secret))
            return opened[-1]

        yield made
        for each in opened:
            each.close()


@pytest.fixture
def disputed(database, project, join):
    """Three pairs on which two raters disagree, a fourth on which they do not."""
    ann, bob = join("ann"), join("bob")
    items = []
    for i in range(4):
        first = take(database, ann, project)
        verdicts.submit(database, ann, first.id, vote("left", rationale=f"why ann {i}"))
        items.append((first.item_id, first.shown))
    for _ in range(4):
        second = take(database, bob, project)
        order = [item for item, _ in items].index(second.item_id)
        is_same = second.shown == items[order][1]
        verdicts.submit(database, bob, second.id, vote("left" if is_same == (order == 3) else "right"))
    return [item for item, _ in items]


def test_a_queue_is_decided(connect, database, project, disputed):
    desk = connect("ada", "adjudicator", "adjudicate").lead(project.id)
    listed = list(desk.disagreements())
    assert sorted(row["item"] for row in listed) == sorted(disputed[:3]) and all(
        row["counts"] == [1, 1, 0, 0] for row in listed
    )
    seen = []
    while item := desk.next_case():
        case = desk.case(item)
        assert len(case["votes"]) == 2 and {vote["rater"] for vote in case["votes"]} == {"Rater A", "Rater B"}
        assert not {"ann", "bob"} & {vote["rater"] for vote in case["votes"]} and len(case["replies"]) == 2
        choice = "left" if case["replies"][0].startswith("good") else "right"
        event = desk.decide(case, choice=choice, reason="It is right.", key=f"key-of-decision-{len(seen)}")
        assert desk.decide(case, choice=choice, reason="It is right.", key=f"key-of-decision-{len(seen)}") == event
        again = desk.case(item)
        assert (again["decided"], again["reason"], again["decided_under"]) == (choice, "It is right.", 1)
        seen.append(item)
    assert sorted(seen) == sorted(disputed[:3])
    assert [row["item"] for row in desk.disagreements(state="decided")] != [] and list(desk.disagreements()) == []
    desk.revoke_decision(seen[0])
    assert [row["item"] for row in desk.disagreements()] == [seen[0]]
    with pytest.raises(ApiError, match="needs a reason"):
        desk.decide(desk.case(seen[0]), choice="left", reason=" ")
    lead = connect("lea", "lead", "lead").lead(project.id)
    lead.make_anchor(seen[1])
    assert lead.watched()["num_gold"] == 1
    with database.read() as rows:
        right = rows.get(Item, seen[1]).completions
    assert right and lead.costs()["num_usable"] == 3  # two decided, one on which both agree


def test_filters_take_names_only(connect, project, disputed):
    desk = connect("ada", "adjudicator", "adjudicate").lead(project.id)
    for name in ("kind", "state", "use", "sort", "field", "value"):
        for text in ("x' OR 1=1 --", "password_hash", "../../etc/passwd", "1) UNION SELECT"):
            wanted = {name: text, **({"field": "slice"} if name == "value" else {})}
            with pytest.raises(ApiError, match="Choose one") as refused:
                list(desk.disagreements(**wanted))
            assert refused.value.status == 422


def test_costs_are_entered_once_and_the_work_stops_and_goes_on(connect, project, disputed):
    lead = connect("lea", "lead", "lead").lead(project.id)
    assert lead.costs()["num_paid"] == 8 and lead.costs()["left"] is None
    assert lead.set_costs(dollars_per_vote=0.5, limit_dollars=6)["limit_dollars"] == 6
    for _ in range(2):
        costs = lead.add_payment(kind="ai", dollars=4, note="judge", key="the-same-payment")
    assert (costs["ai"], costs["may_spend"]) == (4.0, False)
    with pytest.raises(ApiError, match="another submission"):
        lead.add_payment(kind="ai", dollars=5, note="judge", key="the-same-payment")
    assert lead.override_budget("for the paper")["may_spend"]
    assert [line["who"] for line in lead.costs()["lines"]] == ["lea"] * 3
    with pytest.raises(ApiError, match="number from 0"):
        lead.set_costs(dollars_per_vote=float("inf"))


def test_a_demonstration_is_written_sent_back_and_accepted(connect, database):
    lead = connect("lea", "lead", "lead")
    made = lead.create_project("writing", kind="demonstration")
    assert made.kind == "demonstration"
    ann, bob, all_ = connect("ann").desk(made.id), connect("bob").desk(made.id), lead.lead(made.id)
    transfer.add_wanted(database, made.id, [transfer.Wanted(prompt=pairs(1)[0].prompt)])
    task = ann.take_task()
    assert task["part"] == "write" and task["prompt"][0]["content"] == "question 0"
    ann.save(task, "half")
    assert ann.task(task["id"])["text"] == "half"
    ann.hand_in(task, "A reply")
    assert ann.take_task() is None and ann.reason == "waiting"
    ann.take_back(task)
    assert ann.hand_in(ann.take_task(), "A better reply")["repeat"] is False
    read = bob.take_task()
    assert (read["part"], read["text"]) == ("review", "A better reply")
    with pytest.raises(ApiError, match="empty"):
        bob.review(read, "return")
    bob.review(read, "return", reason="too short")
    back = ann.take_task()
    assert back["reason"] == "too short"
    ann.hand_in(back, "A long reply")
    bob.review(bob.take_task(), "accept")
    assert [own["state"] for own in ann.written()] == ["accepted"]
    (found,) = all_.demonstrations(state="accepted")
    assert (found["text"], found["author"], found["reviewer"]) == ("A long reply", "rater-002", "rater-003")
    assert (
        all_.demonstration_counts()["counts"]["by_state"]["accepted"] == 1
        and list(all_.demonstrations(state="open")) == []
    )


def test_a_conversation_goes_on_turn_by_turn_and_the_lead_reads_it(connect, database):
    made = projects.create_project(database, "talk", kind="chat", votes_per_item=1, calibration_items=0)
    client, lead = connect("ann"), connect("lea", "lead", "lead").lead(made.id)
    desk = client.desk(made.id)
    chat = desk.say("Hi", key="the-first-message")
    assert desk.say("Hi", key="the-first-message") == chat
    for _ in range(200):
        now = desk.talk(chat)
        if now["state"] == "vote":
            break
    assert now["state"] == "vote" and [turn["content"] for turn in now["messages"]] == ["Hi"]
    item = client.assignment(now["assignment"])
    client.submit(item, choice="left", strength=1)
    assert [turn["role"] for turn in desk.talk(chat)["messages"]] == ["user", "assistant"]
    (line,) = lead.chats()
    assert (line["chat"], line["rater"], line["num_turns"]) == (chat, "rater-001", 1)
    assert lead.chat(chat)["messages"] == desk.talk(chat)["messages"]
    with pytest.raises(ApiError, match="not there"):
        connect("bob").desk(made.id).talk(chat)


def test_figures_settings_and_documents_are_those_of_the_pages(connect, project, disputed):
    lead = connect("lea", "lead", "lead").lead(project.id)
    agreement = lead.agreement()["reading"]
    assert agreement["num_votes"] == 8 and agreement["statistics"][0]["value"]["n"] > 0
    assert {card["name"] for card in lead.raters()["reading"]["cards"]} == {"ann", "bob"} and lead.labels()["reading"][
        "rows"
    ]
    assert lead.change_steering(cap_before_round=40)["settings"]["cap_before_round"] == 40
    for odd in ({"cap_befor_round": 1}, {"cap_before_round": "x"}, {"scaled_because": "x"}, {"anchor_share": True}):
        with pytest.raises(ApiError) as refused:
            lead.change_steering(**odd)
        assert refused.value.status == 422
    assert lead.publish_guideline("# Two", replaces=1)["version"] == 2
    assert [version["version"] for version in lead.guideline_history()["versions"]] == [2, 1]
    assert lead.guideline_document().startswith("# Two") and "What a verdict may be" in lead.guideline_document()
    lead.open_discussion()
    assert lead.discussion()["is_open"]
    assert connect("cem").desk(project.id).own_figures() == {
        "chosen": {},
        "num_days": 0,
        "hours_left": None,
        "left_share": None,
    }


def test_a_vendors_table_comes_in_and_goes_out_over_http(connect, tmp_path):
    lead = connect("lea", "lead", "lead")
    made = lead.create_project("vendor", votes_per_item=1, calibration_items=0)
    (tmp_path / "map.yaml").write_text("prompt: q\nreplies: [one, two]\nratings:\n  - {rater: w, verdict: p}\n")
    (tmp_path / "v.csv").write_text("q,one,two,w,p\nWhy?,yes,no,kim,a\nWhy?,yes,no,kim,a\nHow?,so,,kim,b\n")
    found = lead.import_file(made.id, tmp_path / "v.csv", mapping=tmp_path / "map.yaml")
    assert (found.num_items, found.num_outside, found.num_repeats, found.left_out) == (1, 1, 1, {"rows: empty two": 1})
    lead.export(made.id, tmp_path / "out.zip", format="trl", method="majority", is_blind=True, with_outside=True)
    assert (tmp_path / "out.zip").read_bytes()[:2] == b"PK"
    for odd in ({"format": "trll"}, {"method": "majorty", "format": "trl", "with_outside": True}, {"is_blind": True}):
        with pytest.raises(ApiError) as refused:
            lead.export(made.id, tmp_path / "no.zip", **odd)
        assert refused.value.status == 422 and not (tmp_path / "no.zip").exists()
    (tmp_path / "bad.yaml").write_text("prompt: [")
    with pytest.raises(ApiError, match="mapping"):
        lead.import_file(made.id, tmp_path / "v.csv", mapping=tmp_path / "bad.yaml")
    written = lead.create_project("wanted", kind="demonstration")
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Hi"}, {"prompt": "a\0b"}])
    (tmp_path / "p.jsonl").write_bytes((tmp_path / "p.jsonl").read_bytes() + b"{\n")
    with pytest.raises(ApiError, match=r"Nothing was imported.*line 3"):
        lead.import_file(written.id, tmp_path / "p.jsonl", is_strict=True)
    found = lead.import_file(written.id, tmp_path / "p.jsonl")
    assert found.num_items == 1 and sum(found.left_out.values()) == 2 and found.faults[0].startswith("line 3: not JSON")


def test_own_tokens_are_listed_and_ended_and_never_made(connect, database):
    ann = connect("ann")
    (shown,) = ann.tokens()
    assert "secret" not in str(shown) and shown["scope"] == "rate" and not {"secret_hash"} & set(shown)
    ann.revoke_token(shown["id"])
    with pytest.raises(ApiError, match="revoked"):
        ann.me()
