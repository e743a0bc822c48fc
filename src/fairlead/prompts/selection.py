"""Which of the candidates stay: one filter after another, each reject entered in the ledger.

Order: too long, exact repeats, contaminated, near-duplicates, train prompts near a held-out one, surplus over the mix or the limit. Who stays
of several alike is decided by source (in recipe order, held-out sources first) and then by hash, never by the order of rows.

Example:
    selection = Selection(drop_exact(candidates, ledger), ledger=ledger, near_threshold=0.8)
    selection.drop_near()
    kept = selection.kept()
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fairlead.prompts.contamination import Overlap, find_overlap
from fairlead.prompts.dedupe import families, has_neighbour, keep_first, near_duplicates
from fairlead.prompts.ledger import Candidate, Ledger
from fairlead.prompts.mix import slice_quotas
from fairlead.prompts.words import Index, hash_words, normalise, stable_hash, stable_hashes


def in_canonical_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Held-out sources first, then by source, then by hash: the same order however the rows of a file are shuffled."""

    def rank(c: Candidate) -> tuple[object, ...]:
        written = [(message.role, message.content) for message in c.messages]
        return (not c.is_heldout_source, c.source, stable_hash(c.key, salt="rank"), c.slice, written)

    return sorted(candidates, key=rank)


def drop_long(candidates: Sequence[Candidate], ledger: Ledger, *, max_words: int) -> list[Candidate]:
    """Keep the prompts of at most `max_words` words, turns taken together."""
    kept: list[Candidate] = []
    for candidate in candidates:
        num_words = sum(len(message.content.split()) for message in candidate.messages)
        if num_words <= max_words:
            kept.append(candidate)
        else:
            ledger.reject(candidate, "longer than max_words", num_words=str(num_words))
    return kept


def drop_exact(candidates: Sequence[Candidate], ledger: Ledger) -> list[Candidate]:
    """Keep the first prompt of each normal form."""
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        first = kept.setdefault(candidate.key, candidate)
        if first is not candidate:
            ledger.reject(candidate, "exact duplicate", duplicate_of=first.where)
    return list(kept.values())


class Selection:
    """Candidates in canonical order, of which fewer and fewer are alive.

    Lifecycle: one per run; the methods are called once each, in the order of the module's docstring. Not thread-safe.
    """

    def __init__(self, candidates: Sequence[Candidate], *, ledger: Ledger, near_threshold: float) -> None:
        self.candidates = candidates
        self.ledger = ledger
        self.alive = np.ones(len(candidates), bool)
        self.is_heldout_source = np.fromiter((c.is_heldout_source for c in candidates), bool, count=len(candidates))
        self.hashed = hash_words([c.plain for c in candidates])
        self.near = near_duplicates(self.hashed, threshold=near_threshold)

    def _drop(self, index: int, reason: str, **details: str) -> None:
        assert self.alive[index], f"candidate {index} is dropped twice"
        self.alive[index] = False
        self.ledger.reject(self.candidates[index], reason, **details)

    def drop_contaminated(self, evaluation: Sequence[str], *, name: str, ngram_words: int) -> Overlap:
        """Drop prompts that overlap with an evaluation file, and return which were dropped.

        What was declared as held-out is not training data and stays.
        """
        forms = [(c.plain, normalise(c.text)) for c in self.candidates]
        overlap = find_overlap(self.hashed, keys=forms, evaluation=evaluation, ngram_words=ngram_words)
        droppable = self.alive & ~self.is_heldout_source
        dropped = dataclasses.replace(
            overlap, is_exact=overlap.is_exact & droppable, has_ngram=overlap.has_ngram & droppable
        )
        for index in np.flatnonzero(dropped.is_contaminated):
            how = "equal" if dropped.is_exact[index] else "shares a run of words"
            self._drop(int(index), f"contaminated by {name}", overlap=how)
        return dropped

    def near_share(self) -> tuple[float, int]:
        """Share of the prompts alive with another one near, and how many there are."""
        num_alive = int(self.alive.sum())
        return float(has_neighbour(self.near, alive=self.alive).sum()) / max(1, num_alive), num_alive

    def drop_near(self) -> None:
        """Drop each prompt that is near one kept before it."""
        kept_by = keep_first(self.near, order=[int(i) for i in np.flatnonzero(self.alive)])
        for index in np.flatnonzero(self.alive & (kept_by != np.arange(len(kept_by)))):
            self._drop(int(index), "near duplicate", duplicate_of=self.candidates[int(kept_by[index])].where)

    def drop_near_heldout(self) -> None:
        """Drop train prompts of the families that a held-out source has a prompt in."""
        labels = self.families()
        owner = {int(labels[i]): int(i) for i in np.flatnonzero(self.is_heldout_source & self.alive)[::-1]}
        for index in np.flatnonzero(self.alive & ~self.is_heldout_source):
            if int(labels[index]) in owner:
                where = self.candidates[owner[int(labels[index])]].where
                self._drop(int(index), "near duplicate of a held-out prompt", duplicate_of=where)

    def families(self) -> Index:
        """[n] family of each candidate among those alive."""
        return families(self.near, alive=self.alive)

    def enforce_mix(self, mix: Mapping[str, float], *, total: int | None) -> None:
        """Drop what is too much of each slice; held-out sources do not count."""
        indices = self._by_draw()
        available = Counter(self.candidates[i].slice for i in indices)
        quotas = slice_quotas(available, mix=mix, total=total)
        taken: Counter[str] = Counter()
        for index in indices:
            name = self.candidates[index].slice
            if name not in mix:
                self._drop(index, "slice not in the declared mix")
            elif taken[name] == quotas[name]:
                self._drop(index, "surplus over the declared mix")
            else:
                taken[name] += 1

    def limit(self, max_prompts: int) -> None:
        """Drop what is beyond a total, by hash; held-out sources do not count."""
        for index in self._by_draw()[max_prompts:]:
            self._drop(index, "beyond max_prompts")

    def _by_draw(self) -> list[int]:
        """Candidates alive that are not declared held-out, in a fixed pseudo-random order."""
        draw = stable_hashes([c.key for c in self.candidates], salt="draw")
        order = np.argsort(draw, kind="stable")
        return [int(i) for i in order if self.alive[i] and not self.is_heldout_source[i]]

    def kept(self) -> list[Candidate]:
        """Candidates alive."""
        return [c for c, alive in zip(self.candidates, self.alive, strict=True) if alive]
