"""Projects in which there is nothing to rate, each for another reason, for the pictures and checks of `annotation_pages`."""

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Assignment, Project
from fairlead.web import importing, projects, queue, verdicts
from fairlead.web.policy import Actor

WHY = "rolling kappa 0.21, 95 % interval 0.05 to 0.37, newest 60 pairs, lies below 0.4"


def _pair(number: int, say: Callable[[str], str], meta: Mapping[str, object]) -> importing.NewItem:
    prompt = Prompt(messages=(Message(role="user", content=say(f"Which is larger, {number} or **{number + 1}**?")),), meta=meta)  # fmt: skip
    texts = (f"{number + 1} is.", f"{number} is, for it comes first.")
    return importing.NewItem.of(prompt, (Completion(prompt_id=prompt.id, text=say(text), model="m") for text in texts))


def fill_states(database: Database, raters: Mapping[str, Actor], say: Callable[[str], str] = str) -> dict[str, str]:
    """Bob has rated all of one, holds the only pair of another and its like in Finnish is for nobody; one paused by itself, one is cut off.

    Returns:
        Ids for the paths of pages.
    """
    rules = projects.Rules(ties="allowed", both_bad=True)
    made: dict[str, Project] = {}
    for name, num, meta in (
        ("all done", 1, {}), ("in other hands", 1, {}), ("in Finnish", 1, {"language": "fi"}), ("stopped", 2, {}), ("cut off", 3, {}),
    ):  # fmt: skip
        made[name] = projects.create_project(database, name, votes_per_item=1, calibration_items=0, rules=rules)
        importing.add_items(database, made[name].id, [_pair(number, say, meta) for number in range(num)])
    done = queue.next_assignment(database, raters["Bob"], made["all done"].id)
    assert isinstance(done, Assignment), done
    sent = verdicts.Submission(key=verdicts.new_key(), choice="left", strength=2, guideline_version=1)
    verdicts.submit(database, raters["Bob"], done.id, sent)
    assert isinstance(queue.next_assignment(database, raters["Bob"], made["in other hands"].id), Assignment)
    with database.write() as rows:
        rows.execute(sa.update(Project).where(Project.id == made["stopped"].id).values(state="paused", state_reason=WHY))  # fmt: skip
    return {"done": made["all done"].id, "earlier": done.id, "held": made["in other hands"].id, "finnish": made["in Finnish"].id,
            "paused": made["stopped"].id, "cut": made["cut off"].id}  # fmt: skip
