"""What KTO, BCO and AOT read from a file of labels, what they refuse, and how they tell good from bad."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.records import Label, Message, Prompt, to_dict
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.policies.kto import _balance_note, measure_separation
from fairlead.policies.kto_config import KtoConfig, settings_of
from fairlead.policies.kto_data import BatchData, hold_out, prompt_key, read_data
from fairlead.policies.rows import survey_rows
from fairlead.text import Branch, ChatText, Tree

ROWS = [{"prompt": f"what {w}", "completion": c, "label": c == "yes"} for w in "abcdefgh" for c in ("yes", "no")]


def config(**settings: Any) -> KtoConfig:
    return parse_config(KtoConfig, settings, where="policies.kto")


def read(folder: Path, rows: list[dict[str, Any]], *, max_length: int = 60, **settings: Any) -> BatchData:
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    chat = ChatText(tiny_models.make_tokenizer())
    return read_data(config(data=[{"path": str(path), **settings}], heldout=0.25), chat, TextSection(max_length=max_length), inputs={}, out=folder,
                     services=Services(work=folder, extras={"find_file": Path}))  # fmt: skip


def label(prompt: str, **fields: Any) -> Label:
    return Label(prompt=(Message(role="user", content=prompt),), completion="yes", is_good=True, **fields)


def test_labels_become_trees_of_one_reply_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"prompt": "what", "completion": "no " * 80, "label": False},
        {"prompt": "what", "completion": "no", "label": 3},
    ]
    data = read(tmp_path, rows)
    assert len(data.train) + len(data.heldout) == len(ROWS) and data.heldout
    assert (data.num_good, data.num_bad) == (len(data.train) // 2,) * 2
    assert {len(t.branches) for t in data.train} == {1} and {t.ranks for t in data.train} == {(0,), (1,)}
    assert data.notes == [
        "1 rows could not be read; see rejects.jsonl.",
        "1 replies dropped: with their prompt longer than text.max_length.",
    ]
    assert not {t.prompt_ids.tobytes() for t in data.train} & {t.prompt_ids.tobytes() for t in data.heldout}


def test_labels_of_weight_0_are_left_out_and_negative_ones_rejected(tmp_path: Path) -> None:
    rows = [
        to_dict(label(f"what {w}", split="train")) | {"is_good": g, "id": ""} for w in "abcdefgh" for g in (True, False)
    ]
    odd = [to_dict(label("say a", weight=0.0)), to_dict(label("say b")) | {"weight": -1.0, "id": ""}]
    data = read(tmp_path, [{**r, "id": ""} for r in rows] + odd, format="fairlead_labels")
    assert len(data.train) + len(data.heldout) == len(rows)
    assert data.notes == ["1 rows could not be read; see rejects.jsonl.", "1 replies of weight 0 are left out."]


def test_a_file_with_one_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="good and 0 bad leave nothing to compare; expected some of both"):
        read(tmp_path, [row for row in ROWS if row["label"]])


def test_prompts_are_held_out_whole_by_mark_by_hash_and_with_the_recipes_prompts() -> None:
    def held_out(rows: list[Label], share: float, prompts: tuple[Prompt, ...] = ()) -> list[str]:
        flags = hold_out(survey_rows(rows, prompt_key), share=share, prompts=prompts)
        return [row.prompt[0].content for row, is_heldout in zip(rows, flags, strict=True) if is_heldout]

    rows = [label(f"question {i}") for i in range(40)] * 2
    by_hash = held_out(rows, 0.2)
    assert 4 <= len(set(by_hash)) <= 12 and len(by_hash) == 2 * len(set(by_hash))
    assert set(held_out([*rows, label("question 3", split="heldout")], 0.2)) == {"question 3"}
    evaluated = Prompt(messages=(Message(role="user", content=" QUESTION  7"),), split="heldout")
    assert set(held_out(rows, 0.0, (evaluated,))) == {"question 7"} and held_out(rows, 0.0) == []
    assert len(held_out([label("one"), label("two")], 0.01)) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "bco", "lambda_desirable": 2.0}, "lambda_desirable=2.0 is not read by bco; expected algorithm kto"),
        ({"algorithm": "kto", "delta_decay": 0.5}, "delta_decay=0.5 is not read by kto"),
        ({"algorithm": "aot", "data": [{"path": "x.jsonl"}]}, "algorithm=aot needs pairs"),
    ],
)  # fmt: skip
def test_settings_that_nobody_reads_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_every_method_gets_its_settings() -> None:
    found = settings_of(config(algorithm="kto", beta=0.2, lambda_undesirable=1.5))
    assert (found.beta, found.lambda_desirable, found.lambda_undesirable) == (0.2, 1.0, 1.5)
    assert settings_of(config(algorithm="bco", delta_decay=0.5)).delta_decay == 0.5
    assert settings_of(config(algorithm="aot_unpaired", beta=0.3)).beta == 0.3


def _data(num_good: int, num_bad: int) -> BatchData:
    ids = np.array([1])
    trees = [
        Tree(prompt_ids=ids, branches=(Branch(token_ids=ids),), ranks=(int(i >= num_good),))
        for i in range(num_good + num_bad)
    ]
    return BatchData(train=trees, heldout=[], are_pairs=False, notes=[])


def test_sides_out_of_balance_are_noted_with_the_weight_that_evens_them() -> None:
    """4 good, 1 bad: 4 is outside [1, 1.33], lambda_undesirable 4 makes it 1. 4 to 3 is inside."""
    assert _balance_note(config(), _data(4, 3)) == "" == _balance_note(config(algorithm="bco"), _data(4, 1))
    assert "is 4.00, outside 1 to 1.33; lambda_undesirable=4, the other 1, makes it 1." in _balance_note(
        config(), _data(4, 1)
    )
    assert "is 0.25, outside 1 to 1.33; lambda_desirable=4, the other 1, makes it 1." in _balance_note(
        config(), _data(1, 4)
    )
    assert _balance_note(config(lambda_undesirable=4.0), _data(4, 1)) == ""


def test_separation_orders_pairs_and_ranks_single_replies() -> None:
    """Pairs (2, 1) and (0, 5): one of two in order. The same four replies alone: goods 2, 0 above bads 1, 5 in one of four."""
    ids = np.array([1])
    pair = Tree(prompt_ids=ids, branches=(Branch(token_ids=ids),) * 2, ranks=(0, 1))
    rewards = np.array([2.0, 1.0, 0.0, 5.0])
    assert measure_separation([pair] * 2, rewards, are_pairs=True, seed=0).value == 0.5
    assert measure_separation([pair] * 2, rewards, are_pairs=False, seed=0).value == 0.25
