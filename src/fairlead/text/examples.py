"""Records to trees: demonstrations, preferences and samples become what the trainer reads, with every cut and drop counted."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Demonstration, Label, Message, Preference
from fairlead.text.chat import ChatText
from fairlead.text.columns import TreeView
from fairlead.text.packing import Branch, Ints, Tree

_NO_PROMPT = np.zeros(0, dtype=np.int64)
_NUM_LOOKED = 64
"""Rows of a shard whose text is rendered and tokenised again, to see what the template and the tokenizer do at the boundary."""


@dataclass(slots=True)
class Encoded:
    """Trees with what it took to make them."""

    trees: Sequence[Tree] = field(default_factory=list[Tree])
    kept_rows: Sequence[int] | Ints = field(default_factory=list[int])
    """Row number of each tree in the input."""
    num_truncated: int = 0
    num_dropped: int = 0
    """Rows that cannot be used: nothing left to learn, or a side that does not fit."""
    num_weightless: int = 0
    """Rows of weight 0, which no loss would read; they are left out."""
    num_promptless: int = 0
    """Kept rows that ask nothing, so that all of them may be learned."""
    num_looked: int = 0
    """Rows whose boundary between prompt and reply was looked at."""
    num_merged: int = 0
    """Of these, where the tokenizer would join prompt and reply."""
    num_rewritten: int = 0
    """Of these, where the template writes another prompt when a reply follows."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all trees."""
        return sum(t.num_tokens for t in self.trees)

    def counts(self) -> dict[str, int]:
        """All counts by name; those of parts of the input add up to those of the whole."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name.startswith("num_")}

    def look(self, chat: ChatText, rows: Iterable[tuple[Sequence[Message], str]]) -> None:
        """Count what happens at the boundary of the first (prompt, reply) of some rows."""
        few = list(itertools.islice(rows, _NUM_LOOKED))
        self.num_looked += len(few)
        self.num_merged += sum(chat.merges(few))
        self.num_rewritten += sum(not chat.appends(prompt, reply) for prompt, reply in few)

    def count_kept(self, prompt: Sequence[Message]) -> None:
        """Count a row that was kept."""
        self.num_promptless += not any(m.content.strip() for m in prompt)


Learned = Literal["replies", "last_reply", "all"]
"""What is learned of a conversation: every assistant turn, the last one, or every token but the first."""


def encode_demonstrations(
    chat: ChatText, rows: Iterable[Demonstration], *, max_length: int, may_be_empty: bool = False, learn: Learned = "replies"
) -> Encoded:  # fmt: skip
    """Conversations to trees; cut from the end at `max_length`, dropped when no trained token is left.

    Args:
        learn: a reply is learned with its terminator.
        may_be_empty: do not raise; for a part of a larger input.
    Raises:
        DataError: nothing is left at all.
    """
    trees, kept_rows, result = list[Tree](), list[int](), Encoded()
    rows = list(rows)
    found = chat.encode_conversations([row.messages for row in rows], last_turn_only=learn == "last_reply")
    result.look(chat, (_first_turn(row) for row in rows))
    for number, (row, encoded) in enumerate(zip(rows, found, strict=True)):
        ids, mask = encoded.token_ids[:max_length], encoded.completion_mask[:max_length].copy()
        result.num_truncated += len(encoded.token_ids) > max_length
        if learn == "all":
            mask[:] = True
        mask[0] = False  # nothing predicts the first token of a row
        if not mask.any():
            result.num_dropped += 1
            continue
        trees.append(Tree(prompt_ids=_NO_PROMPT, branches=(Branch(token_ids=ids, kept=mask),)))
        kept_rows.append(number)
        result.count_kept([m for m in row.messages if m.role != "assistant"])
    result.trees, result.kept_rows = trees, kept_rows
    return result if may_be_empty else require_some(result, "demonstrations", max_length)


def _first_turn(row: Demonstration) -> tuple[Sequence[Message], str]:
    """What comes before the first reply, and that reply."""
    place = next(i for i, m in enumerate(row.messages) if m.role == "assistant")
    return row.messages[:place], row.messages[place].content


def encode_last_replies(
    chat: ChatText, rows: Iterable[Demonstration], *, max_length: int, may_be_empty: bool = False
) -> Encoded:
    """`encode_demonstrations` of which the last assistant turn is learned; a function by itself, for caches go by its name."""
    return encode_demonstrations(chat, rows, max_length=max_length, may_be_empty=may_be_empty, learn="last_reply")


def encode_whole(
    chat: ChatText, rows: Iterable[Demonstration], *, max_length: int, may_be_empty: bool = False
) -> Encoded:
    """`encode_demonstrations` of which every token but the first is learned; a function by itself, as above."""
    return encode_demonstrations(chat, rows, max_length=max_length, may_be_empty=may_be_empty, learn="all")


def encode_preferences(
    chat: ChatText, rows: Iterable[Preference], *, max_length: int, may_be_empty: bool = False
) -> Encoded:
    """Pairs to trees of two branches (chosen rank 0, rejected rank 1); a pair with a side that does not fit is dropped.

    Pairs of weight 0 are left out and counted.
    """
    rows = list(rows)
    prompts = chat.encode_prompts([row.prompt for row in rows])
    sides = chat.encode_completions([text for row in rows for text in (row.chosen, row.rejected)])
    trees, kept_rows, result = list[Tree](), list[int](), Encoded()
    result.look(chat, ((row.prompt, row.chosen) for row in rows))
    for number, (row, prompt, *pair) in enumerate(zip(rows, prompts, sides[0::2], sides[1::2], strict=True)):
        if not row.weight:
            result.num_weightless += 1
            continue
        if len(prompt) + max(len(s) for s in pair) > max_length or not len(prompt):
            result.num_dropped += 1
            continue
        numbers = {"p_chosen": row.p_chosen, "margin": row.margin, "weight": row.weight, "is_tie": float(row.is_tie)}
        trees.append(
            Tree(prompt_ids=prompt, branches=tuple(Branch(token_ids=s) for s in pair), ranks=(0, 1), numbers=numbers)
        )
        kept_rows.append(number)
        result.count_kept(row.prompt)
    result.trees, result.kept_rows = trees, kept_rows
    return result if may_be_empty else require_some(result, "preferences", max_length)


def encode_labels(chat: ChatText, rows: Iterable[Label], *, max_length: int, may_be_empty: bool = False) -> Encoded:
    """Labelled completions to trees of one branch, rank 0 good and rank 1 bad; what does not fit is dropped.

    Every row is a tree of its own, also when a prompt occurs twice: a batch counts completions. Rows of weight 0 are left out.
    """
    rows = list(rows)
    prompts = chat.encode_prompts([row.prompt for row in rows])
    completions = chat.encode_completions([row.completion for row in rows])
    trees, kept_rows, result = list[Tree](), list[int](), Encoded()
    result.look(chat, ((row.prompt, row.completion) for row in rows))
    for number, (row, prompt, completion) in enumerate(zip(rows, prompts, completions, strict=True)):
        if not row.weight:
            result.num_weightless += 1
            continue
        if len(prompt) + len(completion) > max_length or not len(prompt):
            result.num_dropped += 1
            continue
        tree = Tree(
            prompt_ids=prompt,
            branches=(Branch(token_ids=completion),),
            ranks=(0 if row.is_good else 1,),
            numbers={"weight": row.weight},
        )
        trees.append(tree)
        kept_rows.append(number)
        result.count_kept(row.prompt)
    result.trees, result.kept_rows = trees, kept_rows
    return result if may_be_empty else require_some(result, "labels", max_length)


def with_mismatched(trees: Sequence[Tree], *, max_length: int, seed: int) -> TreeView:
    """Give every tree the completions of another prompt's tree, as many as that has: what KTO compares with.

    The partner is the next tree with another prompt in one random circle of all trees. So it is fixed by the seed, whatever the order
    of the batches, and reference log-probabilities of mismatched completions are computed once. What does not fit is cut at the end.

    Raises:
        DataError: all trees have one prompt.
    """
    keys = prompt_keys(trees)
    order = np.random.default_rng(seed).permutation(len(trees)).tolist()
    if len(set(keys)) < 2:
        raise DataError(explain("prompts", len(set(keys)), "leave no completion of another prompt to compare with",
                                expected="at least 2 different prompts", remedy="Add prompts, or use algorithm=bco"))  # fmt: skip
    partners = np.zeros(len(trees), dtype=np.int64)
    partner = next(i for i in order if keys[i] != keys[order[-1]])
    for place in reversed(range(len(order))):
        i = order[place]
        if place + 1 < len(order) and keys[order[place + 1]] != keys[i]:
            partner = order[place + 1]
        partners[i] = partner

    def with_others(tree: Tree, place: int) -> Tree:
        room = max_length - len(tree.prompt_ids)
        others = trees[int(partners[place])].branches
        return replace(tree, mismatched=tuple(Branch(token_ids=b.token_ids[:room]) for b in others))

    return TreeView(trees, change=with_others)


def prompt_keys(trees: Sequence[Tree]) -> list[bytes]:
    """[P] 16 bytes for each prompt, equal where prompts are: what grouping a large data set needs of it."""
    return [hashlib.blake2b(tree.prompt_ids.tobytes(), digest_size=16).digest() for tree in trees]


def require_some(result: Encoded, what: str, max_length: int) -> Encoded:
    """The result; raises when no row was left."""
    if not len(result.trees) and result.num_weightless > result.num_dropped:
        raise DataError(explain(what, result.num_weightless, "rows have weight 0, which leaves nothing to learn", expected="weights above 0",
                                remedy="Correct the weights, or leave them out for 1"))  # fmt: skip
    if not len(result.trees):
        raise DataError(explain(what, result.num_dropped, "rows do not fit, and no other is left",
                                expected=f"rows of at most {max_length} tokens with something to learn",
                                remedy="Raise text.max_length or shorten the data"))  # fmt: skip
    return result


def row_notes(parts: Iterable[Encoded], what: str) -> list[str]:
    """What the user must know of rows besides their length, one sentence a rule.

    Args:
        what: the rows: pairs, replies, conversations.
    """
    parts = list(parts)
    weightless, looked, merged = (
        sum(getattr(part, f"num_{name}") for part in parts) for name in ("weightless", "looked", "merged")
    )
    notes = [f"{weightless:,} {what} of weight 0 are left out."] if weightless else []
    if merged:
        notes.append(f"In {merged:,} of {looked:,} {what} looked at, the tokenizer would join the end of the prompt with the beginning of the "
                     "reply; they are tokenised apart, as in sampling. Most often the prompt ends with a space.")  # fmt: skip
    return notes
