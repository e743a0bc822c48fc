"""Rated items of any tool as pairs with their votes, added up together, so that raters are known from all of their work.

A ranking of more than two replies is a vote on each of its pairs; an edited reply wins against each reply of its item, by a vote of who wrote
it. What an adjudicator decided (`meta.decision`; of a ranking with its `ranking`) stands above the votes on its pairs, as in a recipe.

Example:
    gathered = gather(items)
    outcome = add_up(gathered, method="one_coin")
    preferences = list(item_preferences(items, method="auto").preferences)
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.core.annotations import RatedItem, RatedItems, Rating, asked_in, inclusion_in
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.records import Completion, Preference, Prompt, Task
from fairlead.preferences.aggregate import Method, Outcome, PairOutcome, Verdicts, choose_method
from fairlead.preferences.decisions import aggregate_decided, decisions_in
from fairlead.preferences.pairs import EDITED_FROM, Candidate, Ledger, Rules, build_preferences


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two replies of an item and what was said of them."""

    task: Task
    """Its id is the item's, and of a ranking the replies' too."""
    prompt: Prompt
    a: Completion
    b: Completion
    names: tuple[str, str]
    """Of a and b as their source names them."""
    votes: tuple[tuple[Rating, str], ...]
    """With what each says of this pair: a, b, tie, both_bad or skip."""
    has_sides: bool = False
    """The two stood side by side; not so those of a ranking, nor an edit and what it mends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The votes on all pairs of all items, without texts."""

    items: RatedItems
    verdicts: Verdicts
    decided: Mapping[str, str]
    """By task: what an adjudicator decided."""
    has_inclusion: bool
    """Some items were chosen actively and say so."""

    def pairs(self) -> Iterator[Pair]:
        """With their texts, made anew each time."""
        return (pair for item in self.items for pair in pairs_of(item))

    def completions(self) -> dict[str, tuple[str, str]]:
        """Ids of both replies by task."""
        return {pair.task.id: (pair.task.completion_a, pair.task.completion_b) for pair in self.pairs()}


def pairs_of(item: RatedItem) -> tuple[Pair, ...]:
    """Every two replies of an item, then its edited replies against each of them."""
    return (*_pairs(item), *_edited(item))


def gather(items: RatedItems) -> Gathered:
    """Go through all items once, and keep who said what of which pair."""
    swapped: list[bool | None] = []
    decided: dict[str, str] = {}
    has_inclusion = False

    def said() -> Iterator[tuple[str, str, str]]:
        nonlocal has_inclusion
        for item in items:
            has_inclusion = has_inclusion or bool(inclusion_in(item.meta))
            for pair in pairs_of(item):
                decided.update(decisions_in([pair.task]))
                for rating, verdict in pair.votes:
                    swapped.append(rating.swapped if pair.has_sides else None)
                    yield pair.task.id, rating.rater, verdict

    verdicts = Verdicts.from_rows(said(), swapped=swapped)
    return Gathered(items=items, verdicts=verdicts, decided=decided, has_inclusion=has_inclusion)


def named_method(method: str, verdicts: Verdicts) -> Method:
    """The method itself, chosen by the votes for `auto`.

    Raises:
        ConfigError: it is not known.
    """
    known = (*typing.get_args(Method), "auto")
    if method not in known:
        raise ConfigError(
            explain(
                "method",
                method,
                f"is not known{nearest(method, known)}",
                expected=", ".join(known),
                remedy="Choose one of them",
            )
        )
    return choose_method(typing.cast(Any, method), verdicts)


def add_up(gathered: Gathered, *, method: Method) -> Outcome:
    """What each pair becomes under a method."""
    completions = gathered.completions() if method == "bradley_terry" else None
    return aggregate_decided(gathered.verdicts, gathered.decided, method=method, completions=completions)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ItemPreferences:
    """Preferences of all items in their order, made one by one as they are gone through, once; ties are kept as ties."""

    preferences: Iterator[Preference]
    ledger: Ledger
    """What was left out so far."""
    method: Method
    """By which the votes were added up."""
    has_inclusion: bool
    """Some pairs were chosen actively and say so."""


def item_preferences(items: RatedItems, *, method: str = "auto") -> ItemPreferences:
    """Add the votes of all items up, so that each pair can be written as a preference."""
    gathered = gather(items)
    chosen = named_method(method, gathered.verdicts)
    ledger = Ledger()
    found = _preferences(gathered, add_up(gathered, method=chosen), ledger)
    return ItemPreferences(preferences=found, ledger=ledger, method=chosen, has_inclusion=gathered.has_inclusion)


def _preferences(gathered: Gathered, outcome: Outcome, ledger: Ledger) -> Iterator[Preference]:
    for pair in gathered.pairs():
        name = pair.task.id
        candidate = Candidate(task=pair.task, prompt=pair.prompt, a=pair.a, b=pair.b, outcome=outcome.pairs.get(name),
                              judgments=tuple(_name(rating, pair.task) for rating, _ in pair.votes))  # fmt: skip
        for made in build_preferences([candidate], rules=Rules(ties="keep"), ledger=ledger):
            yield _described(made, pair, outcome, is_decided=name in gathered.decided)


