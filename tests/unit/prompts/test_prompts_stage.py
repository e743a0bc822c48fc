"""The whole stage on small files: outputs, reconciliation, splits, filters, gates, messages."""

import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.config import parse_config, resolved
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import read_json, read_records, write_jsonl
from fairlead.core.records import Prompt
from fairlead.core.services import Services
from fairlead.core.summary import summary_from_dict
from fairlead.prompts import GATES, PromptsConfig, run
from fairlead.prompts.words import normalise

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "flint",
    "grove",
    "haven",
    "island",
    "jade",
    "kelp",
    "linen",
    "maple",
    "north",
    "opal",
    "pearl",
    "quartz",
    "river",
]


def random_prompts(num, *, seed=0):
    """Different prompts of 12 words; with 18 words no two are near."""
    rng = random.Random(seed)
    return [{"prompt": " ".join(rng.choices(WORDS, k=12)) + f" {seed} {i}"} for i in range(num)]


def collect(folder, files, *, name="out", **config):
    """Write files, run the stage; return its summary, the prompts, the rejects and the coverage."""
    folder.mkdir(exist_ok=True, parents=True)
    for file, rows in files.items():
        write_jsonl(folder / file, rows)
    parsed = parse_config(PromptsConfig, {"sources": [next(iter(files))], **config}, where="prompts")
    services = Services(work=folder, extras={"folders": (folder,)})
    out = folder / name
    out.mkdir()
    summary = run(parsed, inputs={}, out=out, services=services)
    rejects = out / "rejects.jsonl"
    rows = [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    return summary, list(read_records(out / "prompts.jsonl", Prompt)), rows, read_json(out / "coverage.json")


def texts(prompts, split=None):
    """Texts of one split."""
    return {p.messages[-1].content for p in prompts if split in (None, p.split)}


def test_every_row_is_kept_rejected_or_not_taken(tmp_path):
    own = random_prompts(200)
    files = {
        "a.jsonl": [
            *own,
            {"prompt": ""},
            own[0],
            {"prompt": own[1]["prompt"].upper() + "  "},
            {"prompt": own[2]["prompt"] + " z"},
        ],
        "b.jsonl": [*random_prompts(50, seed=1), *own[5:8]],
        "eval.jsonl": own[10:13],
    }
    sources = ["a.jsonl", {"path": "b.jsonl", "take": 40}]
    summary, prompts, rejects, coverage = collect(
        tmp_path, files, sources=sources, contamination=["eval.jsonl"], max_prompts=150
    )
    for row in coverage["sources"]:
        assert row["rows"] == row["not taken"] + row["rejected"] + row["train"] + row["held-out"]
    assert [row["rows"] for row in coverage["sources"]] == [204, 53]
    assert sum(row["not taken"] for row in coverage["sources"]) == 13
    assert len(rejects) == sum(row["rows"] for row in coverage["rejected"]) == 257 - 13 - 150
    reasons = {row["reason"]: row["rows"] for row in coverage["rejected"]}
    assert reasons["contaminated by eval"] == 3
    assert reasons["near duplicate"] == 1
    assert reasons["empty"] == 1
    assert len(prompts) == coverage["num_train"] + coverage["num_heldout"] == 150
    assert summary.facts["num_train"] == coverage["num_train"]


def test_no_rejects_file_without_rejects(tmp_path):
    _, prompts, _, _ = collect(tmp_path, {"a.jsonl": random_prompts(5)})
    assert len(prompts) == 5
    assert not (tmp_path / "out" / "rejects.jsonl").exists()


@given(
    st.lists(st.text(alphabet="abc é\u200b", min_size=1, max_size=8), min_size=8, max_size=30),
    st.lists(st.text(alphabet="xyz ", min_size=1, max_size=8), max_size=10),
    st.sampled_from(["exact", "off", "near"]),
)
@settings(deadline=None, max_examples=25)
def test_splits_are_disjoint_by_normal_form_and_stable_when_other_prompts_are_added(
    tmp_path_factory, mine, added, dedupe
):
    """The added prompts share no word with the first ones, so no family grows."""
    mine = [*mine, *(f"{w} a {w}" for w in WORDS)]
    folder = tmp_path_factory.mktemp("split")
    options = {"heldout": 0.3, "dedupe": dedupe}
    _, before, _, _ = collect(folder, {"a.jsonl": [{"prompt": t} for t in mine]}, **options)
    files = {"a.jsonl": [{"prompt": t} for t in reversed([*mine, *added])]}
    _, after, _, _ = collect(folder, files, name="again", **options)
    for prompts in (before, after):
        train, heldout = ({normalise(t) for t in texts(prompts, split)} for split in ("train", "heldout"))
        assert not train & heldout
    side = {normalise(p.messages[0].content): p.split for p in after}
    assert {normalise(p.messages[0].content): p.split for p in before}.items() <= side.items()


def test_near_duplicates_are_on_one_side_when_they_are_kept(tmp_path):
    """30 families of 4 that differ in one word of 30: similarity (28 - 3) / (28 + 3) = 0.81."""
    families = []
    for i in range(30):
        base = [f"{WORDS[k % 18]}{i}x{k}" for k in range(30)]
        families.append([" ".join([*base[:15], f"variant{j}", *base[16:]]) for j in range(4)])
    rows = [{"prompt": text} for family in families for text in family]
    _, prompts, rejects, coverage = collect(tmp_path, {"a.jsonl": rows}, dedupe="exact", heldout=0.3)
    assert not rejects
    heldout = texts(prompts, "heldout")
    assert 0 < len(heldout) < 120
    assert all(len(heldout & set(family)) in (0, 4) for family in families)
    assert coverage["near_share"] == 1.0
    _, prompts, rejects, _ = collect(tmp_path, {"a.jsonl": rows}, name="near", dedupe="near", heldout=0.3)
    assert len(prompts) == 30
    assert {row["reason"] for row in rejects} == {"near duplicate"}
    line = {row["prompt"]: f"{tmp_path}/a.jsonl:{i}" for i, row in enumerate(rows, start=1)}
    assert {row["row"]["duplicate_of"] for row in rejects} == {line[text] for text in texts(prompts)}


@pytest.mark.parametrize("dedupe", ["exact", "near", "off"])
def test_heldout_sources_are_the_heldout_split_and_nothing_like_them_stays_in_train(tmp_path, dedupe):
    own, other = random_prompts(40), random_prompts(10, seed=1)
    files = {"a.jsonl": [*own, other[0], {"prompt": other[1]["prompt"].title()}, {"prompt": other[2]["prompt"] + " again"}],
             "h.jsonl": other}  # fmt: skip
    _, prompts, rejects, coverage = collect(tmp_path, files, heldout_sources=["h.jsonl"], dedupe=dedupe)
    assert texts(prompts, "heldout") == {row["prompt"] for row in other}
    assert texts(prompts, "train") == {row["prompt"] for row in own}
    assert len(rejects) == 3
    assert [row["source"] for row in coverage["sources"]] == ["a", "h"]


def test_limits_and_evaluation_files_leave_heldout_sources_alone(tmp_path):
    files = {"a.jsonl": random_prompts(40), "h.jsonl": random_prompts(10, seed=1)}
    options = {"heldout_sources": ["h.jsonl"], "contamination": ["h.jsonl"], "max_prompts": 20}
    _, prompts, rejects, coverage = collect(tmp_path, files, **options)
    assert texts(prompts, "heldout") == {row["prompt"] for row in files["h.jsonl"]}
    assert len(texts(prompts, "train")) == len(rejects) == 20
    assert coverage["contamination"][0]["equal"] == 0


def test_long_prompts_are_dropped_and_counted(tmp_path):
    turns = [{"role": role, "content": "two words"} for role in ("user", "assistant", "user")]
    rows = [{"prompt": "one two three four"}, {"prompt": "one two three four five"}, {"prompt": turns}]
    _, prompts, rejects, coverage = collect(tmp_path, {"a.jsonl": rows}, max_words=4, heldout=0)
    assert texts(prompts) == {"one two three four"}
    assert [(row["reason"], row["row"]["num_words"]) for row in rejects] == [
        ("longer than max_words", n) for n in ("6", "5")
    ]
    assert coverage["sources"][0]["rejected"] == 2


def test_the_same_words_in_other_roles_are_another_prompt(tmp_path):
    turns = [{"role": "user", "content": "Be kind"}, {"role": "user", "content": "Who are you?"}]
    rows = [
        {"prompt": turns},
        {"prompt": [{**turns[0], "role": "system"}, turns[1]]},
        {"prompt": "Be kind Who are you?"},
    ]
    _, prompts, rejects, _ = collect(tmp_path, {"a.jsonl": rows}, heldout=0, dedupe="exact")
    assert len(prompts) == 3
    assert not rejects


def test_shares_of_slices_are_those_of_the_train_split(tmp_path):
    files = {"a.jsonl": random_prompts(40), "h.jsonl": random_prompts(10, seed=1)}
    options = {"sources": [{"path": "a.jsonl", "slice": "a"}], "heldout_sources": [{"path": "h.jsonl", "slice": "h"}]}
    _, _, _, coverage = collect(tmp_path, files, **options)
    assert [tuple(row.values()) for row in coverage["slices"]] == [("a", None, 1.0, 40, 0), ("h", None, 0.0, 0, 10)]


def test_evaluation_prompts_stay_out_whatever_their_case_and_context(tmp_path):
    own, question = random_prompts(20), "How many clips did Natalia sell to her friends altogether in April and in May?"
    chat = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "WHY  me?"},
    ]
    rows = [*own, {"prompt": question.upper()}, {"prompt": f"Think first. {question} Then answer."}, {"prompt": chat}]
    files = {"a.jsonl": rows, "eval.jsonl": [{"question": question}, {"question": "why me?"}, {"question": None}]}
    summary, prompts, rejects, coverage = collect(tmp_path, files, contamination=["eval.jsonl"], heldout=0)
    assert texts(prompts) == {row["prompt"] for row in own}
    assert sorted(row["row"]["overlap"] for row in rejects) == ["equal", "equal", "shares a run of words"]
    assert coverage["contamination"] == [
        {
            "evaluation file": "eval",
            "prompts": 2,
            "unreadable": 1,
            "compared by": "equality and 13-grams",
            "equal": 2,
            "sharing a run": 1,
        }
    ]
    assert any("Compared with eval (2 prompts) by equality and 13-grams" in note for note in summary.notes)


