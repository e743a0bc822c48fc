"""Pace: what a lap gives, the words over the last laps, medians for the summary."""

import contextlib

import pytest

from fairlead.telemetry import PHASES, JsonlSink, Pace, phase_words, typical_pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, in seconds."""
    now = [100.0]
    monkeypatch.setattr("fairlead.telemetry.pace.time.monotonic", lambda: now[0])
    return now


def test_a_lap_by_hand_and_the_mean_in_words(clock):
    """4,000 tokens and 2 steps in 2 s: 2,000 tokens/s, 1 s/step. Then 1,000 in 0.5 s after a pause that does not count: 5,000 in 2.5 s."""
    pace = Pace()
    assert pace.words() == ""
    clock[0] += 2.0
    assert pace.lap(num_tokens=4000, num_steps=2) == {"tokens_per_s": 2000.0, "train/step_s": 1.0}
    clock[0] += 60.0
    pace.restart()
    clock[0] += 0.5
    assert pace.lap(num_tokens=1000) == {"tokens_per_s": 2000.0, "train/step_s": 0.5}
    assert pace.words() == "2,000 tokens/s, 0.833 s/step"


def test_words_forget_old_laps(clock):
    pace = Pace()
    for seconds in (1000.0, *[1.0] * 20):
        clock[0] += seconds
        pace.lap(num_tokens=10)
    assert pace.words() == "10 tokens/s, 1 s/step"


def test_the_summary_takes_medians(tmp_path):
    with contextlib.closing(JsonlSink(tmp_path / "metrics.jsonl")) as sink:
        for step, (tokens, seconds) in enumerate([(10.0, 90.0), (100.0, 1.0), (300.0, 2.0)], start=1):
            sink.log(step, {"loss": 1.0, "tokens_per_s": tokens, "train/step_s": seconds})
    assert typical_pace(tmp_path / "metrics.jsonl") == {"tokens_per_s": 100.0, "step_s": 2.0}
    assert typical_pace(tmp_path / "none.jsonl") == {}


def test_the_summary_takes_medians_of_each_phase(tmp_path):
    with contextlib.closing(JsonlSink(tmp_path / "metrics.jsonl")) as sink:
        for step, (wrote, scored, trained) in enumerate(
            [(10.0, 1.0, 5.0), (30.0, 9.0, 7.0), (20.0, 2.0, 6.0)], start=1
        ):
            sink.log(step, dict(zip(PHASES.values(), (wrote, scored, trained), strict=True)))
    found = typical_pace(tmp_path / "metrics.jsonl")
    assert found == {"generate_tokens_per_s": 20.0, "score_tokens_per_s": 2.0, "update_tokens_per_s": 6.0}
    assert phase_words({"generate": 1234.0, "update": 6.0}) == "generate 1,234, update 6 tokens/s"
    assert phase_words({}) == ""
