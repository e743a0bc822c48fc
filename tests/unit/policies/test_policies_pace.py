"""Tokens a second of each phase of a round are the tokens of that phase over its seconds."""

from pathlib import Path

import pytest
from online_example import live_rows, make_loop, rows, run


@pytest.mark.parametrize("method", ["ppo", "grpo", "remax"])
def test_rates_are_tokens_over_seconds(method: str, tmp_path: Path) -> None:
    """8 completions a round are written and scored, by remax a greedy one of each prompt besides; the update counts what the learner did."""
    loop = run(make_loop(tmp_path, method))
    for row in live_rows(tmp_path):
        num_written = 8 * row["rl/length_tokens"]
        for phase in ("sample", "score"):
            counted = row[f"rl/{phase}_tokens_per_s"] * row[f"rl/{phase}_s"]
            if method == "remax":
                assert num_written < counted <= num_written + 8 * loop.config.max_new_tokens
            else:
                assert counted == pytest.approx(num_written)
        trained = row["tokens_per_s"] * row["train/step_s"] * loop.steps_per_round
        assert row["rl/train_tokens_per_s"] * row["rl/train_s"] == pytest.approx(trained)
    assert not any(name.endswith("_tokens_per_s") for name in rows(tmp_path)[0])