def test_the_mix_is_compared_and_a_missing_slice_is_named(tmp_path):
    rows = [{**row, "kind": "chat" if i % 2 else "code"} for i, row in enumerate(random_prompts(100))]
    options = {"sources": [{"path": "a.jsonl", "slice_field": "kind"}], "heldout": 0}
    mix = {"chat": 0.4, "code": 0.4, "cod": 0.2}
    summary, _, _, coverage = collect(tmp_path, {"a.jsonl": rows}, mix=mix, **options)
    verdict = next(v for v in summary.verdicts if v.gate == "prompts.coverage")
    assert (verdict.outcome, verdict.value, verdict.n, verdict.note) == (
        "WARN",
        pytest.approx(2 / 3),
        3,
        "Missing: cod",
    )
    assert coverage["missing_slices"] == ["cod"]
    assert [row["target share"] for row in coverage["slices"]] == [0.4, 0.4, 0.2]
    summary, _, _, _ = collect(tmp_path, {"a.jsonl": rows}, name="b", mix={"chat": 0.5, "code": 0.5}, **options)
    assert {v.gate: v.outcome for v in summary.verdicts} == {"prompts.count": "PASS", "prompts.coverage": "PASS"}


@pytest.mark.parametrize(
    ("shares", "missing"), [({"a": 0.9, "b": 0.1}, []), ({"a": 0.65, "b": 0.35}, []), ({"a": 0.55, "b": 0.45}, ["b"])]
)
def test_a_slice_counts_as_present_from_a_quarter_of_its_target(tmp_path, shares, missing):
    """b has 10 of 100: above a quarter of 0.1 and of 0.35 (0.0875), below a quarter of 0.45 (0.1125)."""
    rows = [{**row, "kind": "b" if i < 10 else "a"} for i, row in enumerate(random_prompts(100))]
    sources = [{"path": "a.jsonl", "slice_field": "kind"}]
    _, _, _, coverage = collect(tmp_path, {"a.jsonl": rows}, sources=sources, mix=shares, heldout=0)
    assert coverage["missing_slices"] == missing


