"""Aggregated pairs to preferences: direction, ties, margins, splits by prompt, duplicates; every pair is accounted for.

Example:
    ledger = Ledger()
    kept = build_preferences(candidates, rules=Rules(ties="drop"), ledger=ledger)
    kept, num_heldout = split_by_prompt(drop_repeats(kept, ledger), heldout=0.1)
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.core.annotations import inclusion_in
from fairlead.core.records import Completion, Judgment, Messages, Preference, Prompt, Task, content_hash
from fairlead.preferences.aggregate import PairOutcome

EDITED_FROM = "edited_from"
"""In a task's meta: one of its replies is a rater's edit of this completion."""
_MAX_MARGIN_P = 0.99  # a few unanimous votes do not show more: beyond it the log-odds measure the model of the raters
_HASH_RANGE = 16.0**13  # 52 bits of a content hash are an exact double


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What becomes of a pair."""

    min_votes: int = 1
    """Not asked of a pair with an edited reply: nobody but its writer is shown it."""
    min_posterior: float = 0.5
    ties: Literal["keep", "drop"] = "drop"
    margin: Literal["off", "log_odds"] = "off"


@dataclass(slots=True)
class Ledger:
    """Counts what was left out, by reason; `total_in == kept + total_dropped` at the end."""

    total_in: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])

    @property
    def total_dropped(self) -> int:
        """Pairs that gave no preference."""
        return self.dropped.total()

    def reasons(self) -> str:
        """Reasons with counts, most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pair with its votes counted."""

    task: Task
    prompt: Prompt
    a: Completion
    b: Completion
    outcome: PairOutcome | None
    """None when nobody voted."""
    judgments: tuple[str, ...]
    ratings: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """By criterion: mean rating of a and of b; rewards with attributes read them (`text.ratings`)."""


def mean_ratings(judgments: Iterable[Judgment]) -> dict[str, tuple[float, float]]:
    """Mean rating of a and of b by each criterion that the votes name; votes without ratings are left out."""
    given: dict[str, list[tuple[float, float]]] = {}
    for judgment in judgments:
        for name, (first, second) in judgment.meta.get("criteria", {}).items():
            given.setdefault(name, []).append((first, second))
    return {
        name: (sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs))
        for name, pairs in given.items()
    }


def build_preferences(candidates: Iterable[Candidate], *, rules: Rules, ledger: Ledger) -> list[Preference]:
    """Turn candidates into preferences in their order; what is left out is counted by reason."""
    kept: list[Preference] = []
    for candidate in candidates:
        ledger.total_in += 1
        found = _to_preference(candidate, rules)
        if isinstance(found, str):
            ledger.dropped[found] += 1
        else:
            kept.append(found)
    return kept


def _to_preference(candidate: Candidate, rules: Rules) -> Preference | str:
    """A preference, or the reason why there is none."""
    outcome, prompt = candidate.outcome, candidate.prompt
    if outcome is None:
        return "without a vote"
    if outcome.num_votes < rules.min_votes and EDITED_FROM not in candidate.task.meta:
        return f"with fewer than {rules.min_votes} votes"
    if candidate.a.text.strip() == candidate.b.text.strip():
        return "with equal texts"
    is_tie = outcome.p_chosen == 0.5 or outcome.p_chosen < rules.min_posterior
    if is_tie and rules.ties == "drop":
        return "tied"
    is_a = outcome.p_a >= 0.5
    chosen, rejected = (candidate.a, candidate.b) if is_a else (candidate.b, candidate.a)
    meta: dict[str, Any] = {"task_id": candidate.task.id, **inclusion_in(candidate.task.meta)}
    for name, (first, second) in candidate.ratings.items():
        meta[f"chosen_{name}"], meta[f"rejected_{name}"] = (first, second) if is_a else (second, first)
    return Preference(
        prompt=prompt.messages, chosen=chosen.text, rejected=rejected.text, p_chosen=outcome.p_chosen, is_tie=is_tie,
        margin=0.0 if is_tie or rules.margin == "off" else log_odds(outcome.p_chosen),
        num_votes=outcome.num_votes, agreement=outcome.agreement, prompt_id=prompt.id, chosen_id=chosen.id, rejected_id=rejected.id,
        judgments=candidate.judgments, slice=prompt.slice, source=prompt.source, split=prompt.split, meta=meta,
    )  # fmt: skip


