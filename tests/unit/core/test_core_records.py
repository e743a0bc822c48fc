"""Records: round trips through JSON, ids that follow content, located errors for rows of files."""

import dataclasses
import hashlib
import json
import pickle
import types
import typing
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core import records
from fairlead.core.errors import DataError
from fairlead.core.io import dump_json, read_records, write_jsonl
from fairlead.core.records import Completion, Message, Prompt, Record, Score, content_hash, from_dict, to_dict

CLASSES = [c for c in vars(records).values() if isinstance(c, type) and issubclass(c, Record) and c is not Record]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
META = st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=3), max_size=3)


def values_of(hint):
    """Strategy for a field type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is types.UnionType:
        return st.none() | values_of(args[0])
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is not None:
        return META
    if hint is Message:
        return st.builds(Message, role=st.sampled_from(typing.get_args(records.Role)), content=TEXT)
    return {str: TEXT, int: st.integers(-(2**40), 2**40), bool: st.booleans(),
            float: st.floats(allow_nan=False, allow_infinity=False)}[hint]  # fmt: skip


def records_of(cls):
    """Strategy for a record; `schema` stays what this version writes and `id` is computed."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.name not in ("schema", "id")]
    return st.builds(cls, **{name: values_of(hints[name]) for name in names})


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_round_trip_through_json_and_pickle(cls, data):
    record = data.draw(records_of(cls))
    row = json.loads(dump_json(to_dict(record)))
    assert from_dict(cls, row) == record
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_id_follows_content_and_ignores_meta(cls, data):
    record = data.draw(records_of(cls))
    again = dataclasses.replace(record, meta={"other": 1}, id="")
    assert again.id == record.id and record.id.startswith(cls.prefix + "-")
    name = next(f.name for f in dataclasses.fields(cls) if typing.get_type_hints(cls)[f.name] is str)
    changed = dataclasses.replace(record, **{name: getattr(record, name) + "x"}, id="")
    assert changed.id != record.id


def test_prefixes_are_unique():
    assert len({c.prefix for c in CLASSES}) == len(CLASSES)


def test_ids_are_the_same_on_every_machine():
    """Written down once: sha256 of the JSON with sorted keys and no spaces, first 16 hex digits."""
    prompt = Prompt(messages=(Message(role="user", content="Grüße"),), slice="greeting", source="own")
    assert prompt.id == "p-" + content_hash(
        {"messages": [{"role": "user", "content": "Grüße"}], "slice": "greeting", "source": "own", "split": "train",
         "schema": 1}
    )  # fmt: skip
    assert content_hash({"b": 1, "a": [1.5, "é"]}) == content_hash({"a": [1.5, "é"], "b": 1}) == "b3aa7c2c75e6eda6"


def test_ids_do_not_depend_on_the_order_of_keys_in_a_file():
    row = to_dict(Completion(prompt_id="p", text="t", model="m"))
    row.pop("id")
    assert from_dict(Completion, row).id == from_dict(Completion, dict(reversed(row.items()))).id


