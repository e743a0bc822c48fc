"""Reading prompts: columns, messages, rejects, take, formats, hub, and the messages that a user meets."""

import datetime
import gzip
import json
import math
import random
import sys

import pytest

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, Row, write_jsonl, write_parquet
from fairlead.core.records import Completion, Message, Prompt
from fairlead.prompts.conversations import cut_words, to_messages
from fairlead.prompts.ledger import Ledger
from fairlead.prompts.sources import VERIFIED_FIELDS, Reading, SourceConfig, read_source, source_names
from fairlead.rewards.verifiers import VERIFIERS, build_verifier
from fairlead.rewards.verifiers.registry import read_section


def user(text):
    """One user turn."""
    return Message(role="user", content=text)


def read(folder, *, read_prompts=None, **config):
    """Read one source; return its candidates and the ledger."""
    ledger = Ledger(Rejects(folder / "rejects.jsonl"))
    reading = Reading(ledger=ledger, folders=(folder,), read_prompts=read_prompts)
    source = parse_config(SourceConfig, config, where="sources.0")
    candidates = read_source(source, index=0, name="own", reading=reading)
    ledger.reconcile(candidates)
    return candidates, ledger


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hi", (user("Hi"),)),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], (user("Hi"),)),
        ([{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
         (Message(role="system", content="Be kind"), user("Hi"))),
        ('[{"role": "user", "content": "Hi"}]', (user("Hi"),)),
        ('[{"a": 1}] is what I have', (user('[{"a": 1}] is what I have'),)),
        (None, "empty"), ("", "empty"), (" \n\u200b", "empty"),
        ([{"role": "user", "content": " "}], "empty"),
        (7, "not text or messages"), ({"role": "user"}, "not text or messages"), (["Hi"], "not text or messages"),
        ([{"role": "human", "content": "Hi"}], "not text or messages"),
        ([{"role": "user", "content": None}], "not text or messages"),
        ([], "no user turn"), ([{"role": "assistant", "content": "Hello"}], "no user turn"),
        ([{"role": "system", "content": "Be kind"}], "no user turn"),
    ],
)  # fmt: skip
def test_a_cell_becomes_messages_or_a_reason(value, expected):
    assert to_messages(value) == expected


def test_cut_words_keeps_the_first_words_of_the_last_turn_as_written():
    messages = (user("first turn stays"), user("  one\n two  three four"))
    assert cut_words(messages, num_words=3) == (user("first turn stays"), user("one\n two  three"))
    assert cut_words((user("one two"),), num_words=5) == (user("one two"),)


@pytest.mark.parametrize(
    "name", ["prompts.jsonl", "prompts.jsonl.gz", "prompts.json", "prompts.csv", "prompts.parquet"]
)
def test_every_file_type_gives_the_same_prompts(tmp_path, name):
    rows = [{"question": "What is it?", "kind": "facts"}, {"question": "Prove, that\n1 = 1", "kind": "maths"}]
    path = tmp_path / name
    if name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith(".csv"):
        path.write_text('question,kind\nWhat is it?,facts\n"Prove, that\n1 = 1",maths\n')
    elif name.endswith(".parquet"):
        write_parquet(path, rows)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        write_jsonl(path, rows)
    candidates, _ = read(tmp_path, path=name, slice_field="kind")
    assert [(c.messages, c.slice) for c in candidates] == [((user(r["question"]),), r["kind"]) for r in rows]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "t", "prompt": "p", "question": "q"}, "p"),
        ({"instruction": "Sort", "input": "3 1 2", "output": "1 2 3"}, "Sort\n\n3 1 2"),
        ({"instruction": "Sort", "input": " ", "output": ""}, "Sort"),
        ({"question": "q", "input": "not joined"}, "q"),
    ],
)
def test_auto_takes_the_first_known_column_and_joins_an_instruction_with_its_input(tmp_path, row, expected):
    write_jsonl(tmp_path / "a.jsonl", [row])
    candidates, _ = read(tmp_path, path="a.jsonl")
    assert candidates[0].text == expected


def test_input_field_joins_any_two_columns_or_none(tmp_path):
    write_jsonl(
        tmp_path / "a.jsonl", [{"body": "Tom has 3.", "question": "How many?", "instruction": "i", "input": "x"}]
    )
    assert read(tmp_path, path="a.jsonl", field="body", input_field="question")[0][0].text == "Tom has 3.\n\nHow many?"
    assert read(tmp_path, path="a.jsonl", field="instruction", input_field="")[0][0].text == "i"


def test_rows_that_are_no_prompts_are_rejected_with_reason_and_can_be_written(tmp_path):
    when = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    write_parquet(tmp_path / "a.parquet", [{"day": when, "prompt": text} for text in ("fine", "", None)])
    candidates, ledger = read(tmp_path, path="a.parquet")
    assert [c.text for c in candidates] == ["fine"]
    with ledger.rejects:
        pass
    rejected = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(row["where"], row["reason"], row["row"]["prompt"]) for row in rejected] == [
        (f"{tmp_path}/a.parquet[1]", "empty", ""),
        (f"{tmp_path}/a.parquet[2]", "empty", None),
    ]
    assert rejected[0]["row"]["day"].startswith("datetime.datetime(2024, 5, 1")


