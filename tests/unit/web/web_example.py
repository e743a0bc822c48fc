"""Pairs to rate, and how a test rates them."""

import secrets

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Assignment, Project
from fairlead.web import queue
from fairlead.web.importing import NewItem
from fairlead.web.policy import Actor
from fairlead.web.verdicts import Submission


def pairs(num: int, *, prefix: str = "question") -> list[NewItem]:
    """Different prompts with two different replies."""
    made = []
    for i in range(num):
        prompt = Prompt(messages=(Message(role="user", content=f"{prefix} {i}"),))
        texts = (
            Completion(prompt_id=prompt.id, text=f"{word} reply to {i}", model=model)
            for word, model in (("good", "m1"), ("bad", "m2"))
        )
        made.append(NewItem.of(prompt, texts))
    return made


def sets(num: int, *, size: int = 4, prefix: str = "ranked") -> list[NewItem]:
    """Different prompts with several replies; the text says how good each is, 0 the best."""
    made = []
    for i in range(num):
        prompt = Prompt(messages=(Message(role="user", content=f"{prefix} {i}"),))
        texts = (Completion(prompt_id=prompt.id, text=f"quality {q} of {i}", model=f"m{q}") for q in range(size))
        made.append(NewItem.of(prompt, texts))
    return made


def take(database: Database, actor: Actor, project: Project) -> Assignment:
    """The next item of a rater."""
    found = queue.next_assignment(database, actor, project.id)
    assert isinstance(found, Assignment), found
    return found


def vote(choice: str = "left", **changes) -> Submission:
    """A submission with a key of its own."""
    strength = 2 if choice in ("left", "right") else 0
    reason = "unclear" if choice == "skip" else ""
    values = {
        "key": secrets.token_hex(16),
        "choice": choice,
        "strength": strength,
        "skip_reason": reason,
        "guideline_version": 1,
    }
    return Submission(**{**values, **changes})
