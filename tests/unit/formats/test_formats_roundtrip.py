"""Properties: writing and reading back gives the same pairs; the ways of cutting prompts and rankings against plain loops."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects
from fairlead.core.records import Message, Preference, to_dict
from fairlead.formats import FORMATS, read_preferences, write_preferences
from fairlead.formats.ranking import Candidate, cut_pairs
from fairlead.formats.transcripts import parse_transcript, render_transcript
from fairlead.formats.trl import split_text

WRITABLE = [known.name for known in FORMATS if known.write]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
clean = st.text("abc \n:H", min_size=1, max_size=20).map(str.strip).filter(bool)


def conversations(contents: st.SearchStrategy[str], roles: tuple[str, ...]) -> st.SearchStrategy[tuple[Message, ...]]:
    turn = st.builds(Message, role=st.sampled_from(roles), content=contents)
    last = st.builds(Message, role=st.just("user"), content=contents)
    return st.builds(lambda before, end: (*before, end), st.lists(turn, max_size=3), last)


def pairs_of(contents: st.SearchStrategy[str], roles: tuple[str, ...]) -> st.SearchStrategy[list[Preference]]:
    pair = st.builds(
        Preference,
        prompt=conversations(contents, roles), chosen=contents, rejected=contents,
        p_chosen=st.floats(0.51, 1.0), margin=st.floats(0, 5), meta=st.dictionaries(st.text("abc"), st.integers(), max_size=2),
    ).filter(lambda p: p.chosen.strip() != p.rejected.strip())  # fmt: skip
    return st.lists(pair, min_size=1, max_size=4, unique_by=lambda p: (p.prompt, p.chosen, p.rejected))


def there_and_back(preferences: list[Preference], name: str) -> list[Preference]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl.gz"
        report = write_preferences(path, preferences, format=name)
        assert (report.written, report.left_out) == (len(preferences), {})
        reading = read_preferences(path, rejects=Rejects(Path(folder) / "rejects.jsonl"))
        found = list(reading)
        assert reading.report.format == name and reading.report.reconciles
    return found


def sides(preferences: list[Preference]) -> list[tuple]:
    return [(p.prompt, p.chosen, p.rejected) for p in preferences]


@given(pairs_of(texts, ("user", "assistant", "system")))
def test_fairlead_carries_everything(preferences):
    assert [to_dict(p) for p in there_and_back(preferences, "fairlead")] == [to_dict(p) for p in preferences]


@given(pairs_of(texts, ("user", "assistant", "system", "tool")))
def test_trl_carries_sides_probability_and_margin(preferences):
    found = there_and_back(preferences, "trl")
    assert sides(found) == sides(preferences)
    assert [(p.p_chosen, p.margin) for p in found] == [(p.p_chosen, p.margin) for p in preferences]


@given(pairs_of(texts, ("user", "assistant", "system")))
def test_ultrafeedback_binarized_carries_sides_and_order(preferences):
    found = there_and_back(preferences, "ultrafeedback_binarized")
    assert sides(found) == sides(preferences)
    assert [to_dict(p) for p in found] == [
        to_dict(p) for p in preferences
    ]  # the scores are the probabilities, which come back as such
    assert not any(p.is_tie for p in found)


@given(pairs_of(clean, ("user", "assistant")))
def test_hh_carries_sides_of_clean_texts(preferences):
    assert sides(there_and_back(preferences, "hh")) == sides(preferences)


def one(chosen: str = "Yes.", **fields) -> Preference:
    prompt = fields.pop("prompt", (Message(role="user", content="Really?"),))
    return Preference(prompt=prompt, chosen=chosen, rejected="No.", **fields)


def test_ties_survive_where_the_format_has_them(tmp_path):
    tie = one(is_tie=True, p_chosen=0.5)
    for name in ("fairlead", "ultrafeedback_binarized"):
        (again,) = there_and_back([tie], name)
        assert again.is_tie and again.p_chosen == 0.5
    report = write_preferences(tmp_path / "out.jsonl", [tie, one()], format="trl")
    assert (report.written, report.left_out) == (1, {"TRL has no ties": 1})
    report = write_preferences(tmp_path / "out.jsonl", [tie, one()], format="hh")
    assert (report.written, report.left_out) == (1, {"a transcript has no ties": 1})


@pytest.mark.parametrize("preference", [
    one(" outer space"), one("a\n\nHuman: b"), one(prompt=(Message(role="user", content="a\n\nAssistant: b"),)),
    one(prompt=(Message(role="system", content="Be kind."), Message(role="user", content="Hi"))),
])  # fmt: skip
def test_hh_leaves_out_what_a_transcript_would_change(preference, tmp_path):
    report = write_preferences(tmp_path / "out.jsonl", [one(), preference], format="hh")
    assert report.written == 1 and sum(report.left_out.values()) == 1


def test_nothing_to_write_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match=r"would hold no preference: TRL has no ties \(1\)"):
        write_preferences(tmp_path / "out.jsonl", [one(is_tie=True, p_chosen=0.5)], format="trl")
    with pytest.raises(DataError, match="there were none"):
        write_preferences(tmp_path / "out.jsonl", [], format="fairlead")
    assert not list(tmp_path.iterdir())


def test_formats_without_a_writer_are_refused(tmp_path):
    assert WRITABLE == ["fairlead", "hh", "trl", "ultrafeedback_binarized", "helpsteer2_preference", "helpsteer3"]
    with pytest.raises(
        ConfigError,
        match="can be read but not written; expected one of fairlead, hh, trl, ultrafeedback_binarized, helpsteer2_preference, helpsteer3",
    ):
        write_preferences(tmp_path / "out.jsonl", [one()], format="oasst")


def test_scores_of_the_source_go_back_into_ultrafeedback():
    (again,) = there_and_back([one(meta={"score_chosen": 8.5, "score_rejected": 3.0})], "ultrafeedback_binarized")
    assert (again.meta["score_chosen"], again.meta["score_rejected"]) == (8.5, 3.0)


@given(st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=clean), min_size=1, max_size=5))
def test_transcripts_parse_back_whatever_the_order_of_turns(turns):
    marked = any(mark in f"\n\n{turn.content}" for turn in turns for mark in ("\n\nHuman:", "\n\nAssistant:"))
    assert marked or parse_transcript(render_transcript(tuple(turns))) == tuple(turns)


@given(texts, texts, texts)
def test_implicit_text_loses_nothing_and_cuts_no_word(shared, first, second):
    chosen, rejected = f"{shared} {first}", f"{shared} {second}"
    if first.strip() == second.strip():
        return
    found = split_text(chosen, rejected)
    prompt = found.prompt[0].content
    assert prompt + found.chosen == chosen and prompt + found.rejected == rejected
    assert found.chosen.strip() and found.rejected.strip()
    assert found.chosen[0].isspace() or prompt[-1] in "\n:"


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=6),
    st.sampled_from(["all", "adjacent", "best_vs_each", "best_vs_worst"]),
)
def test_pairs_of_a_ranking_as_in_a_plain_loop(scores, pairs):
    candidates = [Candidate(text=str(i), score=score) for i, score in enumerate(scores)]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    n = len(order)
    wanted = {
        "all": [(order[i], order[j]) for i in range(n) for j in range(i + 1, n)],
        "adjacent": [(order[i], order[i + 1]) for i in range(n - 1)],
        "best_vs_each": [(order[0], order[i]) for i in range(1, n)],
        "best_vs_worst": [(order[0], order[-1])],
    }[pairs]
    assert [(int(a.text), int(b.text)) for a, b in cut_pairs(candidates, pairs=pairs)] == wanted
