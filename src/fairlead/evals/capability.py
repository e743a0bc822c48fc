"""What must not get worse: minimal pairs by likelihood, and perplexity on general text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_rows
from fairlead.evals.config import EvalsConfig
from fairlead.models.load import CausalModel
from fairlead.text.chat import ChatText
from fairlead.text.packing import Branch, Tree, pack_trees, plan_microbatches
from fairlead.train.memory import largest_tree
from fairlead.train.setup import reading_budget


def read_texts(path: Path, *fields: str, limit: int) -> list[tuple[str, ...]]:
    """Rows of named text fields, evenly thinned to `limit`."""
    rows: list[tuple[str, ...]] = []
    for row in read_rows(path):
        for field in fields:
            if not isinstance(row.values.get(field), str):
                raise DataError(explain(f"{row.where}.{field}", row.values.get(field), "is not text", expected="a sentence",
                                        remedy=f"Give every row {' and '.join(fields)}"))  # fmt: skip
        rows.append(tuple(row.values[field] for field in fields))
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]


def scoring_budget(model: CausalModel, trees: Sequence[Tree], config: EvalsConfig) -> int:
    """Tokens of one forward that scores `trees`."""
    return reading_budget(
        model, config.max_tokens_per_microbatch, largest=largest_tree(trees), key="evals.max_tokens_per_microbatch"
    )


def text_logprobs(
    model: CausalModel, chat: ChatText, texts: list[str], *, config: EvalsConfig, heed: Callable[[], None]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Summed logprob and number of scored tokens of each plain text (after BOS; the first token is not scored without one).

    `heed` is called before each forward and raises to stop.
    """
    bos = chat.tokenizer.bos_token_id
    trees = []
    for text in texts:
        ids = np.array(
            [*([bos] if bos is not None else []), *chat.tokenizer(text, add_special_tokens=False)["input_ids"]],
            dtype=np.int64,
        )
        ids = ids[: model.max_positions]
        trees.append(Tree(prompt_ids=ids[:0], branches=(Branch(token_ids=ids, kept=np.arange(len(ids)) > 0),)))
    sums, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad():
        for row in plan_microbatches([t.num_tokens for t in trees], max_tokens=scoring_budget(model, trees, config)):
            heed()
            layout = pack_trees([trees[i] for i in row])
            logprobs = model.logprobs(layout).logprobs.double().cpu().numpy()
            sums[row] = np.bincount(layout.sequence_index, weights=logprobs, minlength=len(row))
            counts[row] = np.bincount(layout.sequence_index, minlength=len(row))
    return sums, counts


def minimal_pairs(
    model: CausalModel, chat: ChatText, pairs: list[tuple[str, ...]], *, config: EvalsConfig, heed: Callable[[], None]
) -> npt.NDArray[np.bool_]:
    """[N] whether the good sentence is more likely than the bad one."""
    sums, _ = text_logprobs(model, chat, [text for pair in pairs for text in pair], config=config, heed=heed)
    return sums[0::2] > sums[1::2]


def perplexity(
    model: CausalModel, chat: ChatText, texts: list[tuple[str, ...]], *, config: EvalsConfig, heed: Callable[[], None]
) -> float:
    """exp of the mean negative logprob a token."""
    sums, counts = text_logprobs(model, chat, [t[0] for t in texts], config=config, heed=heed)
    return float(np.exp(-sums.sum() / counts.sum()))
