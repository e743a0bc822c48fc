"""Records to trees on disk: the same trees as in memory, found again by content, made again when a file is not what it should be."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_text_columns import assert_equal

import tiny_models
from fairlead.core.errors import DataError, Interrupted
from fairlead.core.records import Demonstration, Label, Message, Preference
from fairlead.core.services import Services
from fairlead.text import ChatText, encode_demonstrations, encode_labels, encode_preferences, examples, with_mismatched
from fairlead.text import encoding as module
from fairlead.text.encoding import Storage, encode_parts, encode_rows
from fairlead.text.rankings import encode_rankings
from fairlead.text.ratings import encode_ratings
from fairlead.train.identity import data_fingerprint

WORDS = ["what", "home", "great", "man", "ball", "time", "once", "said", "yes"]


@pytest.fixture(scope="module")
def chat():
    return ChatText(tiny_models.make_tokenizer())


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 4)


def user(text):
    return (Message(role="user", content=text),)


def preferences():
    return [
        Preference(prompt=user(WORDS[i // 3]), chosen="yes " * (1 + i % 4), rejected=f"no {WORDS[i // 3]}", p_chosen=0.6 + i / 100,
                   margin=i / 7, weight=1 + i % 2, meta={"chosen_score": 5 - i % 3, "rejected_score": 1.5})
        for i in range(18)
    ]  # fmt: skip


def demonstrations():
    return [
        Demonstration(messages=(*user(w * (1 + 9 * (i == 5))), Message(role="assistant", content="yes " * (i + 1))))
        for i, w in enumerate(WORDS)
    ]


def labels():
    return [Label(prompt=user(w), completion="no " * (i + 1), is_good=i % 2 == 0, weight=i + 0.5) for i, w in enumerate(WORDS)]  # fmt: skip


def storage(tmp_path, said=None, **options):
    return Storage(
        folder=tmp_path / "trees",
        services=Services(work=tmp_path, say=(said if said is not None else []).append, **options),
    )


def files(tmp_path):
    return {p.name: p for p in (tmp_path / "trees").iterdir()}


def in_memory(chat, kind, rows, max_length):
    """Encoded by the plain functions, in one piece."""
    if kind == "ratings":
        return encode_ratings(chat, rows, ("score",), max_length=max_length)[0]
    if kind == "rankings":
        return encode_rankings(chat, rows, max_length=max_length)[0]
    return ENCODE[kind](chat, rows, max_length=max_length)


def on_disk(chat, kind, rows, max_length, store):
    if kind == "ratings":
        return encode_ratings(chat, rows, ("score",), max_length=max_length, storage=store)[0]
    if kind == "rankings":
        return encode_rankings(chat, rows, max_length=max_length, storage=store)[0]
    return encode_rows(rows, ENCODE[kind], chat=chat, max_length=max_length, what=kind, storage=store)


ENCODE = {"demonstrations": encode_demonstrations, "preferences": encode_preferences, "labels": encode_labels}
ROWS = {
    "demonstrations": demonstrations,
    "labels": labels,
    "preferences": preferences,
    "rankings": preferences,
    "ratings": preferences,
}

SHORT = {"demonstrations": 17, "labels": 10, "preferences": 9, "rankings": 9, "ratings": 9}


@pytest.mark.parametrize("kind", ROWS)
def test_trees_from_disk_are_those_from_memory(chat, tmp_path, kind):
    rows = ROWS[kind]()
    for max_length in (SHORT[kind], 64):
        expected = in_memory(chat, kind, rows, max_length)
        for _ in range(2):
            found = on_disk(chat, kind, rows, max_length, storage(tmp_path))
            assert found.counts() == expected.counts() and list(found.kept_rows) == list(expected.kept_rows)
            for a, b in zip(expected.trees, found.trees, strict=True):
                assert_equal(a, b)
        assert (expected.num_truncated + expected.num_dropped > 0) == (max_length < 64), "something is cut or dropped"


def test_mismatched_completions_are_the_same_from_disk(chat, tmp_path):
    rows = preferences()
    expected = with_mismatched(encode_preferences(chat, rows, max_length=60).trees, max_length=20, seed=3)
    stored = encode_rows(
        rows, encode_preferences, chat=chat, max_length=60, what="preferences", storage=storage(tmp_path)
    )
    for a, b in zip(expected, with_mismatched(stored.trees, max_length=20, seed=3), strict=True):
        assert_equal(a, b)


def test_parts_are_routed_in_one_pass_and_number_their_own_rows(chat, tmp_path):
    rows = preferences()
    routed = ((None if i == 0 else "heldout" if i % 5 == 0 else "train", row) for i, row in enumerate(rows))
    found = encode_parts(
        routed, encode_preferences, chat=chat, max_length=64, what="preferences", storage=storage(tmp_path)
    )
    assert set(found) == {"train", "heldout"}
    for name, numbers in (("heldout", [5, 10, 15]), ("train", [i for i in range(1, 18) if i % 5])):
        expected = encode_preferences(chat, [rows[i] for i in numbers], max_length=64)
        assert list(found[name].kept_rows) == list(expected.kept_rows)
        for a, b in zip(expected.trees, found[name].trees, strict=True):
            assert_equal(a, b)


def counting(monkeypatch):
    """Counts the texts that are tokenised to become rows; those of a look at the boundary come on top."""
    monkeypatch.setattr(examples, "_NUM_LOOKED", 0)
    calls, whole = [], ChatText._encode_texts
    monkeypatch.setattr(ChatText, "_encode_texts", lambda self, texts: calls.extend(texts) or whole(self, texts))
    return calls


def test_the_same_data_is_tokenised_once_and_more_rows_cost_only_themselves(chat, tmp_path, monkeypatch):
    rows, calls = preferences(), counting(monkeypatch)
    options = {"chat": chat, "max_length": 64, "what": "preferences"}
    first = encode_rows(rows[:16], encode_preferences, **options, storage=storage(tmp_path))
    assert len(calls) == 3 * 16 and len(files(tmp_path)) == 4
    calls.clear()
    again = encode_rows(rows[:16], encode_preferences, **options, storage=storage(tmp_path))
    assert calls == [] and data_fingerprint(again.trees) == data_fingerprint(first.trees)
    more = encode_rows(rows, encode_preferences, **options, storage=storage(tmp_path))
    assert len(calls) == 3 * 2 and data_fingerprint(more.trees) != data_fingerprint(first.trees)


def test_whatever_trees_depend_on_changes_the_name(chat, tmp_path):
    rows = preferences()[:1]

    def names_after(*, chat=chat, rows=rows, encode=encode_preferences, max_length=64):
        before = set(files(tmp_path)) if (tmp_path / "trees").exists() else set()
        encode_rows(rows, encode, chat=chat, max_length=max_length, what="rows", storage=storage(tmp_path))
        return set(files(tmp_path)) - before

    assert len(names_after()) == 1
    for same in (
        dataclasses.replace(rows[0], id="other"),
        dataclasses.replace(rows[0], meta={"row": 7}),
        dataclasses.replace(rows[0], source="x"),
    ):
        assert not names_after(rows=[same]), "an id or a source changes no token"
    other = tiny_models.make_tokenizer()
    other.add_tokens(["yes"])
    changes = [
        {"rows": [dataclasses.replace(rows[0], chosen="yes.")]}, {"rows": [dataclasses.replace(rows[0], margin=1.0)]},
        {"rows": [dataclasses.replace(rows[0], prompt=(Message(role="system", content=WORDS[0]),))]},
        {"rows": rows * 2}, {"max_length": 63}, {"encode": _other_kind},
        {"chat": ChatText(other)}, {"chat": ChatText(tiny_models.make_tokenizer(bos=None), template="chatml")},
        {"chat": ChatText(tiny_models.make_tokenizer(), template="plain")},
    ]  # fmt: skip
    for change in changes:
        assert names_after(**change), change


def _other_kind(chat, rows, *, max_length, may_be_empty):
    return encode_preferences(chat, rows, max_length=max_length, may_be_empty=may_be_empty)


def test_the_format_and_the_code_are_part_of_the_name(chat, tmp_path, monkeypatch):
    rows = preferences()[:1]
    for name, value in (("FORMAT", module.FORMAT), ("FORMAT", "trees/0"), ("_code_hash", lambda: "other")):
        monkeypatch.setattr(module, name, value)
        encode_rows(rows, encode_preferences, chat=chat, max_length=64, what="rows", storage=storage(tmp_path))
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["cut", "other version"])
def test_files_that_cannot_be_read_are_made_again_and_that_is_said_once(chat, tmp_path, monkeypatch, damage):
    rows, said = preferences(), []
    options = {"chat": chat, "max_length": 64, "what": "preferences"}
    first = encode_rows(rows, encode_preferences, **options, storage=storage(tmp_path))
    expected = [t.branches[0].token_ids.tolist() for t in first.trees]
    for path in list(files(tmp_path).values())[:2]:
        data = path.read_bytes()
        path.write_bytes(data[:100] if damage == "cut" else data.replace(b"trees/1", b"trees/0"))
    again = encode_rows(rows, encode_preferences, **options, storage=storage(tmp_path, said))
    assert [t.branches[0].token_ids.tolist() for t in again.trees] == expected
    assert said == ["tokens: 2 cached files were damaged or of another version and were made again"]
    encode_rows(rows, encode_preferences, **options, storage=storage(tmp_path, said))
    assert len(said) == 1


def test_a_run_that_breaks_off_keeps_whole_shards_only(chat, tmp_path, monkeypatch):
    rows, calls = preferences(), counting(monkeypatch)

    def broken():
        yield from rows[:10]
        raise KeyboardInterrupt

    options = {"chat": chat, "max_length": 64, "what": "preferences"}
    with pytest.raises(KeyboardInterrupt):
        encode_rows(broken(), encode_preferences, **options, storage=storage(tmp_path))
    assert len(files(tmp_path)) == 2
    (tmp_path / "trees" / ".x.arrow.abc.tmp").write_bytes(b"half")
    calls.clear()
    found = encode_rows(rows, encode_preferences, **options, storage=storage(tmp_path))
    assert len(calls) == 3 * 10 and len(found.trees) == 18


def test_ctrl_c_stops_between_rows(chat, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TICK", 2)
    taken = []
    rows = (taken.append(row) or row for row in preferences())
    with pytest.raises(Interrupted):
        encode_rows(
            rows,
            encode_preferences,
            chat=chat,
            max_length=64,
            what="rows",
            storage=storage(tmp_path, should_stop=lambda: True),
        )
    assert len(taken) == 2


def test_nothing_left_is_an_error_in_one_line(chat, tmp_path):
    with pytest.raises(DataError, match="preferences=18 rows do not fit"):
        encode_rows(
            preferences(), encode_preferences, chat=chat, max_length=3, what="preferences", storage=storage(tmp_path)
        )
    with pytest.raises(DataError, match="preferences=0 rows do not fit"):
        encode_rows([], encode_preferences, chat=chat, max_length=3, what="preferences")


def test_long_rows_make_small_shards(chat, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_CHARS", 1)
    encode_rows(preferences()[:3], encode_preferences, chat=chat, max_length=64, what="rows", storage=storage(tmp_path))
    assert len(files(tmp_path)) == 3


_SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {text!r}]
{before}
import test_text_encoding as t
from fairlead.text import ChatText
import tiny_models
t.module.SHARD_ROWS = 7
chat = ChatText(tiny_models.make_tokenizer())
rows = t.preferences() * 40
store = t.Storage(folder={folder}) if {folder} else None
found = t.encode_rows(rows, t.encode_preferences, chat=chat, max_length=64, what="rows", storage=store)
print(len(found.trees), t.data_fingerprint(list(found.trees)))
"""


