"""Demonstrations: written, reviewed, sent back, rewritten; who gets what; what a draft leaves; out to SFT; the tables made again."""

import dataclasses
import json
import secrets

import pytest
import sqlalchemy as sa

from fairlead.core.io import Rejects, write_jsonl
from fairlead.core.records import Completion, Message, Prompt
from fairlead.formats import read_demonstrations
from fairlead.store.annotation import schema
from fairlead.store.annotation.schema import Event
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web import abilities, matching, projects, verdicts
from fairlead.web.demonstrations import actions, desk, transfer
from fairlead.web.demonstrations.actions import Reply, Review
from fairlead.web.demonstrations.counts import by_person, counts_of, own_replies
from fairlead.web.demonstrations.kept import share_standing
from fairlead.web.erasing import erase_person
from fairlead.web.errors import Refused
from fairlead.web.needs import abilities_from
from fairlead.web.projects import get_project
from fairlead.web.queue import Nothing

DRAFT = "The draft says that seven times six is forty-two, which is right."


def wanted(num, *, with_draft=True):
    made = []
    for i in range(num):
        prompt = Prompt(messages=(Message(role="user", content=f"question {i}"),), slice="sums", source="own")
        draft = Completion(prompt_id=prompt.id, text=DRAFT, model="m1") if with_draft else None
        made.append(transfer.Wanted(prompt=prompt, draft=draft))
    return made


@pytest.fixture
def writing(database):
    made = projects.create_project(database, "writing", kind="demonstration", votes_per_item=1, calibration_items=0)
    transfer.add_wanted(database, made.id, wanted(2))
    return made


def take(database, actor, project):
    found = desk.next_task(database, actor, project.id)
    assert isinstance(found, WritingTask), found
    return found


def reply(text="A reply of my own, written with care.", **changes):
    return Reply(**{"key": secrets.token_hex(8), "text": text, "guideline_version": 1, **changes})


def review(decision="accept", **changes):
    return Review(**{"key": secrets.token_hex(8), "decision": decision, "guideline_version": 1, **changes})


def state(database, task):
    with database.read() as rows:
        return rows.get(Demonstration, task.writing_id)


@pytest.mark.parametrize(("text", "other", "expected"), [
    ("a b c d", "a b c d", 1.0), ("A  b\nc", "x a B c y", 1.0), ("a b c d", "a b c x", 0.75), ("a b x c d", "a b y c d", 0.0), ("", "a", 0.0),
    ("a b", "a b c", 1.0), ("yes", "no", 0.0), ("yes", "yes", 1.0), ("a b c x d e f", "d e f z a b c", 6 / 7),
])  # fmt: skip
def test_the_share_that_stands_in_another_text(text, other, expected):
    """Runs of three words: `a b c x d e f` has two of them, six words of seven."""
    assert share_standing(text, other) == pytest.approx(expected)


def test_the_share_is_fast_on_texts_that_repeat_themselves():
    assert share_standing("a " * 25_000, "a " * 25_000) == 1.0


def test_one_writes_another_reviews_and_nobody_reviews_their_own(database, writing, join):
    ann, bob = join("ann"), join("bob")
    first = take(database, ann, writing)
    actions.hand_in(database, ann, first.id, reply())
    second = take(database, ann, writing)
    assert (second.part, second.writing_id) != (first.part, first.writing_id) and second.part == "write"
    actions.hand_in(database, ann, second.id, reply())
    assert desk.next_task(database, ann, writing.id) == Nothing(reason="waiting")
    for _ in range(2):
        task = take(database, bob, writing)
        assert task.part == "review"
        actions.review(database, bob, task.id, review())
    assert desk.next_task(database, bob, writing.id) == Nothing(reason="finished")
    found = state(database, first)
    assert (found.state, found.author_id, found.reviewer_id) == ("accepted", ann.person_id, bob.person_id)


def test_two_people_never_have_the_same_on_the_desk(database, writing, join):
    tasks = [take(database, join(name), writing) for name in ("ann", "bob")]
    assert len({task.writing_id for task in tasks}) == 2
    assert desk.next_task(database, join("cem"), writing.id) == Nothing(reason="waiting")


