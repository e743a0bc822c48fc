"""Records to trees: demonstrations, preferences and samples become what the trainer reads, with every cut and drop counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Demonstration, Label, Preference
from fairlead.text.chat import ChatText
from fairlead.text.packing import Branch, Tree

_NO_PROMPT = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Encoded:
    """Trees with what it took to make them."""

    trees: list[Tree] = field(default_factory=list[Tree])
    kept_rows: list[int] = field(default_factory=list[int])
    """Row number of each tree in the input."""
    num_truncated: int = 0
    num_dropped: int = 0
    """Rows that cannot be used: nothing left to learn, or a side that does not fit."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all trees."""
        return sum(t.num_tokens for t in self.trees)


def encode_demonstrations(chat: ChatText, rows: Iterable[Demonstration], *, max_length: int) -> Encoded:
    """Conversations to trees; cut from the end at `max_length`, dropped when no trained token is left.

    Raises:
        DataError: nothing is left at all.
    """
    result = Encoded()
    for number, row in enumerate(rows):
        encoded = chat.encode_conversation(row.messages)
        ids, mask = encoded.token_ids[:max_length], encoded.completion_mask[:max_length].copy()
        result.num_truncated += len(encoded.token_ids) > max_length
        mask[0] = False  # nothing predicts the first token of a row
        if not mask.any():
            result.num_dropped += 1
            continue
        result.trees.append(Tree(prompt_ids=_NO_PROMPT, branches=(Branch(token_ids=ids, kept=mask),)))
        result.kept_rows.append(number)
    require_some(result, "demonstrations", max_length)
    return result


def encode_preferences(chat: ChatText, rows: Iterable[Preference], *, max_length: int) -> Encoded:
    """Pairs to trees of two branches (chosen rank 0, rejected rank 1); a pair with a side that does not fit is dropped."""
    result = Encoded()
    for number, row in enumerate(rows):
        prompt = chat.encode_prompt(row.prompt)
        sides = [chat.encode_completion(text) for text in (row.chosen, row.rejected)]
        if len(prompt) + max(len(s) for s in sides) > max_length or not len(prompt):
            result.num_dropped += 1
            continue
        numbers = {"p_chosen": row.p_chosen, "margin": row.margin, "weight": row.weight, "is_tie": float(row.is_tie)}
        result.trees.append(
            Tree(prompt_ids=prompt, branches=tuple(Branch(token_ids=s) for s in sides), ranks=(0, 1), numbers=numbers)
        )
        result.kept_rows.append(number)
    require_some(result, "preferences", max_length)
    return result


def encode_labels(chat: ChatText, rows: Iterable[Label], *, max_length: int) -> Encoded:
    """Labelled completions to trees of one branch, rank 0 good and rank 1 bad; what does not fit is dropped.

    Every row is a tree of its own, also when a prompt occurs twice: a batch counts completions.
    """
    result = Encoded()
    for number, row in enumerate(rows):
        prompt, completion = chat.encode_prompt(row.prompt), chat.encode_completion(row.completion)
        if len(prompt) + len(completion) > max_length or not len(prompt):
            result.num_dropped += 1
            continue
        tree = Tree(
            prompt_ids=prompt,
            branches=(Branch(token_ids=completion),),
            ranks=(0 if row.is_good else 1,),
            numbers={"weight": row.weight},
        )
        result.trees.append(tree)
        result.kept_rows.append(number)
    require_some(result, "labels", max_length)
    return result


def with_mismatched(trees: Sequence[Tree], *, max_length: int, seed: int) -> list[Tree]:
    """Give every tree the completions of another prompt's tree, as many as that has: what KTO compares with.

    The partner is the next tree with another prompt in one random circle of all trees. So it is fixed by the seed, whatever the order
    of the batches, and reference log-probabilities of mismatched completions are computed once. What does not fit is cut at the end.

    Raises:
        DataError: all trees have one prompt.
    """
    keys = [tree.prompt_ids.tobytes() for tree in trees]
    order = np.random.default_rng(seed).permutation(len(trees)).tolist()
    if len(set(keys)) < 2:
        raise DataError(explain("prompts", len(set(keys)), "leave no completion of another prompt to compare with",
                                expected="at least 2 different prompts", remedy="Add prompts, or use algorithm=bco"))  # fmt: skip
    found = list(trees)
    partner = next(i for i in order if keys[i] != keys[order[-1]])
    for place in reversed(range(len(order))):
        i = order[place]
        if place + 1 < len(order) and keys[order[place + 1]] != keys[i]:
            partner = order[place + 1]
        room = max_length - len(trees[i].prompt_ids)
        others = (Branch(token_ids=b.token_ids[:room]) for b in trees[partner].branches)
        found[i] = replace(trees[i], mismatched=tuple(others))
    return found


def require_some(result: Encoded, what: str, max_length: int) -> None:
    """Raise when no row was left."""
    if not result.trees:
        raise DataError(explain(what, result.num_dropped, "rows do not fit", expected=f"rows of at most {max_length} tokens with something to learn",
                                remedy="Raise text.max_length or shorten the data"))  # fmt: skip
