"""Records to trees: what is cut, what is dropped, and that both are counted."""

import pytest

import tiny_models
from fairlead.core.errors import DataError
from fairlead.core.records import Demonstration, Label, Message, Preference
from fairlead.text import ChatText, encode_demonstrations, encode_labels, encode_preferences, with_mismatched
from fairlead.text.examples import encode_last_replies, encode_whole, row_notes
from fairlead.text.rankings import encode_rankings


@pytest.fixture(scope="module")
def chat():
    return ChatText(tiny_models.make_tokenizer())


def demonstration(prompt, reply):
    return Demonstration(messages=(Message(role="user", content=prompt), Message(role="assistant", content=reply)))


def preference(prompt, chosen, rejected, **fields):
    return Preference(prompt=(Message(role="user", content=prompt),), chosen=chosen, rejected=rejected, **fields)


def test_demonstrations_are_cut_at_the_end_and_dropped_when_nothing_is_left(chat):
    rows = [demonstration("what", "no"), demonstration("what", "no " * 30), demonstration("what " * 30, "no")]
    length = len(chat.encode_conversation(rows[0].messages).token_ids)
    encoded = encode_demonstrations(chat, rows, max_length=length)
    assert (encoded.num_truncated, encoded.num_dropped, encoded.kept_rows) == (2, 1, [0, 1])
    assert [t.num_tokens for t in encoded.trees] == [length, length]
    assert encoded.num_tokens == 2 * length
    whole, cut = (t.branches[0] for t in encoded.trees)
    assert whole.token_ids[whole.kept][-1] == chat.terminator_id
    assert chat.terminator_id not in cut.token_ids[cut.kept]


def test_the_first_token_of_a_row_is_never_learned():
    chat = ChatText(tiny_models.make_tokenizer(bos=None), template="plain")
    rows = [Demonstration(messages=(Message(role="assistant", content="once upon"),))]
    kept = encode_demonstrations(chat, rows, max_length=50).trees[0].branches[0].kept
    assert kept is not None and not kept[0] and kept[1:].all()


def test_what_is_learned_of_a_conversation(chat):
    """<s> <|user|> a <|end|> <|assistant|> b <|end|> <|user|> c <|end|> <|assistant|> d <|end|>, a token each."""
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    rows = [Demonstration(messages=tuple(Message(role=role, content=text) for role, text in turns))]
    expected = {
        encode_demonstrations: "0000011000011",
        encode_last_replies: "0000000000011",
        encode_whole: "0111111111111",
    }
    for encode, mask in expected.items():
        (branch,) = encode(chat, rows, max_length=50).trees[0].branches
        shown = "".join(str(int(k)) for k in branch.kept)
        assert shown == mask, (encode.__name__, chat.tokenizer.convert_ids_to_tokens(branch.token_ids.tolist()))


def test_a_last_reply_that_was_cut_away_drops_the_row(chat):
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    row = Demonstration(messages=tuple(Message(role=role, content=text) for role, text in turns))
    encoded = encode_last_replies(chat, [row, demonstration("a", "b")], max_length=10)
    assert (encoded.num_dropped, encoded.num_truncated, list(encoded.kept_rows)) == (1, 1, [1])


def test_preferences_become_two_branches_with_their_numbers(chat):
    row = preference("what", "yes", "no", p_chosen=0.75, margin=0.5, weight=2.0, is_tie=True)
    (tree,) = encode_preferences(chat, [row], max_length=50).trees
    assert tree.ranks == (0, 1)
    assert tree.numbers == {"p_chosen": 0.75, "margin": 0.5, "weight": 2.0, "is_tie": 1.0}
    assert [chat.decode(b.token_ids) for b in tree.branches] == ["yes", "no"]
    assert tree.prompt_ids.tolist() == chat.encode_prompt(row.prompt).tolist()
    assert all(b.token_ids[-1] == chat.terminator_id and b.kept is None for b in tree.branches)


def test_a_pair_is_dropped_whole_when_one_side_does_not_fit(chat):
    rows = [
        preference("what", "yes", "no"),
        preference("what", "yes", "no " * 30),
        preference("what", "no " * 30, "no"),
    ]
    length = len(chat.encode_prompt(rows[0].prompt)) + len(chat.encode_completion("yes"))
    encoded = encode_preferences(chat, rows, max_length=length)
    assert (encoded.kept_rows, encoded.num_dropped) == ([0], 2)
    assert max(len(b.token_ids) for b in encoded.trees[0].branches) == length - len(encoded.trees[0].prompt_ids)
    assert encode_preferences(chat, rows[:1], max_length=length).num_dropped == 0
    with pytest.raises(DataError):
        encode_preferences(chat, rows, max_length=length - 1)


def test_nothing_left_is_an_error_in_one_line(chat):
    with pytest.raises(DataError) as info:
        encode_demonstrations(chat, [demonstration("what", "no")], max_length=3)
    assert "text.max_length" in str(info.value) and "\n" not in str(info.value)


def label(prompt, completion, **fields):
    return Label(prompt=(Message(role="user", content=prompt),), completion=completion, **fields)


def test_labels_become_one_branch_with_their_side(chat):
    rows = [
        label("what", "yes", is_good=True, weight=2.0),
        label("what", "no", is_good=False),
        label("what", "no " * 30, is_good=False),
    ]
    encoded = encode_labels(chat, rows, max_length=20)
    assert [(t.ranks, t.numbers, len(t.branches)) for t in encoded.trees] == [
        ((0,), {"weight": 2.0}, 1),
        ((1,), {"weight": 1.0}, 1),
    ]
    assert (encoded.num_dropped, encoded.kept_rows) == (1, [0, 1])
    with pytest.raises(DataError, match="labels=3 rows do not fit"):
        encode_labels(chat, rows, max_length=3)