@pytest.mark.parametrize(
    ("max_prompts", "expected"), [(None, {"a": 60, "b": 20}), (90, {"a": 70, "b": 20}), (40, {"a": 30, "b": 10})]
)
def test_an_enforced_mix_is_met_as_far_as_the_data_allows(tmp_path, max_prompts, expected):
    files = {
        "a.jsonl": random_prompts(100),
        "b.jsonl": random_prompts(20, seed=1),
        "c.jsonl": random_prompts(7, seed=2),
    }
    sources = [{"path": f"{name}.jsonl", "slice": name} for name in "abc"]
    options = {"sources": sources, "heldout": 0, "enforce_mix": True, "max_prompts": max_prompts}
    summary, prompts, rejects, _ = collect(tmp_path, files, mix={"a": 0.75, "b": 0.25}, **options)
    assert {name: sum(p.slice == name for p in prompts) for name in "ab"} == expected
    assert sum(row["reason"] == "slice not in the declared mix" for row in rejects) == 7
    assert sum(row["reason"] == "surplus over the declared mix" for row in rejects) == 120 - sum(expected.values())
    assert summary.verdicts[1].outcome == "PASS"


def test_rows_in_another_order_give_the_same_prompts(tmp_path):
    rows = random_prompts(120)
    rows += [{"prompt": row["prompt"].upper()} for row in rows[:20]] + [
        {"prompt": row["prompt"] + " z"} for row in rows[30:60]
    ]
    options = {"max_prompts": 100, "heldout": 0.2}
    _, first, _, _ = collect(tmp_path, {"a.jsonl": rows}, **options)
    random.Random(1).shuffle(rows)
    _, second, _, _ = collect(tmp_path, {"a.jsonl": rows}, name="again", **options)
    assert [p.id for p in first] == [p.id for p in second]


