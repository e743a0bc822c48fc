"""What stands between two turns that a model wrote: the template's words, whatever was sampled; the prefix property of long rollouts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_text_chat import APPENDING, END, ENDLESS, FORGETFUL, make

import tiny_models
from fairlead.core.errors import DataError
from fairlead.core.records import Message
from fairlead.text.chat import PLAIN, ChatText

TEMPLATES = {**APPENDING, "plain": PLAIN, "chatml": "chatml"}
WORDS = st.sampled_from(["yes", "no", "what did you say", "a great big ball", " a ", "x\ny"])


def chat_of(name: str) -> ChatText:
    if name in (PLAIN, "chatml"):
        return ChatText(tiny_models.make_tokenizer(), template=name)
    return make(TEMPLATES[name])


def message(role: str, content: str) -> Message:
    return Message(role=role, content=content)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", TEMPLATES)
@given(texts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_turns_with_what_is_between_them_are_the_conversation(name: str, texts: list[tuple[str, str]]) -> None:
    """prompt + turn 1 + between + turn 2 + ... has the ids and the mask of the whole conversation, and each prompt begins with the last."""
    chat = chat_of(name)
    role = "user" if name in ("inst", "zephyr") else "tool"
    prompt = [message("user", "once upon a time")]
    said, ids, mask = list(prompt), chat.encode_prompt(prompt), [False]
    mask = [False] * len(ids)
    for number, (turn, observation) in enumerate([*texts, ("and no", "")]):
        written = chat.encode_completion(turn)
        ids, mask = np.concatenate([ids, written]), mask + [True] * len(written)
        if number < len(texts):
            (between,) = chat.encode_between([(said, [message(role, observation)])])
            said += [message("assistant", turn), message(role, observation)]
            ids, mask = np.concatenate([ids, between]), mask + [False] * len(between)
            assert chat.encode_prompt(said).tolist() == ids.tolist()
    whole = chat.encode_conversation([*said, message("assistant", "and no")])
    assert whole.token_ids.tolist() == ids.tolist() and whole.completion_mask.tolist() == mask


def test_what_was_sampled_takes_no_part() -> None:
    """Ids that no text tokenises to, special tokens among them, leave what follows as it is."""
    chat = chat_of("own")
    first, second = chat.encode_between(
        [
            ([message("user", "a"), message("assistant", odd), message("tool", "b")], [message("tool", "what")])
            for odd in ("no", "<|end|>\n<s>")
        ]
    )
    assert first.tolist() == second.tolist()
    assert first.tolist()[-1] == 4 and END not in first.tolist()[:1]


def test_templates_that_cannot_append_are_refused() -> None:
    for template, match in ((FORGETFUL, "rewrites or drops"), (ENDLESS, "no terminator")):
        with pytest.raises(DataError, match=match):
            make(template).encode_between([([message("user", "a")], [message("user", "b")])])


def test_a_template_may_drop_what_it_thinks_of_earlier_turns() -> None:
    """One that strips thoughts of earlier turns still appends to a turn of which nothing is rendered."""
    thoughts = tiny_models.TEMPLATE.replace(
        "{{ m.content }}<|end|>{% endgeneration %}", "{{ m.content.split('[I]')[-1] }}<|end|>{% endgeneration %}"
    )
    chat = make(thoughts)
    before = [message("user", "a"), message("assistant", "no[I]yes"), message("tool", "b")]
    (between,) = chat.encode_between([(before, [message("tool", "what")])])
    assert chat.tokenizer.decode(between).replace(" ", "") == "<|user|>what<|end|><|assistant|>"
