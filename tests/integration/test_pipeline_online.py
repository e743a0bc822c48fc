"""Every on-policy method trains from a recipe, on the trainer's logprobs as on the engine's."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from micro import MicroRun, artifacts, fairlead, folder_of, write_recipe

from fairlead.policies.online_methods import ONLINE_METHODS
from fairlead.telemetry.sinks import read_metrics

SMALL: dict[str, Any] = {
    "num_iterations": 2, "batch_size": 8, "group_size": 4, "minibatch_size": 4, "max_new_tokens": 12, "training": {"learning_rate": 2e-4},
}  # fmt: skip
LOW = {"min_score": -9.0}  # the reward model is no verifier: its scores have mean 0
PTX = {
    "algorithm": "ppo",
    **SMALL,
    "num_epochs": 1,
    "mix": {"data": [{"path": "quickstart/demonstrations.jsonl", "take": 16}], "coef": 0.5, "batch_size": 2},
}
TRAINER = {
    "algorithm": "grpo",
    **SMALL,
    "perplexity_model": "base",
    "old_logprobs": "trainer",
    "correction": {"way": "sequence_mask"},
}


@pytest.fixture(scope="module")
def home(micro: MicroRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All methods in one run on the micro run's reward model."""
    policies = {name: {"algorithm": name, **SMALL} for name in ONLINE_METHODS} | {
        "trainer": TRAINER,
        "ptx": PTX,
        "shared": {"algorithm": "ppo", **SMALL, "num_epochs": 1, "value_model": "shared", "old_logprobs": "trainer"},
        "dpo": None,
    }
    policies["expert_iteration"] |= LOW
    recipe = write_recipe(micro.home.parent / "online", {"policies": policies, "evals": None, "releases": None})
    home = Path(shutil.copytree(micro.home, tmp_path_factory.mktemp("online") / "home"))  # the micro run is everybody's
    outcome = fairlead("train", recipe, home=home)
    assert outcome.code == 0, outcome.err
    return home


@pytest.mark.parametrize("name", [*ONLINE_METHODS, "trainer", "ptx", "shared"])
def test_a_method_trains(home: Path, name: str) -> None:
    found = read_metrics(folder_of(home, artifacts(home)[f"policies.{name}"]) / "metrics.jsonl")
    assert [step for step, _ in found["loss"]] == [2, 4]
    assert all(math.isfinite(value) for rows in found.values() for _, value in rows)
    assert abs(found["rl/kl_k1"][0][1]) < 1e-4
    assert found["grad_norm"][1][1] > 0
    chooses = name in ("online_dpo", "online_ipo", "best_of_n", "expert_iteration")
    assert ("rl/learned_share" in found) == chooses
    assert chooses or (found["rl/first_ratio_gap"][0][1] < 1e-3 and found["rl/advantages_std"][1][1] > 0)
    assert ("sft/loss" in found) == (name in ("best_of_n", "expert_iteration", "ptx"))
    assert ("dpo/margin" in found) == (name in ("online_dpo", "online_ipo"))
    assert ("rl/kl_loss" in found) == (name in ("grpo", "reinforce_pp_baseline", "trainer"))
    assert ("rl/value_loss" in found) == (name in ("ppo", "ptx", "shared"))
    assert ("rl/correction_masked_share" in found) == (name in ("trainer", "shared"))
    assert ("rl/base_perplexity" in found) == (name == "trainer")


def test_the_untrained_model_finds_replies_less_probable_than_the_reference_that_learned_to_write_them(
    home: Path,
) -> None:
    found = read_metrics(folder_of(home, artifacts(home)["policies.trainer"]) / "metrics.jsonl")
    assert found["rl/base_perplexity"][0][1] > 1.01 * found["rl/reference_perplexity"][0][1] > 1.0


def test_the_trainers_logprobs_give_the_engines_result_where_both_agree(home: Path) -> None:
    of = [
        read_metrics(folder_of(home, artifacts(home)[f"policies.{n}"]) / "metrics.jsonl") for n in ("grpo", "trainer")
    ]
    assert of[1]["rl/correction_masked_share"][0][1] == 0
    for name in ("loss", "grad_norm", "rl/score"):
        assert of[0][name][0][1] == pytest.approx(of[1][name][0][1], rel=1e-3, abs=1e-5)
