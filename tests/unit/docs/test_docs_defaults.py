"""docs/defaults.md says what the code does: every gate with its figures, every default at its path."""

import importlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.gates import Gate
from fairlead.pipeline.gates import all_gates

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "defaults.md"


def table_rows(text: str, first_column: str) -> list[dict[str, str]]:
    """Rows of all tables whose first column has this title, as title -> cell without code marks."""
    rows: list[dict[str, str]] = []
    titles: list[str] = []
    for line in text.splitlines():
        cells = [c.strip().strip("`") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            titles = []
        elif not titles:
            titles = cells if cells[0] == first_column else ["other"]
        elif titles[0] == first_column and not set(cells[0]) <= set("-:"):
            rows.append(dict(zip(titles, cells, strict=True)))
    return rows


def limit(cell: str, gate: Gate) -> float | None:
    """`< 0.6` as 0.6; the sign must be that of the gate's direction."""
    if cell == "never":
        return None
    sign, _, number = cell.partition(" ")
    assert sign == ("<" if gate.direction == "at_least" else ">"), f"{gate.name}: {cell} points the wrong way"
    return float(number.replace(",", ""))


def differences(text: str, gates: tuple[Gate, ...]) -> list[str]:
    """Gates that the page does not show as they are."""
    rows = table_rows(text, "gate")
    if len(rows) != len(gates):
        return [f"{len(rows)} rows for {len(gates)} gates"]
    return [
        f"{gate.name}: {row}"
        for gate, row in zip(gates, rows, strict=True)
        if row["gate"] != gate.name or limit(row["stop"], gate) != gate.stop or limit(row["warn"], gate) != gate.warn
    ]


def value_at(path: str) -> Any:
    """A default of the recipe, or `module:CONSTANT`."""
    module, _, name = path.partition(":")
    return (
        getattr(importlib.import_module(module), name)
        if name
        else importlib.import_module("recipe_fields").default_at(path)
    )


def says(cell: str, value: Any) -> bool:
    """Whether a cell shows this value."""
    if value is None or isinstance(value, bool | str):
        return cell == {None: "null", True: "true", False: "false"}.get(value, value)
    return float(cell) == value


SETTINGS = table_rows(PAGE.read_text(encoding="utf-8"), "setting")


def test_every_gate_stands_in_the_table_with_its_figures():
    assert differences(PAGE.read_text(encoding="utf-8"), all_gates()) == []


def test_the_scope_decides_on_numbers_of_data_and_not_on_quality() -> None:
    """Gates with several rows ask for a number; the smallest recipe says so."""
    times = Counter(gate.name for gate in all_gates())
    by_scope = {name for name, num in times.items() if num > 1}
    assert by_scope == {"sft.count", "preferences.count", "preferences.rl_count"}
    line = next(
        line for line in (ROOT / "recipes" / "tiny_cpu.yaml").read_text().splitlines() if line.startswith("scope: toy")
    )
    assert "fewer data" in line and "no lower quality" in line


def test_a_gate_that_is_missing_or_differs_is_noticed():
    text, gates = PAGE.read_text(encoding="utf-8"), all_gates()
    line = next(row for row in text.splitlines() if row.startswith("| `rewards.accuracy`"))
    assert differences(text.replace(line + "\n", ""), gates)
    assert differences(text.replace(line, line.replace("< 0.6 ", "< 0.55 ")), gates)
    assert differences(text.replace(line, line.replace("< 0.65", "never")), gates)


@pytest.mark.parametrize("row", SETTINGS, ids=[row["setting"] for row in SETTINGS])
def test_every_default_is_what_the_config_class_says(row: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    assert says(row["ours"], value_at(row["setting"])), f"{row['setting']} is {value_at(row['setting'])} in the code"


def test_defaults_of_every_area_that_the_guides_name_are_there():
    named = {row["setting"] for row in SETTINGS}
    assert {
        "sft.training.num_epochs", "sft.training.learning_rate", "sft.training.batch_size", "feedback.cost_per_judgment",
        "rewards.training.num_epochs", "rewards.training.learning_rate", "rewards.training.batch_size", "text.max_length",
        "rewards.freeze_embeddings", "policies.ppo.training.learning_rate", "policies.ppo.batch_size", "policies.ppo.minibatch_size",
        "policies.ppo.num_epochs", "policies.ppo.kl.kl_coef", "policies.ppo.length_coef",
    } <= named  # fmt: skip


def test_a_wrong_path_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    for path in ("policies.ppo.kl.kl_coeff", "sft.trainer.learning_rate", "policies.dpoo.beta"):
        with pytest.raises(KeyError, match="the recipe has no"):
            value_at(path)
