"""What reviews say: of each writer how much is accepted as it stands, of each reviewer what they decide, and what becomes of the texts.

Every reply is read by one person, so that reviewers cannot be held against each other on one reply; replies are handed out in the order in
which they come in, so that their shares can be compared where they read many.

Example:
    found = reviews_of(database, project_id).value
    found.accepted.value, found.accepted.low      # share of reviewed replies accepted as they were handed in
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa

from fairlead.stats.intervals import Interval, undefined, wilson
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Event, Person, Prompt
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.demonstrations.derive import MOST_KEPT, REVIEWED, WRITTEN
from fairlead.web.excerpts import excerpt_of_prompt

OUTCOMES = ("accepted", "changed", "rewritten", "returned")
"""As it was handed in, with changes, with so many that it is a new reply, sent back."""
NUM_CHANGED = 15


@dataclass(slots=True, kw_only=True)
class Tally:
    """Reviews of one person's replies, or by one person."""

    name: str
    num_written: int = 0
    """Replies handed in, those written anew after a review among them; of writers only."""
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    @property
    def num(self) -> int:
        """Reviews."""
        return sum(self.outcomes.values())

    def share(self, outcome: str) -> Interval:
        """Share of the reviews with this outcome; Wilson's interval."""
        return wilson(self.outcomes[outcome], self.num) if self.num else undefined("no review yet", n=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """An accepted reply of which its reviewer changed most."""

    about: str
    kept: float
    """Share of the author's words that stayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """All reviews of a project."""

    writers: tuple[Tally, ...]
    reviewers: tuple[Tally, ...]
    all_reviews: Tally
    changed: tuple[Changed, ...]
    num_words: tuple[int, ...]
    """Words of accepted replies: the quarter below, the middle, the quarter above; empty without any."""
    from_draft: float | None
    """Mean share of the draft in accepted replies that began as one; None without any."""
    num_accepted: int
    num_drafted: int


def reviews_of(database: Database, project_id: str) -> Kept[Reviews]:
    """At most a minute old."""
    return keep(database, project_id, "reviews", lambda: _read(database, project_id), reads_votes=False)


def _read(database: Database, project_id: str) -> Reviews:
    with database.read() as rows:
        names = {row[0]: row[1] for row in rows.execute(sa.select(Person.id, Person.name))}
        writing_of = {
            row[0]: row[1]
            for row in rows.execute(
                sa.select(WritingTask.id, WritingTask.writing_id).where(WritingTask.project_id == project_id)
            )
        }
        events = rows.scalars(
            sa.select(Event).where(Event.project_id == project_id, Event.kind.in_((WRITTEN, REVIEWED))).order_by(Event.number)
        ).all()  # fmt: skip
        writers, reviewers, everybody = tally(events, names, writing_of)
        accepted = rows.scalars(
            sa.select(Demonstration).where(Demonstration.project_id == project_id, Demonstration.state == "accepted")
        ).all()  # fmt: skip
        changed = _changed(rows, accepted)
    words = [len(each.text.split()) for each in accepted]
    drafted = [each.from_draft for each in accepted if each.is_drafted]
    return Reviews(
        writers=writers, reviewers=reviewers, all_reviews=everybody, changed=changed, num_accepted=len(accepted), num_drafted=len(drafted),
        num_words=tuple(round(float(part)) for part in np.percentile(words, (25, 50, 75))) if words else (),
        from_draft=sum(drafted) / len(drafted) if drafted else None,
    )  # fmt: skip


def tally(
    events: Iterable[Event], names: dict[str, str], writing_of: dict[str, str]
) -> tuple[tuple[Tally, ...], tuple[Tally, ...], Tally]:
    """Count by writer, by reviewer, and all. An edit that leaves less than half is a new reply, whose writer is the reviewer."""
    writers: dict[str, Tally] = {}
    reviewers: dict[str, Tally] = {}
    everybody, author = Tally(name=""), dict[str, str]()
    for event in events:
        person, content = str(event.person_id), event.content
        writing = writing_of[content["task"]]
        if event.kind == WRITTEN:
            author[writing] = person
            writers.setdefault(person, Tally(name=names[person])).num_written += 1
            continue
        outcome = _outcome(content)
        for count in (writers[author[writing]], reviewers.setdefault(person, Tally(name=names[person])), everybody):
            count.outcomes[outcome] += 1
        if outcome == "rewritten":
            author[writing] = person
            writers.setdefault(person, Tally(name=names[person])).num_written += 1
    by_name = [tuple(sorted(found.values(), key=lambda each: each.name.lower())) for found in (writers, reviewers)]
    return by_name[0], by_name[1], everybody


def _outcome(content: dict[str, object]) -> str:
    if content["decision"] == "accept":
        return "accepted"
    if content["decision"] == "return":
        return "returned"
    kept = content["kept"]
    assert isinstance(kept, float | int), "an edit says how much of the reply it keeps"
    return "changed" if kept >= MOST_KEPT else "rewritten"


def _changed(rows: Rows, accepted: Iterable[Demonstration]) -> tuple[Changed, ...]:
    most = sorted((each for each in accepted if each.is_edited), key=lambda each: (each.review_kept, each.writing_id))[
        :NUM_CHANGED
    ]
    return tuple(Changed(about=_beginning(rows, each.writing_id), kept=each.review_kept) for each in most)


def _beginning(rows: Rows, writing_id: str) -> str:
    writing = rows.get(Writing, writing_id)
    assert writing is not None, f"writing {writing_id} is not there"
    prompt = rows.get(Prompt, (writing.project_id, writing.prompt_id))
    assert prompt is not None, f"writing {writing_id} lacks its prompt"
    return excerpt_of_prompt(prompt.record)