def test_reasons_are_counted_and_a_row_without_the_column_is_one_of_them(tmp_path):
    write_jsonl(
        tmp_path / "a.jsonl", [{"prompt": "fine"}, {"prompt": " "}, {"prompt": 7}, {"other": 1}, {"prompt": ""}]
    )
    _, ledger = read(tmp_path, path="a.jsonl")
    assert ledger.rejects.counts == {"empty": 2, "not text or messages": 1, "no column prompt": 1}
    assert ledger.reasons() == "2 empty, 1 no column prompt, 1 not text or messages"


def test_take_is_a_fair_choice_that_does_not_depend_on_the_order_of_rows(tmp_path):
    """Files are often sorted: of 1,000 sorted rows 300 are taken, about 150 +- 4 * 7.2 from the first half."""
    rows = [{"prompt": f"prompt number {i}"} for i in range(1000)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    random.Random(0).shuffle(rows)
    write_jsonl(tmp_path / "b.jsonl", rows)
    taken, ledger = read(tmp_path, path="a.jsonl", take=300)
    assert {c.text for c in taken} == {c.text for c in read(tmp_path, path="b.jsonl", take=300)[0]}
    assert ledger.not_taken[0] == 700
    assert ledger.rejects.total == 0
    assert abs(sum(c.number <= 500 for c in taken) - 150) < 4 * 7.2


def test_rows_without_slice_have_one_of_their_own(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "kind": "x"}, {"prompt": "b"}, {"prompt": "c", "kind": 3}])
    assert [c.slice for c in read(tmp_path, path="a.jsonl", slice_field="kind")[0]] == ["x", "(none)", "3"]


def test_names_show_no_machine_paths_and_tell_equal_files_apart():
    sources = [SourceConfig(path=p) for p in ("/data/a/train.jsonl.gz", "/data/b/train.jsonl", "/data/b/other.csv")]
    sources += [SourceConfig(hub="org/set"), SourceConfig(path="x.csv", name="mine")]
    assert source_names(sources) == ["a/train", "b/train", "other", "org/set", "mine"]


def test_relative_paths_are_looked_up_in_each_folder_in_turn(tmp_path):
    for name in ("recipe", "input"):
        (tmp_path / name).mkdir()
    write_jsonl(tmp_path / "input" / "a.jsonl", [{"prompt": "from the input"}])
    reading = Reading(ledger=Ledger(Rejects(tmp_path / "r")), folders=(tmp_path / "recipe", tmp_path / "input"))
    found = read_source(SourceConfig(path="a.jsonl"), index=0, name="a", reading=reading)
    assert [c.text for c in found] == ["from the input"]
    with pytest.raises(DataError, match=r"recipe/b\.jsonl does not exist; expected a readable file"):
        read_source(SourceConfig(path="b.jsonl"), index=0, name="b", reading=reading)


def test_formats_go_through_the_reader_that_was_handed_in_and_its_rejects_are_counted(tmp_path):
    def read_prompts(path, *, format, rejects):
        assert (path, format) == (tmp_path / "pairs.jsonl", "hh")
        yield Prompt(messages=(user("one"),), slice="theirs")
        rejects.add(Row(f"{path}:2", 2, {"chosen": ""}), "empty reply")
        yield Prompt(messages=(user("two"), Message(role="assistant", content="reply")), slice="theirs")
        yield Prompt(messages=(user(" "),))

    candidates, ledger = read(tmp_path, path="pairs.jsonl", format="hh", read_prompts=read_prompts)
    assert [(c.text, c.slice) for c in candidates] == [("one", "theirs"), ("two", "theirs")]
    assert ledger.rows[0] == 4
    assert ledger.rejects.counts == {"empty reply": 1, "empty": 1}
    renamed, _ = read(tmp_path, path="pairs.jsonl", format="hh", slice="chat", read_prompts=read_prompts)
    assert {c.slice for c in renamed} == {"chat"}


