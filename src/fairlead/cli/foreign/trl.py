"""TRL's vocabulary. Written against TRL 0.2x and 1.x."""

import re
from collections.abc import Mapping
from pathlib import Path

from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.huggingface import HF_DEFAULTS, HF_LEFT, HF_MEANINGS
from fairlead.cli.foreign.tool import (
    COLUMNS,
    EVALUATION,
    MACHINE,
    MEMORY,
    PACKED,
    QUANTISED,
    REWARD_MODEL,
    SAVING,
    TOKENIZER,
    Kind,
    Tool,
    lacking,
    needless,
    off_or,
    refuse,
)

_PROGRAMS: Mapping[str, Kind] = {
    "sft": "sft", "dpo": "dpo", "reward": "rewards", "reward_modeling": "rewards", "ppo": "ppo", "ppo_tldr": "ppo",
    "kto": "kto", "bco": "bco", "orpo": "orpo", "cpo": "cpo",
}  # fmt: skip
_FOREIGN = ("num_generations", "rloo_k")
_CERTAIN: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("kl_coef", "init_kl_coef", "num_ppo_epochs", "ppo_epochs", "cliprange", "reward_model_path"), "ppo"),
    (("center_rewards_coefficient",), "rewards"),
    (("prompt_sample_size", "min_density_ratio", "max_density_ratio"), "bco"),
    (("desirable_weight", "undesirable_weight"), "kto"),
    (("cpo_alpha", "simpo_gamma"), "cpo"),
)
_MATCHING = "bad replies are not weighed by a classifier of prompts"
_SHARED = ("beta", "precompute_ref_log_probs", "rpo_alpha", "ref_model_init_kwargs", "label_smoothing", "loss_type")
"""Keys of the direct methods: DPO's where the file's name says nothing else."""


def _kind(foreign: Foreign, path: Path) -> Kind:
    for sign in _FOREIGN:
        if sign in foreign.keys:
            raise refuse("trl", sign, foreign.keys[sign])
    if foreign.program and foreign.program not in _PROGRAMS:
        raise refuse("trl", "script", foreign.program)
    found = _PROGRAMS[foreign.program] if foreign.program else _guess(foreign, path)
    return "simpo" if found == "cpo" and foreign.keys.get("loss_type") == "simpo" else found


def _guess(foreign: Foreign, path: Path) -> Kind:
    """The kind that the keys or the name of the file tell."""
    certain: list[Kind] = [kind for names, kind in _CERTAIN if any(name in foreign.keys for name in names)]
    words = re.findall("[a-z]+", path.stem.lower())
    named: list[Kind] = [
        "cpo" if word == "simpo" else _PROGRAMS[word] for word in words if word in (*_PROGRAMS, "simpo")
    ]
    shared: list[Kind] = ["dpo"] if any(name in foreign.keys for name in _SHARED) else []
    if not certain and foreign.keys.get("loss_type") == "simpo":
        return "cpo"
    return (certain or named or shared or ["sft"])[0]


