"""Pairs of one prompt back to the rankings that they were cut from: a tree of k ranked completions.

Completions that pairs connect are one ranking when their order is known: from the rank or score that the file gave each of them
(`chosen_rank`, `rejected_score`, ... in `meta`), or because the pairs order every two of them. Other pairs stay pairs, so nothing
is made up and nothing is lost.

Example:
    found = group_rankings(preferences)
    encoded, counts = encode_rankings(chat, preferences, max_length=512)
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fairlead.core.records import Messages, Preference
from fairlead.text.chat import ChatText
from fairlead.text.encoding import Storage, encode_rows
from fairlead.text.examples import Encoded
from fairlead.text.groups import Ids, encode_groups
from fairlead.text.packing import Branch, Tree

_ORDERS = (("rank", -1.0), ("score", 1.0))
"""Names under which formats keep the place of a completion, and the sign that makes larger better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Completions of one prompt with their ranks, 0 best, equal for ties."""

    prompt: Messages
    completions: tuple[str, ...]
    ranks: tuple[int, ...]
    rows: tuple[int, ...]
    """Numbers of the preferences it is made of."""
    p_chosen: float = 1.0
    """Soft label of a pair; an order of three or more is taken as certain."""
    weight: float = 1.0
    is_tie: bool = False
    is_unordered: bool = False
    """A pair that is linked to others without a known order of them all."""


@dataclass(slots=True)
class RankingCounts:
    """What became of the pairs."""

    num_rows: int = 0
    """Pairs of the input that stand in a tree."""
    num_rankings: int = 0
    """Of three or more completions."""
    num_pairs: int = 0
    """Pairs that stay pairs."""
    num_unordered: int = 0
    """Pairs among them that share completions with others, without a known order of them all."""
    num_soft: int = 0
    """Pairs inside rankings whose probability below 1 is not used."""
    num_margins: int = 0
    """Pairs whose margin is not used."""

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        found = [f"{self.num_rankings:,} rankings of three or more completions and {self.num_pairs:,} pairs."]
        if self.num_unordered:
            found.append(
                f"{self.num_unordered:,} of these pairs share completions with others, and the order of them all is not known."
            )
        if self.num_soft:
            found.append(f"The probabilities of {self.num_soft:,} pairs are not used: a ranking is taken as certain.")
        if self.num_margins:
            found.append(f"The margins of {self.num_margins:,} pairs are not used: rankings have none.")
        return tuple(found)


def group_rankings(rows: Sequence[Preference]) -> list[Ranking]:
    """Rankings and left-over pairs, in the order of their first pairs."""
    by_prompt: dict[Messages, list[int]] = {}
    for number, row in enumerate(rows):
        by_prompt.setdefault(row.prompt, []).append(number)
    found: list[Ranking] = []
    for numbers in by_prompt.values():
        for linked in _linked(rows, numbers):
            found += _rank(rows, linked)
    return sorted(found, key=lambda ranking: ranking.rows)


def _linked(rows: Sequence[Preference], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Pairs that share completions, directly or through others."""
    owner: dict[str, int] = {}
    parts: dict[int, list[int]] = {}
    for number in numbers:
        sides = (rows[number].chosen, rows[number].rejected)
        touched = sorted({owner[side] for side in sides if side in owner})
        joined = [old for part in touched for old in parts.pop(part)] + [number]
        parts[number] = joined
        owner |= {side: number for old in joined for side in (rows[old].chosen, rows[old].rejected)}
    yield from parts.values()


def _rank(rows: Sequence[Preference], numbers: list[int]) -> list[Ranking]:
    """One ranking of all linked completions, or each pair for itself."""
    texts = tuple(dict.fromkeys(side for n in numbers for side in (rows[n].chosen, rows[n].rejected)))
    pairs = [rows[n] for n in numbers]
    if len(numbers) > 1 and (ranks := _given_order(texts, pairs) or _implied_order(texts, pairs)):
        weight = sum(pair.weight for pair in pairs) / len(pairs)
        prompt = pairs[0].prompt
        return [Ranking(prompt=prompt, completions=texts, ranks=ranks, rows=tuple(sorted(numbers)), weight=weight)]
    return [
        Ranking(prompt=row.prompt, completions=(row.chosen, row.rejected), ranks=(0, 1), rows=(n,), p_chosen=row.p_chosen, weight=row.weight,
                is_tie=row.is_tie, is_unordered=len(numbers) > 1)
        for n, row in zip(numbers, pairs, strict=True)
    ]  # fmt: skip