def test_a_file_of_preferences_gives_its_prompts_through_our_own_readers(tmp_path):
    rows = [{"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in (1, 2, 2)]
    write_jsonl(tmp_path / "pairs.jsonl", [*rows, {"prompt": "", "chosen": "good", "rejected": "bad"}])
    candidates, ledger = read(tmp_path, path="pairs.jsonl", format="auto", slice="chat")
    assert [c.text for c in candidates] == ["Question 1?", "Question 2?", "Question 2?"]
    assert (ledger.rows[0], ledger.rejects.total) == (4, 1)


def test_format_auto_asks_the_reader_to_detect(tmp_path):
    asked = []

    def read_prompts(path, *, format, rejects):
        asked.append(format)
        return [Prompt(messages=(user("one"),))]

    assert len(read(tmp_path, path="pairs.jsonl", format="auto", read_prompts=read_prompts)[0]) == 1
    assert asked == [None]


def test_a_hub_source_reads_what_the_datasets_package_loads(tmp_path, monkeypatch):
    """A local folder is a data set to that package, so no network is needed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [{"question": "From the hub?"}])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    candidates, _ = read(tmp_path, hub=str(folder))
    assert [(c.text, c.where) for c in candidates] == [("From the hub?", f"{folder}/train[0]")]
    with pytest.raises(DataError, match=r"prompts\.sources\.hub=.* cannot be loaded .*Check name, subset, split"):
        read(tmp_path, hub=str(folder), split="absent")


def test_a_hub_source_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"sources\.hub=org/set needs the datasets package.*pip install 'fairlead\[train\]'"
    ):
        read(tmp_path, hub="org/set")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"path": "a.jsonl", "field": "questions_"},
         r"a\.jsonl: field=questions_ is in no row \(did you mean questions\?\); expected one of questions, kind"),
        ({"path": "a.jsonl"}, r"a\.jsonl has no column that is known to hold prompts \(questions, kind\); expected prompt, messages"),
        ({"path": "a.jsonl", "field": "questions", "slice_field": "knd"}, r"slice_field=knd is in no row \(did you mean kind\?\)"),
        ({"path": "b.jsonl"}, r"b\.jsonl does not exist \(did you mean a\.jsonl\?\)"),
    ],
)  # fmt: skip
def test_a_missing_file_or_column_is_named_with_the_nearest(tmp_path, config, message):
    write_jsonl(tmp_path / "a.jsonl", [{"questions": "x", "kind": "y"}])
    with pytest.raises(DataError, match=message):
        read(tmp_path, **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "path is missing; expected path or hub"),
        ({"path": "a", "hub": "b"}, "path=a excludes hub"),
        ({"hub": "b", "format": "hh"}, "format=hh excludes hub"),
        ({"path": "a", "slice": "x", "slice_field": "y"}, "slice=x excludes slice_field"),
        ({"path": "a", "format": "hh", "field": "x"}, "format=hh knows its own columns"),
        (
            {"path": "a", "format": "hh", "meta_fields": ["x"]},
            "format=hh knows its own columns; expected .* no meta_fields",
        ),
        ({"path": "a", "take": 0}, r"sources\.0\.take=0 has a wrong value"),
        ({"path": "a", "fields": "x"}, r"sources\.0\.fields=x is not a known key \(did you mean field\?\)"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(SourceConfig, config, where="sources.0")


def test_a_lost_row_is_noticed(tmp_path):
    """The reconciliation can fail: one prompt more was read than is accounted for."""
    ledger = Ledger(Rejects(tmp_path / "r"))
    ledger.rows[0] = 2
    ledger.reject_row(0, Row("a:1", 1, {}), "empty")
    with pytest.raises(AssertionError, match=r"source 0: 2 rows != \(0, 1, 0\)"):
        ledger.reconcile([])


def test_what_a_row_says_of_itself_reaches_its_prompt(tmp_path):
    """Verifiers find the answer there."""
    rows = [
        {"prompt": "1 + 1", "meta": {"answer": 2, "row": 7}},
        {"prompt": "2 + 2", "meta": "none"},
        {"prompt": "3 + 3"},
    ]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    candidates, _ = read(tmp_path, path="sums.jsonl")
    assert [c.to_prompt("train").meta for c in candidates] == [{"answer": 2, "row": 1}, {"row": 2}, {"row": 3}]


def test_columns_that_verifiers_read_reach_the_prompt(tmp_path):
    """A row as IFEval has it, whose instructions are then verified; other columns by name, and the row's own `meta` before its columns."""
    rows = [
        {"key": 1, "prompt": "Name rain.", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["rain"], "relation": None}]},
        {"key": 2, "prompt": "1 + 1", "answer": 3, "meta": {"answer": 2}, "kwargs": None},
    ]  # fmt: skip
    write_jsonl(tmp_path / "p.jsonl", rows)
    candidates, _ = read(tmp_path, path="p.jsonl")
    first, second = (candidate.to_prompt("train") for candidate in candidates)
    assert second.meta == {"answer": 2, "row": 2}
    verifier = build_verifier(read_section({"kind": "instructions"}, where="x"))
    replies = [Completion(prompt_id=first.id, text=text, model="m") for text in ("Rain falls.", "Sun shines.")]
    assert [verifier.check(first, reply) for reply in replies] == [1.0, 0.0]
    (named, _), _ = read(tmp_path, path="p.jsonl", meta_fields=["key"])
    assert named.to_prompt("train").meta == {"key": 1, "row": 1}


def test_a_column_that_no_file_of_prompts_can_hold_stays_behind(tmp_path):
    rows = [{"prompt": "When?", "answer": datetime.date(2026, 3, 1), "tests": math.nan}]
    write_parquet(tmp_path / "p.parquet", rows)
    (found,), _ = read(tmp_path, path="p.parquet")
    assert found.to_prompt("train").meta == {"row": 1}


def test_where_verifiers_look_by_default_columns_are_kept():
    sections = {kind: read_section({"kind": kind}, where="x").model_dump() for kind in VERIFIERS if kind != "custom"}
    fields = {
        value
        for section in sections.values()
        for key, value in section.items()
        if key == "field" or key.endswith("_field")
    }
    assert fields == set(VERIFIED_FIELDS)
