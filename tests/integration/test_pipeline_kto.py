"""KTO, BCO and AOT through the command line: from a file of labels, from preferences, and on after a kill."""

import json
import signal
from pathlib import Path

import pytest
from micro import fairlead, folder_of, record, write_recipe
from test_pipeline_resume import _disturb

REPLIES = {True: "You are kind and warm, my friend.", False: "Go away."}
TRAINING = {"learning_rate": 2e-4, "num_epochs": 2, "batch_size": 8, "max_tokens_per_microbatch": 128}


def _labels(folder: Path) -> Path:
    """40 prompts, each with a good or a bad reply that says which it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "labels.jsonl"
    rows = [
        {"prompt": f"Tell me about thing {i}.", "completion": REPLIES[i % 2 == 0], "label": i % 2 == 0}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _pairs(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pairs.jsonl"
    rows = [
        {"prompt": f"Tell me about thing {i}.", "chosen": REPLIES[True], "rejected": REPLIES[False]} for i in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _recipe(folder: Path, algorithm: str, **more: object) -> Path:
    policy = {
        "algorithm": algorithm,
        "data": [{"path": str(_labels(folder))}],
        "heldout": 0.3,
        "training": TRAINING,
        **more,
    }
    return write_recipe(folder, {"policies": {"ppo": None, "dpo": None, "mine": policy}}, keep=("policies",))


def _summary(home: Path) -> dict[str, object]:
    found = record(home)["stages"]["policies.mine"]["artifact"]
    return json.loads((folder_of(home, found) / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("algorithm", ["kto", "bco", "aot_unpaired"])
def test_a_file_of_labels_becomes_a_policy_that_tells_good_from_bad(algorithm: str, tmp_path: Path) -> None:
    outcome = fairlead("run", _recipe(tmp_path, algorithm), home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    summary = _summary(tmp_path / "home")
    (verdict,) = summary["verdicts"]
    assert verdict["gate"] == "kto.separation" and verdict["outcome"] == "PASS" and verdict["value"] > 0.9
    assert len(summary["charts"]) == 4 and "replies" in summary["headline"]


@pytest.mark.parametrize("algorithm", ["kto", "aot"])
def test_preferences_are_good_and_bad_replies(algorithm: str, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        {
            "preferences": {"path": str(_pairs(tmp_path))},
            "policies": {"ppo": None, "dpo": None, "mine": {"algorithm": algorithm, "training": TRAINING}},
        },
        keep=("preferences", "policies"),
    )
    outcome = fairlead("train", recipe, "--policy", "mine", home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    summary = _summary(tmp_path / "home")
    assert summary["verdicts"][0]["outcome"] == "PASS" and "held-out pairs" in summary["headline"]


def test_killed_bco_goes_on_with_its_moving_means(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "bco", training={**TRAINING, "num_epochs": 10})
    assert fairlead("run", recipe, home=tmp_path / "whole").code == 0
    home = tmp_path / "home"
    assert _disturb(recipe, home, signal.SIGKILL, step=10, command=("run",)).code == -signal.SIGKILL
    again = fairlead("run", recipe, home=home)
    assert again.code == 0, again.err
    assert "bco: going on at step" in again.out
    artifacts = [record(place)["stages"]["policies.mine"]["artifact"] for place in (tmp_path / "whole", home)]
    assert artifacts[0] == artifacts[1]


def test_a_missing_file_of_labels_is_found_before_anything_runs(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "kto", data=[{"path": "thumbs.jsonl"}])
    outcome = fairlead("run", recipe, home=tmp_path / "home")
    assert "policies.mine.data.0.path" in outcome.error and "is not found" in outcome.error