def _given_order(texts: Sequence[str], pairs: Sequence[Preference]) -> tuple[int, ...] | None:
    """Ranks from what the file says of each completion; None when it says nothing, or contradicts itself or a pair."""
    for name, sign in _ORDERS:
        values: dict[str, set[float]] = {text: set() for text in texts}
        for pair in pairs:
            for text, side in ((pair.chosen, "chosen"), (pair.rejected, "rejected")):
                value = pair.meta.get(f"{side}_{name}")
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    values[text].add(sign * value)
        if any(len(found) != 1 for found in values.values()):
            continue
        known = {text: next(iter(found)) for text, found in values.items()}
        if all(
            known[p.chosen] == known[p.rejected] if p.is_tie else known[p.chosen] > known[p.rejected] for p in pairs
        ):
            return tuple(sum(other > known[text] for other in known.values()) for text in texts)
    return None


def _implied_order(texts: Sequence[str], pairs: Sequence[Preference]) -> tuple[int, ...] | None:
    """Ranks when the pairs, followed through, order every two completions without a contradiction."""
    place = {text: i for i, text in enumerate(texts)}
    size = len(texts)
    as_good = [[i == j for j in range(size)] for i in range(size)]
    better = [[False] * size for _ in range(size)]
    for pair in pairs:
        i, j = place[pair.chosen], place[pair.rejected]
        as_good[i][j] = True
        if pair.is_tie:
            as_good[j][i] = True
        else:
            better[i][j] = True
    for k, i, j in itertools.product(range(size), repeat=3):  # k outermost: Floyd-Warshall
        if as_good[i][k] and as_good[k][j]:
            as_good[i][j] = True
            better[i][j] = better[i][j] or better[i][k] or better[k][j]
    for i, j in itertools.combinations(range(size), 2):
        is_known = as_good[i][j] or as_good[j][i]
        if not is_known or (as_good[i][j] and better[j][i]) or (as_good[j][i] and better[i][j]):
            return None
    return tuple(sum(better[j][i] for j in range(size)) for i in range(size))


def encode_ranked(chat: ChatText, rows: Iterable[Ranking], *, max_length: int, may_be_empty: bool = False) -> Encoded:
    """Rankings to trees of k branches, two at least; as `encode_groups`. Those of weight 0 are left out."""
    return encode_groups(chat, rows, max_length=max_length, may_be_empty=may_be_empty, fewest=2, make_tree=_ranked_tree,
                         is_weightless=lambda ranking: not ranking.weight)  # fmt: skip


def _ranked_tree(ranking: Ranking, prompt: Ids, branches: tuple[Branch, ...], places: Sequence[int]) -> Tree:
    numbers = {"p_chosen": ranking.p_chosen, "weight": ranking.weight, "is_tie": float(ranking.is_tie)}
    return Tree(prompt_ids=prompt, branches=branches, ranks=tuple(ranking.ranks[i] for i in places), numbers=numbers)


def encode_rankings(
    chat: ChatText, rows: Sequence[Preference], *, max_length: int, storage: Storage | None = None
) -> tuple[Encoded, RankingCounts]:
    """Pairs to trees of the rankings that they were cut from.

    Returns:
        Trees as of `encode_ranked` (`kept_rows` names the first pair of each), and what became of the pairs.
    Raises:
        DataError: nothing is left at all.
    """
    rankings = group_rankings(rows)
    result = encode_rows(rankings, encode_ranked, chat=chat, max_length=max_length, what="preferences", storage=storage)
    counts = RankingCounts()
    for number in result.kept_rows:
        _count(counts, rankings[number], [rows[n] for n in rankings[number].rows])
    result.kept_rows = [rankings[number].rows[0] for number in result.kept_rows]
    return result, counts


def _count(counts: RankingCounts, ranking: Ranking, pairs: Sequence[Preference]) -> None:
    counts.num_rows += len(pairs)
    counts.num_margins += sum(pair.margin != 0 for pair in pairs)
    if len(ranking.completions) > 2:
        counts.num_rankings += 1
        counts.num_soft += sum(pair.p_chosen < 1 and not pair.is_tie for pair in pairs)
    else:
        counts.num_pairs += 1
        counts.num_unordered += ranking.is_unordered