def _described(preference: Preference, pair: Pair, outcome: Outcome, *, is_decided: bool) -> Preference:
    """Method, strengths in the frame of the preference, who wrote what, what it asks of raters, whether an adjudicator decided: kept in meta."""
    is_first = preference.chosen_id == pair.a.id
    votes = [rating.strength for rating, _ in pair.votes]
    extra: dict[str, Any] = {
        "method": outcome.method,
        **asked_in(pair.task.meta),
        **_gap(outcome.pairs[pair.task.id], is_first=is_first),
    }
    if is_decided:
        extra["is_decided"] = True
    if EDITED_FROM in pair.task.meta:
        extra[EDITED_FROM] = pair.task.meta[EDITED_FROM]
    elif any(votes):
        extra["votes"] = [vote if is_first else -vote for vote in votes]
    for name, side in (
        ("chosen_model", pair.a if is_first else pair.b),
        ("rejected_model", pair.b if is_first else pair.a),
    ):
        if side.model:
            extra[name] = side.model
    return dataclasses.replace(preference, meta={**preference.meta, **extra})


def _gap(found: PairOutcome, *, is_first: bool) -> dict[str, float]:
    """Of Bradley-Terry: how much higher the chosen side's score is, with its standard error."""
    if found.score_gap is None or found.score_gap_error is None:
        return {}
    return {"score_gap": found.score_gap if is_first else -found.score_gap, "score_gap_error": found.score_gap_error}


def _prompt_and_replies(item: RatedItem) -> tuple[Prompt, list[Completion]]:
    prompt = Prompt(messages=item.prompt, slice=item.slice, source=item.source, split=item.split)
    return prompt, [Completion(prompt_id=prompt.id, text=reply.text, model=reply.model) for reply in item.replies]


def _pairs(item: RatedItem) -> list[Pair]:
    prompt, completions = _prompt_and_replies(item)
    is_pair = len(item.replies) == 2
    found: list[Pair] = []
    for i, first in enumerate(item.replies):
        for j in range(i + 1, len(item.replies)):
            second = item.replies[j]
            name = item.item or item.id
            meta = _came_with(item) | _decision_on(item, first.id, second.id)
            task = Task(prompt_id=prompt.id, completion_a=completions[i].id, completion_b=completions[j].id,
                        id=name if is_pair else f"{name}:{first.id}:{second.id}", meta=meta)  # fmt: skip
            said = [(rating, _vote(rating, first.id, second.id, is_pair=is_pair)) for rating in item.ratings]
            votes = tuple((rating, verdict) for rating, verdict in said if verdict is not None)
            found.append(
                Pair(
                    task=task,
                    prompt=prompt,
                    a=completions[i],
                    b=completions[j],
                    names=(first.id, second.id),
                    votes=votes,
                    has_sides=is_pair,
                )
            )
    return found


def _edited(item: RatedItem) -> list[Pair]:
    """An edited reply against each reply of its item; two raters who write the same vote on the same pairs."""
    prompt, completions = _prompt_and_replies(item)
    at = {reply.id: completion for reply, completion in zip(item.replies, completions, strict=True)}
    written: dict[str, list[tuple[Rating, str]]] = {}
    sources: dict[str, str] = {}
    for rating in item.ratings:
        for source, text in rating.edits.items():
            written.setdefault(text, []).append((rating, "a"))
            sources.setdefault(text, source)
    found: list[Pair] = []
    for number, (text, votes) in enumerate(written.items()):
        better = Completion(prompt_id=prompt.id, text=text, model=f"edited by {votes[0][0].rater}")
        for name, other in at.items():
            task = Task(prompt_id=prompt.id, completion_a=better.id, completion_b=other.id, id=f"{item.item or item.id}:edit-{number}:{name}",
                        meta={**_came_with(item), EDITED_FROM: at[sources[text]].id})  # fmt: skip
            found.append(Pair(task=task, prompt=prompt, a=better, b=other, names=("", name), votes=tuple(votes)))
    return found


def _came_with(item: RatedItem) -> dict[str, Any]:
    """How an item came in and what it asks of its raters, as the meta of its tasks."""
    return inclusion_in(item.meta) | asked_in(item.meta)


def _decision_on(item: RatedItem, first: str, second: str) -> dict[str, Any]:
    """What the item's decision says of two of its replies, as the meta of their task; nothing where it does not place both."""
    decision = item.meta.get("decision")
    if not isinstance(decision, Mapping):
        return {}
    if "ranking" not in decision or decision["verdict"] == "both_bad":
        return {"decision": decision}
    places = {name: place for place, tied in enumerate(decision["ranking"]) for name in tied}
    if not {first, second} <= places.keys():
        return {}
    gap = places[first] - places[second]
    return {"decision": {**decision, "verdict": "tie" if gap == 0 else "a" if gap < 0 else "b"}}


def _vote(rating: Rating, first: str, second: str, *, is_pair: bool) -> str | None:
    if is_pair and rating.verdict is not None:
        return rating.verdict
    places = {name: place for place, tied in enumerate(rating.ranking) for name in tied}
    if first not in places or second not in places or rating.verdict == "skip":
        return None
    gap = places[first] - places[second]
    return "tie" if gap == 0 else "a" if gap < 0 else "b"


def _name(rating: Rating, task: Task) -> str:
    return rating.source_id or f"{task.id}/{rating.rater}"
