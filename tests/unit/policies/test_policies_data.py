"""What SFT reads, how PPO picks prompts, and how both tell their curves."""

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from fairlead.core.errors import DataError
from fairlead.core.io import write_jsonl
from fairlead.core.protocols import GenerateRequest
from fairlead.core.records import Message, Preference
from fairlead.core.services import Services
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rows import fixed_choice, read_pairs
from fairlead.policies.sft import SftConfig, _read
from fairlead.policies.telling import last_metric, metric_change, metric_chart
from fairlead.text import ChatText, encoding
from fairlead.train.batches import EpochBatches
from fairlead.train.identity import data_fingerprint

ROWS = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(40)]


def _read_rows(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> tuple[list[Any], list[Any], int]:
    path = tmp_path / "demos.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = SftConfig.model_validate({"data": [{"path": str(path), "take": settings.pop("take", None)}], **settings})
    found, num_rows, num_rejects = _read(config, tmp_path, Services(work=tmp_path, extras={"find_file": Path}))
    parts: dict[str | None, list[Any]] = {"train": [], "heldout": [], None: []}
    for part, row in found:
        parts[part].append(row)
    assert num_rows == sum(map(len, parts.values()))
    return parts["train"], parts["heldout"], num_rejects


def test_heldout_rows_are_disjoint_and_do_not_depend_on_order(tmp_path: Path) -> None:
    train, heldout, num_rejects = _read_rows(tmp_path, ROWS, heldout_share=0.2)
    assert (len(train), len(heldout), num_rejects) == (32, 8, 0)
    again = _read_rows(tmp_path, ROWS[::-1], heldout_share=0.2)
    assert {r.messages for r in again[1]} == {r.messages for r in heldout}
    assert not {r.messages for r in train} & {r.messages for r in heldout}


def test_equal_rows_are_never_on_both_sides(tmp_path: Path) -> None:
    train, heldout, _ = _read_rows(tmp_path, ROWS[:4] * 6, heldout_share=0.25)
    assert not {r.messages for r in train} & {r.messages for r in heldout}


def test_take_is_a_fixed_choice_that_grows(tmp_path: Path) -> None:
    ids = [f"d-{i * 7919 % 101:03}" for i in range(40)]
    few, more = (set(fixed_choice(ids, n)) for n in (5, 20))
    assert (len(few), len(more)) == (5, 20) and few <= more
    assert {ids[i] for i in few} == set(sorted(ids)[:5])
    train, heldout, _ = _read_rows(tmp_path, ROWS, take=10, heldout_share=0.2)
    assert (len(train), len(heldout)) == (8, 2)
    again, _, _ = _read_rows(tmp_path, ROWS[::-1], take=10, heldout_share=0.2)
    assert [r.messages for r in again[::-1]] == [r.messages for r in train], (
        "whatever the order, and in the order of the file"
    )


def test_a_file_that_changes_between_two_looks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    for change in (lambda text: text + text, lambda text: text.partition("\n")[0] + "\n"):
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        config = SftConfig.model_validate({"data": [{"path": str(path)}]})
        found, _, _ = _read(config, tmp_path, Services(work=tmp_path, extras={"find_file": Path}))
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(DataError, match="was changed while it was read"):
            list(found)


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:1] * 5])
def test_one_row_cannot_be_trained_and_held_out(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="leave none to train on"):
        _read_rows(tmp_path, rows)


@pytest.mark.parametrize(("num_prompts", "size"), [(10, 4), (8, 8), (7, 3), (3, 8)])
def test_rounds_pass_over_all_prompts_before_any_comes_again(num_prompts: int, size: int) -> None:
    requests = [GenerateRequest(key=f"p{i}", token_ids=(1, 2)) for i in range(num_prompts)]
    stream = PromptStream(requests, seed=3)
    counts = dict.fromkeys((r.key for r in requests), 0)
    for number in range(12):
        picked = stream.take(size)
        assert sum(r.num_samples for r in picked) == size
        assert len({r.key for r in picked}) == len(picked)
        again = PromptStream(requests, seed=3, cursor=number * size)
        assert picked == again.take(size) and again.cursor == stream.cursor, "prompts are a function of the position"
        for request in picked:
            counts[request.key] += request.num_samples
        assert max(counts.values()) - min(counts.values()) <= (1 if (number + 1) * size % num_prompts else 0)


def test_curves_are_thinned_and_ends_averaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": i, "x/loss": float(i)}) + "\n" for i in range(1000)), encoding="utf-8")
    (chart,) = metric_chart(
        path, "Does it fall?", [("x/loss", "loss", "policy"), ("x/none", "none", "reward")], y_label="nats"
    )
    (series,) = chart.series
    assert len(series.points) == 80
    assert series.points[0][0] < 10
    assert (metric_change(path, "x/loss", error="x/none").value, last_metric(path, "x/loss")) == (900.0, 949.5)
    assert metric_chart(path, "?", [("x/none", "none", "reward")], y_label="") == ()
    assert last_metric(path, "x/none") != last_metric(path, "x/none")  # NaN


def test_pairs_are_read_by_split_without_ties_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Preference(prompt=(Message(role="user", content=f"what {i}"),), chosen="yes", rejected="no", p_chosen=0.5 if i == 3 else 0.9,
                   is_tie=i == 3, split="heldout" if i % 4 == 0 else "train")
        for i in range(10)
    ]  # fmt: skip
    write_jsonl(tmp_path / "preferences.jsonl", rows)
    chat, bar = ChatText(tiny_models.make_tokenizer()), _Bar()
    services = Services(
        work=tmp_path, extras={"tree_cache": tmp_path / "trees"}, progress=lambda *told: bar.start(*told)
    )
    read = [read_pairs(tmp_path, chat, max_length=40, services=services, title="t") for _ in range(2)]
    for parts, num_soft in read:
        assert list(parts) == ["train", "heldout"] and num_soft == 9
        assert [list(parts[s].kept_rows) for s in parts] == [list(range(6)), list(range(3))]
    assert [data_fingerprint(parts["train"].trees) for parts, _ in read] == [
        data_fingerprint(read[0][0]["train"].trees)
    ] * 2
    assert bar.told == [("t", 10)] * 2 and bar.done == 20


class _Bar:
    """A progress line that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.done = 0

    def start(self, title: str, total: int) -> Any:
        self.told.append((title, total))
        return contextlib.nullcontext(self)

    def advance(self, num: int = 1, *, note: str = "") -> None:
        self.done += num


def test_memory_does_not_grow_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair takes kilobytes as a record and as a tree. What stays of it is its share of a shard's arrays and 16 bytes of its own."""
    monkeypatch.setattr(encoding, "SHARD_ROWS", 200)
    chat = ChatText(tiny_models.make_tokenizer())

    def peak(num: int) -> int:
        folder = tmp_path / str(num)
        rows = (
            Preference(
                prompt=(Message(role="user", content=f"what {i} " * 20),), chosen="yes " * 20, rejected="no " * 20
            )
            for i in range(num)
        )
        write_jsonl(folder / "preferences.jsonl", rows)
        services = Services(work=folder, extras={"tree_cache": folder / "trees"})
        tracemalloc.start()
        try:
            parts, _ = read_pairs(folder, chat, max_length=2000, services=services, title="t")
            batches = EpochBatches(parts["train"].trees, batch_size=8, num_epochs=1, seed=0)
            assert sum(len(batch) for batch in batches) == num
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(200)  # whatever is made once
    small, large = peak(400), peak(1600)
    assert large - small < 1200 * 300, (small, large)
