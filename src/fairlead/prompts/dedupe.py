"""Repeated prompts: exact by normal form, near by Jaccard similarity of word 3-shingles (MinHash with banding, then exact).

Up to `EXACT_TEXTS` different texts are compared pair by pair. Beyond, MinHash proposes pairs, and every proposed pair is checked
with the exact similarity: nothing is dropped by an estimate, and what may be missed is bounded by `TARGET_RECALL` at the threshold
(more similar pairs are missed less often).

Legend: n texts, K hash functions, P pairs.

Example:
    near = near_duplicates(hash_words(texts), threshold=0.8)
    kept_by = keep_first(near, order=range(len(texts)))      # kept_by[i] == i for what stays
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array, triu
from scipy.sparse.csgraph import connected_components

from fairlead.prompts.words import HashedTexts, Hashes, Index, mix_bits, ngrams

SHINGLE_WORDS = 3
NUM_HASHES = 128
EXACT_TEXTS = 2048  # the overlaps of all their pairs fit in 32 MiB
TARGET_RECALL = 0.995  # of pairs exactly at the threshold; decides the width of the bands
_PAIRS_AT_ONCE = 1 << 16  # bounds memory: 64 Ki pairs of signatures are 64 MiB
_PREFILTER_DEVIATIONS = 4.0  # a true pair falls below its estimate minus this in 1 of 30,000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShingleSets:
    """The set of shingles of each text, as sorted unique hashes. No set is empty."""

    values: Hashes
    """[M] hashes, ascending within a text."""
    offsets: Index
    """[n + 1] where each set begins."""

    @property
    def sizes(self) -> Index:
        """[n] shingles of each text."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearDuplicates:
    """Which texts are close. Pairs are stated between the first text of each group of texts with equal shingles."""

    same_as: Index
    """[n] first text with the same set of shingles (itself when it is the first)."""
    pairs: Index
    """[P, 2] near pairs, i < j, both first of their group."""
    similarity: npt.NDArray[np.float64]
    """[P] exact Jaccard similarity."""


def shingle_sets(texts: HashedTexts, *, size: int = SHINGLE_WORDS) -> ShingleSets:
    """Sets of word n-grams; a text shorter than `size` words is one shingle."""
    parts = [ngrams(texts, size)]
    for shorter in range(1, size):
        hashes, index = ngrams(texts, shorter)
        is_whole_text = texts.lengths[index] == shorter
        parts.append((hashes[is_whole_text], index[is_whole_text]))
    hashes, index = np.concatenate([h for h, _ in parts]), np.concatenate([i for _, i in parts])
    order = np.lexsort((hashes, index))
    hashes, index = hashes[order], index[order]
    is_new = np.ones(len(hashes), bool)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (index[1:] != index[:-1])
    offsets = np.searchsorted(index[is_new], np.arange(len(texts) + 1))
    return ShingleSets(values=hashes[is_new], offsets=offsets.astype(np.int64))


def minhash(sets: ShingleSets, *, num_hashes: int = NUM_HASHES) -> npt.NDArray[np.uint32]:
    """[n, K] signatures: the chance that two texts agree in one column is their Jaccard similarity.

    Source: Broder 1997; multiply-shift hashing of Dietzfelbinger et al. 1997.
    """
    rng = np.random.default_rng(0)  # constants of the method, not randomness of a run
    factors = rng.integers(0, 2**64, num_hashes, np.uint64) | np.uint64(1)
    shifts = rng.integers(0, 2**64, num_hashes, np.uint64)
    starts = sets.offsets[:-1]
    columns = [
        np.minimum.reduceat(((sets.values * a + b) >> np.uint64(32)).astype(np.uint32), starts)
        for a, b in zip(factors, shifts, strict=True)
    ]
    return np.stack(columns, axis=1)