def _run_script(folder, before="", status=0, **env):
    here = Path(__file__).parent
    script = _SCRIPT.format(
        tests=str(here.parents[1]), text=str(here), folder=f"Path({str(folder)!r})" if folder else "None", before=before
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_one_thread_and_three_write_the_same_bytes_and_a_machine_without_arrow_has_the_same_trees(tmp_path):
    one = _run_script(tmp_path / "a", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="true")
    three = _run_script(tmp_path / "b", RAYON_NUM_THREADS="3", TOKENIZERS_PARALLELISM="true")
    bare = _run_script(None, before="sys.modules['pyarrow'] = None; import pydantic; sys.modules['pydantic'] = None")
    assert one == three == bare and one.startswith("720 ")
    sums = [{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir()} for name in "ab"]
    assert sums[0] == sums[1] and len(sums[0]) > 18


def test_a_run_that_is_killed_while_it_writes_leaves_whole_files_only(chat, tmp_path, monkeypatch):
    """Killed when the third shard is written but has no name yet; the next run finds two, makes the rest, and has the same trees."""
    killer = "import os, signal; from fairlead.core import io; num = [2]\n"
    killer += (
        "def kill(path):\n    num[0] -= 1\n    num[0] < 0 and os.kill(os.getpid(), signal.SIGKILL)\nio.sync_file = kill"
    )
    _run_script(tmp_path / "trees", before=killer, status=-9)
    left = sorted(name for name in files(tmp_path))
    assert len(left) == 3 and left[0].endswith(".tmp") and all(name.endswith(".arrow") for name in left[1:])
    monkeypatch.setattr(module, "SHARD_ROWS", 7)
    calls, said = counting(monkeypatch), []
    rows = preferences() * 40
    found = encode_rows(
        rows, encode_preferences, chat=chat, max_length=64, what="rows", storage=storage(tmp_path, said)
    )
    assert len(calls) == 3 * (16 * 7 + 6) and said == [], (
        "18 shards differ, of which two were there, and the last has 6 rows"
    )
    whole = encode_rows(rows, encode_preferences, chat=chat, max_length=64, what="rows")
    assert data_fingerprint(found.trees) == data_fingerprint(whole.trees)