def test_what_is_sent_back_comes_to_its_author_with_the_reason_and_the_text(database, writing, join):
    ann, bob = join("ann"), join("bob")
    task = take(database, ann, writing)
    actions.hand_in(database, ann, task.id, reply())
    actions.review(database, bob, take(database, bob, writing).id, review("return", reason="Too short."))
    assert take(database, bob, writing).writing_id != task.writing_id
    again = take(database, ann, writing)
    assert (again.writing_id, again.part, again.round) == (task.writing_id, "write", 1)
    found = state(database, task)
    assert (found.state, found.reason, found.text) == ("returned", "Too short.", reply().text)
    actions.hand_in(database, ann, again.id, reply("A longer reply, as you asked for it."))
    assert state(database, task).round == 2
    with pytest.raises(Refused, match="done meanwhile"):
        actions.hand_in(database, ann, task.id, reply("A third."))


def test_what_waits_is_counted_and_does_not_wait_for_one_person_for_ever(database, writing, join):
    """A reply that nobody has reviewed, and one that was sent back: its author has a week, then anybody may write it."""
    ann, bob, cem = join("ann"), join("bob"), join("cem")
    for _ in range(2):
        actions.hand_in(database, ann, take(database, ann, writing).id, reply())
    sent_back = take(database, bob, writing)
    assert sent_back.part == "review", "reviews come before conversations without a reply"
    actions.review(database, bob, sent_back.id, review("return", reason="Too short."))

    def waiting():
        with database.read() as rows:
            found = {person.name: person for person in by_person(rows, writing.id)}["ann"]
            return counts_of(rows, writing.id).by_state["written"], found.num_waiting, found.num_returned

    assert waiting() == (1, 1, 1)
    actions.review(database, bob, take(database, bob, writing).id, review("accept"))
    assert waiting() == (0, 0, 1)
    assert desk.next_task(database, cem, writing.id) == Nothing(reason="waiting"), "it lies with its author"
    with database.write() as rows:
        rows.get(Demonstration, sent_back.writing_id).changed_at -= desk.AUTHOR_MS + 1
    task = take(database, cem, writing)
    assert (task.writing_id, task.part) == (sent_back.writing_id, "write")


def test_a_small_edit_accepts_and_a_rewrite_is_a_new_reply_of_the_reviewer(database, writing, join):
    ann, bob, cem = join("ann"), join("bob"), join("cem")
    for _ in range(2):
        actions.hand_in(database, ann, take(database, ann, writing).id, reply("one two three four five six"))
    task = take(database, bob, writing)
    actions.review(database, bob, task.id, review("edit", text="one two three four five seven"))
    found = state(database, task)
    assert (found.state, found.is_edited, found.author_id) == ("accepted", True, ann.person_id)
    assert found.review_kept == pytest.approx(5 / 6) and found.text.endswith("seven")
    large = take(database, bob, writing)
    actions.review(database, bob, large.id, review("edit", text="something else altogether, by bob"))
    found = state(database, large)
    assert (found.state, found.author_id, found.reviewer_id, found.round) == ("written", bob.person_id, None, 2)
    assert desk.next_task(database, bob, writing.id) == Nothing(reason="waiting")
    for who in (ann, cem):
        assert take(database, who, writing).part == "review"
        with database.write() as rows:  # nobody has it any more
            rows.execute(sa.update(WritingTask).values(leased_until=0))


def test_an_edit_that_changes_nothing_is_refused(database, writing, join):
    ann, bob = join("ann"), join("bob")
    actions.hand_in(database, ann, take(database, ann, writing).id, reply())
    with pytest.raises(Refused, match="Nothing was changed"):
        actions.review(database, bob, take(database, bob, writing).id, review("edit", text=reply().text))


