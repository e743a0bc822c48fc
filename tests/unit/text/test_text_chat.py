"""Which tokens are learned: masks against transformers' own, terminators, BOS, many turns, and templates that misbehave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from fairlead.core.errors import DataError, ModelError
from fairlead.core.records import Message
from fairlead.text import ChatText
from fairlead.text.chat import CHATML

BOS, EOS, USER, ASSISTANT, END = 1, 2, 3, 4, 5
ZEPHYR = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}{{ eos_token }}\n"
    "{% else %}<|assistant|>\n{% generation %}{{ m.content }}{{ eos_token }}\n{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
STRIPPING = tiny_models.TEMPLATE.replace("m.content", "m.content | trim")
LAST_EOS = "{{ bos_token }}" + (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
FORGETFUL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|end|>"
    "{% elif loop.last %}<|assistant|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}[I]\n\n{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENDLESS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
MARKED = {"own": tiny_models.TEMPLATE, "zephyr": ZEPHYR, "inst": INST, "stripping": STRIPPING}
APPENDING = {**MARKED, "last_eos": LAST_EOS}


def talk(*texts):
    """user, assistant, user, assistant, ..."""
    return [Message(role="user" if i % 2 == 0 else "assistant", content=text) for i, text in enumerate(texts)]


def make(template, **options):
    return ChatText(tiny_models.make_tokenizer(template=template, **options))


def learned(chat, encoded):
    return chat.tokenizer.convert_ids_to_tokens(encoded.token_ids[encoded.completion_mask].tolist())


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize(
    "texts", [("what did you say", "no"), ("a", "a", "a", "a"), ("user", "user", "or", "and no"), ("x\ny", "\n yes ")]
)
def test_masks_are_those_of_generation_markers(name, texts):
    chat = make(MARKED[name])
    encoded = chat.encode_conversation(talk(*texts))
    rows = [{"role": m.role, "content": m.content} for m in talk(*texts)]
    peer = chat.tokenizer.apply_chat_template(rows, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = list(peer["input_ids"]), [bool(x) for x in peer["assistant_masks"]]
    if ids[0] != BOS:
        ids, mask = [BOS, *ids], [False, *mask]
    white = {chat.tokenizer.convert_tokens_to_ids("\n")}
    for i in range(1, len(ids)):
        if ids[i] in white and ids[i - 1] == chat.terminator_id:
            mask[i] = False
    while ids[-1] in white:
        ids, mask = ids[:-1], mask[:-1]
    assert encoded.token_ids.tolist() == ids
    assert encoded.completion_mask.tolist() == mask


@pytest.mark.parametrize(
    ("template", "terminator"),
    [*((t, EOS if n in ("zephyr", "inst") else END) for n, t in APPENDING.items()), (ENDLESS, EOS)],
)
def test_the_terminator_is_what_the_template_ends_a_reply_with(template, terminator):
    chat = make(template)
    assert chat.terminator_id == terminator
    assert chat.stop_token_ids == tuple(sorted({EOS, terminator}))
    encoded = chat.encode_conversation(talk("what", "no"))
    assert encoded.token_ids[-1] == terminator and encoded.completion_mask[-1]


@pytest.mark.parametrize("name", APPENDING)
def test_every_turn_is_learned_with_its_terminator(name):
    chat = make(APPENDING[name])
    encoded = chat.encode_conversation(talk("what", "yes", "and", "no"))
    assert chat.tokenizer.decode(encoded.token_ids[encoded.completion_mask]).replace(" ", "") == "yes{0}no{0}".format(
        chat.tokenizer.convert_ids_to_tokens(chat.terminator_id)
    )
    last = chat.encode_conversation(talk("what", "yes", "and", "no"), last_turn_only=True)
    assert last.token_ids.tolist() == encoded.token_ids.tolist()
    assert chat.decode(last.token_ids[last.completion_mask]) == "no"


@pytest.mark.parametrize("template", [tiny_models.TEMPLATE, tiny_models.TEMPLATE.replace("{{ bos_token }}", "")])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_exactly_one_bos_whoever_adds_it(template, adds_bos):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_models.make_tokenizer(template=template)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
        assert tokenizer("a")["input_ids"][0] == BOS
    chat = ChatText(tokenizer)
    for ids in (chat.encode_prompt(talk("a")), chat.encode_conversation(talk("a", "b", "c", "d")).token_ids):
        assert ids[0] == BOS and (ids == BOS).sum() == 1
    assert BOS not in chat.encode_completion("b")


def test_no_bos_where_the_tokenizer_has_none():
    chat = make(tiny_models.TEMPLATE.replace("{{ bos_token }}", ""), bos=None)
    assert chat.encode_prompt(talk("a"))[0] == USER


def test_plain_joins_contents_and_ends_replies_with_eos():
    chat = ChatText(tiny_models.make_tokenizer(), template="plain")
    tokens = chat.tokenizer.convert_ids_to_tokens(chat.encode_prompt(talk("once upon", " a", " ball")).tolist())
    assert "".join(tokens).replace("▁", " ") == "<s>once upon a</s> ball"
    encoded = chat.encode_conversation(talk("what", "no"))
    assert encoded.token_ids[-1] == EOS == chat.terminator_id and learned(chat, encoded)[-1] == "</s>"
    alone = chat.encode_conversation([Message(role="assistant", content="once")])
    assert alone.token_ids[0] == BOS and alone.completion_mask.tolist() == [False] + [True] * (len(alone.token_ids) - 1)


def test_chatml_ends_with_its_own_token_or_with_eos():
    plain = ChatText(tiny_models.make_tokenizer(template=None), template="chatml")
    assert plain.terminator_id == EOS
    tokenizer = tiny_models.make_tokenizer(template=None)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chat = ChatText(tokenizer, template="chatml")
    assert chat.terminator_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = tokenizer.decode(chat.encode_conversation(talk("a", "b", "c", "d")).token_ids)
    turns = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>"
    assert text.replace(" ", "") == "<s>" + turns.replace(" ", "")
    assert "TERMINATOR" in CHATML


def test_a_template_may_be_a_file(tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_text(tiny_models.TEMPLATE)
    chat = ChatText(tiny_models.make_tokenizer(template=None), template=str(path))
    assert chat.encode_prompt(talk("a")).tolist() == make(tiny_models.TEMPLATE).encode_prompt(talk("a")).tolist()


def one_line(info):
    message = str(info.value)
    assert "\n" not in message and "expected" in message
    return message


def test_a_tokenizer_without_template_needs_one_named():
    with pytest.raises(ModelError) as info:
        make(None)
    assert "text.template" in one_line(info)


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(ModelError) as info:
        make(tiny_models.TEMPLATE, eos=None)
    assert "eos_token" in one_line(info)


def test_template_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ModelError, match="neither a known template nor a file"):
        ChatText(tiny_models.make_tokenizer(), template=str(tmp_path / "no-such.jinja"))
    (tmp_path / "latin.jinja").write_bytes(b"\xe9{{ x }}")
    with pytest.raises(ModelError, match="UTF-8"):
        ChatText(tiny_models.make_tokenizer(), template=str(tmp_path / "latin.jinja"))
    for name, text, says in (
        ("broken", "{{ bos_token }}\n{% for m in messages %}", "is no Jinja template (line 2: "),
        ("empty", "", "does not append"),
        ("refusing", "{{ raise_exception('only poems') }}", "refused a conversation of user (only poems)"),
    ):
        path = tmp_path / f"{name}.jinja"
        path.write_text(text)
        with pytest.raises((ModelError, DataError)) as info:
            ChatText(tiny_models.make_tokenizer(), template=str(path))
        assert f"{name}.jinja {says}" in one_line(info) and one_line(info).startswith("text.template=")


def test_a_template_whose_reply_does_not_follow_its_prompt_is_refused():
    with pytest.raises(ModelError) as info:
        make("{% if add_generation_prompt %}<|user|>{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}")
    assert "does not append" in one_line(info)


@pytest.mark.parametrize(("template", "says"), [(FORGETFUL, "rewrites or drops"), (ENDLESS, "no terminator")])
def test_templates_that_change_history_learn_single_turns_only(template, says):
    chat = make(template)
    assert chat.encode_conversation(talk("a", "b")).completion_mask.sum() == 2
    with pytest.raises(DataError) as info:
        chat.encode_conversation(talk("a", "b", "c", "d"))
    assert says in one_line(info)


def test_markup_that_a_template_adds_to_its_last_reply_is_not_learned():
    chat = make(THINKING)
    encoded = chat.encode_conversation(talk("a", "b", "c", "d"))
    assert learned(chat, encoded) == ["b", "<|end|>", "d", "<|end|>"]


def test_a_stripping_template_trains_what_it_will_write():
    chat = make(STRIPPING)
    assert chat.encode_completion("  no \n").tolist() == chat.encode_completion("no").tolist()
    assert (
        chat.encode_conversation(talk("a", " no ", "b", "c")).token_ids.tolist()
        == chat.encode_conversation(talk("a", "no", "b", "c")).token_ids.tolist()
    )


def test_white_space_before_replies_is_part_of_them():
    chat = make(INST)
    completion = chat.encode_completion("no")
    assert chat.tokenizer.convert_ids_to_tokens(completion.tolist())[0].startswith("▁")
    assert chat.decode(completion) == "no"


def test_a_conversation_without_a_reply_has_nothing_to_learn():
    with pytest.raises(DataError) as info:
        make(tiny_models.TEMPLATE).encode_conversation(talk("a"))
    assert "no assistant turn" in one_line(info)


def test_a_template_that_refuses_roles_says_so():
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + tiny_models.TEMPLATE
    )
    with pytest.raises(DataError) as info:
        make(template).encode_prompt([Message(role="system", content="a")])
    assert "no system role" in one_line(info)


texts = st.text(alphabet="abcdeyno .,?\n", min_size=1, max_size=8).filter(str.strip)


@given(turns=st.lists(texts, min_size=2, max_size=6), name=st.sampled_from([*APPENDING, "plain"]))
def test_prompts_and_completions_are_prefixes_of_conversations(turns, name):
    """However long the history, prompt + completion is the start of the conversation in which they stand."""
    chat = _chat(name)
    messages = talk(*turns[: len(turns) // 2 * 2])
    whole = chat.encode_conversation(messages).token_ids.tolist()
    for turn in range(1, len(messages), 2):
        start = [*chat.encode_prompt(messages[:turn]), *chat.encode_completion(messages[turn].content)]
        assert whole[: len(start)] == start
    assert whole == start


_made = {}


def _chat(name):
    if name not in _made:
        _made[name] = (
            ChatText(tiny_models.make_tokenizer(template=None), template="plain")
            if name == "plain"
            else make(APPENDING[name])
        )
    return _made[name]