def test_the_first_source_wins_and_off_keeps_repeats(tmp_path):
    files = {"a.jsonl": [{"prompt": "Same one"}], "b.jsonl": [{"prompt": "same ONE"}, {"prompt": "Another"}]}
    sources = [{"path": "b.jsonl", "slice": "b"}, {"path": "a.jsonl", "slice": "a"}]
    _, prompts, rejects, _ = collect(tmp_path, files, sources=sources, heldout=0)
    assert {(p.messages[0].content, p.slice) for p in prompts} == {("same ONE", "b"), ("Another", "b")}
    assert rejects[0]["row"]["duplicate_of"] == f"{tmp_path}/b.jsonl:1"
    _, prompts, rejects, _ = collect(tmp_path, files, sources=sources, name="off", heldout=0, dedupe="off")
    assert len(prompts) == 3
    assert not rejects


def test_output_is_the_same_bytes_under_another_hash_seed(tmp_path):
    rows = [{**row, "kind": f"k{i % 3}"} for i, row in enumerate(random_prompts(60))]
    write_jsonl(tmp_path / "a.jsonl", [*rows, *rows[:5]])
    code = """
import sys
from pathlib import Path
from fairlead.core.config import parse_config
from fairlead.core.services import Services
from fairlead.prompts import PromptsConfig, run
folder = Path(sys.argv[1])
config = parse_config(PromptsConfig, {"sources": [{"path": "a.jsonl", "slice_field": "kind"}], "mix": {"k0": .5, "k1": .5},
                                      "enforce_mix": True, "heldout": 7})
(folder / sys.argv[2]).mkdir()
run(config, inputs={}, out=folder / sys.argv[2], services=Services(work=folder, extras={"folders": (folder,)}))
"""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path), seed], check=True, env=environment)
    for name in ("prompts.jsonl", "rejects.jsonl", "coverage.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_summary_can_be_stored_and_shows_lengths_and_openings(tmp_path):
    rows = [{"prompt": f"How do I {w} a thing called {i} please"} for i, w in enumerate(WORDS)] + [{"prompt": "東京"}]
    summary, _, _, coverage = collect(tmp_path, {"a.jsonl": rows}, heldout=4, dedupe="exact")
    assert summary_from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert coverage["openings"][0] == {"opening": "how do i", "prompts": 18, "share": pytest.approx(18 / 19)}
    assert {row["split"]: row["prompts"] for row in coverage["words"]} == {"train": 15, "held-out": 4}
    assert min(row["shortest"] for row in coverage["words"]) == 2
    for series in summary.charts[0].series:
        xs, ys = zip(*series.points, strict=True)
        assert list(xs) == sorted(xs)
        assert (ys[0], ys[-1]) == (0.0, 1.0)
    assert summary.headline == "15 prompts to train on and 4 held out, from 19 rows of 1 source; 0 rejected."


def test_an_empty_heldout_split_warns(tmp_path):
    summary, _, _, _ = collect(tmp_path, {"a.jsonl": random_prompts(3)}, heldout=0.0001)
    verdict = next(v for v in summary.verdicts if v.gate == "prompts.heldout")
    assert (verdict.outcome, verdict.value) == ("WARN", 0)


def test_gates_say_what_the_guides_say():
    assert [gate.name for gate in GATES] == ["prompts.count", "prompts.coverage", "prompts.heldout"]
    assert all(gate.guide and gate.reason and gate.question and gate.remedy for gate in GATES)


def test_the_resolved_config_loads_back():
    data = {"sources": ["a.jsonl", {"hub": "org/set"}], "heldout": 200, "contamination": ["e.jsonl"], "mix": {"all": 1}}
    config = parse_config(PromptsConfig, data)
    assert parse_config(PromptsConfig, resolved(config)) == config


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        (
            [{"prompt": ""}, {"prompt": 3}],
            {},
            r"no prompt left to train on of 2 rows \(1 empty, 1 not text or messages\)",
        ),
        ([{"prompt": "a"}], {"heldout": 1}, r"prompts\.heldout=1\.0 would hold out all of 1 prompts"),
        ([{"prompt": "a"}], {"contamination": ["a.jsonl"]}, r"no prompt left .*\(1 contaminated by a\)"),
        ([{"prompt": "a"}], {"contamination": ["b.jsonl"]}, r"b\.jsonl does not exist \(did you mean a\.jsonl\?\)"),
        ([{"prompt": "a"}, {"prompt": None}], {"heldout_sources": ["a.jsonl"]}, r"no prompt left to train on"),
    ],
)
def test_what_leaves_nothing_is_refused_with_the_counts(tmp_path, rows, config, message):
    with pytest.raises(DataError, match=message):
        collect(tmp_path, {"a.jsonl": rows}, **config)
    assert not (tmp_path / "out" / "prompts.jsonl").exists()