TRL = Tool(
    name="trl", takes_tables=True, kind=_kind,
    program=re.compile(r"(?:\btrl\s+|trl[./]scripts[./]|scripts/(?:\w+/)*)(sft|dpo|reward_modeling|reward|ppo_tldr|ppo|kto|bco|grpo|rloo|orpo|cpo|online_dpo|xpo|nash_md|gkd)(?:\.py)?\b"),
    meanings={
        **HF_MEANINGS, "model_name_or_path": "model", "sft_model_path": "sft_model", "num_train_epochs": "epochs",
        "per_device_train_batch_size": "device_batch", "lr_scheduler_type": "schedule", "use_peft": "adapter", "loss_type": "loss",
        "max_length": "max_length", "max_seq_length": "max_length", "dataset_name": "datasets", "chat_template_path": "template",
        "kl_coef": "kl_coef", "init_kl_coef": "kl_coef", "target": "kl_target", "horizon": "kl_horizon", "cliprange": "clip",
        "cliprange_value": "value_clip", "vf_coef": "value_coef", "gamma": "gamma", "lam": "lam", "num_ppo_epochs": "ppo_epochs",
        "ppo_epochs": "ppo_epochs", "num_mini_batches": "num_minibatches", "total_episodes": "episodes", "response_length": "max_new",
        "max_new_tokens": "max_new", "temperature": "temperature", "missing_eos_penalty": "missing_eos_penalty", "batch_size": "rollout_batch",
        "mini_batch_size": "device_minibatch", "steps": "episodes", "score_clip": "score_clip", "max_prompt_length": "max_prompt",
        "label_smoothing_factor": "sft_smoothing", "desirable_weight": "good_weight", "undesirable_weight": "bad_weight",
        "use_weighting": "is_weighted", "sync_ref_model": "is_refreshed", "ref_model_sync_steps": "refresh_steps",
        "ref_model_mixup_alpha": "refresh_alpha", "f_divergence_type": "divergence", "f_alpha_divergence_coef": "divergence_coef",
        "discopop_tau": "tau", "packing": "packing", "assistant_only_loss": "learns_replies", "completion_only_loss": "learns_replies",
    },
    by_kind={"ppo": {"max_length": "max_length"}},
    left={
        **HF_LEFT, "eos_token": TOKENIZER, "pad_token": TOKENIZER, "dataset_streaming": MACHINE,
        "dataset_train_split": COLUMNS, "dataset_test_split": EVALUATION, "dataset_config": COLUMNS,
        "dataset_text_field": COLUMNS,
        "dataset_kwargs": COLUMNS, "packing_strategy": PACKED, "padding_free": PACKED, "eval_packing": PACKED,
        "disable_dropout": needless("dropout is always off"),
        "truncation_mode": needless("pairs that are too long are dropped and counted"),
        "precompute_ref_log_probs": needless("always done"), "generate_during_eval": EVALUATION, "num_sample_generations": EVALUATION,
        "reward_model_path": REWARD_MODEL, "reward_model": REWARD_MODEL,
        "reference_free": off_or("DPO needs its reference"),
        "loss_weights": off_or("one loss, with a likelihood term by options.nll_coef"), "prompt_sample_size": lacking(_MATCHING),
        "min_density_ratio": lacking(_MATCHING), "max_density_ratio": lacking(_MATCHING),
        "alpha": off_or("no AlphaPO"), "local_rollout_forward_batch_size": MEMORY,
        "stop_token": needless("the tokenizer's own end of turn"),
        "whiten_rewards": off_or("scores are normalised once on reference samples, not in each batch"),
        "lora_task_type": needless("causal language models only"),
        "bnb_*": QUANTISED, "lr_scheduler_kwargs": off_or("set final_share by hand"),
        "adap_kl_ctrl": needless("kl.target switches the controller"), "log_with": SAVING, "exp_name": SAVING, "tracker_*": SAVING,
        "project_kwargs": SAVING,
        "ref_model*": lacking("the reference is the policy before training"), "kl_estimator": lacking("k1 in the reward"),
        "kl_penalty": lacking("k1 in the reward"),
    },
    defaults={
        "all": {**HF_DEFAULTS, "epochs": 3, "device_batch": 8, "lora_rank": 16, "lora_alpha": 16.0},
        "sft": {"learning_rate": 2e-5}, "dpo": {"learning_rate": 1e-6, "beta": 0.1}, "orpo": {"learning_rate": 1e-6, "beta": 0.1},
        "cpo": {"learning_rate": 1e-6, "beta": 0.1, "nll_coef": 1.0}, "kto": {"learning_rate": 1e-6, "beta": 0.1},
        "simpo": {"learning_rate": 1e-6, "beta": 0.1, "simpo_gamma": 0.5, "nll_coef": 1.0}, "bco": {"learning_rate": 5e-7, "beta": 0.1},
        "rewards": {"learning_rate": 1e-4, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.05, "kl_target": None, "ppo_epochs": 4},
    },
)  # fmt: skip
