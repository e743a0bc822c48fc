"""The remark about a learning rate: by kind of training, size and adapters, and as the documentation has it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fairlead.core.sections import LEARNING_RATES, Training, TrainSection, judge_learning_rate, learning_rate_note

DEFAULTS = Path(__file__).parents[3] / "docs" / "defaults.md"
TITLES: dict[str, Training] = {
    "SFT": "sft",
    "reward model": "reward",
    "DPO and its links": "preference",
    "PPO": "policy_gradient",
}


@pytest.mark.parametrize(
    ("training", "rate"), [("sft", 2e-5), ("reward", 1e-5), ("preference", 5e-7), ("policy_gradient", 1.41e-5)]
)
def test_the_published_rates_of_a_7b_draw_no_remark(training: Training, rate: float) -> None:
    assert learning_rate_note(rate, training=training, num_parameters=7_000_000_000, is_lora=False) == ""
    assert learning_rate_note(10 * rate, training=training, num_parameters=7_000_000_000, is_lora=True) == ""


def test_the_remark_names_band_size_and_what_may_happen() -> None:
    note = learning_rate_note(2e-5, training="preference", num_parameters=7_000_000_000, is_lora=False)
    assert note == ("learning_rate=2e-05 is above the usual band, 2e-07 to 5e-06 for 7,000,000,000 parameters: "
                    "both replies of a pair may become unlikely.")  # fmt: skip
    note = learning_rate_note(5e-7, training="sft", num_parameters=7_000_000_000, is_lora=True)
    assert (
        note == "learning_rate=5e-07 is below the usual band, 5e-05 to 0.0003 for 7,000,000,000 parameters with LoRA."
    )


def test_the_documentation_has_the_same_bands() -> None:
    text = DEFAULTS.read_text(encoding="utf-8").partition("## Learning rates")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if " to " in line and line.startswith("|")
    ]
    found = {TITLES[row[0]]: tuple(tuple(map(float, cell.split(" to "))) for cell in row[1:4]) for row in rows}
    assert found == LEARNING_RATES


def judged(rate, *, optimizer="adamw", reasons=None, **changes):
    training = TrainSection(learning_rate=rate, optimizer=optimizer, **changes)
    return judge_learning_rate(training, stage="sft", kind="sft", num_parameters=7_000_000_000, reasons=reasons or {})


def test_the_bands_are_not_those_of_adafactor():
    for optimizer, is_told in (("adamw", True), ("muon", True), ("adamw_8bit", True), ("adafactor", False)):
        assert (judged(1e-3, optimizer=optimizer) is not None) == is_told


@pytest.mark.parametrize(
    ("rate", "outcome", "times"),
    [(2e-5, "PASS", 1), (3e-5, "PASS", 1), (6e-5, "WARN", 2), (3e-3, "WARN", 100), (3.3e-3, "STOP", 110), (1e-6, "WARN", 10), (1e-12, "WARN", 1e7)],
)  # fmt: skip
def test_the_gate_counts_in_times_the_end_of_the_band(rate, outcome, times):
    """SFT of 7B takes 1e-5 to 3e-5; only what is too high stops, and LoRA's band ends ten times higher."""
    verdict = judged(rate)
    assert verdict.outcome == outcome and verdict.value == pytest.approx(times)
    assert verdict.is_blocking == (outcome == "STOP") and bool(verdict.note) == (outcome != "PASS")


def test_the_gate_knows_lora_and_what_a_person_allowed():
    assert judged(3.3e-3, lora={"rank": 4}).outcome == "WARN"
    allowed = judged(3.3e-3, reasons={"sft.learning_rate": "a test"})
    assert allowed.outcome == "STOP" and not allowed.is_blocking and "above the usual band" in allowed.line()


@pytest.mark.parametrize("name", ["beta1", "beta2", "adam_eps"])
def test_adafactor_refuses_what_it_does_not_read(name):
    with pytest.raises(ValidationError, match=rf"{name}=.* is not read by optimizer=adafactor"):
        TrainSection.model_validate({"optimizer": "adafactor", name: 0.5})
    for optimizer in ("adamw", "adamw_8bit", "muon"):
        TrainSection.model_validate({"optimizer": optimizer, name: 0.5})


def test_a_resolved_section_loads_back_whatever_its_optimiser():
    for optimizer in ("adamw", "adafactor"):
        section = TrainSection(optimizer=optimizer)
        assert TrainSection.model_validate(section.model_dump()) == section
