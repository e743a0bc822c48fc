"""OpenRLHF's vocabulary. Written against OpenRLHF 0.5 (flat) to 0.10 (dotted flags)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.cli.foreign.files import Foreign
from fairlead.cli.foreign.tool import (
    ADAPTER_DROPOUT,
    COLUMNS,
    CRITIC_RATE,
    EVALUATION,
    MACHINE,
    MEMORY,
    MIXING,
    PACKED,
    PRETRAINING,
    QUANTISED,
    RECOMPUTES,
    REWARD_MODEL,
    SAVING,
    Kind,
    Tool,
    lacking,
    needless,
    off_or,
    refuse,
)
from fairlead.core.errors import ConfigError, explain


def _kind(foreign: Foreign, path: Path) -> Kind:
    programs: dict[str, Kind] = {
        "train_sft": "sft",
        "train_rm": "rewards",
        "train_dpo": "dpo",
        "train_ppo": "ppo",
        "train_ppo_ray": "ppo",
        "train_kto": "kto",
    }
    if foreign.program and foreign.program not in programs:
        raise refuse("openrlhf", "trainer", foreign.program)
    estimator = foreign.keys.get("advantage_estimator", foreign.keys.get("algo.advantage.estimator", "gae"))
    if estimator != "gae":
        raise refuse("openrlhf", "advantage_estimator", estimator)
    if foreign.program:
        return programs[foreign.program]
    if {"init_kl_coef", "reward_pretrain", "algo.kl.init_coef", "rollout.batch_size", "rollout_batch_size"} & set(
        foreign.keys
    ):
        return "ppo"
    if {"desirable_loss_weight", "undesirable_loss_weight"} & set(foreign.keys):
        return "kto"
    if {"beta", "ipo", "ref_pretrain"} & set(foreign.keys):
        return "dpo"
    raise ConfigError(explain(path, None, "does not say what it trains",
    expected="a line with openrlhf.cli.train_sft, train_rm, train_dpo, train_kto or train_ppo_ray",
                              remedy="Keep the whole command in the file"))  # fmt: skip


_RENAMED = {  # OpenRLHF 0.10: flat name -> dotted names
    "pretrain": ("actor.model_name_or_path", "model.model_name_or_path"), "seed": ("train.seed",), "learning_rate": ("adam.lr",),
    "actor_learning_rate": ("actor.adam.lr",), "train_batch_size": ("train.batch_size",), "rollout_batch_size": ("rollout.batch_size",),
    "n_samples_per_prompt": ("rollout.n_samples_per_prompt",), "max_epochs": ("train.max_epochs",), "num_episodes": ("train.num_episodes",),
    "lora_rank": ("ds.lora.rank",), "lora_alpha": ("ds.lora.alpha",), "target_modules": ("ds.lora.target_modules",),
    "lora_dropout": ("ds.lora.dropout",),
    "adam_betas": ("adam.betas", "actor.adam.betas"), "l2": ("adam.weight_decay", "actor.adam.weight_decay"), "max_norm": ("max_norm",
    "actor.max_norm"),
    "lr_scheduler": ("lr_scheduler", "actor.lr_scheduler"), "lr_warmup_ratio": ("lr_warmup_ratio", "actor.lr_warmup_ratio"),
    "min_lr_ratio": ("min_lr_ratio", "actor.min_lr_ratio"), "max_len": ("data.max_len",), "generate_max_len": ("rollout.max_new_tokens",),
    "dataset": ("data.dataset",), "prompt_data": ("data.prompt_dataset",), "max_samples": ("data.max_samples",),
    "apply_chat_template": ("data.apply_chat_template",),
    "input_template": ("data.input_template",), "init_kl_coef": ("algo.kl.init_coef",), "kl_target": ("algo.kl.target",),
    "kl_horizon": ("algo.kl.horizon",),
    "eps_clip": ("actor.eps_clip",), "eps_clip_low_high": ("actor.eps_clip_low_high",), "value_clip": ("critic.value_clip",),
    "gamma": ("algo.advantage.gamma",), "lambd": ("algo.advantage.lambd",), "temperature": ("rollout.temperature",),
    "entropy_loss_coef": ("entropy_coef", "actor.entropy_coef"), "adam_eps": ("adam.eps", "actor.adam.eps"),
    "advantage_estimator": ("algo.advantage.estimator",),
    "nll_loss_coef": ("dpo.nll_loss_coef", "train.nll_loss_coef"), "gradient_checkpointing": ("actor.gradient_checkpointing_enable",
    "model.gradient_checkpointing_enable", "train.gradient_checkpointing"), "param_dtype": ("ds.param_dtype",),
    "packing_samples": ("ds.packing_samples", "train.packing_samples"), "optim": ("actor.optim",),
    "beta": ("dpo.beta", "train.beta"), "ipo": ("dpo.ipo", "train.ipo"), "label_smoothing": ("dpo.label_smoothing", "train.label_smoothing"),
}  # fmt: skip
_OPENRLHF = {
    "pretrain": "model", "seed": "seed", "learning_rate": "learning_rate", "actor_learning_rate": "learning_rate", "train_batch_size": "batch",
    "rollout_batch_size": "prompts_a_round", "n_samples_per_prompt": "samples_a_prompt", "max_epochs": "epochs", "num_episodes": "prompt_epochs",
    "lora_rank": "lora_rank", "lora_alpha": "lora_alpha", "target_modules": "lora_targets", "adam_betas": "betas", "l2": "weight_decay",
    "max_norm": "max_grad_norm", "lr_scheduler": "schedule", "lr_warmup_ratio": "warmup_share", "min_lr_ratio": "final_share",
    "max_len": "max_length",
    "prompt_max_len": "max_prompt", "generate_max_len": "max_new", "dataset": "datasets", "prompt_data": "datasets", "max_samples": "max_samples",
    "apply_chat_template": "own_template", "init_kl_coef": "kl_coef", "kl_target": "kl_target", "kl_horizon": "kl_horizon", "eps_clip": "clip",
    "eps_clip_low_high": "clips", "value_clip": "value_clip", "gamma": "gamma", "lambd": "lam", "temperature": "temperature",
    "entropy_loss_coef": "entropy_coef", "adam_eps": "adam_eps", "beta": "beta", "ipo": "ipo", "label_smoothing": "label_smoothing",
    "advantage_estimator": "method", "nll_loss_coef": "nll_coef", "desirable_loss_weight": "good_weight", "undesirable_loss_weight": "bad_weight",
    "gradient_checkpointing": "recompute", "bf16": "bf16", "param_dtype": "dtype", "packing_samples": "packing", "optim": "optimizer",
}  # fmt: skip


def _dotted(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table under both the flat and the dotted names."""
    return {name: value for flat, value in table.items() for name in (flat, *_RENAMED.get(flat, ()))}


