"""Methods, options, optimisers and freezing of other tools' configurations become the recipe's."""

import re
from pathlib import Path
from typing import Any

import pytest
from foreign_examples import translated

from fairlead.cli.import_config import translate_file
from fairlead.pipeline.recipe import load
from fairlead.policies.dpo import DpoConfig
from fairlead.policies.kto_config import KtoConfig


def test_llamafactory_simpo(tmp_path: Path) -> None:
    """2 a device x 16 accumulated = 32 pairs a step; its alpha is twice its rank; its 8-bit state may be paged, which changes no number."""
    recipe, text, lines = translated(tmp_path, "llamafactory-simpo")
    policy = recipe.policies["simpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.beta, policy.options) == ("simpo", 2.0, {"gamma": 1.2})
    training = policy.training
    assert (training.batch_size, training.optimizer, training.precision, training.schedule) == (
        32,
        "adamw_8bit",
        "bf16",
        "cosine",
    )
    assert training.lora is not None
    assert (training.lora.kind, training.lora.rank, training.lora.alpha, training.lora.target_modules) == (
        "dora",
        16,
        32.0,
        r".*\.(q_proj|v_proj)",
    )
    assert (recipe.text.template, recipe.text.max_length) == (None, 1024)
    assert "club_pairs is a data set of dataset_info.json: save it as data/club_pairs.jsonl" in "\n".join(lines)
    assert any("max_samples=1000 (the whole file is used" in line for line in lines)
    assert "default of llamafactory: twice the rank" in text


def test_llamafactory_sft(tmp_path: Path) -> None:
    """Of fp16 and a bf16 that is off nothing is left to say; Adafactor reads no beta2."""
    recipe, _, lines = translated(tmp_path, "llamafactory-sft")
    assert recipe.sft is not None
    assert (recipe.sft.neftune_alpha, recipe.sft.learn, recipe.sft.data[0].take) == (5.0, "last_reply", 3000)
    training = recipe.sft.training
    assert (training.optimizer, training.precision, training.lora, training.learning_rate) == (
        "adafactor",
        "auto",
        None,
        1e-3,
    )
    found = "\n".join(lines)
    for key in (
        "fp16=True (products",
        "adam_beta2=0.99 (refused",
        "freeze_trainable_layers=2 (the file does not say how many layers",
    ):
        assert f"no counterpart yet: {key}" in found, key
    assert "neat_packing there: batch sizes count packed rows; here they count conversations" in found


def test_trl_orpo(tmp_path: Path) -> None:
    recipe, _, lines = translated(tmp_path, "trl-orpo")
    policy = recipe.policies["orpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.beta, policy.training.learning_rate, policy.training.num_epochs) == (
        "orpo",
        0.25,
        8e-6,
        3,
    )
    training = policy.training
    assert (training.optimizer, training.activation_checkpointing, training.precision) == ("adamw_8bit", True, "bf16")
    assert training.warmup_share == 0.1
    assert any("label_smoothing=0.1 (only cdpo, robust and exo" in line for line in lines)


def test_trl_simpo_is_a_loss_of_its_cpo(tmp_path: Path) -> None:
    recipe, _, _ = translated(tmp_path, "trl-simpo")
    policy = recipe.policies["simpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.beta, policy.options) == ("simpo", 2.0, {"gamma": 0.6})
    assert (policy.training.optimizer, policy.training.precision) == ("muon", "bf16")


def test_axolotl_kto(tmp_path: Path) -> None:
    """What trains there is frozen's complement here, over whole names where theirs match beginnings."""
    recipe, _, _ = translated(tmp_path, "axolotl-kto")
    policy = recipe.policies["kto"]
    assert isinstance(policy, KtoConfig)
    assert (policy.beta, policy.lambda_desirable, policy.lambda_undesirable, policy.heldout) == (0.2, 1.0, 1.5, 0.1)
    assert [(d.path, d.format) for d in policy.data] == [("thumbs.jsonl", None)]
    training = policy.training
    assert (training.optimizer, training.activation_checkpointing, training.precision) == ("adamw", True, "auto")
    (pattern,) = training.freeze
    is_frozen = {name: re.fullmatch(pattern, name) is not None for name in (
        "lm_head.weight", "model.layers.21.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight", "model.norm.weight")}  # fmt: skip
    assert list(is_frozen.values()) == [False, False, True, True]


def test_openrlhf_kto(tmp_path: Path) -> None:
    recipe, _, _ = translated(tmp_path, "openrlhf-kto")
    policy = recipe.policies["kto"]
    assert isinstance(policy, KtoConfig)
    assert (policy.algorithm, policy.beta, policy.data[0].take, policy.training.batch_size) == ("kto", 0.01, 1024, 64)
    assert (policy.training.precision, policy.training.activation_checkpointing) == ("bf16", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss_type: exo_pair\nlabel_smoothing: 0.01", ("exo", {"smoothing": 0.01})),
        ("loss_type: nca_pair\nrpo_alpha: 0.5", ("nca", {"nll_coef": 0.5})),
        ("loss_type: sppo_hard\nbeta: 0.001", ("sppo", {})),
        ("loss_type: discopop\ndiscopop_tau: 0.1", ("discopop", {"tau": 0.1})),
        ("loss_type: hinge\nld_alpha: 0.5\nuse_weighting: true", ("hinge", {"ld_alpha": 0.5, "weighting": "aligned"})),
        (
            "beta: 0.1\nf_divergence_type: alpha_divergence\nf_alpha_divergence_coef: 0.3",
            ("dpo", {"divergence": "alpha", "divergence_alpha": 0.7}),
        ),
        ("beta: 0.1\nf_divergence_type: reverse_kl\nf_alpha_divergence_coef: 0.3\nuse_weighting: false", ("dpo", {})),
    ],
)
def test_links_and_options_of_dpo(tmp_path: Path, text: str, expected: tuple[str, dict[str, Any]]) -> None:
    (tmp_path / "c.yaml").write_text(f"model_name_or_path: a/b\n{text}")
    translate_file("trl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=False)
    policy = load(tmp_path / "r.yaml").policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert policy.algorithm == expected[0]
    assert policy.options == pytest.approx(expected[1])


def test_a_reference_that_follows_and_a_sum_of_ipo(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model_name_or_path: a/b\nbeta: 0.1\nsync_ref_model: true\nref_model_sync_steps: 64"
    )
    translate_file("trl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=False)
    policy = load(tmp_path / "r.yaml").policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.refresh_every_steps, policy.refresh_alpha) == (64, 0.6)
    (tmp_path / "c.sh").write_text("openrlhf.cli.train_dpo --pretrain a/b --ipo --nll_loss_coef 0.2")
    translate_file("openrlhf", tmp_path / "c.sh", tmp_path / "r.yaml", force=True)
    policy = load(tmp_path / "r.yaml").policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.options) == ("ipo", {"average": False, "nll_coef": 0.2})


@pytest.mark.parametrize(
    ("optim", "expected"),
    [("adamw_torch_fused", "adamw"), ("paged_adamw_8bit", "adamw_8bit"), ("adamw_torch_8bit", "adamw_8bit"), ("adafactor", "adafactor"),
     ("muon", "muon"), ("lion_8bit", None), ("adamw_torch_4bit", None), ("galore_adamw", None)],
)  # fmt: skip
def test_optimisers(tmp_path: Path, optim: str, expected: str | None) -> None:
    (tmp_path / "c.yaml").write_text(f"base_model: a/b\noptimizer: {optim}\nlearning_rate: 1e-5")
    lines = translate_file("axolotl", tmp_path / "c.yaml", tmp_path / "r.yaml", force=False)
    found = load(tmp_path / "r.yaml").sft
    assert found is not None
    assert found.training.optimizer == (expected or "adamw")
    assert any("are the optimisers" in line for line in lines) == (expected is None)
