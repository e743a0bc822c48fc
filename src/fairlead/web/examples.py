"""A disputed item as a borderline example of the next guideline: quoted, with its votes counted and the answer left to the lead."""

from collections import Counter

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
    """The guideline with one more example at its end. Replies are called first and second, or numbered, in an order that says nothing.

    Raises:
        Refused: the item is not there.
    """
    item = rows.get(Item, item_id)
    if item is None or item.project_id != project_id:
        raise missing("This item")
    whole = texts_of(rows, item)
    names = (
        ("First", "Second")
        if len(whole.completions) == 2
        else [f"Reply {i + 1}" for i in range(len(whole.completions))]
    )
    replies = [part for name, completion in zip(names, whole.completions, strict=True)
               for part in (f"{name} reply:" if len(names) == 2 else f"{name}:", _quoted(completion.text))]  # fmt: skip
    said = rows.scalars(
        sa.select(Verdict).where(Verdict.item_id == item_id, Verdict.verdict != "skip").order_by(Verdict.event_number)
    )
    counted = Counter(_words(verdict, num=len(names)) for verdict in said)
    votes = ", ".join(
        f"{num} {words}" for words, num in sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    decision = rows.get(Decision, item_id)
    answer = (
        f"{_answer(decision, num=len(names))} {decision.reason}"
        if decision
        else "WRITE WHICH REPLY IS BETTER BY THIS GUIDELINE, AND WHY."
    )
    parts = [text.rstrip(), *([] if HEADING in text else [HEADING]), "### Example", "Asked:", _quoted(whole.prompt.messages[-1].content),
             *replies, f"Raters said: {votes or 'nothing yet'}.", f"**By this guideline**: {answer}"]  # fmt: skip
    return "\n\n".join(parts) + "\n"


_WORDS = {"a": "for the first", "b": "for the second", "tie": "equally good", "both_bad": "both bad"}
_ANSWERS = {
    "a": "The first is better.",
    "b": "The second is better.",
    "tie": "They are equally good.",
    "both_bad": "Both are bad.",
}


def _words(said: Verdict | Decision, *, num: int) -> str:
    if num == 2:
        return _WORDS[said.verdict]
    order = " > ".join(" = ".join(str(position + 1) for position in tied) for tied in said.ranking)
    return f"for {order}" if order else "all bad"


def _answer(decision: Decision, *, num: int) -> str:
    if num == 2:
        return _ANSWERS[decision.verdict]
    return f"{_words(decision, num=num).removeprefix('for ').capitalize()}."


def _quoted(text: str) -> str:
    shown = text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]} ..."
    return "\n".join(f"> {line}" if line else ">" for line in shown.splitlines()) or ">"