PROMPT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("cls", "row", "words"),
    [
        (Prompt, PROMPT | {"slcie": "a"}, ["f:3.slcie", "did you mean slice?"]),
        (Prompt, {}, ["f:3.messages", "is missing"]),
        (Prompt, PROMPT | {"slice": 3}, ["f:3.slice=3", "wrong type", "expected str"]),
        (Prompt, PROMPT | {"split": "dev"}, ["f:3.split=dev", "one of train, heldout"]),
        (Prompt, PROMPT | {"schema": 99}, ["f:3.schema=99", "newer", "Upgrade"]),
        (Prompt, PROMPT | {"schema": "one"}, ["f:3.schema=one", "wrong type"]),
        (Prompt, PROMPT | {"schema": None}, ["f:3.schema", "wrong type"]),
        (Prompt, PROMPT | {"meta": 5}, ["f:3.meta=5", "an object"]),
        (Prompt, PROMPT | {"meta": "abc"}, ["f:3.meta=abc", "an object"]),
        (Prompt, {"messages": "Hi"}, ["f:3.messages=Hi", "a list"]),
        (Prompt, {"messages": ["Hi"]}, ["f:3.messages[0]=Hi", "is not a message"]),
        (Prompt, {"messages": [{"role": "user"}]}, ["f:3.messages[0]", "is not a message"]),
        (Prompt, {"messages": [{"role": "user", "content": "x", "name": "y"}]}, ["f:3.messages[0]", "{role, content}"]),
        (Prompt, {"messages": [{"role": "boss", "content": "x"}]}, ["f:3.messages[0].role=boss", "one of system"]),
        (Score, {"completion_id": "c", "scorer": "s", "value": float("nan")}, ["f:3.value=nan", "not finite"]),
        (Score, {"completion_id": "c", "scorer": "s", "value": float("inf")}, ["f:3.value=inf", "not finite"]),
        (Score, {"completion_id": "c", "scorer": "s", "value": 10**400}, ["f:3.value=", "not finite"]),
        (Score, {"completion_id": "c", "scorer": "s", "value": True}, ["f:3.value=True", "expected float"]),
        (Completion, {"prompt_id": "p", "text": "t", "model": "m", "seed": True}, ["f:3.seed=True", "expected int"]),
        (Completion, {"prompt_id": "p", "text": "t", "model": "m", "token_ids": [1, 2.5]}, ["f:3.token_ids[1]=2.5"]),
        (Completion, ["not", "a", "row"], ["f:3", "is not an object"]),
    ],
)  # fmt: skip
def test_faults_in_rows_are_located(cls, row, words):
    with pytest.raises(DataError) as caught:
        from_dict(cls, row, where="f:3")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def plain_naive(value):
    """What `to_dict` means, type by type and without a shortcut."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain_naive(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain_naive(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain_naive(v) for v in value]
    return value


class Word(str):
    """A text that is not exactly `str`, as libraries return."""

    __slots__ = ()


ODD_META = [
    {1: (Message(role="user", content="x"), [None, {"a": (1, 2.5)}])}, types.MappingProxyType({"a": Word("b"), "c": [Word("d")]}),
    {"nested": {"deeper": types.MappingProxyType({2: [True]})}, "empty": [(), {}]},
]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_to_dict_equals_the_plain_way(cls, data):
    record = data.draw(records_of(cls))
    odd = dataclasses.replace(record, meta=data.draw(st.sampled_from(ODD_META)))
    for one in (record, odd):
        made, naive = to_dict(one), plain_naive(one)
        assert made == naive and list(made) == list(naive) and dump_json(made) == dump_json(naive)
    content = {k: v for k, v in plain_naive(record).items() if k not in ("id", "meta")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert record.id == f"{cls.prefix}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_rows_that_are_not_plain_json_are_read_alike(cls, data):
    """Tuples for lists, mappings that are no dicts, texts that are no plain `str`: equal values give equal records."""
    record = data.draw(records_of(cls))
    row = to_dict(record)
    odd = {k: Word(v) if type(v) is str else tuple(v) if type(v) is list else v for k, v in row.items()}
    odd["meta"] = types.MappingProxyType(row["meta"])
    assert from_dict(cls, types.MappingProxyType(odd)) == from_dict(cls, row) == record


def test_a_record_does_not_share_its_meta_with_the_row():
    row = {"completion_id": "c", "scorer": "s", "value": 1.0, "meta": {"a": 1}}
    score = from_dict(Score, row)
    row["meta"]["a"] = 2
    assert score.meta == {"a": 1}


def test_whole_numbers_are_read_as_floats():
    assert from_dict(Score, {"completion_id": "c", "scorer": "s", "value": 2}).value == 2.0


def test_records_survive_a_file(tmp_path):
    written = [Prompt(messages=(Message(role="user", content=f"{i} \u2028 😀"),)) for i in range(3)]
    for name in ("p.jsonl", "p.jsonl.gz"):
        assert write_jsonl(tmp_path / name, written) == 3
        assert list(read_records(tmp_path / name, Prompt)) == written


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prompt(messages=()).slice = "x"
