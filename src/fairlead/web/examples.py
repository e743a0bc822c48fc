"""A disputed item as a borderline example of the next guideline: quoted, with its votes counted and the answer left to the lead."""

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Item, Verdict
from fairlead.web.errors import missing
from fairlead.web.importing import texts_of

HEADING = "## Borderline examples"
MAX_QUOTE = 1_200
"""Characters of a text; an example is read in a minute."""


def with_example(rows: Rows, project_id: str, text: str, item_id: str) -> str:
    """The guideline with one more example at its end. Replies are called first and second, in an order that says nothing.

    Raises:
        Refused: the item is not there.
    """
    item = rows.get(Item, item_id)
    if item is None or item.project_id != project_id:
        raise missing("This item")
    whole = texts_of(rows, item)
    first, second = (completion.text for completion in whole.completions[:2])
    found = rows.execute(
        sa.select(Verdict.verdict, sa.func.count()).where(Verdict.item_id == item_id, Verdict.verdict != "skip").group_by(Verdict.verdict)
    ).all()  # fmt: skip
    counted = {row[0]: row[1] for row in found}
    votes = ", ".join(f"{counted[label]} {words}" for label, words in _WORDS.items() if label in counted)
    decision = rows.get(Decision, item_id)
    answer = (
        f"{_ANSWERS[decision.verdict]} {decision.reason}"
        if decision
        else "WRITE WHICH REPLY IS BETTER BY THIS GUIDELINE, AND WHY."
    )
    parts = [text.rstrip(), *([] if HEADING in text else [HEADING]), "### Example", "Asked:", _quoted(whole.prompt.messages[-1].content),
             "First reply:", _quoted(first), "Second reply:", _quoted(second), f"Raters said: {votes or 'nothing yet'}.",
             f"**By this guideline**: {answer}"]  # fmt: skip
    return "\n\n".join(parts) + "\n"


_WORDS = {"a": "for the first", "b": "for the second", "tie": "equally good", "both_bad": "both bad"}
_ANSWERS = {
    "a": "The first is better.",
    "b": "The second is better.",
    "tie": "They are equally good.",
    "both_bad": "Both are bad.",
}


def _quoted(text: str) -> str:
    shown = text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]} ..."
    return "\n".join(f"> {line}" if line else ">" for line in shown.splitlines()) or ">"