def band_rows(threshold: float, *, num_hashes: int = NUM_HASHES) -> int:
    """Widest band (most selective) that still finds `TARGET_RECALL` of the pairs at the threshold.

    recall = 1 - (1 - threshold ** rows) ** (num_hashes // rows)
    """
    for rows in range(num_hashes, 1, -1):
        if 1 - (1 - threshold**rows) ** (num_hashes // rows) >= TARGET_RECALL:
            return rows
    return 1


def candidate_pairs(signatures: npt.NDArray[np.uint32], *, threshold: float) -> Index:
    """[P, 2] pairs (i < j) that share a band and whose estimated similarity is not far below the threshold."""
    num_texts, num_hashes = signatures.shape
    rows = band_rows(threshold, num_hashes=num_hashes)
    floor = threshold - _PREFILTER_DEVIATIONS * np.sqrt(threshold * (1 - threshold) / num_hashes)
    found = np.zeros(0, np.int64)
    for band in range(num_hashes // rows):
        keys = np.zeros(num_texts, np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            keys = mix_bits(keys + signatures[:, column])
        in_band = [found]
        for chunk in _pairs_with_equal_keys(keys):
            estimate = (signatures[chunk // num_texts] == signatures[chunk % num_texts]).mean(axis=1)
            in_band.append(chunk[estimate >= floor])
        found = np.unique(np.concatenate(in_band))
    return np.stack([found // num_texts, found % num_texts], axis=1)


def _pairs_with_equal_keys(keys: Hashes) -> Iterator[Index]:
    """Yield pairs (i < j) as i * n + j, in chunks: sorted keys are compared with their neighbours at growing distance."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    ordered = keys[order]
    positions = np.arange(len(keys))
    for distance in range(1, len(keys)):
        positions = positions[positions + distance < len(keys)]
        positions = positions[ordered[positions] == ordered[positions + distance]]
        if len(positions) == 0:
            return
        pairs = order[positions] * len(keys) + order[positions + distance]  # the stable sort keeps i < j within a key
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            yield pairs[start : start + _PAIRS_AT_ONCE]


def jaccard(sets: ShingleSets, pairs: Index) -> npt.NDArray[np.float64]:
    """[P] exact similarity |a & b| / |a | b| of the sets of each pair."""
    _, ids = np.unique(sets.values, return_inverse=True)
    num_ids = int(ids.max(initial=0)) + 1
    result = np.zeros(len(pairs))
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        chunk = pairs[start : start + _PAIRS_AT_ONCE]
        keys = np.concatenate([_elements(sets, ids, chunk[:, side], num_ids) for side in (0, 1)])
        keys.sort()
        common = np.bincount(keys[1:][keys[1:] == keys[:-1]] // num_ids, minlength=len(chunk))
        union = sets.sizes[chunk].sum(axis=1) - common
        result[start : start + len(chunk)] = common / union
    return result


def _elements(sets: ShingleSets, ids: Index, texts: Index, num_ids: int) -> Index:
    """Elements of the sets of `texts`, each as position * num_ids + element."""
    sizes = sets.sizes[texts]
    position = np.repeat(np.arange(len(texts)), sizes)
    within = np.arange(len(position)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return position * num_ids + ids[sets.offsets[texts][position] + within]


def exact_pairs(sets: ShingleSets, nodes: Index, *, threshold: float) -> Index:
    """[P, 2] every near pair (i < j) of the given texts, from the overlaps of all pairs at once."""
    _, ids = np.unique(sets.values, return_inverse=True)
    has_shingle = csr_array((np.ones(len(ids), np.int32), ids, sets.offsets))[nodes]
    overlap = triu(has_shingle @ has_shingle.T, k=1).tocoo()
    pairs = np.stack([nodes[overlap.row], nodes[overlap.col]], axis=1)
    return pairs[overlap.data / (sets.sizes[pairs].sum(axis=1) - overlap.data) >= threshold]


def near_duplicates(texts: HashedTexts, *, threshold: float, exact_up_to: int = EXACT_TEXTS) -> NearDuplicates:
    """Find the pairs of texts whose shingle sets have a Jaccard similarity of at least `threshold`."""
    if len(texts) == 0:
        return NearDuplicates(same_as=np.zeros(0, np.int64), pairs=np.zeros((0, 2), np.int64), similarity=np.zeros(0))
    sets = shingle_sets(texts)
    # Texts with equal sets are one node: a thousand copies of a template would otherwise be half a million pairs.
    fingerprint = np.add.reduceat(mix_bits(sets.values), sets.offsets[:-1])
    _, first, group = np.unique(fingerprint, return_index=True, return_inverse=True)
    nodes = np.sort(first).astype(np.int64)
    if len(nodes) <= exact_up_to:
        pairs = exact_pairs(sets, nodes, threshold=threshold)
    else:
        pairs = nodes[candidate_pairs(minhash(sets)[nodes], threshold=threshold)]
    similarity = jaccard(sets, pairs)
    is_near = similarity >= threshold
    return NearDuplicates(same_as=first[group].astype(np.int64), pairs=pairs[is_near], similarity=similarity[is_near])


def keep_first(near: NearDuplicates, *, order: Iterable[int]) -> Index:
    """Go through the texts in `order` and drop each that is near one already kept.

    Returns:
        [n] the kept text that stands for each one: itself when it stays, -1 when it is not in `order`.
    """
    neighbours = _neighbours(near)
    kept_by = np.full(len(near.same_as), -1, np.int64)
    owner: dict[int, int] = {}  # node -> the text that stands for it
    kept_nodes: dict[int, int] = {}  # node -> its kept text
    for text in order:
        node = int(near.same_as[text])
        if node not in owner:
            kept = [kept_nodes[other] for other in neighbours.get(node, ()) if other in kept_nodes]
            owner[node] = kept[0] if kept else text
            if not kept:
                kept_nodes[node] = text
        kept_by[text] = owner[node]
    return kept_by


def _neighbours(near: NearDuplicates) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for k in np.argsort(-near.similarity, kind="stable"):
        i, j = (int(v) for v in near.pairs[k])
        result.setdefault(i, []).append(j)
        result.setdefault(j, []).append(i)
    return result


def families(near: NearDuplicates, *, alive: npt.NDArray[np.bool_]) -> Index:
    """[n] label of the family of each text: texts linked by a chain of near pairs among those alive."""
    num_texts = len(near.same_as)
    is_node = np.zeros(num_texts, bool)
    is_node[near.same_as[alive]] = True
    pairs = near.pairs[is_node[near.pairs].all(axis=1)]
    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num_texts, num_texts))
    _, labels = connected_components(edges, directed=False)
    return labels[near.same_as].astype(np.int64)


def has_neighbour(near: NearDuplicates, *, alive: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[n] True where another text that is alive is near."""
    _, label, count = np.unique(families(near, alive=alive)[alive], return_inverse=True, return_counts=True)
    result = np.zeros(len(near.same_as), bool)
    result[alive] = count[label] > 1
    return result
