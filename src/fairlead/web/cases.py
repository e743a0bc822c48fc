"""An item with its votes as one reader sees it: nobody named, the replies in an order of this reader's own.

Example:
    case = case_of(rows, item, actor.person_id)
    case.said[0].words      # Left is much better, or 2 > 1 = 3
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from markupsafe import Markup

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Flag, Item, Verdict
from fairlead.web.disputes import drawn_for
from fairlead.web.importing import texts_of
from fairlead.web.projects import Rules, current_guideline, rules_of
from fairlead.web.rendering import to_html
from fairlead.web.showing import BINARY, GRADED, Option, Side, Turn, options_of, side_names, turns_of

_STRENGTHS = {0: "is better", 1: "is slightly better", 2: "is better", 3: "is much better"}
_OTHER = {"tie": "Equally good", "both_bad": "Both bad", "skip": "Skipped"}
_MAX_QUOTE = 200
"""Characters of a marked passage that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage that a rater marked."""

    where: str
    """Left reply, or Reply 3."""
    label: str
    """good or bad."""
    quote: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One vote; who gave it is not told."""

    name: str
    """Rater A, Rater B: new letters for every item, so that nobody can be followed from one to the next."""
    words: str
    choice: str
    """left, right, tie, both_bad or skip, as on this page; ranked of three or more."""
    ratings: str
    """By criterion, in the order of the page."""
    rationale: str
    note: str
    """Of a flag."""
    passages: tuple[Passage, ...]
    edit: str
    """A reply as the rater would have it; empty where nothing was edited."""
    edit_of: str
    guideline_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A disputed item on the screen of one reader."""

    item_id: str
    use: str
    turns: tuple[Turn, ...]
    sides: tuple[Side, ...]
    """The replies, in an order that is drawn for this reader."""
    options: tuple[Option, ...]
    """Decisions that the newest guideline allows; beside the places, of three or more."""
    rules: Rules
    guideline_version: int
    said: tuple[Said, ...]
    is_own: bool
    """This reader voted on it: somebody else decides."""
    decided: str
    """The choice that was made, as on this page (left, tie, ranked, ...); empty before."""
    decided_words: str
    given: dict[str, str]
    """The decision as fields of the form; empty before."""
    reason: str
    decided_under: int | None


def order_for(item_id: str, person_id: str, num: int) -> str:
    """Canonical positions from left to right for this reader, a digit each; the same whenever the page is loaded."""
    rest, left, order = drawn_for(item_id, person_id), list(range(num)), ""
    for size in range(num, 0, -1):
        rest, at = divmod(rest, size)
        order += str(left.pop(at))
    return order


def case_of(rows: Rows, item: Item, person_id: str) -> Case:
    """The item as this reader sees it."""
    whole, shown = texts_of(rows, item), order_for(item.id, person_id, len(item.completions))
    texts = [whole.completions[int(digit)].text for digit in shown]
    guideline = current_guideline(rows, item.project_id)
    found = rows.execute(
        sa.select(Verdict, Flag.note).outerjoin(Flag, Flag.assignment_id == Verdict.assignment_id).where(Verdict.item_id == item.id)
    ).all()  # fmt: skip
    ordered = sorted(found, key=lambda row: drawn_for(item.id, row[0].person_id))
    decision = rows.get(Decision, item.id)
    canonical = [completion.text for completion in whole.completions]
    names, num = side_names(len(shown)), len(shown)
    return Case(
        item_id=item.id, use=item.use, turns=turns_of(whole.prompt), options=_options(options_of(guideline, num=num), guideline.scale, num=num),
        sides=tuple(Side(name=name, title=title, text=to_html(text), marked=None, written=Markup(), raw="")
                    for (name, title), text in zip(names, texts, strict=True)),
        rules=rules_of(guideline), guideline_version=guideline.version,
        said=tuple(_said(number, verdict, note or "", shown=shown, texts=canonical) for number, (verdict, note) in enumerate(ordered)),
        is_own=any(verdict.person_id == person_id and verdict.verdict != "skip" for verdict, _ in found),
        decided=_choice(decision, shown) if decision else "", decided_words=_words(decision, shown) if decision else "",
        given=_fields(decision, shown) if decision else {}, reason=decision.reason if decision else "",
        decided_under=decision.guideline_version if decision else None,
    )  # fmt: skip


def _options(allowed: Sequence[Option], scale: str, *, num: int) -> tuple[Option, ...]:
    """A decision has no strength: of a graded scale the outer keys stay, so that no key means the other side here."""
    if scale != "graded" or num > 2:
        return tuple(allowed)
    keys = {"left0": GRADED[0].key, "right0": GRADED[6].key, "tie": GRADED[3].key}
    values = {option.value for option in allowed} | {"left0", "right0"}
    return tuple(Option(value=each.value, key=keys.get(each.value, each.key), label=each.label, side=each.side)
                 for each in BINARY if each.value in values)  # fmt: skip


def _choice(said: Verdict | Decision, shown: str) -> str:
    if said.verdict in ("both_bad", "skip"):
        return said.verdict
    if len(shown) > 2:
        return "ranked"
    if said.verdict == "tie":
        return "tie"
    return "left" if shown[0] == str(said.ranking[0][0]) else "right"


def _words(said: Verdict | Decision, shown: str) -> str:
    choice = _choice(said, shown)
    if choice == "ranked":
        at = {int(digit): str(place) for place, digit in enumerate(shown, start=1)}
        return " > ".join(" = ".join(sorted(at[position] for position in tied)) for tied in said.ranking)
    if choice in _OTHER:
        return "All bad" if choice == "both_bad" and len(shown) > 2 else _OTHER[choice]
    strength = said.strength if isinstance(said, Verdict) else 0
    return f"{choice.capitalize()} {_STRENGTHS[abs(strength)]}"


def _fields(decision: Decision, shown: str) -> dict[str, str]:
    choice = _choice(decision, shown)
    at = {int(digit): place for place, digit in enumerate(shown)}
    found = {"choice": f"{choice}0" if choice in ("left", "right") else "" if choice == "ranked" else choice}
    if choice == "ranked":
        for rank, tied in enumerate(decision.ranking, start=1):
            found |= {f"rank_{at[position]}": str(rank) for position in tied}
    for name, ratings in decision.criteria.items():
        found |= {f"rate_{name}_{at[position]}": str(rating) for position, rating in enumerate(ratings)}
    return found


def _said(number: int, verdict: Verdict, note: str, *, shown: str, texts: Sequence[str]) -> Said:
    titles = {int(digit): title for digit, (_, title) in zip(shown, side_names(len(shown)), strict=True)}
    passages = tuple(
        Passage(where=titles[span["completion"]], label=span["label"], note=span["note"],
                quote=_short(str(texts[int(span["completion"])])[span["start"] : span["end"]]))
        for span in verdict.spans
    )  # fmt: skip
    ratings = "; ".join(f"{name} {', '.join(str(given[int(digit)]) for digit in shown)}" for name, given in verdict.criteria.items())  # fmt: skip
    return Said(
        name=f"Rater {_letters(number)}", words=_words(verdict, shown), choice=_choice(verdict, shown), ratings=ratings,
        rationale=verdict.rationale, note=note, passages=passages, edit=verdict.edited_text,
        edit_of="" if verdict.edited is None else titles[verdict.edited], guideline_version=verdict.guideline_version,
    )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= _MAX_QUOTE else f"{text[: _MAX_QUOTE - 3]}..."


def _letters(number: int) -> str:
    return chr(65 + number) if number < 26 else f"{chr(64 + number // 26)}{chr(65 + number % 26)}"