def test_mismatched_completions_come_from_another_prompt_whatever_the_order_of_batches(chat):
    rows = [preference(p, f"{p} yes {i}", "no") for i, p in enumerate(["what", "what", "what", "home", "great", "man"])]
    trees = encode_preferences(chat, rows, max_length=60).trees
    owner = {b.token_ids.tobytes(): t.prompt_ids.tobytes() for t in trees for b in t.branches[:1]}
    for seed in range(20):
        found = with_mismatched(trees, max_length=60, seed=seed)
        assert all(owner[t.mismatched[0].token_ids.tobytes()] != t.prompt_ids.tobytes() for t in found)
        assert [t.branches for t in found] == [t.branches for t in trees]
    partners = [
        [t.mismatched[0].token_ids.tolist() for t in with_mismatched(trees, max_length=60, seed=s)] for s in (1, 1, 2)
    ]
    assert partners[0] == partners[1] != partners[2]


def test_mismatched_completions_are_cut_to_fit_and_one_prompt_is_refused(chat):
    trees = encode_preferences(
        chat, [preference("what", "yes", "no"), preference("great", "no " * 9, "yes")], max_length=40
    ).trees
    room = len(trees[0].prompt_ids) + 2
    found = with_mismatched(trees, max_length=room, seed=0)
    assert [len(b.token_ids) for b in found[0].mismatched] == [2, 2]
    with pytest.raises(DataError, match="at least 2 different prompts"):
        with_mismatched(trees[:1] * 2, max_length=40, seed=0)


def test_rows_of_weight_0_are_left_out_and_counted(chat):
    pairs = [preference("what", "yes", "no"), preference("when", "yes", "no", weight=0.0)]
    for encoded in (
        encode_preferences(chat, pairs, max_length=50),
        encode_rankings(chat, pairs, max_length=50)[0],
        encode_labels(
            chat, [label("what", "yes", is_good=True), label("when", "no", is_good=True, weight=0.0)], max_length=50
        ),
    ):
        assert list(encoded.kept_rows) == [0] and (encoded.num_weightless, encoded.num_dropped) == (1, 0)
        assert row_notes([encoded, encoded], "pairs") == ["2 pairs of weight 0 are left out."]
    with pytest.raises(
        DataError, match="preferences=1 rows have weight 0, which leaves nothing to learn; expected weights above 0"
    ):
        encode_preferences(chat, pairs[1:], max_length=50)


@pytest.mark.parametrize(
    ("prompt", "num_merged"), [("what did you say ", 1), ("what did you say", 0), ("what did you s", 1)]
)
def test_a_tokenizer_that_joins_prompt_and_reply_is_counted_and_they_stay_apart(prompt, num_merged):
    """With `plain` nothing stands between them. A reply begins with a mark that this tokenizer puts before a word: a space before it, or
    half a word, is joined with it when both are one text."""
    chat = ChatText(tiny_models.make_tokenizer(), template="plain")
    reply = "ay yes" if prompt.endswith(" s") else "yes" if prompt.endswith(" ") else " yes"
    encoded = encode_preferences(chat, [preference(prompt, reply, "no")], max_length=60)
    (tree,) = encoded.trees
    joint = chat.encode_prompt((Message(role="user", content=prompt + reply),))
    apart = [*tree.prompt_ids, *tree.branches[0].token_ids[:-1]]
    assert (list(joint) != apart) == bool(num_merged) == bool(encoded.num_merged), chat.tokenizer.convert_ids_to_tokens(
        apart
    )
    assert encoded.num_looked == 1
    assert list(tree.prompt_ids) == list(chat.encode_prompt((Message(role="user", content=prompt),))), (
        "as when it is sampled"
    )
    assert bool(row_notes([encoded], "pairs")) == bool(num_merged)


def test_special_tokens_keep_prompt_and_reply_apart(chat):
    encoded = encode_demonstrations(chat, [demonstration("what ", "yes"), demonstration("what", " yes")], max_length=50)
    assert (encoded.num_looked, encoded.num_merged, encoded.num_rewritten) == (2, 0, 0)


def test_a_template_that_writes_another_prompt_once_a_reply_follows_is_counted(tmp_path):
    """It cuts long questions out of the history, which the probe of two short turns does not show."""
    source = tmp_path / "forgetful.jinja"
    source.write_text(tiny_models.TEMPLATE.replace(
        "<|user|>{{ m.content }}", "<|user|>{{ m.content if add_generation_prompt else m.content[:9] }}"), encoding="utf-8")  # fmt: skip
    chat = ChatText(tiny_models.make_tokenizer(), template=str(source))
    rows = [demonstration("what", "yes"), demonstration("what did you say", "yes")]
    assert encode_demonstrations(chat, rows, max_length=60).num_rewritten == 1
    pairs = [preference("what did you say", "yes", "no")]
    assert encode_preferences(chat, pairs, max_length=60).num_rewritten == 1


def test_rows_that_ask_nothing_are_counted(chat):
    plain = ChatText(tiny_models.make_tokenizer(), template="plain")
    rows = [demonstration("what", "yes"), Demonstration(messages=(Message(role="assistant", content="once upon"),))]
    assert encode_demonstrations(plain, rows, max_length=50).num_promptless == 1
    assert (
        encode_preferences(
            chat, [preference(" ", "yes", "no"), preference("a", "yes", "no")], max_length=50
        ).num_promptless
        == 1
    )
