"""Made-up demonstrations for the pictures and checks of `annotation_pages`."""

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.written import WritingTask
from fairlead.web import people, projects
from fairlead.web.demonstrations import actions, desk, transfer
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
    return {"writing": project.id, "blank": blank.id, "returned": returned.id}


def _wanted(question: str) -> transfer.Wanted:
    turns = (Message(role="system", content="You are a helpful assistant."), Message(role="user", content=question))
    prompt = Prompt(messages=turns)
    return transfer.Wanted(prompt=prompt, draft=Completion(prompt_id=prompt.id, text=DRAFT, model="m"))


def _next(database: Database, who: people.Actor, project_id: str) -> WritingTask:
    found = desk.next_task(database, who, project_id)
    assert isinstance(found, WritingTask), found
    return found