def log_odds(p: float) -> float:
    """ln(p / (1 - p)), with p capped at 0.99: the score distance at which Bradley-Terry gives p."""
    capped = min(p, _MAX_MARGIN_P)
    return math.log(capped / (1 - capped))


def check_pairs(preferences: Iterable[Preference], *, rules: Rules, ledger: Ledger) -> list[Preference]:
    """Apply the same rules to preferences that come from a file; votes are checked only where the file gives them."""
    kept: list[Preference] = []
    for preference in preferences:
        ledger.total_in += 1
        is_tie = preference.is_tie or preference.p_chosen < rules.min_posterior
        if preference.chosen.strip() == preference.rejected.strip():
            ledger.dropped["with equal texts"] += 1
        elif 0 < preference.num_votes < rules.min_votes:
            ledger.dropped[f"with fewer than {rules.min_votes} votes"] += 1
        elif is_tie and rules.ties == "drop":
            ledger.dropped["tied"] += 1
        else:
            has_margin = rules.margin == "log_odds" and not is_tie and preference.p_chosen < 1
            margin = log_odds(preference.p_chosen) if has_margin else preference.margin
            kept.append(dataclasses.replace(preference, is_tie=is_tie, margin=margin, id=""))
    return kept


def drop_repeats(preferences: Sequence[Preference], ledger: Ledger) -> list[Preference]:
    """Of equal pairs keep the one with most votes, at the place of the first."""
    best: dict[str, Preference] = {}
    for preference in preferences:
        key = content_hash([_prompt_key(preference), preference.chosen, preference.rejected])
        known = best.get(key)
        if known is not None:
            ledger.dropped["repeating another pair"] += 1
        if known is None or preference.num_votes > known.num_votes:
            best[key] = preference
    return list(best.values())


def count_contradictions(preferences: Iterable[Preference]) -> int:
    """Pairs that also occur the other way round, each counted once."""
    decided = {(_prompt_key(p), p.chosen, p.rejected) for p in preferences if not p.is_tie}
    return sum((key, rejected, chosen) in decided for key, chosen, rejected in decided) // 2


def split_by_prompt(preferences: Sequence[Preference], *, heldout: float) -> list[Preference]:
    """Put whole prompts on one side.

    Splits that are already known (some pair is held out) are kept, and a prompt with pairs on both sides is held out as a whole.
    Otherwise a prompt is held out when the hash of its text falls below `heldout`: the same prompt lands on the same side in
    every round. If that holds nothing out, the prompt with the lowest hash is (when there are two prompts or more).

    Args:
        heldout: share of prompts, in [0, 1); 0 holds out none.
    """
    keys = [_prompt_key(p) for p in preferences]
    if any(p.split == "heldout" for p in preferences):
        chosen = {key for key, p in zip(keys, preferences, strict=True) if p.split == "heldout"}
    else:
        chosen = _hashed_share(set(keys), heldout)
    return [
        dataclasses.replace(p, split="heldout" if key in chosen else "train", id="")
        for key, p in zip(keys, preferences, strict=True)
    ]


def follow_prompts(preferences: Sequence[Preference], prompts: Iterable[Prompt]) -> list[Preference]:
    """Hold out the pairs whose prompt is held out among `prompts` (same turns but for case and white space).

    So no prompt that a policy is evaluated on has been trained on through a file of preferences.
    """
    heldout = {_plain_key(prompt.messages) for prompt in prompts if prompt.split == "heldout"}
    return [
        dataclasses.replace(p, split="heldout", id="") if _plain_key(p.prompt) in heldout else p for p in preferences
    ]


def _plain_key(messages: Messages) -> tuple[tuple[str, str], ...]:
    return tuple((m.role, " ".join(m.content.split()).casefold()) for m in messages)


def _hashed_share(keys: set[str], share: float) -> set[str]:
    place = {key: int(content_hash(["heldout", key], num_chars=13), 16) / _HASH_RANGE for key in keys}
    by_place = sorted(keys, key=lambda key: place[key])
    num_below = sum(place[key] < share for key in keys)
    least = 1 if share > 0 else 0
    return set(by_place[: min(max(num_below, least), len(keys) - 1)]) if len(keys) > 1 else set()


def _prompt_key(preference: Preference) -> str:
    return content_hash([[m.role, m.content] for m in preference.prompt])
