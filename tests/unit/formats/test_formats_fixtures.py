"""Every format on a small file of our own with good and bad rows: detection, counts by reason, and the account of rows."""

from pathlib import Path

import pytest

from fairlead.core.annotations import RatedItem
from fairlead.core.io import Rejects, read_rows, write_jsonl
from fairlead.core.records import Demonstration, Label, Preference, Prompt, StepLabels, from_dict, to_dict
from fairlead.formats import (
    FORMATS,
    Reading,
    detect_format,
    find_format,
    read_annotations,
    read_demonstrations,
    read_labels,
    read_preferences,
    read_prompts,
    read_steps,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
NAMES = [known.name for known in FORMATS if known.name != "votes"]
READERS = {
    "preferences": read_preferences,
    "demonstrations": read_demonstrations,
    "labels": read_labels,
    "prompts": read_prompts,
    "steps": read_steps,
    "annotations": read_annotations,
}
TIE = "pair: equal rank or score"
NO_RANK = "completion: no rank"

# (format, kind): rows, used, records, rejects, skips, left out of used rows; counted by hand in the fixture.
EXPECTED: dict[tuple[str, str], tuple[int, int, int, dict[str, int], dict[str, int], dict[str, int]]] = {
    ("fairlead", "preferences"): (4, 3, 3, {"not a Preference (p_chosen)": 1}, {}, {}),
    ("fairlead_demonstrations", "demonstrations"): (3, 2, 2, {"no assistant turn": 1}, {}, {}),
    ("fairlead_labels", "labels"): (4, 2, 2, {"empty completion": 1, "not a Label (is_good)": 1}, {}, {}),
    ("fairlead_prompts", "prompts"): (3, 2, 2, {"empty prompt": 1}, {}, {}),
    ("hh", "preferences"): (9, 3, 3, {
        "empty chosen": 1, "completion has more than one turn": 1, "conversations differ before the last turn": 1,
        "chosen and rejected are identical": 1, "transcript does not begin with a turn": 1, "last turn is not the assistant's": 1,
    }, {}, {}),
    ("trl", "preferences"): (10, 4, 4, {
        "completion has more than one turn": 1, "last turn is not the assistant's": 1, "empty prompt": 1, "empty chosen": 1,
        "missing chosen": 1, "margin is not a number": 1,
    }, {}, {}),
    ("trl", "prompts"): (10, 9, 9, {"empty prompt": 1}, {}, {}),
    ("trl_implicit", "preferences"): (6, 3, 3, {
        "no common prompt": 1, "conversations differ before the last turn": 1, "chosen and rejected are identical": 1,
    }, {}, {}),
    ("trl_unpaired", "demonstrations"): (8, 3, 3, {"label is not true or false": 1, "empty completion": 1}, {"label is false": 3}, {}),
    ("trl_unpaired", "labels"): (8, 6, 6, {"label is not true or false": 1, "empty completion": 1}, {}, {}),
    ("trl_unpaired", "preferences"): (8, 4, 2, {"label is not true or false": 1, "empty completion": 1},
                                      {"no completion with the other label beside it": 2}, {}),
    ("trl_prompt_completion", "demonstrations"): (3, 2, 2, {"empty completion": 1}, {}, {}),
    ("trl_messages", "demonstrations"): (5, 2, 2, {
        "no assistant turn": 1, "messages content is not text": 1, "messages has an unknown role": 1,
    }, {}, {}),
    ("trl_text", "demonstrations"): (3, 2, 2, {"empty text": 1}, {}, {}),
    ("trl_prompt", "prompts"): (3, 2, 2, {"prompt ends with an assistant turn": 1}, {}, {}),
    ("fairlead_steps", "steps"): (4, 2, 2, {"not a StepLabels (labels[])": 1, "labels and steps differ in number": 1}, {}, {}),
    ("trl_stepwise", "steps"): (6, 3, 3, {
        "labels and steps differ in number": 1, "a label is no truth value and no probability": 1, "empty step": 1,
    }, {}, {}),
    ("prm800k", "steps"): (5, 3, 6, {"empty steps": 1, "chosen_completion names no completion": 1}, {}, {"step: chosen without a rating": 1}),
    ("math_shepherd", "steps"): (5, 2, 2, {
        "input does not end with the mark of a step": 1, "no question before Step 1": 1, "label does not follow input": 1,
    }, {}, {}),
    ("ultrafeedback", "preferences"): (4, 2, 3, {"completion: no rating": 1}, {TIE: 1},
                                       {TIE: 1, "completion: no rating": 1, "completion: empty response": 1}),
    ("ultrafeedback", "prompts"): (4, 4, 4, {}, {}, {}),
    ("ultrafeedback_binarized", "preferences"): (4, 2, 2, {
        "chosen has the lower score": 1, "chosen and rejected are identical": 1,
    }, {}, {}),
    ("argilla_binarized", "preferences"): (3, 2, 2, {"empty chosen_response": 1}, {}, {}),
    ("oasst", "preferences"): (5, 1, 5, {"deleted": 1}, {TIE: 1, NO_RANK: 1, "prompt: no reply": 1},
                               {"completion: deleted": 1, NO_RANK: 1}),
    ("oasst", "demonstrations"): (5, 3, 3, {"deleted": 1}, {"prompt: no reply": 1}, {"completion: deleted": 1}),
    ("oasst", "prompts"): (5, 4, 7, {"deleted": 1}, {}, {"completion: deleted": 1}),
    ("alpaca", "demonstrations"): (4, 3, 3, {"empty output": 1}, {}, {}),
    ("alpaca_preferences", "preferences"): (6, 4, 4, {"missing rejected": 1, "empty instruction": 1}, {}, {}),
    ("sharegpt_preferences", "preferences"): (4, 2, 2, {
        "prompt ends with an assistant turn": 1, "last turn is not the assistant's": 1,
    }, {}, {}),
    ("hh_red_team", "prompts"): (4, 2, 2, {
        "transcript does not begin with a turn": 1, "prompt ends with an assistant turn": 1,
    }, {}, {}),
    ("oasst_messages", "preferences"): (11, 8, 2, {"no chain of parents to a first message": 1, "message_id stands twice": 1},
                                        {"prompt: no reply": 1}, {"completion: deleted": 1, NO_RANK: 1}),
    ("oasst_messages", "demonstrations"): (11, 8, 1, {"no chain of parents to a first message": 1, "message_id stands twice": 1},
                                           {"prompt: no reply": 1}, {"completion: deleted": 1}),
    ("openai_axis", "preferences"): (8, 4, 3, {"no overall rating": 1}, {TIE: 2, "completion: nothing to compare it with": 1}, {}),
    ("webgpt", "preferences"): (5, 3, 3, {"empty answer_0": 1, "score_0 or score_1 is not a number": 1}, {}, {}),
    ("pku_saferlhf", "preferences"): (4, 2, 2, {"better_response_id is not 0 or 1": 2}, {}, {}),
    ("pku_saferlhf_safer", "preferences"): (4, 2, 2, {"safer_response_id is not 0 or 1": 2}, {}, {}),
    ("shp", "preferences"): (4, 2, 2, {"labels contradicts the scores": 1, "labels is not 0 or 1": 1}, {}, {}),
    ("alpaca_eval", "preferences"): (6, 4, 4, {"preference is not from 1 to 2": 2}, {}, {}),
    ("sharegpt", "demonstrations"): (4, 2, 2, {"conversations has an unknown role": 1, "empty conversations": 1}, {}, {}),
    ("openai_comparisons", "preferences"): (5, 3, 3, {"choice is not 0 or 1": 1, "chosen and rejected are identical": 1}, {}, {}),
    ("helpsteer2", "preferences"): (9, 6, 3, {"helpfulness is not a whole number": 1}, {"completion: nothing to compare it with": 2}, {}),
    ("helpsteer2_preference", "preferences"): (4, 3, 3, {"preference_strength is not from -3 to 3": 1}, {}, {}),
    ("helpsteer3", "preferences"): (4, 3, 3, {"missing response2": 1}, {}, {}),
    ("nectar", "preferences"): (3, 1, 3, {NO_RANK: 1, "empty answers": 1}, {}, {}),
    ("arena", "preferences"): (6, 4, 4, {
        "conversations differ before the last turn": 1, "winner is not model_a, model_b or a tie": 1,
    }, {}, {}),
    ("arena_flags", "preferences"): (5, 2, 2, {
        "conversations differ before the last turn": 1, "missing response_a": 1, "not exactly one of the winner flags is 1": 1,
    }, {}, {}),
    ("fairlead_items", "annotations"): (4, 2, 2, {"fewer than two replies": 1, "not a RatedItem": 1}, {}, {}),
    ("fairlead_items", "preferences"): (4, 1, 1, {"fewer than two replies": 1, "not a RatedItem": 1}, {"no vote on the item": 1}, {}),
    ("label_studio", "annotations"): (5, 3, 3, {"empty answer1": 1, "no replies in data": 1}, {},
                                      {"rating: pairwise selects neither left nor right": 1}),
    ("label_studio", "preferences"): (5, 1, 1, {
        "empty answer1": 1, "no replies in data": 1, "rating: pairwise selects neither left nor right": 1,
    }, {"no vote on the item": 1}, {}),
    ("label_studio_min", "annotations"): (4, 3, 2, {"empty answer1": 1}, {}, {}),
    ("label_studio_min", "preferences"): (4, 3, 2, {"empty answer1": 1}, {}, {}),
    ("argilla", "annotations"): (4, 2, 2, {
        "responses by question are the SDK's, which loses ranks and ties: export the records through the REST API": 1, "fewer than two replies": 1,
    }, {}, {"rating: a draft": 1}),
    ("fine_tuning", "preferences"): (4, 2, 2, {
        "preferred_output is not one assistant message": 1, "chosen and rejected are identical": 1,
    }, {}, {}),
}  # fmt: skip


def run(name: str, kind: str, tmp_path: Path, **options) -> tuple[list, Reading]:
    if find_format(name).is_named_only:
        options.setdefault("format", name)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        reading = READERS[kind](FIXTURES / f"{name}.jsonl", rejects=rejects, **options)
        records = list(reading)
    return records, reading


@pytest.mark.parametrize("name", [known.name for known in FORMATS if not known.is_named_only])
def test_detects_its_own_fixture_and_no_other_format_claims_it(name):
    path = FIXTURES / ("votes.csv" if name == "votes" else f"{name}.jsonl")
    assert detect_format(path).name == name


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_counts_every_row_by_reason(name, kind, tmp_path):
    records, reading = run(name, kind, tmp_path)
    report = reading.report
    got = (report.rows, report.used, report.records, report.rejects, report.skips, report.left_out)
    assert got == EXPECTED[name, kind]
    assert len(records) == report.records
    assert report.reconciles
    assert report.rows == sum(1 for _ in read_rows(FIXTURES / f"{name}.jsonl"))
    assert report.path.endswith(f"{name}.jsonl") and report.format == name


@pytest.mark.parametrize("name", NAMES)
def test_every_format_that_holds_records_is_expected_here(name):
    kind = next(known.kind for known in FORMATS if known.name == name)
    assert (name, kind) in EXPECTED


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_rejected_rows_are_written_with_place_and_reason(name, kind, tmp_path):
    _, reading = run(name, kind, tmp_path)
    path = tmp_path / "rejects.jsonl"
    written = [row.values for row in read_rows(path)] if path.exists() else []
    reasons = [row["reason"] for row in written]
    assert {reason: reasons.count(reason) for reason in reasons} == reading.report.rejects
    assert all(row["where"].rpartition(":")[2].isdigit() and row["row"] for row in written)


@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_records_survive_a_file_of_ours(name, kind, tmp_path):
    records, _ = run(name, kind, tmp_path)
    cls = {
        "preferences": Preference,
        "demonstrations": Demonstration,
        "labels": Label,
        "prompts": Prompt,
        "steps": StepLabels,
        "annotations": RatedItem,
    }[kind]
    write_jsonl(tmp_path / "ours.jsonl", records)
    again = [from_dict(cls, row.values) for row in read_rows(tmp_path / "ours.jsonl")]
    assert [to_dict(r) for r in again] == [to_dict(r) for r in records]
    assert len({record.id for record in records}) == len(records)


@pytest.mark.parametrize(("name", "kind"), [key for key in EXPECTED if not key[0].startswith("fairlead")])
def test_records_name_the_file_and_row_that_they_came_from(name, kind, tmp_path):
    records, _ = run(name, kind, tmp_path)
    lines = (FIXTURES / f"{name}.jsonl").read_text("utf-8").splitlines()
    assert all(record.source == f"{name}.jsonl" and 1 <= record.meta["row"] <= len(lines) for record in records)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "trl_text"])
def test_prompts_come_from_any_file(name, tmp_path):
    prompts, reading = run(name, "prompts", tmp_path)
    assert prompts and reading.report.reconciles
    assert all(isinstance(prompt, Prompt) and prompt.messages[-1].role != "assistant" for prompt in prompts)


@pytest.mark.parametrize("name", NAMES)
def test_a_named_format_reads_the_same_as_a_detected_one(name, tmp_path):
    kind = next(known.kind for known in FORMATS if known.name == name)
    assert [r.id for r in run(name, kind, tmp_path)[0]] == [r.id for r in run(name, kind, tmp_path, format=name)[0]]


def test_the_documentation_names_every_format_with_its_kind_and_pairings():
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text("utf-8")
    for known in FORMATS:
        row = next((line for line in page.splitlines() if line.startswith(f"| `{known.name}` | ")), "")
        assert known.kind in row and ("*written*" in row) == (known.write is not None), known.name
        assert all(f"`{pairing}`" in page for pairing in known.pairings)
        if known.pairings:
            assert f"`{known.pairings[0]}` |" in page and f"`{known.name}`" in page
