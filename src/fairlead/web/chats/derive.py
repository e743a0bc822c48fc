"""What follows from the events about conversations, live and in a replay."""

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Event
from fairlead.store.annotation.talked import ChatTurn

SAID, REPLIED, FAILED, ASKED_AGAIN = "chat.said", "chat.replied", "chat.failed", "chat.asked_again"
KINDS = (SAID, REPLIED, FAILED, ASKED_AGAIN)


def follow(rows: Rows, event: Event) -> None:
    """Bring the turns up to date with one event of `KINDS`."""
    content = event.content
    if event.kind == SAID:
        rows.add(ChatTurn(
            chat_id=content["chat"], number=content["number"], project_id=event.project_id, person_id=event.person_id, tries=0,
            event_number=event.number, prompt_id=content["prompt_id"], seed=content["seed"], state="waiting", failure="",
        ))  # fmt: skip
        rows.flush()
        return
    turn = rows.get(ChatTurn, (content["chat"], content["number"]))
    assert turn is not None, f"event {event.number} names a turn that is not there"
    turn.failure = ""
    if event.kind == REPLIED:
        turn.state, turn.assignment_id = "ready", event.assignment_id
    elif event.kind == FAILED:
        turn.state, turn.failure = "failed", content["failure"]
    else:
        turn.state, turn.tries, turn.seed = "waiting", turn.tries + 1, content["seed"]


def forget_derived(rows: Rows) -> None:
    """As if nobody had said anything."""
    rows.execute(sa.delete(ChatTurn))