@pytest.mark.parametrize(("text", "took", "expected"), [
    ("A reply of my own, written with care.", False, (False, 0.0, 0.0)), (DRAFT, True, (True, 1.0, 1.0)), (DRAFT, False, (True, 1.0, 1.0)),
    ("Seven times six is forty-two, as everybody learns at school in the second year.", True, (True, 5 / 14, 5 / 12)),
])  # fmt: skip
def test_a_draft_is_marked_with_what_is_kept_of_it(database, writing, join, text, took, expected):
    """Taken, or half of the text: `seven times six is forty-two,` lies in both, five words of 14 and of 12."""
    ann = join("ann")
    task = take(database, ann, writing)
    actions.hand_in(database, ann, task.id, reply(text, took_draft=took))
    found = state(database, task)
    assert found.is_drafted == expected[0]
    assert (found.from_draft, found.draft_kept) == pytest.approx(expected[1:])


def test_the_same_key_is_stored_once(database, writing, join):
    ann = join("ann")
    task = take(database, ann, writing)
    sent = reply()
    first, again = (actions.hand_in(database, ann, task.id, sent) for _ in range(2))
    assert (first.is_repeat, again.is_repeat) == (False, True) and first.event_number == again.event_number
    with pytest.raises(Refused, match="used for another"):
        actions.hand_in(database, ann, task.id, dataclasses.replace(sent, text="Something else."))


