"""A project whose pairs ask for languages and a skill, for `annotation_pages`: its test passed, not passed, begun and waived."""

import dataclasses
from collections.abc import Callable, Mapping

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.web import abilities, anchors, importing, projects, qualification, queue, scoring, steering, verdicts
from fairlead.web.frames import is_swapped
from fairlead.web.policy import Actor

NEED = "skill:code"
TEXTS = ("It sorts the list in place.", "It returns a sorted copy; the list stays as it was.")
ASKED = (
    ({}, 8),
    ({"language": "de"}, 14),
    ({"language": "de", "skills": ["code"]}, 9),
    ({"skills": ["code"]}, 21),
    ({"language": "fi"}, 5),
)


def _pair(number: int, meta: Mapping[str, object], say: Callable[[str], str]) -> importing.NewItem:
    prompt = Prompt(messages=(Message(role="user", content=say(f"What does line {number} of this program do?")),), meta=meta)  # fmt: skip
    return importing.NewItem.of(prompt, (Completion(prompt_id=prompt.id, text=say(text), model="m") for text in TEXTS))


def fill_skills(
    database: Database, lead: Actor, raters: Mapping[str, Actor], say: Callable[[str], str] = str
) -> dict[str, str]:
    """Make it.

    Args:
        raters: Bob passes the test, Eva does not, Cem is in the middle of it, Dan is let in without it.
    Returns:
        Ids for the paths of pages.
    """
    rules = projects.Rules(ties="allowed", both_bad=True)
    made = projects.create_project(database, "programs", votes_per_item=2, calibration_items=0, rules=rules)
    numbers = iter(range(10_000))
    importing.add_items(database, made.id, [_pair(next(numbers), meta, say) for meta, num in ASKED for _ in range(num)])
    gold = [dataclasses.replace(_pair(next(numbers), {}, say), answer="a") for _ in range(26)]
    anchors.add_gold(database, made.id, gold, by=lead.person_id, qualifies=NEED)
    known = {"Bob": ("language:de", "language:en", NEED), "Cem": ("language:de",), "Dan": (NEED,), "Eva": ("language:en", NEED)}  # fmt: skip
    for name, had in known.items():
        abilities.set_abilities(database, raters[name].person_id, had, by=lead.person_id)
    for name, num, num_right in (("Bob", 20, 17), ("Eva", 20, 13), ("Cem", 6, 6)):
        qualification.begin(database, raters[name], made.id, NEED)
        for i in range(num):
            _answer(database, raters[name], made.id, is_right=i < num_right)
    qualification.waive(database, made.id, raters["Dan"].person_id, NEED, by=lead.person_id, reason=say("wrote the test")[:500])  # fmt: skip
    steering.change_settings(database, made.id, by=lead.person_id, votes_per_item=2, random_share=0.3, choice_batch=10)
    given = [scoring.GivenScore(completion_id="", text=text, value=0.4) for text in map(say, TEXTS)]
    scoring.put_scores(database, made.id, given, by=lead.person_id)
    for name, num in (("Dan", 14), ("Bob", 20)):
        for i in range(num):
            _answer(database, raters[name], made.id, is_right=name == "Dan" or i % 3 > 0)
    return {"skilled": made.id}


def _answer(database: Database, who: Actor, project_id: str, *, is_right: bool) -> None:
    found = queue.next_assignment(database, who, project_id)
    assert isinstance(found, queue.Assignment), f"there are too few pairs for {who.name}"
    choice = "left" if is_right != is_swapped(found.shown) else "right"
    sent = verdicts.Submission(key=verdicts.new_key(), choice=choice, strength=2, guideline_version=1)
    verdicts.submit(database, who, found.id, sent)