OPENRLHF = Tool(
    name="openrlhf", takes_tables=False, kind=_kind, program=re.compile(r"openrlhf(?:\.|/)cli(?:\.|/)(train_\w+)"),
    meanings=_dotted(_OPENRLHF),
    by_kind={"ppo": _dotted({"max_epochs": "ppo_epochs", "train_batch_size": "minibatch"}),
             "rewards": {"reward.model_name_or_path": "model"}},
    left={
        **_dotted({"lora_dropout": ADAPTER_DROPOUT, "input_template": off_or("templates are Jinja files over messages; name one in text.template")}),
        "critic_learning_rate": CRITIC_RATE, "critic.adam.lr": CRITIC_RATE, "reward_pretrain": REWARD_MODEL,
        "reward.model_name_or_path": REWARD_MODEL,
        "remote_rm_url": REWARD_MODEL, "reward.remote_url": REWARD_MODEL,
        "critic_pretrain": needless("the value model begins as the reward model"),
        "critic.*": needless("the value model begins as the reward model, with the policy's optimiser"),
        "ref_pretrain": needless("the reference is the policy before training"),
        "ptx_coef": PRETRAINING, "pretrain_data*": PRETRAINING,
        "aux_loss_coef": off_or("no balancing loss for experts"),
        "*_probs": MIXING, "data.prompt_probs": MIXING, "*input_key": COLUMNS, "*output_key": COLUMNS, "*_key": COLUMNS, "*split": COLUMNS,
        "normalize_reward": needless("always done, on reference samples"),
        "reward.normalize_enable": needless("always done, on reference samples"),
        "reward.*": lacking("rewards are normalised, clipped and length-corrected by policies.ppo"),
        "reward_clip_range": lacking("set score_clip by hand"),
        "kl_estimator": lacking("k1 in the reward"), "algo.kl.*": lacking("k1 in the reward"), "use_kl_loss": off_or("KL is part of the reward"),
        "top_p": lacking("set top_p of the policy's section, with top_k"), "rollout.top_p": lacking("set top_p of the policy's section, with top_k"),
        "freezing_actor_steps": off_or("policy and value model train together"), "load_in_4bit": QUANTISED, "ds.load_in_4bit": QUANTISED,
        "micro_*": MEMORY, "*micro_batch_size": MEMORY, "*gradient_checkpointing*": RECOMPUTES, "*packing_samples": PACKED,
        "*max_tokens_per_gpu": MEMORY,
        "*dynamic_batch*": MEMORY, "save_*": SAVING, "ckpt*": SAVING, "max_ckpt_*": SAVING, "load_checkpoint": SAVING,
        "logging_steps": SAVING, "logger.*": SAVING,
        "use_wandb": SAVING, "wandb_*": SAVING, "use_tensorboard": SAVING, "eval*": EVALUATION, "best_metric*": EVALUATION,
        "zero_stage": MACHINE, "zpg": MACHINE, "flash_attn": MACHINE, "attn_implementation": MACHINE, "adam_offload": MACHINE, "ref_offload": MACHINE,
        "grad_accum_dtype": MACHINE, "disable_*": MACHINE, "overlap_comm": MACHINE, "local_rank": MACHINE, "*num_nodes": MACHINE,
        "*num_gpus_per_node": MACHINE, "vllm*": MACHINE, "enforce_eager": MACHINE, "colocate_*": MACHINE, "train.colocate*": MACHINE,
        "ds.*": MACHINE, "enable_prefix_caching": MACHINE, "ring_*": MACHINE, "use_liger_kernel": MACHINE, "use_ms": MACHINE,
        "ref.offload": MACHINE,
        "deepspeed_enable_sleep": MACHINE, "*dataloader*": MACHINE, "critic_optim": CRITIC_RATE,
        "loss": needless("the reward model's loss is the Bradley-Terry likelihood"),
    },
    defaults={
        "all": {"schedule": "cosine_with_min_lr", "warmup_share": 0.03, "lora_alpha": 16.0},
        "dpo": {"beta": 0.1, "batch": 128}, "kto": {"beta": 0.01, "batch": 128}, "sft": {"batch": 128}, "rewards": {"batch": 128, "center_coef": 0.0},
        "ppo": {"kl_coef": 0.01, "kl_target": None, "prompts_a_round": 1024, "samples_a_prompt": 1, "minibatch": 128, "ppo_epochs": 1,
        "lam": 1.0},
    },
)  # fmt: skip