@pytest.mark.parametrize(("changes", "words"), [
    ({"text": " \n"}, "empty"), ({"text": "x" * 50_001}, "too long"), ({"text": "a\0"}, "too long"), ({"text": "\ud800"}, "half a character"),
    ({"guideline_version": 9}, "Version 9"), ({"active_ms": -1}, "time"), ({"key": "short"}, "key"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(database, writing, join, changes, words):
    ann = join("ann")
    task = take(database, ann, writing)
    with pytest.raises(Refused, match=words):
        actions.hand_in(database, ann, task.id, reply(**changes))
    assert state(database, task).state == "open"


@pytest.mark.parametrize(("changes", "words"), [
    ({"decision": "praise"}, "no decision"), ({"decision": "return"}, "empty"), ({"decision": "edit"}, "empty"),
    ({"decision": "return", "reason": "x" * 2001}, "too long"),
])  # fmt: skip
def test_a_review_without_what_it_needs_is_refused(database, writing, join, changes, words):
    ann, bob = join("ann"), join("bob")
    actions.hand_in(database, ann, take(database, ann, writing).id, reply())
    task = take(database, bob, writing)
    with pytest.raises(Refused, match=words):
        actions.review(database, bob, task.id, review(**changes))
    assert state(database, task).state == "written"


def test_another_persons_task_is_not_there(database, writing, join):
    ann, bob = join("ann"), join("bob")
    task = take(database, ann, writing)
    for act in (
        lambda: actions.hand_in(database, bob, task.id, reply()),
        lambda: actions.save_text(database, bob, task.id, text="x", took_draft=False),
        lambda: actions.skip(database, bob, task.id, reason="unclear", key="skip-of-bob"),
        lambda: actions.take_back(database, bob, task.id, key="back-of-bob"),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.status == 404


def test_a_skip_goes_to_somebody_else_and_never_comes_back(database, writing, join):
    ann, bob = join("ann"), join("bob")
    skipped = take(database, ann, writing)
    actions.skip(database, ann, skipped.id, reason="distressing", key="skip-number-1")
    with pytest.raises(Refused, match="reason"):
        actions.skip(database, ann, take(database, ann, writing).id, reason="lazy", key="skip-number-2")
    assert take(database, ann, writing).writing_id != skipped.writing_id
    assert take(database, bob, writing).writing_id == skipped.writing_id
    with database.read() as rows:
        assert counts_of(rows, writing.id).num_skips == 1


def test_a_text_is_kept_while_it_is_written_and_a_lapsed_desk_loses_nothing(database, writing, join):
    ann, bob = join("ann"), join("bob")
    task = take(database, ann, writing)
    actions.save_text(database, ann, task.id, text="half a thou", took_draft=True)
    assert take(database, ann, writing).text == "half a thou"
    with database.write() as rows:
        rows.get(WritingTask, task.id).leased_until = 0
    others = take(database, bob, writing)
    if others.writing_id != task.writing_id:
        actions.skip(database, bob, others.id, reason="other", key="skip-of-bob")
        assert take(database, bob, writing).writing_id == task.writing_id
    assert take(database, ann, writing).writing_id != task.writing_id  # it is in bob's hands
    actions.hand_in(database, ann, task.id, reply())  # but whoever is first is first
    found = state(database, task)
    assert (found.state, found.is_drafted) == ("written", True)


def test_a_reply_can_be_taken_back_until_somebody_reads_it(database, writing, join):
    ann, bob = join("ann"), join("bob")
    task = take(database, ann, writing)
    actions.hand_in(database, ann, task.id, reply())
    for _ in range(2):
        actions.take_back(database, ann, task.id, key="back-number-1")
    again = take(database, ann, writing)
    assert again.writing_id == task.writing_id
    actions.hand_in(database, ann, again.id, reply("Better now, I would say."))
    take(database, bob, writing)
    with pytest.raises(Refused, match="reading this reply"):
        actions.take_back(database, ann, again.id, key="back-number-2")


def test_a_paused_project_gives_nothing(database, writing, join):
    projects.set_project_state(database, writing.id, state="paused", by=None)
    assert desk.next_task(database, join("ann"), writing.id) == Nothing(reason="paused")


def through_everything(database, writing, join):
    """Written, returned, written again, accepted; written, rewritten, taken back, written, skipped, accepted with changes."""
    ann, bob, cem = join("ann"), join("bob"), join("cem")
    first = take(database, ann, writing)
    actions.hand_in(database, ann, first.id, reply(DRAFT, took_draft=True, active_ms=90_000))
    actions.review(database, bob, take(database, bob, writing).id, review("return", reason="=Say it in your words."))
    actions.hand_in(database, ann, take(database, ann, writing).id, reply(f"{DRAFT} And so it is.", active_ms=60_000))
    actions.review(database, bob, take(database, bob, writing).id, review())
    second = take(database, ann, writing)
    actions.hand_in(database, ann, second.id, reply("one two three four five six"))
    actions.review(
        database, bob, take(database, bob, writing).id, review("edit", text="Quite another reply by bob, who knows")
    )
    with database.read() as rows:
        task = rows.scalar(
            sa.select(WritingTask).where(
                WritingTask.person_id == bob.person_id, WritingTask.writing_id == second.writing_id
            )
        )
    actions.take_back(database, bob, task.id, key="back-of-bob")
    actions.hand_in(database, bob, take(database, bob, writing).id, reply("Quite another reply by bob, who knows more"))
    actions.skip(database, ann, take(database, ann, writing).id, reason="expertise", key="skip-of-ann")
    actions.review(
        database,
        cem,
        take(database, cem, writing).id,
        review("edit", text="Quite another reply by bob, who knows less"),
    )


def test_the_tables_are_made_again_from_the_events(database, writing, join):
    through_everything(database, writing, join)

    def derived():
        with database.engine.connect() as connection:
            found = connection.execute(sa.select(Demonstration.__table__)).all()
            tasks = connection.execute(sa.text("SELECT id, state FROM writing_tasks")).all()
            return sorted(map(tuple, found)), sorted(map(tuple, tasks))

    before = derived()
    assert verdicts.rebuild(database) > 12
    assert derived() == before


def test_erasing_a_reviewer_blanks_their_reasons_and_a_replay_agrees(database, writing, join):
    ann, bob = join("ann"), join("bob")
    task = take(database, ann, writing)
    actions.hand_in(database, ann, task.id, reply())
    actions.review(database, bob, take(database, bob, writing).id, review("return", reason="My secret."))
    actions.save_text(database, bob, take(database, bob, writing).id, text="half", took_draft=False)
    erase_person(database, bob.person_id, by=None)
    verdicts.rebuild(database)
    assert (state(database, task).reason, state(database, task).state) == ("", "returned")
    with database.read() as rows:
        assert "My secret." not in str([event.content for event in rows.scalars(sa.select(Event))])
        assert {each.text for each in rows.scalars(sa.select(WritingTask))} == {None}


def test_events_keep_every_text(database, writing, join):
    through_everything(database, writing, join)
    with database.read() as rows:
        texts = [
            event.content["text"]
            for event in rows.scalars(sa.select(Event).order_by(Event.number))
            if "text" in event.content
        ]
    assert len(texts) == 6 and len(set(texts)) == 6


def test_what_is_accepted_goes_out_with_its_provenance(database, writing, join, tmp_path):
    with pytest.raises(Exception, match="no accepted demonstration yet"):
        transfer.export_demonstrations(database, writing, tmp_path)
    through_everything(database, writing, join)
    done = transfer.export_demonstrations(database, writing, tmp_path)
    assert (done.num_demonstrations, done.num_drafted, done.num_edited, done.num_authors) == (2, 1, 1, 2)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        found = {
            each.messages[-1].content: each
            for each in read_demonstrations(tmp_path / "demonstrations.jsonl", rejects=rejects)
        }
    assert rejects.total == 0 and set(found) == {f"{DRAFT} And so it is.", "Quite another reply by bob, who knows less"}
    first = found[f"{DRAFT} And so it is."]
    assert (first.messages[0].role, first.messages[1].role, first.slice, first.source) == (
        "user",
        "assistant",
        "sums",
        "own",
    )
    meta = first.meta
    assert (meta["draft"]["model"], meta["draft"]["from_draft"], meta["draft"]["draft_kept"]) == ("m1", 12 / 16, 1.0)
    assert (meta["author"], meta["reviewer"], meta["num_rounds"], meta["is_drafted"], meta["active_ms"]) == (
        "rater-001",
        "rater-002",
        2,
        True,
        60_000,
    )
    assert '"ann"' not in (tmp_path / "demonstrations.jsonl").read_text()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["demonstrations"] == 2 and set(manifest["sha256"]) == {"demonstrations.jsonl", "style-guide-1.md"}


def test_counts_say_who_wrote_and_reviewed_what(database, writing, join):
    through_everything(database, writing, join)
    with database.read() as rows:
        counts, people = counts_of(rows, writing.id), {person.name: person for person in by_person(rows, writing.id)}
        ann = rows.scalar(
            sa.select(WritingTask.person_id)
            .join(Demonstration, Demonstration.author_id == WritingTask.person_id)
            .limit(1)
        )
        own = own_replies(rows, writing.id, ann)
    assert counts.by_state == {"open": 0, "written": 0, "returned": 0, "accepted": 2}
    assert (counts.num_drafted, counts.num_edited, counts.num_skips) == (1, 1, 1)
    assert (people["ann"].num_accepted, people["ann"].num_drafted, people["ann"].median_s) == (1, 1, 60.0)
    assert [people[name].num_reviewed for name in ("ann", "bob", "cem")] == [0, 3, 1]
    assert [each.state for each in own] == ["accepted"]


def test_what_goes_in(tmp_path):
    def read(rows, *, with_drafts=False):
        write_jsonl(tmp_path / "in.jsonl", rows)
        return transfer.read_wanted(
            tmp_path / "in.jsonl", with_drafts=with_drafts, rejects_file=tmp_path / "rejects.jsonl"
        )

    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    plain, drafted = read([{"messages": turns}]), read([{"messages": turns}, {"messages": turns}], with_drafts=True)
    assert plain.wanted[0].draft is None and plain.wanted[0].prompt.messages[0].content == "Hi"
    assert drafted.wanted[0].draft.text == "Hello." and drafted.left_out == {"conversations that came before": 1}
    asked = Prompt(messages=(Message(role="user", content="What?"),))
    folder = tmp_path / "run"
    write_jsonl(folder / "prompts.jsonl", [asked, wanted(1)[0].prompt])
    write_jsonl(
        folder / "completions.jsonl", [Completion(prompt_id=asked.id, text=text, model="m") for text in ("one", "two")]
    )
    found = transfer.read_wanted(folder, with_drafts=True, rejects_file=tmp_path / "r.jsonl")
    assert [each.draft and each.draft.text for each in found.wanted] == ["one", None]
    with pytest.raises(Exception, match="no conversation"):
        read([{"messages": [{"role": "user", "content": "a\0b"}, turns[1]]}])


def test_kinds_of_projects_are_kept_apart(database, writing, project):
    with pytest.raises(Refused, match="compares"):
        transfer.add_wanted(database, project.id, wanted(1))
    with pytest.raises(Refused, match="no kind"):
        projects.create_project(database, "x", kind="essay")
    again = transfer.add_wanted(database, writing.id, wanted(3))
    assert (again.num_new, again.num_known) == (1, 2)


def asking(num, prefix, **meta):
    prompts = (Prompt(messages=(Message(role="user", content=f"{prefix} {i}"),), meta=meta) for i in range(num))
    return [transfer.Wanted(prompt=prompt) for prompt in prompts]


def about(database, task):
    with database.read() as rows:
        writing = rows.get(Writing, task.writing_id)
        return rows.get(schema.Prompt, (writing.project_id, writing.prompt_id)).record["messages"][0]["content"]


def test_what_asks_for_a_language_is_written_and_reviewed_by_those_who_have_it(database, writing, join):
    """Ann has German and code, Bob German alone, Cem nothing; what was there before asks for nothing and goes to all."""
    transfer.add_wanted(database, writing.id, asking(1, "frage", language="DE"))
    transfer.add_wanted(database, writing.id, asking(1, "quelltext", language="de", skills=["code"]))
    ann, bob, cem = (join(name) for name in ("ann", "bob", "cem"))
    for who, skills in ((ann, "code"), (bob, "")):
        abilities.set_abilities(database, who.person_id, list(abilities_from(languages="de", skills=skills)), by=None)
    written = []
    while not isinstance(task := desk.next_task(database, cem, writing.id), Nothing):
        written.append(about(database, task))
        actions.hand_in(database, cem, task.id, reply())
    assert sorted(written) == ["question 0", "question 1"]
    assert task.reason == "waiting"  # for the reviews of the own ones
    for _ in range(2):
        actions.review(database, bob, take(database, bob, writing).id, review())
    assert desk.next_task(database, cem, writing.id) == Nothing(reason="unmatched")
    task = take(database, bob, writing)
    assert about(database, task) == "frage 0"
    actions.hand_in(database, bob, task.id, reply())
    assert desk.next_task(database, bob, writing.id) == Nothing(reason="waiting")
    assert desk.next_task(database, cem, writing.id) == Nothing(reason="unmatched")  # nor does he review it
    actions.review(database, ann, take(database, ann, writing).id, review())
    assert desk.next_task(database, bob, writing.id) == Nothing(reason="unmatched")
    assert about(database, take(database, ann, writing)) == "quelltext 0"


def test_the_lead_sees_what_nobody_can_write(database, writing, browser, join):
    """The rater who is there has no language; once it is written down, nothing is said any more."""
    transfer.add_wanted(database, writing.id, asking(2, "frage", language="de"))
    ann, lea = join("ann"), browser("lea", "lead")
    page = lea.get(f"/p/{writing.id}").text
    assert "2 conversations that ask for de wait, and no rater can get them" in page
    with database.read() as rows:
        (row,) = (row for row in matching.coverage(rows, get_project(rows, writing.id)) if row.needs)
    assert (row.needs, row.num_items, row.num_lacking, row.num_raters) == ("language:de", 2, 2, 0)
    abilities.set_abilities(database, ann.person_id, ["language:de"], by=None)
    assert "no rater can get them" not in lea.get(f"/p/{writing.id}").text


def test_conversations_whose_language_is_no_word_are_left_out(tmp_path):
    rows = [
        {"prompt": f"{text}?", "chosen": "Ja.", "rejected": "Nein.", "language": said}
        for text, said in (("Was", "de"), ("Hm", ["de", "en"]))
    ]
    write_jsonl(tmp_path / "in.jsonl", rows)
    found = transfer.read_wanted(tmp_path / "in.jsonl", with_drafts=False, rejects_file=tmp_path / "r.jsonl")
    assert [each.prompt.messages[0].content for each in found.wanted] == ["Was?"]
    assert found.left_out == {"conversations whose language or skills are more than one language": 1}