def test_an_evaluation_file_without_prompts_is_refused(tmp_path):
    files = {"a.jsonl": random_prompts(3), "eval.jsonl": [{"question": ""}]}
    with pytest.raises(DataError, match=r"prompts\.contamination=eval has no prompt to compare with \(1 empty\)"):
        collect(tmp_path, files, contamination=["eval.jsonl"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sources": []}, r"prompts\.sources=\[\] has a wrong value"),
        (
            {"mix": {"chat": 0.5, "cod": 0.5}},
            r"mix\.cod is a slice of no source \(did you mean code\?\); expected one of chat, code",
        ),
        ({"mix": {"chat": 0.5, "code": 0.4}}, r"mix=0\.9 in sum is not a whole; expected shares that sum to 1"),
        ({"mix": {"chat": 1.5, "code": -0.5}}, r"mix\.code=-0\.5 is no share"),
        ({"enforce_mix": True}, "enforce_mix=True has no mix to enforce"),
        ({"heldout": 1.5}, r"heldout=1\.5 is neither a share nor a count"),
        ({"heldout": -0.1}, r"prompts\.heldout=-0\.1 has a wrong value"),
        ({"near_threshold": 0.1}, r"prompts\.near_threshold=0\.1 has a wrong value"),
        ({"dedup": "near"}, r"prompts\.dedup=near is not a known key \(did you mean dedupe\?\)"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(config, message):
    sources = [{"path": "a.jsonl", "slice": "chat"}, {"path": "b.jsonl", "slice": "code"}]
    with pytest.raises(ConfigError, match=message):
        parse_config(PromptsConfig, {"sources": sources, **config}, where="prompts")


def test_shares_of_thirds_are_close_enough_to_one():
    sources = [{"path": "a.jsonl", "slice": name} for name in "abc"]
    config = parse_config(PromptsConfig, {"sources": sources, "mix": dict.fromkeys("abc", 0.33)})
    assert sum(config.mix.values()) == pytest.approx(0.99)
