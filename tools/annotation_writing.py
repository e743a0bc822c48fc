"""Made-up demonstrations and conversations for the pictures and checks of `annotation_pages`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import sqlalchemy as sa

from fairlead.core.protocols import Reply, ReplyRequest
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Person
from fairlead.store.annotation.talked import ChatTurn
from fairlead.store.annotation.written import WritingTask
from fairlead.web import people, projects, verdicts
from fairlead.web.answers import Submission
from fairlead.web.chats.talker import Talker
from fairlead.web.chats.talking import say
from fairlead.web.demonstrations import actions, desk, transfer
from fairlead.web.demonstrations.drafts import Drafts, ask_draft
from fairlead.web.verdicts import new_key

QUESTIONS = ("My tomatoes have brown spots on the leaves. What is it, and what do I do?", "Explain compound interest to a child of ten.",
             "Write a short note that declines an invitation to a wedding.", "Is it safe to eat bread when only one slice has mould?",
             "What is the difference between weather and climate?", "Give me three ideas for dinner without an oven.")  # fmt: skip
DRAFT = """It is probably **early blight**, a fungus that winters in the soil.

1. Take off the leaves with spots and throw them away; do not compost them.
2. Water the soil, not the leaves, in the morning.
3. Put straw on the soil, so that rain does not splash it up.

If the stems have dark spots too, it may be late blight: then take out the whole plant."""


def fill_writing(database: Database, who: dict[str, people.Actor]) -> dict[str, str]:
    """Wim writes, Rio reviews, and of Ira's replies one is accepted, one came back and two wait; ids for the paths of the pages."""
    project = projects.create_project(database, "replies", kind="demonstration", votes_per_item=1, calibration_items=0)
    blank = projects.create_project(
        database, "replies in Welsh", kind="demonstration", votes_per_item=1, calibration_items=0
    )
    transfer.add_wanted(database, project.id, [_wanted(question) for question in QUESTIONS])
    _next(database, who["Wim"], project.id)
    for _ in range(4):
        task = _next(database, who["Ira"], project.id)
        reply = actions.Reply(
            key=new_key(), text=DRAFT.replace("probably ", ""), guideline_version=1, active_ms=240_000
        )
        actions.hand_in(database, who["Ira"], task.id, reply)
    for decision, reason in (
        ("accept", ""),
        ("return", "Say what *late blight* looks like, and shorten the second step."),
    ):
        task = _next(database, who["Rio"], project.id)
        review = actions.Review(key=new_key(), decision=decision, reason=reason, guideline_version=1)  # pyright: ignore[reportArgumentType]
        actions.review(database, who["Rio"], task.id, review)
    _next(database, who["Rio"], project.id)
    returned = _next(database, who["Ira"], project.id)
    return {"writing": project.id, "blank": blank.id, "returned": returned.id, "plain": _fill_asking(database, who)}


def _fill_asking(database: Database, who: dict[str, people.Actor]) -> str:
    """Conversations without a draft: Wim may ask for one, Ira has asked, and Rio's failed."""
    project = projects.create_project(
        database, "own voice", kind="demonstration", votes_per_item=1, calibration_items=0
    )
    wanted = [transfer.Wanted(prompt=_wanted(question).prompt) for question in QUESTIONS]
    transfer.add_wanted(database, project.id, wanted)
    asked = _next(database, who["Rio"], project.id)
    ask_draft(database, who["Rio"], asked.id, key=new_key())
    drafts = Drafts(database)
    drafts.fail(
        drafts.waiting(limit=1)[0], "No reply came within 120 seconds. Ask again, or write without one.", "timeout"
    )
    ask_draft(database, who["Ira"], _next(database, who["Ira"], project.id).id, key=new_key())
    _next(database, who["Wim"], project.id)
    return project.id


def _wanted(question: str) -> transfer.Wanted:
    turns = (Message(role="system", content="You are a helpful assistant."), Message(role="user", content=question))
    prompt = Prompt(messages=turns)
    return transfer.Wanted(prompt=prompt, draft=Completion(prompt_id=prompt.id, text=DRAFT, model="m"))


def _next(database: Database, who: people.Actor, project_id: str) -> WritingTask:
    found = desk.next_task(database, who, project_id)
    assert isinstance(found, WritingTask), found
    return found


class TwoGardeners:
    """A policy that knows two things about tomatoes."""

    name = "gardeners"

    def __init__(self, *, is_broken: bool = False) -> None:
        self._is_broken = is_broken

    def reply(self, requests: Sequence[ReplyRequest]) -> Iterator[Reply]:
        """Two texts, or the same one twice."""
        other = "Brown spots have many causes. Can you describe the spots, and how often you water?"
        texts = (DRAFT, DRAFT if self._is_broken else other)
        for request in requests:
            yield Reply(key=request.key, completions=[
                Completion(prompt_id=request.prompt.id, text=text, model=self.name, seed=request.seed, sample_index=i)
                for i, text in enumerate(texts)
            ])  # fmt: skip


class AtRest(Talker):
    """A policy that is there and never answers, so that what waits is seen waiting."""

    def wake(self) -> None:
        """Nothing."""


def fill_talking(database: Database, tom: people.Actor, criteria: Sequence[projects.Criterion]) -> dict[str, str]:
    """Tom is to choose in his second turn, Ann waits, Bob may say more, and Cem's policy failed; Tom rates by criteria in another project."""
    rules = projects.Rules(ties="allowed", both_bad=True)
    project = projects.create_project(database, "chat", kind="chat", votes_per_item=1, calibration_items=0, rules=rules)
    with database.read() as rows:
        names = {person.name: person.id for person in rows.scalars(sa.select(Person))}
    for name, is_broken in (("Tom", False), ("Bob", False), ("Cem", True)):
        who = people.Actor(person_id=names[name], name=name, role="rater")
        chat = say(database, who, project.id, chat_id="", text=QUESTIONS[0], key=new_key())
        _answer(database, TwoGardeners(is_broken=is_broken))
        if not is_broken:
            _choose_left(database, who, chat)
        if who.person_id == tom.person_id:
            say(database, who, project.id, chat_id=chat, text="They are small, with rings.", key=new_key())
            _answer(database, TwoGardeners())
    ann = people.Actor(person_id=names["Ann"], name="Ann", role="rater")
    judged = projects.create_project(
        database,
        "chat by criteria",
        kind="chat",
        votes_per_item=1,
        calibration_items=0,
        rules=replace(rules, criteria=tuple(criteria)),
    )
    say(database, tom, judged.id, chat_id="", text=QUESTIONS[0], key=new_key())
    _answer(database, TwoGardeners())
    say(database, ann, project.id, chat_id="", text=QUESTIONS[1], key=new_key())
    silent = projects.create_project(
        database, "silent", kind="chat", votes_per_item=1, calibration_items=0, rules=rules
    )
    return {"talk": project.id, "judged": judged.id, "silent": silent.id}


def _answer(database: Database, policy: TwoGardeners) -> None:
    talker = Talker(database, policy)
    while talker.answer_next():
        pass


def _choose_left(database: Database, who: people.Actor, chat: str) -> None:
    with database.read() as rows:
        turn = rows.get(ChatTurn, (chat, 0))
    assert turn is not None and turn.assignment_id is not None, "the policy has answered"
    verdicts.submit(
        database, who, turn.assignment_id, Submission(key=new_key(), choice="left", strength=2, guideline_version=1)
    )
