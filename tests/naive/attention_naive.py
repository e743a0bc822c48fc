"""Attention over a tree as plain loops: what a token may see, and the weighted mean of what it sees."""

import math


def visible(tree_index, branch_index, position_ids, query, *, window=None):
    """Rows that row `query` may see: its own prompt and its own branch, not after itself, at most `window` - 1 positions back."""
    rows = []
    for key in range(len(tree_index)):
        is_same_tree = tree_index[key] == tree_index[query]
        is_on_path = branch_index[key] in (0, branch_index[query])
        distance = position_ids[query] - position_ids[key]
        if is_same_tree and is_on_path and distance >= 0 and (window is None or distance < window):
            rows.append(key)
    return rows


def attend(queries, keys, values, rows_of, *, scale, softcap=None):
    """Output [T][D] of one head.

    Args:
        queries, keys, values: [T][D].
        rows_of: query row -> rows it may see.
    """
    outputs = []
    for row, query in enumerate(queries):
        rows = rows_of(row)
        scores = [sum(q * k for q, k in zip(query, keys[j], strict=True)) * scale for j in rows]
        if softcap is not None:
            scores = [softcap * math.tanh(score / softcap) for score in scores]
        weights = [math.exp(score - max(scores)) for score in scores]
        outputs.append(
            [
                sum(w * values[j][d] for w, j in zip(weights, rows, strict=True)) / sum(weights)
                for d in range(len(query))
            ]
        )
    return outputs
